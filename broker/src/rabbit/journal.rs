//! Reads the journal, a RabbitMQ stream, from an offset on, also after a broken connection.
//!
//! It declares the stream, and tells a server that can't keep a journal from a failure that passes.
//!
//! After each new start the last record is read once more, and left out if it is the same: a stream
//! that was deleted and declared again counts its offsets from 0. RabbitMQ reports no error for an
//! offset beyond the end of a stream; the consumer just waits. A reader that must detect that
//! publishes a record and checks that it arrives.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Consumer};
use longshore_protocol::JournalPosition;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{JournalEnd, JournalEntry, JournalReader, Queue, Reading};

use super::consumer::cancelled;
use super::failure::{Failure, INTERNAL_ERROR, NOT_IMPLEMENTED, PRECONDITION_FAILED, within};
use super::link::Follower;
use super::retry::ConsumeRetry;
use super::session::Session;
use super::topology::Topology;

/// Most records between RabbitMQ and the reader. Records may be large, and reading is never the
/// bottleneck.
const PREFETCH: u16 = 32;
/// The argument of a consumer that says where to begin, and the header of a delivery that says
/// where it stood.
const OFFSET: &str = "x-stream-offset";

/// A reader of the journal, ready to start.
pub(crate) struct Reader {
    pub(crate) after: Option<JournalPosition>,
    pub(crate) link: Follower,
    pub(crate) topology: Topology,
    pub(crate) call: Duration,
    pub(crate) closing: CancellationToken,
    pub(crate) in_flight: TaskTracker,
}

/// The caller's end of a reader.
pub(crate) struct RabbitReader {
    read: mpsc::Receiver<Result<Reading, JournalEnd>>,
    closing: CancellationToken,
}

/// Why reading ended.
enum End {
    /// The caller's end was dropped, or the broker is being closed.
    Stopped,
    /// Nothing more can be read.
    Over(JournalEnd),
    /// Reading has to begin again.
    Failed(Failure),
}

type Sender = mpsc::Sender<Result<Reading, JournalEnd>>;

#[async_trait]
impl JournalReader for RabbitReader {
    async fn next(&mut self) -> Result<Reading, JournalEnd> {
        tokio::select! {
            read = self.read.recv() => read.unwrap_or(Err(JournalEnd::Closed)),
            () = self.closing.cancelled() => Err(JournalEnd::Closed),
        }
    }
}

impl Reader {
    pub(crate) fn start(self) -> RabbitReader {
        let (sender, read) = mpsc::channel(usize::from(PREFETCH));
        let closing = self.closing.clone();
        let in_flight = self.in_flight.clone();
        in_flight.spawn(self.run(sender));
        RabbitReader { read, closing }
    }

    async fn run(mut self, sender: Sender) {
        let (link, closing) = (self.link.clone(), self.closing.clone());
        let mut retry = ConsumeRetry::new(Queue::Journal, link, closing);
        while let Some(session) = retry.next_session(sender.closed()).await {
            match self.read(&session, &sender, &mut retry).await {
                End::Stopped => return,
                End::Over(end) => {
                    // An error means that the reader was dropped.
                    let _ = sender.send(Err(end)).await;
                    return;
                }
                End::Failed(failure) => retry.failed(&session, &failure),
            }
        }
    }

    /// Reads until something ends it.
    async fn read(
        &mut self,
        session: &Arc<Session>,
        sender: &Sender,
        retry: &mut ConsumeRetry,
    ) -> End {
        // Dropping the channel at the end closes it, and that ends the consumer.
        let (_channel, mut consumer) = match self.consume(session).await {
            Ok(consuming) => consuming,
            Err(failure) => return classify(failure),
        };
        retry.succeeded();
        if sender.send(Ok(Reading::Attached)).await.is_err() {
            return End::Stopped;
        }
        let mut known = self.after.clone();
        loop {
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                failure = session.ended() => return End::Failed(failure),
                () = self.closing.cancelled() => return End::Stopped,
                () = sender.closed() => return End::Stopped,
            };
            let delivery = match delivery {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return End::Failed(error.into()),
                None => return End::Failed(cancelled()),
            };
            let Some(place) = place_of(&delivery) else {
                let text = "the queue of the journal exists and is no stream; delete it";
                return unsupported(text.to_owned());
            };
            let Delivery { data, acker, .. } = delivery;
            match known.take() {
                Some(before) if before == place => {}
                Some(_) => return End::Over(JournalEnd::Lost),
                None => {
                    let entry = JournalEntry { place: place.clone(), body: Bytes::from(data) };
                    if sender.send(Ok(Reading::Entry(entry))).await.is_err() {
                        return End::Stopped;
                    }
                    self.after = Some(place);
                }
            }
            // One by one: RabbitMQ closes a channel with a delivery that is unacknowledged for
            // long.
            let ack = acker.ack(BasicAckOptions { multiple: false });
            if let Err(failure) = within(self.call, "acknowledging a record", ack).await {
                return End::Failed(failure);
            }
        }
    }

    async fn consume(&self, session: &Arc<Session>) -> Result<(Channel, Consumer), Failure> {
        self.topology.declare(session, &Queue::Journal).await?;
        let channel = session.channel().await?;
        let qos = channel.basic_qos(PREFETCH, BasicQosOptions { global: false });
        session.within("setting the prefetch", qos).await?;
        let mut arguments = FieldTable::default();
        let from = match &self.after {
            None => AMQPValue::LongString(LongString::from("first")),
            Some(place) => AMQPValue::LongLongInt(i64::try_from(place.offset).unwrap_or(i64::MAX)),
        };
        arguments.insert(OFFSET.into(), from);
        let name = self.topology.name(&Queue::Journal).into();
        let consume =
            channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = session.within("reading the journal", consume).await?;
        Ok((channel, consumer))
    }
}

/// Tells a server that can't keep the journal from a failure that passes. A server without streams,
/// or with another queue of the journal's name, answers with one of several codes. RabbitMQ uses
/// the same codes for failures that pass (a replica that is not running yet, two schedulers that
/// declare the stream at the same moment), so its text has to decide.
fn classify(failure: Failure) -> End {
    match failure {
        Failure::Expelled { code: NOT_IMPLEMENTED, text } => unsupported(text),
        Failure::Expelled { code: INTERNAL_ERROR, text } if text.contains("feature flag") => {
            unsupported(text)
        }
        Failure::Refused { code: PRECONDITION_FAILED, text } if text.contains("invalid arg") => {
            unsupported(text)
        }
        failure => End::Failed(failure),
    }
}

fn unsupported(text: String) -> End {
    End::Over(JournalEnd::Unsupported(text))
}

/// The place of a record; `None` for a delivery that did not come from a stream.
fn place_of(delivery: &Delivery) -> Option<JournalPosition> {
    let headers = delivery.properties.headers().as_ref()?;
    let Some(AMQPValue::LongLongInt(offset)) = headers.inner().get(OFFSET) else { return None };
    let record = delivery.properties.message_id().as_ref();
    let record = record.map(ToString::to_string).unwrap_or_default();
    Some(JournalPosition { offset: u64::try_from(*offset).ok()?, record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failure: &Failure, for_good: bool) {
        let end = classify(failure.clone());
        let ends = matches!(end, End::Over(JournalEnd::Unsupported(_)));
        assert_eq!(ends, for_good, "{failure:?}");
    }

    #[test]
    fn temporary_failures_are_told_from_permanent_ones() {
        let refused =
            |text: &str| Failure::Refused { code: PRECONDITION_FAILED, text: text.into() };
        let expelled = |code, text: &str| Failure::Expelled { code, text: text.into() };
        check(&refused("invalid arg 'x-stream-offset' for queue 'a' of queue type classic"), true);
        check(&refused("queue 'a' does not have a running replica on the local node"), false);
        check(&expelled(INTERNAL_ERROR, "Cannot declare: the feature flag is disabled"), true);
        // RabbitMQ 3.10's answer to the second of two that declare a stream at the same moment.
        check(&expelled(INTERNAL_ERROR, "INTERNAL_ERROR"), false);
        check(&expelled(NOT_IMPLEMENTED, "NOT_IMPLEMENTED"), true);
        check(&Failure::closed("reset"), false);
    }
}
