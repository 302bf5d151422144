//! Browsing a queue of the memory broker: takes messages off the queue, and puts them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryQueue, Message};
use crate::{Browsed, Browser, Error};

/// A browser of one queue; of none if the queue does not exist.
pub(super) struct MemoryBrowser {
    queue: Option<Arc<MemoryQueue>>,
    /// The messages that were shown, by their places.
    shown: BTreeMap<u64, Message>,
}

impl MemoryBrowser {
    pub(super) fn new(queue: Option<Arc<MemoryQueue>>) -> Self {
        Self { queue, shown: BTreeMap::new() }
    }
}

#[async_trait]
impl Browser for MemoryBrowser {
    async fn next(&mut self) -> Result<Option<Browsed>, Error> {
        let Some(queue) = &self.queue else { return Ok(None) };
        let Some((tag, message)) = queue.state.lock().ready.pop_first() else { return Ok(None) };
        let browsed = Browsed {
            tag,
            body: message.body.clone(),
            message_id: Some(message.message_id.clone()),
            headers: message.headers.clone(),
            returns: message.returns,
        };
        self.shown.insert(tag, message);
        Ok(Some(browsed))
    }

    async fn remove(&mut self, tag: u64) -> Result<(), Error> {
        self.shown.remove(&tag);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for MemoryBrowser {
    fn drop(&mut self) {
        let Some(queue) = &self.queue else { return };
        let mut state = queue.state.lock();
        for message in std::mem::take(&mut self.shown).into_values() {
            state.requeue(message);
        }
        state.dispatch();
    }
}
