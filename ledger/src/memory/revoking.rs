//! Takes the chunks of a lost node back: queues them, cuts suspects, fails poison subtasks.

use std::collections::BTreeMap;
use std::ops::Range;

use longshore_protocol::state::ChunkState;
use longshore_protocol::{
    ChunkId, Death, ErrorEntry, Hint, LossKind, NodeId, Recovery, Timestamp, Token,
};

use super::job::{Chunk, Job, Speculation};
use crate::op::{Event, RevokeParams, Revoked};
use crate::poison;

impl Job {
    pub(super) fn revoke(
        &mut self,
        params: &RevokeParams,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Vec<Revoked> {
        let RevokeParams { node, cause } = params;
        let (lost, how) = (cause.lost(), cause.how().map(str::to_owned));
        let died = lost == LossKind::Died;
        let held = self.held_by(node, cause.claimed_by());
        if held.is_empty() {
            return Vec::new();
        }
        let over = self.is_over_parallel();
        let (mut queued, mut cut, mut given_up) = (BTreeMap::new(), 0, Vec::new());
        for (id, token) in held {
            let chunk = self.chunks.get_mut(&id).expect("it is held");
            let is_new_death = died && chunk.deaths.iter().all(|death| death.node != *node);
            if is_new_death {
                let (node, among) = (node.clone(), chunk.len());
                chunk.deaths.push(Death { node, at: now, among, how: how.clone() });
            }
            if chunk.leave_to_other_holder(token) {
                continue;
            }
            let chunk = self.requeue(id, token, now).expect("it is held under this token");
            if let Some(error) = poison::verdict(&chunk.deaths) {
                given_up.push(chunk.range.start);
                self.give_up(id, error);
            } else if is_new_death && chunk.is_suspect() && chunk.len() > 1 {
                cut += 1;
                let parts = poison::cut(chunk.range.clone(), chunk.crashes());
                queued.extend(self.cut(id, parts));
            } else {
                queued.insert(id, chunk.range.clone());
            }
        }
        for id in queued.keys() {
            let chunk = self.chunks.get_mut(id).expect("it is queued again");
            chunk.recovery = Some(self.recoveries.next());
        }
        let subtasks = queued.values().map(|range| range.end - range.start).sum();
        let chunks = queued.len() as u64;
        self.recoveries.keep(Recovery {
            at: now,
            node: node.clone(),
            lost,
            how,
            chunks,
            subtasks,
            cut,
            given_up,
            waiting: chunks,
            again_after: None,
        });
        self.crashes += u64::from(died);
        self.orphaned += u64::from(lost == LossKind::Orphaned);
        self.reissued += chunks;
        self.lost += subtasks;
        self.offer_again(true, over, now);
        let told = events.len();
        self.conclude(now, events);
        if events.len() == told {
            events.push(Event::Hint(Hint::Room { job: self.id() }));
        }
        // They are dropped if the job has ended.
        let still_open = queued.keys().filter_map(|id| Some((*id, self.chunks.get(id)?)));
        still_open.map(|(id, chunk)| chunk.revoked(id)).collect()
    }

    /// The chunks that the node holds, with its tokens; only those claimed up to `claimed_by` if it
    /// is given.
    fn held_by(&self, node: &NodeId, claimed_by: Option<Timestamp>) -> Vec<(ChunkId, Token)> {
        let is_old = |since: Timestamp| claimed_by.is_none_or(|latest| since <= latest);
        let token = |chunk: &Chunk| match (&chunk.state, &chunk.speculation) {
            (ChunkState::Running { token, node: holder }, _) if holder == node => {
                is_old(chunk.since).then_some(*token)
            }
            (_, Some(Speculation::Held { token, node: holder, since })) if holder == node => {
                is_old(*since).then_some(*token)
            }
            _ => None,
        };
        self.chunks.iter().filter_map(|(id, chunk)| Some((*id, token(chunk)?))).collect()
    }

    /// Cuts a queued chunk, whose first part keeps its id; returns the parts.
    pub(super) fn cut(
        &mut self,
        id: ChunkId,
        parts: Vec<Range<u64>>,
    ) -> Vec<(ChunkId, Range<u64>)> {
        let chunk = self.chunks.get_mut(&id).expect("it is being cut");
        let mut parts = parts.into_iter();
        chunk.range = parts.next().expect("a chunk has a first part");
        let whole = chunk.clone();
        let mut all = vec![(id, whole.range.clone())];
        for range in parts {
            self.last_chunk += 1;
            let id = ChunkId(self.last_chunk);
            all.push((id, range.clone()));
            self.chunks.insert(id, Chunk { range, ..whole.clone() });
        }
        all
    }

    /// Fails the only subtask of a queued chunk for good.
    fn give_up(&mut self, id: ChunkId, error: String) {
        let chunk = self.chunks.remove(&id).expect("it is being given up");
        let last = chunk.deaths.last().expect("the evidence");
        let (node, at) = (last.node.clone(), last.at);
        let index = chunk.range.start;
        self.level_counts().queued -= 1;
        if self.done.get(index) {
            return;
        }
        let newly = self.failed.set_range(index..index + 1);
        self.level_counts().failed += newly;
        self.tell_last_error(index, &error);
        let (attempts, deaths) = (chunk.attempt, chunk.deaths);
        self.errors.keep(ErrorEntry { index, error, attempts, node, at, deaths });
    }

    /// Whether more chunks are open than may run at once, since some were cut.
    pub(super) fn is_over_parallel(&self) -> bool {
        let most = self.admission.max_parallel;
        most.is_some_and(|most| self.chunks.len() as u64 > most)
    }

    /// Sets chunks whose claims may have been refused because of a chunk that is no longer held to
    /// due at once: the other suspects if that chunk was one (`suspect`), all queued chunks if the
    /// job was `over` its `max_parallel`.
    pub(super) fn offer_again(&mut self, suspect: bool, over: bool, now: Timestamp) {
        if !suspect && !over {
            return;
        }
        for chunk in self.chunks.values_mut() {
            let refused = over || chunk.is_suspect();
            if let ChunkState::Queued { due } = &mut chunk.state
                && refused
            {
                *due = now;
            }
        }
    }
}

impl Chunk {
    fn revoked(&self, chunk: ChunkId) -> Revoked {
        let Range { start: from, end: to } = self.range;
        Revoked { chunk, from, to, epoch: self.epoch }
    }
}
