//! The operations on a job's chunks: open, claim, commit, release, sweep, speculative execution.
//!
//! A commit also ends the job, or moves it to its next level.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_protocol::state::{ChunkEvent, ChunkState, JobEvent, JobState};
use longshore_protocol::{
    ChunkId, ChunkMessage, Epoch, ErrorEntry, Hint, NodeId, OutcomeRun, Timestamp, Token,
};

use super::job::{Chunk, Job, Speculation, is_queued};
use super::retries::{IndexRun, Waiting};
use crate::Error;
use crate::op::{
    Claim, ClaimParams, Commit, CommitParams, Committed, Event, Grant, Holder, MAX_CHUNKS_A_CALL,
    MAX_PARTS, MAX_TRIED, OpenParams, ReleaseParams, Released, SpeculationRequest,
    SpeculativeChunk, SweepParams, shortened,
};

impl Job {
    pub(super) fn open(&mut self, open: &OpenParams, now: Timestamp) -> Vec<ChunkMessage> {
        if !self.feeds() || open.size == 0 {
            return Vec::new();
        }
        let open_now = self.chunks.len() as u64;
        let room = self.admission.max_parallel.map_or(u64::MAX, |max| max.saturating_sub(open_now));
        let wanted = u64::from(open.chunks.min(MAX_CHUNKS_A_CALL)).min(room) as usize;
        let due = now.plus(open.publish_within);

        let mut opened = Vec::with_capacity(wanted);
        for run in self.retries.take_due(now, wanted, open.size, &self.refunded) {
            let count = run.range.end - run.range.start;
            let counts = self.level_counts();
            counts.retrying -= count;
            counts.queued += count;
            opened.push(self.open_chunk(run, due, now));
        }
        while opened.len() < wanted {
            let Some(from) = self.done.next_zero(self.cursor..self.level.end) else {
                self.cursor = self.level.end;
                break;
            };
            let end = from.saturating_add(open.size).min(self.level.end);
            let to = self.done.next_one(from..end).unwrap_or(end);
            self.cursor = to;
            let counts = self.level_counts();
            counts.waiting -= to - from;
            counts.queued += to - from;
            let run = IndexRun { range: from..to, attempt: 1, deferrals: 0, tried: Vec::new() };
            opened.push(self.open_chunk(run, due, now));
        }
        opened
    }

    fn open_chunk(&mut self, run: IndexRun, due: Timestamp, now: Timestamp) -> ChunkMessage {
        self.last_chunk += 1;
        let id = ChunkId(self.last_chunk);
        let IndexRun { range, attempt, deferrals, tried } = run;
        let chunk = Chunk {
            range,
            attempt,
            deferrals,
            epoch: Epoch::FIRST,
            tried,
            deaths: Vec::new(),
            recovery: None,
            since: now,
            state: ChunkState::Queued { due },
            speculation: None,
        };
        let message = chunk.message(self.id(), id);
        self.chunks.insert(id, chunk);
        message
    }

    pub(super) fn claim(&mut self, params: &ClaimParams, now: Timestamp) -> Claim {
        let &ClaimParams { chunk: id, epoch, token, ref node } = params;
        if !self.state.was_accepted() {
            return Claim::Gone;
        }
        let digest = self.admission.digest.clone();
        let Some(chunk) = self.chunks.get(&id) else {
            return Claim::Gone;
        };
        let grant = Grant {
            from: chunk.range.start,
            to: chunk.range.end,
            attempt: chunk.attempt,
            deferrals: chunk.deferrals,
            crashes: chunk.crashes(),
            digest,
            tried: chunk.tried.clone(),
        };
        if chunk.holder(token).is_some() {
            return Claim::Granted(grant);
        }
        if !self.feeds() {
            return Claim::Gone;
        }
        if chunk.offers_speculation(epoch, node) {
            let chunk = self.chunks.get_mut(&id).expect("it was there just now");
            chunk.speculation = Some(Speculation::Held { token, node: node.clone(), since: now });
            self.speculative_chunks += 1;
            return Claim::Granted(grant);
        }
        let event = ChunkEvent::Claim { epoch, token, node: node.clone() };
        let Ok(running) = chunk.state.clone().on(chunk.epoch, event) else {
            return Claim::Stale { holder: chunk.node().cloned() };
        };
        if !self.has_room_for(chunk, node) {
            return Claim::Gone;
        }
        let chunk = self.chunks.get_mut(&id).expect("it was there just now");
        chunk.state = running;
        chunk.since = now;
        if let Some(recovery) = chunk.recovery.take() {
            self.recoveries.claimed(recovery, now);
        }
        let counts = self.level_counts();
        counts.queued -= grant.to - grant.from;
        counts.running += grant.to - grant.from;
        self.state = self
            .state
            .on(JobEvent::Start, self.resume_to)
            .expect("a job that feeds can start a chunk");
        self.started_at.get_or_insert(now);
        Claim::Granted(grant)
    }

    /// Whether a queued chunk may run on this node now. It may not only where chunks were cut:
    /// there may be more of them than `max_parallel`, and with two suspects on one node it would be
    /// unknown which of them killed it.
    fn has_room_for(&self, chunk: &Chunk, node: &NodeId) -> bool {
        let running = || self.chunks.values().filter(|chunk| !is_queued(chunk));
        if self.is_over_parallel()
            && running().count() as u64 >= self.admission.max_parallel.unwrap_or(u64::MAX)
        {
            return false;
        }
        !chunk.is_suspect()
            || !running().any(|other| other.is_suspect() && other.node() == Some(node))
    }

    pub(super) fn commit(
        &mut self,
        params: &CommitParams,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<Committed, Error> {
        let &CommitParams { chunk: id, token, ref commit } = params;
        commit.check()?;
        let over = self.is_over_parallel();
        let held = self.chunks.get_mut(&id).and_then(|chunk| {
            let node = chunk.holder(token)?.clone();
            Some((chunk, node))
        });
        let Some((chunk, node)) = held else {
            self.fenced += u64::from(!self.state.is_terminal());
            return Ok(Committed::Fenced);
        };
        let (from, to, end) = (chunk.range.start, chunk.range.end, commit.end());
        if end <= from {
            return Ok(Committed::Settled { state: self.state });
        }
        if commit.from > from || end > to {
            let (operation, start) = ("commit", commit.from);
            let detail = format!("{start}..{end} is no beginning of {from}..{to}");
            return Err(Error::Misuse { operation, detail });
        }
        let (attempt, deferrals, tried) = (chunk.attempt, chunk.deferrals, chunk.tried.clone());
        let before = Waiting { attempt, deferrals, index: from, tried };
        chunk.range.start = end;
        let closed = end == to;
        if closed {
            let suspect = chunk.is_suspect();
            self.chunks.remove(&id);
            self.offer_again(suspect, over, now);
        }
        self.settle(commit, &before, &node, now);
        let told = events.len();
        self.conclude(now, events);
        // A hint that the job went on to its next level implies this one.
        if closed && events.len() == told {
            events.push(Event::Hint(Hint::Room { job: self.id() }));
        }
        Ok(Committed::Settled { state: self.state })
    }

    /// Records the runs in the bitmaps, the retry set and the counts, from the chunk's start on: a
    /// second node that runs the chunk has settled the subtasks before.
    fn settle(&mut self, commit: &Commit, before: &Waiting, node: &NodeId, now: Timestamp) {
        let &Waiting { attempt, deferrals, index: start, .. } = before;
        // The entry of the retry set after another failure.
        let mut next = Waiting { attempt: attempt + 1, deferrals: 0, ..before.clone() };
        next.tried.push(node.clone());
        next.tried.drain(..next.tried.len().saturating_sub(MAX_TRIED));
        let refunded = next.clone().refund_attempts(&self.refunded);
        // Attempts on these nodes don't count, so this was not the last attempt.
        let is_refunded = refunded.tried.len() < next.tried.len();
        let mut index = commit.from;
        let mut last_error = None;
        let (mut done, mut failed, mut retrying) = (0, 0, 0);
        for run in &commit.runs {
            let from = index;
            index += run.len();
            let (again, delay) = match run {
                _ if index <= start => continue,
                OutcomeRun::Success { results, .. } => {
                    let new = from.max(start)..index;
                    if let Some(body) = results {
                        for range in self.done.clear_runs(new.clone()) {
                            self.results.keep(from, range, body);
                        }
                    }
                    done += self.done.set_range(new);
                    continue;
                }
                _ if self.done.get(from) => continue,
                OutcomeRun::Failed { error } if is_refunded => {
                    last_error = Some((from, error));
                    (Waiting { index: from, ..refunded.clone() }, Duration::ZERO)
                }
                OutcomeRun::Failed { error } => {
                    last_error = Some((from, error));
                    failed += self.failed.set_range(from..index);
                    self.errors.keep(ErrorEntry {
                        index: from,
                        error: error.clone(),
                        attempts: attempt,
                        node: node.clone(),
                        at: now,
                        deaths: Vec::new(),
                    });
                    continue;
                }
                OutcomeRun::Retry { error, delay } => {
                    last_error = Some((from, error));
                    (Waiting { index: from, ..next.clone() }, *delay)
                }
                OutcomeRun::Defer { delay } => {
                    let deferrals = deferrals + 1;
                    (Waiting { deferrals, index: from, ..before.clone() }, *delay)
                }
            };
            self.retries.insert(again, now.plus(delay));
            retrying += 1;
        }
        if let Some((index, error)) = last_error {
            self.tell_last_error(index, error);
        }
        let counts = self.level_counts();
        counts.running -= index - start;
        counts.done += done;
        counts.failed += failed;
        counts.retrying += retrying;
        self.attempts += index - start;
        self.busy += commit.busy;
    }

    pub(super) fn tried(&self, chunks: &[ChunkId]) -> Vec<Vec<NodeId>> {
        let tried = |id| self.chunks.get(id).map(|chunk| chunk.tried.clone()).unwrap_or_default();
        chunks.iter().map(tried).collect()
    }

    pub(super) fn refund_attempts(
        &mut self,
        nodes: &[NodeId],
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> u64 {
        if self.state.is_terminal() {
            return 0;
        }
        let before = std::mem::replace(&mut self.refunded, nodes.to_vec());
        let is_new = |node: &NodeId| nodes.contains(node) && !before.contains(node);
        let again: Vec<ErrorEntry> = self
            .errors
            .page(self.level.start, usize::MAX)
            .into_iter()
            .filter(|entry| self.level.contains(&entry.index))
            .filter(|entry| entry.deaths.is_empty() && is_new(&entry.node))
            .collect();
        for &ErrorEntry { index, attempts, .. } in &again {
            self.failed.clear_range(index..index + 1);
            self.errors.forget(index);
            let tried = Vec::new();
            let waiting = Waiting { attempt: attempts, deferrals: 0, index, tried };
            self.retries.insert(waiting, now);
        }
        let count = again.len() as u64;
        let counts = self.level_counts();
        counts.failed -= count;
        counts.retrying += count;
        if count > 0 {
            events.push(Event::Hint(Hint::Room { job: self.id() }));
        }
        count
    }

    pub(super) fn tell_last_error(&mut self, index: u64, error: &str) {
        let noun = if self.at_leaves() { "subtask" } else { "reduce node" };
        self.last_error = Some(format!("{noun} {index}: {}", shortened(error)));
    }

    /// Ends the job, or moves it to its next level, if its counts call for it.
    pub(super) fn conclude(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        let own = self.own_counts();
        let noun = if self.at_leaves() { "subtasks" } else { "reduce nodes" };
        let limit = self.admission.stop_after_failures.filter(|limit| own.failed >= *limit);
        let failure = match limit {
            Some(limit) => {
                let counts = format!("{} of {} {noun} failed", own.failed, own.total);
                Some(format!("{counts}; stop_after_failures is {limit}"))
            }
            None if own.open() > 0 => return,
            None if own.failed > 0 => {
                Some(format!("{} of {} {noun} failed", own.failed, own.total))
            }
            None if own.cancelled > 0 => {
                Some(format!("{} of {} {noun} were cancelled", own.cancelled, own.total))
            }
            None => None,
        };
        let next_level =
            self.tree.and_then(|tree| tree.levels().find(|level| level.start == self.level.end));
        let resume_to = self.resume_to;
        let on = |state: JobState, event| {
            state.on(event, resume_to).expect("an ended job has no chunks to settle")
        };
        match (failure, next_level) {
            (Some(error), _) => self.end(on(self.state, JobEvent::Fail), Some(error), now, events),
            (None, None) => self.end(on(self.state, JobEvent::Succeed), None, now, events),
            (None, Some(level)) => {
                // From the second level on, the job is reducing already.
                let reducing = |state: JobState| {
                    if state.is_reducing() { state } else { on(state, JobEvent::Reduce) }
                };
                if self.state.is_paused() {
                    self.resume_to = reducing(self.resume_to);
                } else {
                    self.state = reducing(self.state);
                }
                self.cursor = level.start;
                self.level = level;
                events.push(self.changed());
            }
        }
    }

    pub(super) fn release(
        &mut self,
        params: &ReleaseParams,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Released {
        let &ReleaseParams { chunk: id, token, part } = params;
        let over = self.is_over_parallel();
        let is_left = self.chunks.get_mut(&id).is_some_and(|chunk| match part {
            None => chunk.leave_to_other_holder(token),
            Some(_) => {
                chunk.keep_for(token);
                false
            }
        });
        if !is_left {
            let Some(chunk) = self.requeue(id, token, now) else {
                return Released::Fenced;
            };
            let (suspect, range) = (chunk.is_suspect(), chunk.range.clone());
            if let Some(part) = part {
                let size = part.max((range.end - range.start).div_ceil(MAX_PARTS)).max(1);
                let starts = range.clone().step_by(size as usize);
                let parts = starts.map(|from| from..range.end.min(from + size)).collect();
                self.cut(id, parts);
            }
            self.offer_again(suspect, over, now);
        }
        events.push(Event::Hint(Hint::Room { job: self.id() }));
        Released::Queued
    }

    pub(super) fn offer_speculative(
        &mut self,
        params: &SpeculationRequest,
        now: Timestamp,
    ) -> Vec<SpeculativeChunk> {
        if !self.feeds() || self.admission.max_parallel.is_some() {
            return Vec::new();
        }
        let job = self.id();
        let mut late: Vec<(ChunkId, &mut Chunk)> = self
            .chunks
            .iter_mut()
            .filter(|(_, chunk)| chunk.is_straggler(params, now))
            .map(|(id, chunk)| (*id, chunk))
            .collect();
        late.sort_by_key(|(id, chunk)| (chunk.since, *id));
        let offer = |(id, chunk): (ChunkId, &mut Chunk)| {
            chunk.speculation = Some(Speculation::Offered { at: now });
            chunk.epoch = Epoch(chunk.epoch.0 + 1);
            let holder = chunk.node().expect("it runs").clone();
            SpeculativeChunk { message: chunk.message(job, id), holder }
        };
        late.into_iter().take(params.chunks.min(MAX_CHUNKS_A_CALL) as usize).map(offer).collect()
    }

    pub(super) fn holders(&self) -> Vec<Holder> {
        let mut holders: BTreeMap<&NodeId, (Timestamp, Timestamp)> = BTreeMap::new();
        for (node, since) in self.chunks.values().flat_map(Chunk::holds) {
            let (oldest, newest) = holders.entry(node).or_insert((since, since));
            (*oldest, *newest) = ((*oldest).min(since), (*newest).max(since));
        }
        let holder =
            |(node, (oldest, newest)): (&NodeId, _)| Holder { node: node.clone(), oldest, newest };
        holders.into_iter().map(holder).collect()
    }

    /// Queues the rest of a held chunk under the next epoch, due at once.
    pub(super) fn requeue(
        &mut self,
        id: ChunkId,
        token: Token,
        now: Timestamp,
    ) -> Option<&mut Chunk> {
        let chunk = self.chunks.get_mut(&id)?;
        let event = ChunkEvent::Released { token, due: now };
        chunk.state = chunk.state.clone().on(chunk.epoch, event).ok()?;
        chunk.epoch = Epoch(chunk.epoch.0 + 1);
        chunk.since = now;
        chunk.speculation = None;
        let count = chunk.len();
        let counts = self.level_counts();
        counts.running -= count;
        counts.queued += count;
        self.chunks.get_mut(&id)
    }

    pub(super) fn sweep(&mut self, params: &SweepParams, now: Timestamp) -> Vec<ChunkMessage> {
        let &SweepParams { limit, publish_within, suspect_lost } = params;
        self.measure(now);
        if !self.feeds() {
            return Vec::new();
        }
        let job = self.id();
        let limit = limit.min(MAX_CHUNKS_A_CALL) as usize;
        self.chunks
            .iter_mut()
            .filter_map(|(id, chunk)| {
                let ChunkState::Queued { due } = &mut chunk.state else { return None };
                let queued_for = now.since(chunk.since);
                let is_suspected_lost = suspect_lost.is_some_and(|after| queued_for >= after);
                if *due > now && !is_suspected_lost {
                    return None;
                }
                // The iterator is lazy: only the chunks that `take` lets through are changed.
                *due = now.plus(publish_within.max(queued_for));
                Some(chunk.message(job, *id))
            })
            .take(limit)
            .collect()
    }
}

impl Chunk {
    /// The node that holds the chunk, if one does.
    pub(super) fn node(&self) -> Option<&NodeId> {
        match &self.state {
            ChunkState::Running { node, .. } => Some(node),
            ChunkState::Queued { .. } => None,
        }
    }

    /// The node that holds the chunk under this token, as the first or the second holder.
    pub(super) fn holder(&self, shown: Token) -> Option<&NodeId> {
        match (&self.state, &self.speculation) {
            (ChunkState::Running { token, node }, _) if *token == shown => Some(node),
            (_, Some(Speculation::Held { token, node, .. })) if *token == shown => Some(node),
            _ => None,
        }
    }

    /// The nodes that hold the chunk, with the times of their claims.
    fn holds(&self) -> impl Iterator<Item = (&NodeId, Timestamp)> {
        let second = match &self.speculation {
            Some(Speculation::Held { node, since, .. }) => Some((node, *since)),
            Some(Speculation::Offered { .. }) | None => None,
        };
        self.node().map(|node| (node, self.since)).into_iter().chain(second)
    }

    /// Whether the chunk has been running long enough to be offered to a second node. A chunk that
    /// killed a node is not: it runs on one node at a time.
    fn is_straggler(&self, request: &SpeculationRequest, now: Timestamp) -> bool {
        let is_free = match &self.speculation {
            Some(Speculation::Held { .. }) => false,
            Some(Speculation::Offered { at }) => now.since(*at) >= request.offer_for,
            None => true,
        };
        is_free
            && self.crashes() == 0
            && !is_queued(self)
            && (request.only.is_none() || self.node() != request.only.as_ref())
            && now.since(self.since) >= request.held_for
    }

    /// Whether a claim of this epoch makes the node the second holder.
    fn offers_speculation(&self, epoch: Epoch, node: &NodeId) -> bool {
        matches!(self.speculation, Some(Speculation::Offered { .. }))
            && self.epoch == epoch
            && self.node() != Some(node)
    }

    /// Makes the second holder the only one, if it has this token.
    fn keep_for(&mut self, shown: Token) {
        if let ChunkState::Running { token, .. } = &self.state
            && *token != shown
            && self.holder(shown).is_some()
        {
            let other = *token;
            self.leave_to_other_holder(other);
        }
    }

    /// Ends the hold of this token if another node holds the chunk too, which goes on alone; false
    /// if there is none.
    pub(super) fn leave_to_other_holder(&mut self, shown: Token) -> bool {
        let Some(Speculation::Held { token, node, since }) = &self.speculation else {
            return false;
        };
        if *token != shown {
            let event = ChunkEvent::HandOver { token: shown, to: *token, node: node.clone() };
            let Ok(state) = self.state.clone().on(self.epoch, event) else { return false };
            (self.state, self.since) = (state, *since);
        }
        self.speculation = None;
        true
    }
}
