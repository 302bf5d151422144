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
    /// Whether RabbitMQ stopped to read from us: it is out of memory or disk space.
    blocked: watch::Sender<bool>,
    call: Duration,
}

/// The socket below lapin, filled in by the connector. Shut when dropped, so that lapin's thread ends.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Grip>>);

#[derive(Default)]
enum Grip {
    #[default]
    Awaited,
    Held(TcpStream),
    Shut,
}

impl Socket {
    /// Refused when the attempt was given up before the socket was there.
    fn hold(&self, stream: TcpStream) -> io::Result<()> {
        let mut grip = self.0.lock();
        if matches!(*grip, Grip::Shut) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *grip = Grip::Held(stream);
        Ok(())
    }

    fn shut(&self) {
        if let Grip::Held(stream) = std::mem::replace(&mut *self.0.lock(), Grip::Shut) {
            // It may be closed already; there is nothing else to do about it.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Shuts the socket of a connection attempt that was given up.
struct ShutUnlessOpened(Option<Socket>);

impl Drop for ShutUnlessOpened {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.shut();
        }
    }
}

impl Session {
    /// Connects, shakes hands, logs in, opens the virtual host.
    pub(crate) async fn open(
        address: &Address,
        config: &Config,
        role: &str,
    ) -> Result<Arc<Self>, Failure> {
        let socket = Socket::default();
        let mut attempt = ShutUnlessOpened(Some(socket.clone()));
        let name = format!("{} ({role})", config.name);
        let options = ConnectionProperties::default().with_connection_name(name.into());
        let slot = socket.clone();
        let connector = Connection::connector(
            address.uri.clone(),
            transport::runtime(),
            async move |uri, _| {
                let transport = Transport::connect(&uri, |stream| slot.hold(stream)).await?;
                Ok(AsyncTcpStream::Plain(transport))
            },
            options,
        );
        let connection = within(config.timeouts.connect, "connecting", Box::pin(connector)).await?;
        attempt.0 = None;
        let session = Self {
            connection,
            socket,
            over: watch::Sender::new(None),
            blocked: watch::Sender::new(false),
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

    pub(crate) fn blocked(&self) -> watch::Receiver<bool> {
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
                        warn!(role, reason, "RabbitMQ blocks the connection");
                        self.blocked.send_replace(true);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!(role, "RabbitMQ unblocks the connection");
                        self.blocked.send_replace(false);
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
