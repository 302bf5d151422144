//! Keeps a channel open for as long as one of its deliveries is held, and batches acknowledgements.
//!
//! A channel outlives its subscription for as long as one of its deliveries is held: closing the
//! channel would requeue messages that are being processed.
//!
//! Acknowledgements that arrive together are sent together: where everything up to a delivery is to
//! be acknowledged, one `basic.ack` with `multiple` covers all of it, and costs RabbitMQ and lapin
//! as much as a single one.

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

/// A channel and the deliveries that arrived over it.
pub(crate) struct DeliveryTracker {
    session: Arc<Session>,
    /// Dropping the last handle closes the channel, and RabbitMQ requeues what is unsettled.
    channel: Channel,
    dropped: Mutex<Dropped>,
    acks: Mutex<AckQueue<Acker>>,
    /// The time-out of a call.
    call: Duration,
    runtime: Handle,
    in_flight: TaskTracker,
}

/// Deliveries that were dropped without being settled.
enum Dropped {
    /// The subscription exists: they stay unacknowledged, as if they were still being processed.
    Held(Vec<(u64, Acker)>),
    /// The subscription is gone: they are requeued at once.
    Requeued,
}

/// With this many acknowledgements in a batch, the next batch waits for more.
const BUSY: usize = 4;

/// How long the next batch waits then.
const LINGER: Duration = Duration::from_millis(1);

/// The acknowledgements that are still to be sent.
struct AckQueue<A> {
    /// Deliveries that RabbitMQ was told nothing about. An acknowledgement of several must not
    /// include one that is not to be acknowledged.
    unsettled: BTreeSet<u64>,
    waiting: Vec<Ack<A>>,
    /// A task is sending batches.
    is_acknowledging: bool,
}

struct Ack<A> {
    tag: u64,
    acker: A,
    /// The acknowledgement was left out of one batch already.
    is_late: bool,
}

/// The acknowledgements that are sent at one time.
struct Batch<A> {
    /// Acknowledged with everything before it.
    up_to: Option<A>,
    single: Vec<A>,
    is_busy: bool,
}

impl<A> AckQueue<A> {
    fn new() -> Self {
        Self { unsettled: BTreeSet::new(), waiting: Vec::new(), is_acknowledging: false }
    }

    /// The next batch; `None` when nothing waits. Where many acknowledgements arrive, one with an
    /// unsettled delivery before it waits for one more batch, in case that delivery is acknowledged
    /// by then.
    fn next_batch(&mut self) -> Option<Batch<A>> {
        if self.waiting.is_empty() {
            self.is_acknowledging = false;
            return None;
        }
        let is_busy = self.waiting.len() >= BUSY;
        self.waiting.sort_unstable_by_key(|ack| ack.tag);
        let unsettled = &mut self.unsettled;
        let mut settle = |tag| unsettled.first() == Some(&tag) && unsettled.remove(&tag);
        let together = self.waiting.iter().take_while(|ack| settle(ack.tag)).count();
        let behind = self.waiting.split_off(together);
        let up_to = std::mem::take(&mut self.waiting).pop().map(|ack| ack.acker);
        let mut single = Vec::new();
        for ack in behind {
            if is_busy && !ack.is_late {
                self.waiting.push(Ack { is_late: true, ..ack });
            } else {
                self.unsettled.remove(&ack.tag);
                single.push(ack.acker);
            }
        }
        Some(Batch { up_to, single, is_busy })
    }
}

/// Settles one delivery. `acker` is `Some` until the delivery is settled.
pub(crate) struct AckHandle {
    tracker: Arc<DeliveryTracker>,
    tag: u64,
    acker: Option<Acker>,
}

impl DeliveryTracker {
    pub(crate) fn new(
        session: Arc<Session>,
        channel: Channel,
        call: Duration,
        in_flight: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            channel,
            dropped: Mutex::new(Dropped::Held(Vec::new())),
            acks: Mutex::new(AckQueue::new()),
            call,
            runtime: Handle::current(),
            in_flight,
        })
    }

    pub(crate) fn track(self: &Arc<Self>, tag: u64, acker: Acker) -> Box<AckHandle> {
        self.acks.lock().unsettled.insert(tag);
        Box::new(AckHandle { tracker: self.clone(), tag, acker: Some(acker) })
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Called when the subscription is gone: requeues what was dropped unsettled, in the order of
    /// delivery.
    pub(crate) async fn requeue_dropped(&self) {
        let before = std::mem::replace(&mut *self.dropped.lock(), Dropped::Requeued);
        let Dropped::Held(mut held) = before else { return };
        held.sort_by_key(|(tag, _)| *tag);
        for (tag, acker) in held {
            self.requeue_tracked(tag, acker).await;
        }
    }

    async fn requeue_tracked(&self, tag: u64, acker: Acker) {
        self.requeue(acker).await;
        // Not before RabbitMQ was told, or an acknowledgement of several might include the
        // delivery.
        self.acks.lock().unsettled.remove(&tag);
    }

    pub(crate) async fn requeue(&self, acker: Acker) {
        let options = BasicNackOptions { multiple: false, requeue: true };
        self.settled("requeueing a delivery", acker.nack(options)).await;
    }

    /// Acknowledges the delivery in the next batch.
    fn acknowledge(self: &Arc<Self>, tag: u64, acker: Acker) {
        let mut acks = self.acks.lock();
        acks.waiting.push(Ack { tag, acker, is_late: false });
        if !std::mem::replace(&mut acks.is_acknowledging, true) {
            self.in_flight.spawn_on(self.clone().acknowledge_all(), &self.runtime);
        }
    }

    async fn acknowledge_all(self: Arc<Self>) {
        let next_batch = || self.acks.lock().next_batch();
        // Tasks whose chunks were committed together are awake already, and acknowledge now.
        tokio::task::yield_now().await;
        while let Some(Batch { up_to, single, is_busy }) = next_batch() {
            if let Some(acker) = up_to {
                let ack = acker.ack(BasicAckOptions { multiple: true });
                self.settled("acknowledging", ack).await;
            }
            let single = single.iter().map(|acker| {
                let ack = acker.ack(BasicAckOptions { multiple: false });
                self.settled("acknowledging", ack)
            });
            join_all(single).await;
            if is_busy {
                tokio::time::sleep(LINGER).await;
            }
        }
    }

    /// Runs one settlement. On a session that is over there is nothing to settle: RabbitMQ has
    /// requeued the message.
    async fn settled(&self, step: &'static str, future: impl Future<Output = lapin::Result<bool>>) {
        if self.session.is_over() {
            return;
        }
        match within(self.call, step, future).await {
            Ok(_) => {}
            Err(failure @ Failure::TimedOut { .. }) => {
                warn!(%failure, "RabbitMQ does not answer; closing the consuming connection");
                self.session.fail(failure);
            }
            Err(failure) => debug!(%failure, step, "the channel was closed"),
        }
    }
}

#[async_trait]
impl Settle for AckHandle {
    async fn ack(mut self: Box<Self>) {
        if let Some(acker) = self.acker.take() {
            self.tracker.acknowledge(self.tag, acker);
        }
    }

    async fn requeue(mut self: Box<Self>) {
        if let Some(acker) = self.acker.take() {
            let _in_flight = self.tracker.in_flight.token();
            self.tracker.requeue_tracked(self.tag, acker).await;
        }
    }
}

impl Drop for AckHandle {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take() else { return };
        let mut dropped = self.tracker.dropped.lock();
        match &mut *dropped {
            Dropped::Held(held) => held.push((self.tag, acker)),
            Dropped::Requeued if self.tracker.session.is_over() => {}
            Dropped::Requeued => {
                let tracker = self.tracker.clone();
                let tag = self.tag;
                let requeueing = async move { tracker.requeue_tracked(tag, acker).await };
                self.tracker.in_flight.spawn_on(requeueing, &self.tracker.runtime);
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
        /// Acknowledges the delivery at this position among those that are held, from the oldest.
        Acknowledge(usize),
        Requeue(usize),
        Batch,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Deliver),
            4 => (0usize..8).prop_map(Step::Acknowledge),
            1 => (0usize..8).prop_map(Step::Requeue),
            1 => Just(Step::Batch),
        ]
    }

    /// What RabbitMQ knows: the deliveries that are held, and those whose acknowledgement it was
    /// not told yet.
    #[derive(Default)]
    struct Model {
        held: Vec<u64>,
        acknowledged: BTreeSet<u64>,
    }

    impl Model {
        fn receive(&mut self, batch: &Batch<u64>) {
            if let Some(up_to) = batch.up_to {
                assert!(self.held.iter().all(|tag| *tag > up_to), "a held one is acknowledged");
                assert!(self.acknowledged.contains(&up_to), "RabbitMQ does not know {up_to}");
                self.acknowledged = self.acknowledged.split_off(&(up_to + 1));
            }
            for tag in &batch.single {
                assert!(self.acknowledged.remove(tag), "{tag} is acknowledged twice");
            }
        }
    }

    proptest! {
        #[test]
        fn exactly_the_acknowledged_deliveries_are_sent(
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let (mut acks, mut model, mut next) = (AckQueue::new(), Model::default(), 1);
            for step in steps {
                match step {
                    Step::Deliver => {
                        acks.unsettled.insert(next);
                        model.held.push(next);
                        next += 1;
                    }
                    Step::Acknowledge(place) if place < model.held.len() => {
                        let tag = model.held.remove(place);
                        model.acknowledged.insert(tag);
                        acks.waiting.push(Ack { tag, acker: tag, is_late: false });
                    }
                    Step::Requeue(place) if place < model.held.len() => {
                        acks.unsettled.remove(&model.held.remove(place));
                    }
                    Step::Acknowledge(_) | Step::Requeue(_) => {}
                    Step::Batch => acks.next_batch().iter().for_each(|batch| model.receive(batch)),
                }
            }
            // No acknowledgement waits for more than two batches.
            (0..2).for_each(|_| acks.next_batch().iter().for_each(|batch| model.receive(batch)));
            prop_assert!(model.acknowledged.is_empty(), "left: {:?}", model.acknowledged);
            prop_assert!(acks.next_batch().is_none());
        }
    }
}
