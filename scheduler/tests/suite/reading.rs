//! A journal reader that fails as RabbitMQ's does: without records, or without an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use longshore_broker::{JournalEnd, JournalReader, Link, Reading as Read};
use tokio::sync::watch;

/// The state of the reader.
#[derive(Clone)]
pub(crate) struct Reading {
    link: watch::Sender<Link>,
    hides: Arc<AtomicBool>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { link: watch::Sender::new(Link::Up), hides: Arc::default() }
    }
}

impl Reading {
    pub(crate) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// RabbitMQ reports no error for an offset beyond the end of a stream.
    pub(crate) fn hide_losses(&self) {
        self.hides.store(true, Ordering::Relaxed);
    }

    pub(crate) fn over(&self, inner: Box<dyn JournalReader>) -> Box<dyn JournalReader> {
        let (link, hides) = (self.link.subscribe(), self.hides.clone());
        Box::new(Reader { inner, link, hides, was_down: false })
    }
}

struct Reader {
    inner: Box<dyn JournalReader>,
    link: watch::Receiver<Link>,
    hides: Arc<AtomicBool>,
    /// Whether the connection is broken.
    was_down: bool,
}

#[async_trait]
impl JournalReader for Reader {
    async fn next(&mut self) -> Result<Read, JournalEnd> {
        loop {
            self.was_down |= *self.link.borrow_and_update() == Link::Down;
            if self.was_down {
                let up = self.link.wait_for(|link| *link == Link::Up).await;
                up.map_err(|_| JournalEnd::Closed)?;
                self.was_down = false;
                return Ok(Read::Attached);
            }
            let hides = self.hides.load(Ordering::Relaxed);
            let read = async {
                match self.inner.next().await {
                    Err(JournalEnd::Lost) if hides => std::future::pending().await,
                    read => read,
                }
            };
            tokio::select! {
                biased;
                changed = self.link.changed() => changed.map_err(|_| JournalEnd::Closed)?,
                read = read => return read,
            }
        }
    }
}
