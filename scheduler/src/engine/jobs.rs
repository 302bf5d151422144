//! All jobs that may not have ended: which scheduler owns each, and the call about it in flight.
//!
//! A job is owned by the scheduler that owns its queue. At most one call about a job is in flight
//! at a time. Deliberately absent: the state of an own job (see `job`).

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_protocol::{JobId, NodeId, Timestamp};

use super::fleet::Fleet;
use super::job::{Job, Opening};

/// For this long after a job went to another scheduler this one still takes part in recovering its
/// chunks. The other one hears of the job in that time: it reads the list of jobs once a second.
const CEDED_FOR: Duration = Duration::from_secs(3);

/// A job that may not have ended.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ownership: Ownership,
    pub(super) call: Call,
    /// The job has to be read from the ledger.
    pub(super) wants_read: bool,
    /// The job was missing from the last list of active jobs.
    pub(super) was_missing: bool,
}

/// Who feeds a job.
#[derive(Debug)]
pub(super) enum Ownership {
    /// Unknown: only the job's id is known.
    Unseen,
    /// Another scheduler, which owns the queue of this name.
    Elsewhere(String),
    /// This scheduler.
    Ours(Box<Job>),
    /// No scheduler: the job has ended or was deleted.
    Over,
}

/// The call about a job that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// None.
    Idle,
    /// The job's document is on its way to the ledger.
    Admitting,
    ReadingJob,
    Sweeping {
        suspect_lost: bool,
    },
    Opening(Opening),
    ReadingHolders,
    /// A call whose answer needs nothing remembered.
    Other,
}

impl Entry {
    /// A job of which only the id is known, so that it has to be read.
    fn unseen() -> Self {
        Self {
            ownership: Ownership::Unseen,
            call: Call::Idle,
            wants_read: true,
            was_missing: false,
        }
    }
}

/// All jobs that may not have ended.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    entries: BTreeMap<JobId, Entry>,
    /// Jobs that went to other schedulers lately, and when.
    ceded: BTreeMap<JobId, Timestamp>,
}

impl Jobs {
    pub(super) fn get(&self, id: JobId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    /// The job, if this scheduler owns it.
    pub(super) fn own(&self, id: JobId) -> Option<&Job> {
        match self.entries.get(&id)? {
            Entry { ownership: Ownership::Ours(job), .. } => Some(job),
            _ => None,
        }
    }

    /// The job, if this scheduler owns it.
    pub(super) fn own_mut(&mut self, id: JobId) -> Option<&mut Job> {
        match self.entries.get_mut(&id)? {
            Entry { ownership: Ownership::Ours(job), .. } => Some(job),
            _ => None,
        }
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.entries.keys().copied().collect()
    }

    /// How many jobs there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Adds a job of which only the id is known; false if it is here already.
    pub(super) fn add(&mut self, id: JobId) -> bool {
        let MapEntry::Vacant(place) = self.entries.entry(id) else { return false };
        place.insert(Entry::unseen());
        true
    }

    /// Adds a job that is being admitted; false if it is here already.
    pub(super) fn add_admitting(&mut self, id: JobId) -> bool {
        let MapEntry::Vacant(place) = self.entries.entry(id) else { return false };
        place.insert(Entry { call: Call::Admitting, wants_read: false, ..Entry::unseen() });
        true
    }

    pub(super) fn remove(&mut self, id: JobId) {
        self.entries.remove(&id);
    }

    /// Compares with the ledger's list of active jobs. Returns those that are gone: they were
    /// missing twice, since one list may have been read before the job was admitted.
    pub(super) fn missing_from(&mut self, listed: &BTreeSet<&JobId>) -> Vec<JobId> {
        let mut gone = Vec::new();
        for (id, entry) in &mut self.entries {
            let is_missing = !listed.contains(id);
            if is_missing && entry.was_missing && entry.call == Call::Idle {
                gone.push(*id);
            }
            entry.was_missing = is_missing;
        }
        gone
    }

    /// The job's next call has to read it.
    pub(super) fn want_read(&mut self, id: JobId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.wants_read = true;
        }
    }

    /// Whether the job is being admitted here.
    pub(super) fn is_admitting(&self, id: JobId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.call == Call::Admitting)
    }

    /// Whether this scheduler owns the job and no call about it is in flight.
    pub(super) fn is_idle(&self, id: JobId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|it| it.call == Call::Idle && matches!(it.ownership, Ownership::Ours(_)))
    }

    /// The job went to another scheduler.
    pub(super) fn cede(&mut self, now: Timestamp, id: JobId) {
        self.ceded.insert(id, now);
    }

    pub(super) fn forget_ceded(&mut self, now: Timestamp) {
        self.ceded.retain(|_, at| now.since(*at) < CEDED_FOR);
    }

    /// Jobs of which a node may hold chunks, and of whose holders no other scheduler may ask: own
    /// ones that the node's last heartbeat named, and those that other schedulers took over lately.
    pub(super) fn likely_held_by(&self, node: &NodeId, fleet: &Fleet) -> VecDeque<JobId> {
        let named = fleet.info(node).and_then(|info| info.jobs.as_ref()).into_iter().flatten();
        let named: BTreeSet<&JobId> = named.filter(|id| self.own(**id).is_some()).collect();
        let others = self.ceded.keys().filter(|id| !named.contains(id));
        named.iter().copied().chain(others).copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
