//! One connection from handshake to end: opens channels, and shuts the socket after a failure.
//!
//! A failed session is discarded as a whole; nothing of it is repaired. This side shuts the socket,
//! because lapin waits, on a thread of its own, for a closing handshake that a frozen or
//! unreachable server never answers.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use super::address::Address;
use super::failure::{Failure, within};
use super::transport::{self, Transport};
use super::{CLOSE_WITHIN, Config};

/// The time between two checks for a closed connection. lapin announces most ends; the check finds
/// the others.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// A connection that was opened.
pub(crate) struct Session {
    connection: Connection,
    socket: SocketState,
    /// The failure that ended the session; `None` while the session is open.
    over: watch::Sender<Option<Failure>>,
    /// RabbitMQ's reason for reading no messages from this connection: it is short of memory or
    /// disk space.
    blocked: watch::Sender<Option<String>>,
    /// The time-out of a call.
    call: Duration,
}

/// The socket below lapin, until it is shut. Shut when dropped, so that lapin's thread ends.
struct SocketState(Mutex<Option<TcpStream>>);

impl SocketState {
    fn shut(&self) {
        if let Some(stream) = self.0.lock().take() {
            // An error means that it is closed already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for SocketState {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Session {
    /// Connects, logs in and opens the virtual host. Dropping the future closes the socket.
    ///
    /// lapin is given a connected socket: futures on lapin's own thread outlive both this future
    /// and tokio's runtime, and a name look-up there would panic when the runtime shuts down.
    pub(crate) async fn open(
        address: &Address,
        config: &Config,
        role: &str,
    ) -> Result<Arc<Self>, Failure> {
        let name = format!("{} ({role})", config.name);
        let options = ConnectionProperties::default().with_connection_name(name.into());
        let uri = &address.uri;
        let connecting = async {
            let (transport, stream) = Transport::connect(uri, &config.tls).await?;
            let socket = SocketState(Mutex::new(Some(stream)));
            let transport = Mutex::new(Some(transport));
            let connect = async move |_, _| match transport.lock().take() {
                Some(transport) => Ok(AsyncTcpStream::Plain(transport)),
                None => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            };
            let connector =
                Connection::connector(uri.clone(), transport::runtime(), connect, options);
            Ok((Box::pin(connector).await?, socket))
        };
        let connected = within(config.timeouts.connect, "connecting", connecting).await;
        let (connection, socket) = match connected {
            Ok(connected) => connected,
            Err(failure) => return Err(address.examined(failure.at_login(), config).await),
        };
        let session = Self {
            connection,
            socket,
            over: watch::Sender::new(None),
            blocked: watch::Sender::new(None),
            call: config.timeouts.call,
        };
        Ok(Arc::new(session))
    }

    /// Opens a channel. Only a broken connection keeps RabbitMQ from opening one, so a time-out
    /// here ends the session; the time-out of a declaration may concern one queue alone.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        let opened = self.within("opening a channel", self.connection.create_channel()).await;
        if let Err(failure @ Failure::TimedOut { .. }) = &opened {
            self.fail(failure.clone());
        }
        opened
    }

    /// Opens a channel whose publishes are confirmed.
    pub(crate) async fn confirming_channel(&self) -> Result<Channel, Failure> {
        let channel = self.channel().await?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        self.within("asking for confirms", confirm).await?;
        Ok(channel)
    }

    /// Runs one step under the time-out of calls.
    pub(crate) async fn within<T>(
        &self,
        step: &'static str,
        future: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Failure> {
        within(self.call, step, future).await
    }

    /// Ends the session. The first failure counts.
    pub(crate) fn fail(&self, failure: Failure) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(failure);
            }
            first
        });
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.borrow().is_some() || !self.connection.status().connected()
    }

    /// Waits for the end of the session, and gives the failure that ended it.
    pub(crate) async fn ended(&self) -> Failure {
        let mut over = self.over.subscribe();
        let failure = over.wait_for(Option::is_some).await;
        let failure = failure.ok().and_then(|failure| failure.clone());
        failure.unwrap_or_else(|| Failure::closed("the connection was dropped"))
    }

    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.subscribe()
    }

    /// Watches the connection until it is over.
    pub(crate) async fn watch(&self, role: &str) -> Failure {
        let mut events = Box::pin(self.connection.events_listener());
        let mut check = interval(CHECK_EVERY);
        let mut last_error = None;
        loop {
            tokio::select! {
                failure = self.ended() => return failure,
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(role, reason, "RabbitMQ blocks publishes; free memory or disk space");
                        self.blocked.send_replace(Some(reason));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!(role, "RabbitMQ accepts messages again");
                        self.blocked.send_replace(None);
                    }
                    Some(Event::Error(error)) => last_error = Some(Failure::from(error)),
                    Some(_) => {}
                    None => self.fail(Failure::closed("the connection was dropped")),
                },
                _ = check.tick() => {}
            }
            if !self.connection.status().connected() {
                let failure = last_error.take();
                self.fail(failure.unwrap_or_else(|| Failure::closed("the connection was closed")));
            }
        }
    }

    /// Closes the connection, with a short wait for the closing handshake, and shuts the socket.
    pub(crate) async fn close(&self) {
        self.fail(Failure::closed("closed by us"));
        // The outcome does not matter: the socket is shut either way.
        let _closed = timeout(CLOSE_WITHIN, self.connection.close(200, "OK".into())).await;
        self.socket.shut();
    }

    /// Shuts the socket without a closing handshake. Deliveries that are still held keep the
    /// session in memory, but not its socket.
    pub(crate) fn abort(&self) {
        self.fail(Failure::closed("aborted"));
        self.socket.shut();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abort();
    }
}
