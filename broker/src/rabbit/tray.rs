//! The deliveries of one channel, until each is settled.
//!
//! A channel outlives its subscription for as long as somebody holds one of its deliveries: closing it would put back
//! messages whose work is being done right now.
//!
//! Acknowledgements that come together go together: where everything up to a delivery is to be acknowledged, one `basic.ack`
//! says so for all of it, which costs RabbitMQ, and lapin, as much as one of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
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
    acks: Mutex<Acks<Acker>>,
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

/// After so many acknowledgements in a turn the next turn waits for more ...
const MANY: usize = 4;

/// ... for so long.
const LINGER: Duration = Duration::from_millis(1);

/// What is to be acknowledged.
struct Acks<A> {
    /// Deliveries that RabbitMQ was told nothing about. An acknowledgement must not reach past one that is not to be
    /// acknowledged.
    unsettled: BTreeSet<u64>,
    waiting: Vec<Ack<A>>,
    /// Somebody takes the turns.
    is_underway: bool,
}

struct Ack<A> {
    tag: u64,
    acker: A,
    /// It has waited for a turn in vain.
    is_late: bool,
}

/// What is acknowledged at one time.
struct Turn<A> {
    /// With everything before it.
    up_to: Option<A>,
    alone: Vec<A>,
    is_busy: bool,
}

impl<A> Acks<A> {
    fn new() -> Self {
        Self { unsettled: BTreeSet::new(), waiting: Vec::new(), is_underway: false }
    }

    /// The next turn; `None` when nothing waits. Where many come, what is behind others waits one turn for them.
    fn turn(&mut self) -> Option<Turn<A>> {
        if self.waiting.is_empty() {
            self.is_underway = false;
            return None;
        }
        let is_busy = self.waiting.len() >= MANY;
        self.waiting.sort_unstable_by_key(|ack| ack.tag);
        let unsettled = &mut self.unsettled;
        let mut settle = |tag| unsettled.first() == Some(&tag) && unsettled.remove(&tag);
        let together = self.waiting.iter().take_while(|ack| settle(ack.tag)).count();
        let behind = self.waiting.split_off(together);
        let up_to = std::mem::take(&mut self.waiting).pop().map(|ack| ack.acker);
        let mut alone = Vec::new();
        for ack in behind {
            if is_busy && !ack.is_late {
                self.waiting.push(Ack { is_late: true, ..ack });
            } else {
                self.unsettled.remove(&ack.tag);
                alone.push(ack.acker);
            }
        }
        Some(Turn { up_to, alone, is_busy })
    }
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
            acks: Mutex::new(Acks::new()),
            call,
            runtime: Handle::current(),
            underway,
        })
    }

    pub(crate) fn hold(self: &Arc<Self>, tag: u64, acker: Acker) -> Box<Tag> {
        self.acks.lock().unsettled.insert(tag);
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
        for (tag, acker) in abandoned {
            self.put_back_one(tag, acker).await;
        }
    }

    async fn put_back_one(&self, tag: u64, acker: Acker) {
        self.requeue(acker).await;
        // Not before RabbitMQ was told, or an acknowledgement might overtake it.
        self.acks.lock().unsettled.remove(&tag);
    }

    pub(crate) async fn requeue(&self, acker: Acker) {
        let options = BasicNackOptions { multiple: false, requeue: true };
        self.settled("putting back", acker.nack(options)).await;
    }

    /// Sees to it that the delivery is acknowledged, with others that come now.
    fn acknowledge(self: &Arc<Self>, tag: u64, acker: Acker) {
        let mut acks = self.acks.lock();
        acks.waiting.push(Ack { tag, acker, is_late: false });
        if !std::mem::replace(&mut acks.is_underway, true) {
            self.underway.spawn_on(self.clone().acknowledge_all(), &self.runtime);
        }
    }

    async fn acknowledge_all(self: Arc<Self>) {
        let next = || self.acks.lock().turn();
        // What was committed together is awake already.
        tokio::task::yield_now().await;
        while let Some(Turn { up_to, alone, is_busy }) = next() {
            if let Some(acker) = up_to {
                let ack = acker.ack(BasicAckOptions { multiple: true });
                self.settled("acknowledging", ack).await;
            }
            let alone = alone.iter().map(|acker| {
                let ack = acker.ack(BasicAckOptions { multiple: false });
                self.settled("acknowledging", ack)
            });
            join_all(alone).await;
            if is_busy {
                tokio::time::sleep(LINGER).await;
            }
        }
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
            self.tray.acknowledge(self.tag, acker);
        }
    }

    async fn requeue(mut self: Box<Self>) {
        if let Some(acker) = self.acker.take() {
            let _underway = self.tray.underway.token();
            self.tray.put_back_one(self.tag, acker).await;
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
                let tag = self.tag;
                let putting_back = async move { tray.put_back_one(tag, acker).await };
                self.tray.underway.spawn_on(putting_back, &self.tray.runtime);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Deliver,
        /// The delivery at this place among those at hand, from the oldest.
        Acknowledge(usize),
        PutBack(usize),
        Turn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Deliver),
            4 => (0usize..8).prop_map(Step::Acknowledge),
            1 => (0usize..8).prop_map(Step::PutBack),
            1 => Just(Step::Turn),
        ]
    }

    /// What RabbitMQ has not been told about, and what of it is to be acknowledged.
    #[derive(Default)]
    struct Channel {
        at_hand: Vec<u64>,
        acknowledged: BTreeSet<u64>,
    }

    impl Channel {
        /// Tells RabbitMQ what goes in this turn.
        fn hear(&mut self, turn: &Turn<u64>) {
            if let Some(up_to) = turn.up_to {
                assert!(self.at_hand.iter().all(|tag| *tag > up_to), "an open one is acknowledged");
                assert!(self.acknowledged.contains(&up_to), "RabbitMQ does not know {up_to}");
                self.acknowledged = self.acknowledged.split_off(&(up_to + 1));
            }
            for tag in &turn.alone {
                assert!(self.acknowledged.remove(tag), "{tag} is acknowledged twice");
            }
        }
    }

    proptest! {
        #[test]
        fn exactly_what_is_acknowledged_is_told(steps in prop::collection::vec(step(), 0..200)) {
            let (mut acks, mut channel, mut next) = (Acks::new(), Channel::default(), 1);
            for step in steps {
                match step {
                    Step::Deliver => {
                        acks.unsettled.insert(next);
                        channel.at_hand.push(next);
                        next += 1;
                    }
                    Step::Acknowledge(place) if place < channel.at_hand.len() => {
                        let tag = channel.at_hand.remove(place);
                        channel.acknowledged.insert(tag);
                        acks.waiting.push(Ack { tag, acker: tag, is_late: false });
                    }
                    Step::PutBack(place) if place < channel.at_hand.len() => {
                        acks.unsettled.remove(&channel.at_hand.remove(place));
                    }
                    Step::Acknowledge(_) | Step::PutBack(_) => {}
                    Step::Turn => acks.turn().iter().for_each(|turn| channel.hear(turn)),
                }
            }
            // Nobody has to wait for more than two turns.
            (0..2).for_each(|_| acks.turn().iter().for_each(|turn| channel.hear(turn)));
            prop_assert!(channel.acknowledged.is_empty(), "left: {:?}", channel.acknowledged);
            prop_assert!(acks.turn().is_none());
        }
    }
}
