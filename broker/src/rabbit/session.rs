//! One connection, from its handshake to its end.
//!
//! A session that fails is thrown away whole; nothing on it is repaired. Its socket is shut from our side, because lapin
//! waits for a good-bye that a frozen or cut-off server never says, on a thread of its own.

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
use super::{Config, GOODBYE};

/// lapin announces most ends; this look finds the rest.
const LOOK: Duration = Duration::from_millis(500);

/// A connection that stood once.
pub(crate) struct Session {
    connection: Connection,
    socket: Socket,
    /// Why the session is over; `None` while it lives.
    over: watch::Sender<Option<String>>,
    /// Why RabbitMQ reads no messages from us, in its own words: it is short of memory or disk space.
    blocked: watch::Sender<Option<String>>,
    call: Duration,
}

/// The socket below lapin. Shut when dropped, so that lapin's thread ends.
struct Socket(Mutex<Option<TcpStream>>);

impl Socket {
    fn shut(&self) {
        if let Some(stream) = self.0.lock().take() {
            // It may be closed already; there is nothing else to do about it.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Session {
    /// Connects, shakes hands, logs in, opens the virtual host. Dropping the future closes the socket.
    ///
    /// lapin gets a socket that is connected: what it awaits on its own thread outlives both this future and tokio's
    /// runtime, and would panic when the latter shuts down in the middle of a name look-up.
    pub(crate) async fn open(
        address: &Address,
        config: &Config,
        role: &str,
    ) -> Result<Arc<Self>, Failure> {
        let name = format!("{} ({role})", config.name);
        let options = ConnectionProperties::default().with_connection_name(name.into());
        let uri = &address.uri;
        let connecting = async {
            let (transport, stream) = Transport::connect(uri).await?;
            let socket = Socket(Mutex::new(Some(stream)));
            let transport = Mutex::new(Some(transport));
            let connect = async move |_, _| match transport.lock().take() {
                Some(transport) => Ok(AsyncTcpStream::Plain(transport)),
                None => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            };
            let connector =
                Connection::connector(uri.clone(), transport::runtime(), connect, options);
            Ok((Box::pin(connector).await?, socket))
        };
        let (connection, socket) =
            within(config.timeouts.connect, "connecting", connecting).await?;
        let session = Self {
            connection,
            socket,
            over: watch::Sender::new(None),
            blocked: watch::Sender::new(None),
            call: config.timeouts.call,
        };
        Ok(Arc::new(session))
    }

    /// A new channel. Nothing but a broken connection keeps RabbitMQ from opening one, so a time-out here ends the
    /// session; a time-out of a declaration may be one queue's own trouble.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        let opened = self.within("opening a channel", self.connection.create_channel()).await;
        if let Err(failure @ Failure::TimedOut { .. }) = &opened {
            self.fail(failure.to_string());
        }
        opened
    }

    /// A new channel whose publishes are confirmed.
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

    /// Declares the session over. The first reason counts.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(reason.into());
            }
            first
        });
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.borrow().is_some() || !self.connection.status().connected()
    }

    /// Waits for the end and says why it came.
    pub(crate) async fn ended(&self) -> String {
        let mut over = self.over.subscribe();
        let reason = over.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.subscribe()
    }

    /// Watches the connection until it is over.
    pub(crate) async fn watch(&self, role: &str) -> String {
        let mut events = Box::pin(self.connection.events_listener());
        let mut look = interval(LOOK);
        let mut last_error = None;
        loop {
            tokio::select! {
                reason = self.ended() => return reason,
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(role, reason, "RabbitMQ accepts no messages until its alarm is over");
                        self.blocked.send_replace(Some(reason));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!(role, "RabbitMQ accepts messages again");
                        self.blocked.send_replace(None);
                    }
                    Some(Event::Error(error)) => last_error = Some(Failure::from(error)),
                    Some(_) => {}
                    None => self.fail("the connection was dropped"),
                },
                _ = look.tick() => {}
            }
            if !self.connection.status().connected() {
                let reason = last_error.take().map(|failure| failure.to_string());
                self.fail(reason.unwrap_or_else(|| "the connection was closed".to_owned()));
            }
        }
    }

    /// Says good-bye, briefly, and shuts the socket.
    pub(crate) async fn close(&self) {
        self.fail("closed by us");
        // Whether it was heard does not matter: the socket is shut either way.
        let _heard = timeout(GOODBYE, self.connection.close(200, "OK".into())).await;
        self.socket.shut();
    }

    /// Ends the connection without a word. Deliveries that are still held keep the session's value, not its socket.
    pub(crate) fn abort(&self) {
        self.fail("aborted");
        self.socket.shut();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abort();
    }
}
