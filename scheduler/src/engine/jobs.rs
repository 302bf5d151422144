//! The life of an entry: seen, studied, fed, over.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry as MapEntry;
use std::time::Duration;

use longshore_broker::Queue;
use longshore_ledger::{Event as Hint, Holder};
use longshore_protocol::document::Placement;
use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, JobSummary, NodeId, Timestamp};

use super::event::{Action, Keyed, Terms};
use super::job::Job;
use super::pool::{Pool, PoolKey};
use super::shares::Standing;
use super::window::{Load, UNMEASURED, has_room};
use super::{EagerChunk, Engine, Entry, Known, Lane, TROUBLE, TROUBLE_LONGEST, Trouble};

/// After a gap in the hints all jobs are looked at, at most so often. The sweep does it anyway, a
/// little later.
const GAPS_APART: Duration = Duration::from_secs(2);

impl Entry {
    /// A job of which nothing is known, and which is to be looked at.
    fn unseen() -> Self {
        Self {
            known: Known::Unseen,
            lane: Lane::Idle,
            wanted: true,
            in_line: false,
            wake: None,
            missed: false,
        }
    }
}

/// So many chunks of a job may be published once too often when a worker is lost: what one sweep
/// publishes again.
const FEW: u64 = 1_000;

impl Engine {
    pub(super) fn active(&mut self, now: Timestamp, jobs: &[JobId]) {
        for id in jobs {
            self.meet(now, *id);
        }
        let listed: BTreeSet<&JobId> = jobs.iter().collect();
        let mut gone = Vec::new();
        for (id, entry) in &mut self.jobs {
            let missing = !listed.contains(id);
            // Missing once can be a list that was read before the job was admitted.
            if missing && entry.missed && entry.lane == Lane::Idle {
                gone.push(*id);
            }
            entry.missed = missing;
        }
        gone.into_iter().for_each(|id| self.drop_job(id));
    }

    pub(super) fn meet(&mut self, now: Timestamp, id: JobId) {
        if let MapEntry::Vacant(place) = self.jobs.entry(id) {
            place.insert(Entry::unseen());
            self.reconsider(now, id);
        }
    }

    /// A job is about to be admitted here: until [`Event::Admitted`] or [`Event::NotAdmitted`]
    /// says how that went, hints about the job lead to no call. Returns how many subtasks a first
    /// chunk may have that the ledger opens in the same operation, or `None` if it should open none.
    pub fn begin_admission(
        &mut self,
        now: Timestamp,
        summary: JobSummary,
        terms: Terms,
    ) -> Option<u64> {
        let job = summary.id;
        let MapEntry::Vacant(place) = self.jobs.entry(job) else { return None };
        place.insert(Entry { lane: Lane::Admitting, wanted: false, ..Entry::unseen() });
        let pool = self.pool_of(&summary.queue, Some(&summary.task));
        let size = self.first_chunk(now, &pool, summary, terms)?;
        self.eager.insert(job, EagerChunk { pool, promised_at: now });
        Some(size)
    }

    /// The size of a first chunk: one is opened if the window has room and no other job of the pool
    /// waits for a slot. Not where chunks are placed by key, since the key has to be read first.
    fn first_chunk(
        &self,
        now: Timestamp,
        key: &PoolKey,
        summary: JobSummary,
        terms: Terms,
    ) -> Option<u64> {
        let is_keyed = matches!(terms.placement, Placement::Hash(_));
        let can_publish = self.link_up && self.trouble.is_none();
        if is_keyed || !can_publish || !self.is_mine(&summary.queue) {
            return None;
        }
        let (hands, mut load) = match self.pools.get(key) {
            Some(pool) if pool.shares.next().is_some() => return None,
            Some(pool) => (pool.hands, pool.load),
            None => (Pool::new(key, &self.fleet).hands, Load::default()),
        };
        let promised = self.eager.values().filter(|other| other.pool == *key).count() as u64;
        load.waiting += promised;
        load.work_us += promised * UNMEASURED.as_micros() as u64;
        let mut job = Job::new(now, self.count(), summary);
        job.terms = Some(terms);
        let offer = job.offer(now, self.ledger_now(now), hands.slots);
        (offer.chunks > 0 && has_room(hands, load)).then_some(offer.size)
    }

    /// A new job that is ours needs no look and no study.
    pub(super) fn admitted(
        &mut self,
        now: Timestamp,
        summary: Box<JobSummary>,
        terms: Terms,
        opened: Option<Keyed>,
    ) {
        let (id, is_mine, jobs) = (summary.id, self.is_mine(&summary.queue), self.count());
        let eager = self.eager.remove(&id);
        match self.jobs.get_mut(&id) {
            Some(entry) if entry.lane == Lane::Admitting => {
                entry.lane = Lane::Idle;
                let known = if is_mine {
                    let mut job = Job::new(now, jobs, *summary);
                    job.terms = Some(terms);
                    if opened.is_some() {
                        job.opened(now, 1, opened.as_slice());
                    }
                    // Its first chunk may have been claimed, and its holder lost, before we heard of it.
                    if eager.is_some_and(|it| self.recovery.is_news_since(it.promised_at)) {
                        job.ask_holders();
                    }
                    Known::Ours(Box::new(job))
                } else {
                    self.ceded.insert(id, now);
                    Known::Elsewhere(summary.queue)
                };
                self.become_known(id, known);
                self.publish(now, id, opened.as_slice());
                self.reconsider(now, id);
            }
            // We heard of it before.
            _ => self.hint(now, &Hint::Job { job: id, state: summary.state }),
        }
    }

    pub(super) fn not_admitted(&mut self, now: Timestamp, id: JobId, known: bool) {
        self.eager.remove(&id);
        if self.jobs.get(&id).is_some_and(|entry| entry.lane == Lane::Admitting) {
            self.drop_job(id);
        }
        if known {
            self.hint(now, &Hint::Job { job: id, state: JobState::Queued });
        }
    }

    fn drop_job(&mut self, id: JobId) {
        self.become_known(id, Known::Over);
        if let Some(wake) = self.jobs.remove(&id).and_then(|entry| entry.wake) {
            self.timers.remove(&(wake, id));
        }
    }

    /// What we know of a job is of another kind now: its pool takes it in or lets it go.
    pub(super) fn become_known(&mut self, id: JobId, known: Known) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.known, known);
        if let Known::Ours(job) = before {
            self.leave_pool(id, &job.pool, job.counted);
        }
        match &self.jobs[&id].known {
            Known::Ours(_) => self.join_pool(id),
            Known::Unseen => self.want(id),
            Known::Elsewhere(_) | Known::Over => {}
        }
    }

    fn want(&mut self, id: JobId) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.wanted = true;
        }
    }

    pub(super) fn hint(&mut self, now: Timestamp, hint: &Hint) {
        match hint {
            Hint::Job { job, state } if self.goes_as_expected(*job, *state) => {}
            Hint::Job { job, state } => {
                self.meet(now, *job);
                let entry = self.jobs.get_mut(job).expect("just met");
                // More than that it was admitted.
                entry.wanted |= entry.lane == Lane::Admitting && !state.is_queued();
                let over = matches!(self.jobs[job].known, Known::Over);
                if over && !state.is_terminal() {
                    self.become_known(*job, Known::Unseen);
                }
                if state.is_terminal() && self.rests(*job) {
                    // If it has been re-opened since, the list brings it back.
                    self.become_known(*job, Known::Over);
                    self.reconsider(now, *job);
                }
                self.hinted(now, *job);
            }
            Hint::Room { job } => self.hinted(now, *job),
            Hint::Node { .. } | Hint::Scheduler { .. } | Hint::Ended(_) => {}
            // A flood of hints comes with a gap after each burst; looking at all jobs each time
            // would be another.
            Hint::Gap if now.since(self.gap_at) < GAPS_APART => {}
            Hint::Gap => {
                self.gap_at = now;
                self.missed_hints(now);
            }
        }
    }

    /// Those that have chunks open are looked at now: they are as many as the windows hold. The
    /// others follow one by one.
    fn missed_hints(&mut self, now: Timestamp) {
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        let mut before = 0;
        for id in ids {
            let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) else {
                continue;
            };
            if job.is_open() {
                self.hinted(now, id);
            } else {
                before += 1;
                job.suspected(now, before);
                self.reconsider(now, id);
            }
        }
    }

    /// Messages of these jobs may have been lost.
    pub(super) fn doubt(&mut self, now: Timestamp, jobs: impl IntoIterator<Item = JobId>) {
        for id in jobs {
            if let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) {
                job.doubt(now);
            }
            self.reconsider(now, id);
        }
    }

    /// Workers of these queues are lost, and with them what waited for them alone. With `all` also
    /// what they had fetched from the queue that all workers share: of a process that is gone
    /// RabbitMQ gives that to others at once.
    pub(super) fn doubt_queues(&mut self, now: Timestamp, queues: &BTreeSet<String>, all: bool) {
        let is_lost = |id: &JobId| match &self.jobs[id].known {
            Known::Ours(job) => {
                let queued = job.summary.queued_chunks;
                // A retry is sent to a node where the subtask has not failed yet. Where much else
                // waits that can run, it may as well be found when it is overdue.
                let has_retries = job.has_failures() && queued <= FEW;
                queued > 0 && (all || !job.is_shared() || has_retries)
            }
            _ => false,
        };
        let is_theirs = |key: &PoolKey| queues.contains(&key.queue);
        let pools = self.pools.iter().filter_map(|(key, pool)| is_theirs(key).then_some(pool));
        let lost: Vec<JobId> = pools.flat_map(|pool| &pool.jobs).copied().filter(is_lost).collect();
        self.doubt(now, lost);
    }

    /// Whether a job is ours and no call about it is under way.
    fn rests(&self, id: JobId) -> bool {
        let entry = self.jobs.get(&id);
        entry.is_some_and(|it| it.lane == Lane::Idle && matches!(it.known, Known::Ours(_)))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.jobs.len()).unwrap_or(u32::MAX)
    }

    fn goes_as_expected(&mut self, id: JobId, state: JobState) -> bool {
        match self.jobs.get_mut(&id) {
            Some(Entry { known: Known::Ours(job), .. }) => job.goes_as_expected(state),
            _ => false,
        }
    }

    fn hinted(&mut self, now: Timestamp, id: JobId) {
        if let Some(Entry { known: Known::Ours(job), wanted, .. }) = self.jobs.get_mut(&id) {
            job.hinted(now);
            *wanted = true;
            self.reconsider(now, id);
        }
    }

    /// A call about a job was answered: its lane is free. Gives what was under way.
    pub(super) fn answered(&mut self, id: JobId) -> Lane {
        self.trouble = None;
        self.free_lane(id)
    }

    fn free_lane(&mut self, id: JobId) -> Lane {
        self.in_flight = self.in_flight.saturating_sub(1);
        match self.jobs.get_mut(&id) {
            Some(entry) => std::mem::replace(&mut entry.lane, Lane::Idle),
            None => Lane::Idle,
        }
    }

    pub(super) fn looked(
        &mut self,
        now: Timestamp,
        id: JobId,
        summary: Option<Box<JobSummary>>,
        overdue: &[Keyed],
    ) {
        let lane = self.answered(id);
        let jobs = self.count();
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        match summary {
            Some(summary) if !summary.state.is_terminal() => {
                if let Known::Ours(job) = &mut entry.known {
                    job.update(*summary);
                } else if self.is_mine(&summary.queue) {
                    let job = Job::new(now, jobs, *summary);
                    self.become_known(id, Known::Ours(Box::new(job)));
                } else {
                    self.become_known(id, Known::Elsewhere(summary.queue));
                }
            }
            Some(summary) if !self.is_mine(&summary.queue) => {
                self.become_known(id, Known::Elsewhere(summary.queue));
            }
            _ => self.become_known(id, Known::Over),
        }
        // While the broker is away nothing can be published again, so a look does in place of a
        // sweep.
        let swept = matches!(lane, Lane::Sweeping { .. });
        if (swept || !self.link_up)
            && let Some(Entry { known: Known::Ours(job), wanted, .. }) = self.jobs.get_mut(&id)
        {
            if lane == (Lane::Sweeping { doubt: true }) {
                job.doubted(now);
            }
            job.swept(now, *wanted, jobs);
        }
        self.publish(now, id, overdue);
        self.reconsider(now, id);
    }

    pub(super) fn studied(&mut self, now: Timestamp, id: JobId, terms: Terms) {
        self.answered(id);
        if let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) {
            job.terms = Some(terms);
        }
        self.reconsider(now, id);
    }

    pub(super) fn opened(&mut self, now: Timestamp, id: JobId, chunks: &[Keyed]) {
        let lane = self.answered(id);
        if let (Lane::Opening(asked), Some(Entry { known: Known::Ours(job), wanted, .. })) =
            (lane, self.jobs.get_mut(&id))
        {
            *wanted |= !job.opened(now, asked.chunks, chunks);
        }
        self.publish(now, id, chunks);
        self.reconsider(now, id);
    }

    pub(super) fn held(&mut self, now: Timestamp, id: JobId, by: &[Holder]) {
        self.answered(id);
        for Holder { node, .. } in by {
            if self.recovery.is_lost(node) {
                self.recovery.take_back(node, id);
            } else if !self.fleet.is_listed(node) {
                self.unlisted.met(now, node);
            }
        }
        for (node, claimed_by) in self.orphans.asked(id, &self.fleet.words(id, by)) {
            self.recovery.take_orphans((id, node), claimed_by, &mut self.actions);
        }
        self.reconsider(now, id);
    }

    /// The holders of a job are worth a look.
    pub(super) fn ask_holders(&mut self, now: Timestamp, id: JobId) {
        if let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get_mut(&id) {
            job.ask_holders();
        }
        self.reconsider(now, id);
    }

    pub(super) fn absolved(&mut self, now: Timestamp, id: JobId, nodes: Vec<NodeId>) {
        self.answered(id);
        if let Some(Entry { known: Known::Ours(job), wanted, .. }) = self.jobs.get_mut(&id) {
            job.absolved = nodes;
            *wanted = true;
        }
        self.reconsider(now, id);
    }

    pub(super) fn closed(&mut self, now: Timestamp, id: JobId) {
        self.answered(id);
        match self.jobs.get(&id).map(|entry| &entry.known) {
            Some(Known::Over) => self.drop_job(id),
            Some(_) => {
                self.want(id);
                self.reconsider(now, id);
            }
            None => {}
        }
    }

    pub(super) fn unanswered(&mut self, now: Timestamp, id: JobId) {
        let lane = self.free_lane(id);
        if let (Lane::AskingHolders, Some(Entry { known: Known::Ours(job), .. })) =
            (lane, self.jobs.get_mut(&id))
        {
            job.ask_holders();
        }
        let pause = match self.trouble {
            // One of many that were under way when the trouble began.
            Some(trouble) if now < trouble.until => None,
            Some(trouble) => Some((trouble.pause * 2).min(TROUBLE_LONGEST)),
            None => Some(TROUBLE),
        };
        if let Some(pause) = pause {
            self.trouble = Some(Trouble { until: now.plus(pause), pause });
        }
        self.want(id);
        self.reconsider(now, id);
    }

    /// A chunk goes to where the job wants it. One that can't be placed any more, because the job
    /// went to another scheduler, is left to the sweep.
    fn publish(&mut self, now: Timestamp, id: JobId, chunks: &[Keyed]) {
        let ledger_now = self.ledger_now(now).unwrap_or_default();
        let Some(Entry { known: Known::Ours(job), .. }) = self.jobs.get(&id) else { return };
        let Some(pool) = self.pools.get_mut(&job.pool) else { return };
        let placement = job.terms.as_ref().map_or(&Placement::Shared, |terms| &terms.placement);
        let task = job.task().unwrap_or_default();
        let is_doubtful = |node: &NodeId| self.health.is_doubtful(task, node);
        for chunk in chunks {
            let queue = if chunk.tried.is_empty() {
                // Where its failure takes nothing from the job.
                let (queue, absolved) = (&job.pool.queue, &job.absolved);
                self.fleet.probe(queue, task, ledger_now, absolved).map(Queue::Node)
            } else {
                pool.placer.place_elsewhere(now, &chunk.tried, is_doubtful, &self.fleet)
            };
            let queue = queue.or_else(|| pool.placer.place(now, placement, chunk, &self.fleet));
            let chunk = chunk.clone();
            self.actions.extend(queue.map(|queue| Action::Publish { queue, chunk }));
        }
    }

    pub(super) fn returned(&mut self, now: Timestamp, node: &NodeId, chunk: Keyed) {
        for pool in self.pools.values_mut() {
            pool.placer.shun(now, node);
        }
        self.publish(now, chunk.message.job, &[chunk]);
    }

    pub(super) fn wake_jobs(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.wake = None;
            }
            self.reconsider(now, id);
        }
    }

    /// Brings everything that follows from what is known of a job up to date: its part of the
    /// pool's load, what it owes, whether it takes part in the sharing, its place in the line, and
    /// its timer.
    pub(super) fn reconsider(&mut self, now: Timestamp, id: JobId) {
        let ledger_now = self.ledger_now(now);
        self.change_pool(now, id);
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        let mut wake = None;
        if let Known::Ours(job) = &mut entry.known
            && let Some(pool) = self.pools.get_mut(&job.pool)
        {
            let opening =
                if let Lane::Opening(opening) = entry.lane { Some(opening) } else { None };
            let load = job.load(opening, ledger_now);
            pool.load.replace(job.counted, load);
            job.counted = load;
            if opening.is_none() {
                pool.shares.charge(id, job.owes_us(ledger_now));
            }
            let offered = job.offer(now, ledger_now, pool.hands.slots).chunks;
            let standing = match entry.lane {
                _ if offered == 0 => Standing::Idle,
                // What lost workers held goes first.
                Lane::Idle if job.holders_are_due(now) => Standing::Busy,
                Lane::Idle => Standing::Ready,
                Lane::Opening(opening) if opening.chunks >= offered => Standing::Spent,
                _ => Standing::Busy,
            };
            pool.shares.stand(id, standing);
            wake = job.wake(now, ledger_now);
            self.touched.insert(job.pool.clone());
        }
        if entry.wake != wake {
            if let Some(old) = entry.wake.take() {
                self.timers.remove(&(old, id));
            }
            if let Some(new) = wake {
                self.timers.insert((new, id));
            }
            entry.wake = wake;
        }
        self.line_up(now, id);
    }

    /// Where messages of a job that are overdue may still wait.
    pub(super) fn resting_place(&self, job: &Job) -> Option<(Queue, u64)> {
        let pool = self.pools.get(&job.pool).filter(|_| job.is_shared())?;
        let others = pool.load.waiting.saturating_sub(job.counted.waiting);
        Some((Queue::Work(job.summary.queue.clone()), others))
    }
}
