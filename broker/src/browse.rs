//! Looks through the messages that wait in a queue, and removes some of them.
//!
//! Deliberately absent: positions. Other programs may consume from the queue meanwhile, and
//! RabbitMQ does not say where a message stands.

use async_trait::async_trait;
use bytes::Bytes;

use crate::Error;

/// A message that waits in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browsed {
    /// Identifies the message to [`Browser::remove`].
    pub tag: u64,
    /// The content.
    pub body: Bytes,
    /// The id that the publisher gave it.
    pub message_id: Option<String>,
    /// The headers whose values are text.
    pub headers: Vec<(String, String)>,
    /// How often the message was handed out before and came back, as far as the broker counts: a
    /// classic queue of RabbitMQ tells only whether it ever was. RabbitMQ 4 drops a message of a
    /// quorum queue that came back more than 20 times, unless a policy sets another limit.
    pub returns: u64,
}

/// Shows the messages that wait in a queue, one after the other. A message that was shown is hidden
/// from consumers and other browsers until browsing ends; then it is back, unless it was removed.
/// Browsing ends with [`Browser::finish`], when the browser is dropped, and when its connection
/// breaks.
#[async_trait]
pub trait Browser: Send {
    /// The next message; `None` when no further message waits.
    async fn next(&mut self) -> Result<Option<Browsed>, Error>;

    /// Removes a message that was shown, for good. The removal is certain once [`Self::finish`] has
    /// succeeded.
    async fn remove(&mut self, tag: u64) -> Result<(), Error>;

    /// Ends browsing. The messages that were not removed are back a moment later, in their order. A
    /// quorum queue of RabbitMQ that has no delivery limit puts them behind those that were not
    /// shown.
    async fn finish(self: Box<Self>) -> Result<(), Error>;
}
