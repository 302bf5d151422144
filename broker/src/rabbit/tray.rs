//! The deliveries of one channel, until each is settled.
//!
//! A channel outlives its subscription for as long as somebody holds one of its deliveries: closing it would put back
//! messages whose work is being done right now.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, Channel};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::Settle;

use super::failure::{Failure, within};
use super::session::Session;

/// A channel and what came over it.
pub(crate) struct Tray {
    session: Arc<Session>,
    /// Dropping the last handle closes the channel, and that puts back what is unsettled.
    channel: Channel,
    abandoned: Mutex<Abandoned>,
    call: Duration,
    runtime: Handle,
    underway: TaskTracker,
}

/// Deliveries that were dropped without being settled.
enum Abandoned {
    /// The subscription lives: they stay unacknowledged, as if somebody still worked on them.
    Kept(Vec<(u64, Acker)>),
    /// The subscription is gone: they go back at once.
    Returned,
}

/// Settles one delivery; `acker` is there until then.
pub(crate) struct Tag {
    tray: Arc<Tray>,
    tag: u64,
    acker: Option<Acker>,
}

impl Tray {
    pub(crate) fn new(
        session: Arc<Session>,
        channel: Channel,
        call: Duration,
        underway: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            channel,
            abandoned: Mutex::new(Abandoned::Kept(Vec::new())),
            call,
            runtime: Handle::current(),
            underway,
        })
    }

    pub(crate) fn hold(self: &Arc<Self>, tag: u64, acker: Acker) -> Box<Tag> {
        Box::new(Tag { tray: self.clone(), tag, acker: Some(acker) })
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The subscription is gone: puts back what was dropped unsettled, in the order in which it came.
    pub(crate) async fn put_back(&self) {
        let before = std::mem::replace(&mut *self.abandoned.lock(), Abandoned::Returned);
        let Abandoned::Kept(mut abandoned) = before else { return };
        abandoned.sort_by_key(|(tag, _)| *tag);
        for (_, acker) in abandoned {
            self.requeue(acker).await;
        }
    }

    pub(crate) async fn requeue(&self, acker: Acker) {
        let options = BasicNackOptions { multiple: false, requeue: true };
        self.settled("putting back", acker.nack(options)).await;
    }

    async fn acknowledge(&self, acker: Acker) {
        let options = BasicAckOptions { multiple: false };
        self.settled("acknowledging", acker.ack(options)).await;
    }

    /// On a session that is over there is nothing to settle: RabbitMQ has put the message back.
    async fn settled(&self, step: &'static str, future: impl Future<Output = lapin::Result<bool>>) {
        if self.session.is_over() {
            return;
        }
        match within(self.call, step, future).await {
            Ok(_) => {}
            Err(failure @ Failure::TimedOut { .. }) => {
                warn!(%failure, "giving up the consuming connection");
                self.session.fail(failure.to_string());
            }
            Err(failure) => debug!(%failure, step, "the channel is gone"),
        }
    }
}

#[async_trait]
impl Settle for Tag {
    async fn ack(mut self: Box<Self>) {
        if let Some(acker) = self.acker.take() {
            let _underway = self.tray.underway.token();
            self.tray.acknowledge(acker).await;
        }
    }

    async fn requeue(mut self: Box<Self>) {
        if let Some(acker) = self.acker.take() {
            let _underway = self.tray.underway.token();
            self.tray.requeue(acker).await;
        }
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take() else { return };
        let mut abandoned = self.tray.abandoned.lock();
        match &mut *abandoned {
            Abandoned::Kept(kept) => kept.push((self.tag, acker)),
            Abandoned::Returned if self.tray.session.is_over() => {}
            Abandoned::Returned => {
                let tray = self.tray.clone();
                let putting_back = async move { tray.requeue(acker).await };
                self.tray.underway.spawn_on(putting_back, &self.tray.runtime);
            }
        }
    }
}
