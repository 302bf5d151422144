//! Browsing a queue of RabbitMQ: `basic.get` on a channel of its own, without acknowledging.
//!
//! RabbitMQ puts back what is unacknowledged when the channel closes; in a quorum queue that has no
//! delivery limit, behind the other messages.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{Browsed, Browser, Error};

use super::address::Address;
use super::consumer::text_headers;
use super::failure::{Failure, NOT_FOUND};
use super::session::Session;

/// The header in which a quorum queue counts how often a message came back.
const RETURNS: &str = "x-delivery-count";

/// A browser of one queue.
pub(crate) struct RabbitBrowser {
    pub(crate) session: Arc<Session>,
    pub(crate) channel: Channel,
    pub(crate) queue: ShortString,
    pub(crate) address: Address,
    pub(crate) has_removed: bool,
    pub(crate) _in_flight: TaskTrackerToken,
}

impl RabbitBrowser {
    async fn get(&self) -> Result<Option<lapin::message::Delivery>, Error> {
        let get = self.channel.basic_get(self.queue.clone(), BasicGetOptions { no_ack: false });
        match self.session.within("reading a message", get).await {
            Ok(message) => Ok(message.map(|message| message.delivery)),
            // The queue does not exist, and has no messages.
            Err(Failure::Refused { code: NOT_FOUND, .. }) => Ok(None),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn failed(&self, failure: Failure) -> Error {
        let error = self.address.unavailable(&failure);
        if matches!(failure, Failure::Broken { .. } | Failure::Expelled { .. }) {
            self.session.fail(failure);
        }
        error
    }
}

#[async_trait]
impl Browser for RabbitBrowser {
    async fn next(&mut self) -> Result<Option<Browsed>, Error> {
        let Some(delivery) = self.get().await? else { return Ok(None) };
        let headers = delivery.properties.headers().as_ref();
        let counted = headers.and_then(returns);
        Ok(Some(Browsed {
            tag: delivery.delivery_tag,
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            headers: headers.map(text_headers).unwrap_or_default(),
            returns: counted.unwrap_or(u64::from(delivery.redelivered)),
            body: Bytes::from(delivery.data),
        }))
    }

    async fn remove(&mut self, tag: u64) -> Result<(), Error> {
        self.has_removed = true;
        let ack = self.channel.basic_ack(tag, BasicAckOptions { multiple: false });
        self.session.within("acknowledging", ack).await.map_err(|failure| self.failed(failure))
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        if self.has_removed {
            // A quorum queue may lose acknowledgements that it has not processed when their channel
            // closes. It answers this after them.
            self.get().await?;
        }
        let close = self.channel.close(200, "OK".into());
        match self.session.within("closing a channel", close).await {
            // RabbitMQ has closed it.
            Ok(()) | Err(Failure::Broken { .. }) => Ok(()),
            Err(failure) => Err(self.failed(failure)),
        }
    }
}

fn returns(headers: &FieldTable) -> Option<u64> {
    match headers.inner().get(RETURNS)? {
        AMQPValue::ShortShortInt(count) => u64::try_from(*count).ok(),
        AMQPValue::ShortShortUInt(count) => Some((*count).into()),
        AMQPValue::ShortInt(count) => u64::try_from(*count).ok(),
        AMQPValue::ShortUInt(count) => Some((*count).into()),
        AMQPValue::LongInt(count) => u64::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => Some((*count).into()),
        AMQPValue::LongLongInt(count) => u64::try_from(*count).ok(),
        _ => None,
    }
}
