//! The journal of the memory broker: a growing list, and readers that each have a place in it.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_protocol::JournalPosition;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Depth, JournalEnd, JournalEntry, JournalReader, Link, Outgoing, Reading};

/// All records, indexed by their offsets.
pub(super) struct Journal {
    entries: Mutex<Vec<JournalEntry>>,
    grown: watch::Sender<()>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { entries: Mutex::default(), grown: watch::Sender::new(()) }
    }
}

impl Journal {
    pub(super) fn append(&self, message: Outgoing) {
        let record = message.message_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut entries = self.entries.lock();
        let place = JournalPosition { offset: entries.len() as u64, record };
        entries.push(JournalEntry { place, body: message.body });
        self.grown.send_replace(());
    }

    pub(super) fn clear(&self) {
        self.entries.lock().clear();
        self.grown.send_replace(());
    }

    pub(super) fn depth(&self) -> Depth {
        let consumers = self.grown.receiver_count() as u64;
        Depth { ready: self.entries.lock().len() as u64, consumers }
    }

    pub(super) fn read(
        self: &Arc<Self>,
        after: Option<JournalPosition>,
        link: watch::Receiver<Link>,
    ) -> MemoryReader {
        let grown = self.grown.subscribe();
        MemoryReader { journal: self.clone(), after, attached: false, grown, link }
    }

    /// The record after a place; `Lost` if the record of that place is not where it was.
    fn after(&self, place: Option<&JournalPosition>) -> Result<Option<JournalEntry>, JournalEnd> {
        let entries = self.entries.lock();
        let Some(place) = place else { return Ok(entries.first().cloned()) };
        let at = usize::try_from(place.offset).unwrap_or(usize::MAX);
        match entries.get(at) {
            Some(entry) if entry.place == *place => Ok(entries.get(at + 1).cloned()),
            _ => Err(JournalEnd::Lost),
        }
    }
}

pub(super) struct MemoryReader {
    journal: Arc<Journal>,
    after: Option<JournalPosition>,
    attached: bool,
    grown: watch::Receiver<()>,
    link: watch::Receiver<Link>,
}

#[async_trait]
impl JournalReader for MemoryReader {
    async fn next(&mut self) -> Result<Reading, JournalEnd> {
        loop {
            if *self.link.borrow_and_update() == Link::Down {
                return Err(JournalEnd::Closed);
            }
            if !std::mem::replace(&mut self.attached, true) {
                return Ok(Reading::Attached);
            }
            self.grown.mark_unchanged();
            if let Some(entry) = self.journal.after(self.after.as_ref())? {
                self.after = Some(entry.place.clone());
                return Ok(Reading::Entry(entry));
            }
            tokio::select! {
                grown = self.grown.changed() => grown.map_err(|_| JournalEnd::Closed)?,
                changed = self.link.changed() => changed.map_err(|_| JournalEnd::Closed)?,
            }
        }
    }
}
