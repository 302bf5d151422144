//! The history of a run, recorded by handlers and ledger operations, and the checkers of each step.
//!
//! It is kept outside of broker and ledger, so that a bug in them can't hide itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_ledger::{Commit, Ledger, Stop, StopReason};
use longshore_protocol::{
    Audit, ChunkId, Epoch, JobId, JobSummary, NodeId, OutcomeRun, Timestamp, Token,
};

use crate::process::{Impairment, Process};
use crate::sabotage::Sabotage;
use crate::workload::{Behavior, Job};
use crate::world::World;

/// Tolerance for timers, which count milliseconds and fire in any order within one.
const SLACK: Duration = Duration::from_millis(20);

/// How long a stopped handler may take until it is dropped (the grace of the worker's Rust tasks).
const STOPPED_WITHIN: Duration = Duration::from_millis(500);

/// By this time schedulers know all workers.
const FLEET_IS_KNOWN: Duration = Duration::from_secs(3);

/// What has happened so far in a run.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) holders: Holders,
    /// The epoch under which each token was granted. A rollback does not reset it.
    pub(crate) epochs: HashMap<Token, Epoch>,
    /// Chunks that were revoked from a node.
    pub(crate) revoked: BTreeSet<(JobId, ChunkId)>,
    /// Jobs of which a chunk was split when it was released.
    pub(crate) split: BTreeSet<JobId>,
    /// Jobs that were cancelled before their admission, without a rollback since.
    pub(crate) cancelled_early: BTreeSet<JobId>,
    /// When the ledger was last rolled back.
    pub(crate) rolled_back_at: Duration,
    /// Paused jobs, with the time of the pause.
    pub(crate) paused: BTreeMap<JobId, Duration>,
    /// The lines that a claim wrote to an object, by job, first subtask and token.
    pub(crate) written: HashMap<(JobId, u64, Token), Vec<String>>,
    /// The result of the counted attempt, by index.
    pub(crate) counted: BTreeMap<(JobId, u64), String>,
    indices: BTreeMap<(JobId, u64), Index>,
    /// The processes on which attempts failed because all subtasks fail there.
    failing_nodes: BTreeSet<(JobId, u64, String)>,
    running: BTreeMap<u64, Running>,
    next_run: u64,
    /// The start of the last successful heartbeat, by process.
    pub(crate) heard: HashMap<String, Duration>,
    /// The subtasks that each token was granted.
    subtasks: HashMap<Token, Range<u64>>,
    /// The grants of each subtask, oldest first.
    grants: HashMap<(JobId, u64), Vec<SubtaskGrant>>,
    /// The start and the answer of the heartbeat that reported a token as one to stop.
    stopped: HashMap<Token, (Duration, Duration)>,
    /// Workers that were killed or are frozen.
    pub(crate) lost: BTreeMap<NodeId, LostWorker>,
    /// When a scheduler was last killed, or when the first one started again after all were dead.
    pub(crate) scheduler_died: Duration,
    /// Since when each idle job has been waiting without an open chunk.
    pub(crate) idle_since: BTreeMap<JobId, Duration>,
    /// When a process last received a grant of a job.
    granted: HashMap<(String, JobId), Duration>,
}

impl History {
    /// Records that a node holds these subtasks. A repeated claim under one token counts once.
    pub(crate) fn granted(
        &mut self,
        at: Duration,
        (job, subtasks): (JobId, Range<u64>),
        epoch: Epoch,
        (node, token): (&NodeId, Token),
    ) {
        self.subtasks.insert(token, subtasks.clone());
        if self.epochs.insert(token, epoch).is_none() {
            for index in subtasks {
                self.indices.entry((job, index)).or_default().holders += 1;
                let grant = SubtaskGrant { at, node: node.clone(), token };
                self.grants.entry((job, index)).or_default().push(grant);
            }
        }
    }

    /// The token under which a process runs an attempt that began at this time: its newest grant of
    /// the subtask until then.
    fn token_of(&self, process: &Process, at: (JobId, u64), since: Duration) -> Option<Token> {
        let own = format!("{}-", process.name);
        let grants = self.grants.get(&at)?.iter();
        let mut own =
            grants.filter(|grant| grant.at <= since && grant.node.as_str().starts_with(&own));
        own.next_back().map(|grant| grant.token)
    }
}

/// The grant of a subtask to a worker.
#[derive(Clone, Debug)]
struct SubtaskGrant {
    at: Duration,
    node: NodeId,
    token: Token,
}

/// The attempts at one index so far.
#[derive(Clone, Copy, Debug, Default)]
struct Index {
    /// Bit `a` is set if attempt `a` failed or may have failed.
    failed: u32,
    /// An attempt failed, or may have failed, on a sound node.
    failed_of_itself: bool,
    deferred: u32,
    succeeded: bool,
    /// How often the index was granted.
    holders: u32,
    /// The last attempt that the job allows failed on a node where all subtasks fail.
    exhausted_where_all_fail: bool,
    /// How many attempts began.
    begun: u32,
    /// How often the index was offered speculatively.
    speculative_offers: u32,
}

impl Index {
    /// Records a failure that the subtask itself caused.
    fn fail(&mut self, attempt: u32) {
        self.failed |= 1 << attempt;
        self.failed_of_itself = true;
    }

    fn has_outcome(&self) -> bool {
        self.succeeded || self.failed != 0 || self.deferred > 0
    }
}

struct Running {
    process: Arc<Process>,
    job: JobId,
    index: u64,
    since: Duration,
}

/// A worker that was killed or is frozen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LostWorker {
    /// When it stopped.
    pub(crate) at: Duration,
    /// The time within which its chunks must be queued again.
    pub(crate) within: Duration,
}

/// The holder of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) token: Token,
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) to: u64,
    /// The time of the grant, by the ledger's clock.
    pub(crate) since: Timestamp,
}

/// The holders of all chunks, according to the ledger's answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    chunks: BTreeMap<(JobId, ChunkId), Vec<Holder>>,
    /// Chunks that a second node may claim speculatively.
    offered: BTreeSet<(JobId, ChunkId)>,
}

impl Holders {
    /// Whether a second node may be granted the chunk.
    pub(crate) fn offers(&self, job: JobId, chunk: ChunkId) -> bool {
        self.offered.contains(&(job, chunk))
    }

    /// Records a grant. Returns the token that still holds the chunk, unless the grant repeats it
    /// or is speculative.
    pub(crate) fn granted(&mut self, job: JobId, chunk: ChunkId, holder: Holder) -> Option<Token> {
        let holders = self.chunks.entry((job, chunk)).or_default();
        if holders.iter().any(|other| other.token == holder.token) {
            return None;
        }
        let before = holders.first().map(|other| other.token);
        let is_speculative = self.offered.remove(&(job, chunk));
        if !is_speculative {
            holders.clear();
        }
        holders.push(holder);
        before.filter(|_| !is_speculative)
    }

    pub(crate) fn offered(&mut self, job: JobId, chunk: ChunkId) {
        self.offered.insert((job, chunk));
    }

    pub(crate) fn of(&self, job: JobId, chunk: ChunkId) -> &[Holder] {
        self.chunks.get(&(job, chunk)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether operations on the chunk may succeed under a token: it holds the chunk, or no holder
    /// is known.
    pub(crate) fn allow(&self, job: JobId, chunk: ChunkId, token: Token) -> bool {
        let holders = self.of(job, chunk);
        holders.is_empty() || holders.iter().any(|holder| holder.token == token)
    }

    pub(crate) fn released(&mut self, job: JobId, chunk: ChunkId, token: Token) {
        if let Some(holders) = self.chunks.get_mut(&(job, chunk)) {
            holders.retain(|holder| holder.token != token);
            if holders.is_empty() {
                self.offered.remove(&(job, chunk));
            }
        }
    }

    /// Records that the chunk was split and has no holders any more.
    pub(crate) fn split(&mut self, job: JobId, chunk: ChunkId) {
        self.chunks.remove(&(job, chunk));
        self.offered.remove(&(job, chunk));
    }

    /// Records that a node's chunks of a job were revoked, those claimed by `claimed_by` if it is
    /// given.
    pub(crate) fn revoked(&mut self, job: JobId, node: &NodeId, claimed_by: Option<Timestamp>) {
        for ((of, chunk), holders) in &mut self.chunks {
            let is_old = |holder: &Holder| claimed_by.is_none_or(|latest| holder.since <= latest);
            if *of == job && !holders.is_empty() {
                holders.retain(|holder| holder.node != *node || !is_old(holder));
                if holders.is_empty() {
                    self.offered.remove(&(job, *chunk));
                }
            }
        }
    }

    pub(crate) fn ended(&mut self, job: JobId) {
        self.chunks.retain(|(of, _), _| *of != job);
    }
}

/// A running attempt. It is dropped when the attempt ends for any reason.
pub(crate) struct Attempt {
    world: Arc<World>,
    /// The number of the attempt, unique in the run.
    pub(crate) run: u64,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.world.history.lock().running.remove(&self.run);
    }
}

impl World {
    /// Records that a handler begins, and checks that it may.
    pub(crate) fn attempt_begins(
        self: &Arc<Self>,
        process: &Arc<Process>,
        job: JobId,
        index: u64,
        attempt: u32,
    ) -> Attempt {
        self.count("attempts");
        self.note(|| format!("{} begins {job}/{index}, attempt {attempt}", process.name));
        self.check_wanted(job, index);
        self.check_attempt(job, index, attempt);
        self.check_pause(process, job, index);
        self.check_fenced(process, job, index);
        self.check_begun(process, job, index, attempt);
        let mut history = self.history.lock();
        let overruns = self.jobs.get(&job).map(|job| job.behavior(index));
        if matches!(overruns, Some(Behavior::Overruns(times)) if attempt <= times) {
            history.indices.entry((job, index)).or_default().fail(attempt);
        }
        history.next_run += 1;
        let run = history.next_run;
        let since = self.now();
        history.running.insert(run, Running { process: process.clone(), job, index, since });
        Attempt { world: self.clone(), run }
    }

    pub(crate) fn attempt_succeeded(&self, job: JobId, index: u64) {
        self.history.lock().indices.entry((job, index)).or_default().succeeded = true;
    }

    pub(crate) fn attempt_failed(&self, job: JobId, index: u64, attempt: u32) {
        self.history.lock().indices.entry((job, index)).or_default().fail(attempt);
    }

    /// Checks S14: a retry goes to a node on which no attempt failed, if there is one. The first
    /// worker always runs, can run all tasks, and a subtask fails there only by itself.
    pub(crate) fn attempt_failed_where_all_fail(
        &self,
        process: &Process,
        job: JobId,
        index: u64,
        attempt: u32,
    ) {
        self.count("attempts failed where all fail");
        let allowed = self.jobs.get(&job).map_or(0, |job| job.document.retry.attempts);
        let mut history = self.history.lock();
        let entry = history.indices.entry((job, index)).or_default();
        entry.failed |= 1 << attempt;
        entry.exhausted_where_all_fail |= attempt >= allowed;
        let failed_of_itself = entry.failed_of_itself;
        let is_new = history.failing_nodes.insert((job, index, process.name.clone()));
        drop(history);
        let is_steady = self.is_steady.load(Ordering::Relaxed) && self.now() > FLEET_IS_KNOWN;
        if !is_new && attempt > 1 && is_steady && !failed_of_itself {
            self.violated("S14", || {
                format!("{job}/{index}: attempt {attempt} on {} again, as before", process.name)
            });
        }
    }

    /// Records a deferral (`not_now`) if the subtask has deferrals left, and returns whether it
    /// has.
    pub(crate) fn attempt_deferred(&self, job: JobId, index: u64, times: u32) -> bool {
        let mut history = self.history.lock();
        let index = history.indices.entry((job, index)).or_default();
        index.deferred += 1;
        index.deferred <= times
    }

    /// Records that all subtasks of a chunk's holders were offered speculatively.
    pub(crate) fn offered_speculatively(&self, job: JobId, chunk: ChunkId) {
        let mut history = self.history.lock();
        let holders = history.holders.of(job, chunk);
        let held = holders.iter().filter_map(|holder| history.subtasks.get(&holder.token));
        for index in held.cloned().collect::<Vec<_>>().into_iter().flatten() {
            history.indices.entry((job, index)).or_default().speculative_offers += 1;
        }
    }

    pub(crate) fn stops_heard(&self, begun: Duration, stops: &[Stop]) {
        let (now, mut history) = (self.now(), self.history.lock());
        for stop in stops.iter().filter(|stop| stop.reason != StopReason::Paused) {
            // The worker takes a while to drop the chunk, which may be reported again.
            history.stopped.entry(stop.held.token).or_insert((begun, now));
        }
    }

    pub(crate) fn heartbeat_heard(&self, process: &Process, begun: Duration) {
        self.history.lock().heard.insert(process.name.clone(), begun);
    }

    pub(crate) fn grant_heard(&self, process: &Process, job: JobId) {
        let now = self.now();
        self.history.lock().granted.insert((process.name.clone(), job), now);
    }

    pub(crate) fn succeeded(&self, job: JobId, index: u64) -> bool {
        self.history.lock().indices.get(&(job, index)).is_some_and(|index| index.succeeded)
    }

    /// How many subtasks of a job may fail though they don't fail by themselves. Either enough
    /// nodes held them for the subtasks to be taken for poison: two may have died until a subtask
    /// is isolated, and three with it alone; only the node knows whether it had begun. Or their
    /// last attempt failed on a node where all subtasks fail, so that no other attempt can disprove
    /// it.
    pub(crate) fn unlucky(&self, job: &Job) -> u64 {
        const DEATHS: u32 = 5;
        let history = self.history.lock();
        let indices = history.indices.range((job.id, 0)..(job.id, job.total));
        let is_unlucky = |known: &Index| known.holders >= DEATHS || known.exhausted_where_all_fail;
        indices.filter(|((_, index), known)| is_unlucky(known) && !job.fails(*index)).count() as u64
    }

    // Checkers of a step

    /// Checks S19.
    fn check_wanted(&self, job: JobId, index: u64) {
        if self.history.lock().cancelled_early.contains(&job) {
            self.violated("S19", || {
                format!("{job}/{index} began though the job was cancelled before")
            });
        }
    }

    /// Checks S5.
    fn check_attempt(&self, job: JobId, index: u64, attempt: u32) {
        let history = self.history.lock();
        let failed = history.indices.get(&(job, index)).map_or(0, |index| index.failed);
        drop(history);
        let allowed = self.jobs.get(&job).map_or(0, |job| job.document.retry.attempts);
        let earned = attempt == 1 || failed & (1 << (attempt - 1)) != 0;
        if attempt > allowed || !earned {
            self.violated("S5", || {
                format!(
                    "{job}/{index}: attempt {attempt} of {allowed} though no attempt before failed"
                )
            });
        }
    }

    /// Checks S9. A worker learns of a pause from its next heartbeat. A claim whose answer was lost
    /// may be granted again later; then the worker learns of the pause from the first heartbeat
    /// after that grant.
    fn check_pause(&self, process: &Process, job: JobId, index: u64) {
        let history = self.history.lock();
        let Some(paused) = history.paused.get(&job).copied() else { return };
        let granted = history.granted.get(&(process.name.clone(), job)).copied();
        let heard = history.heard.get(&process.name).copied().unwrap_or_default();
        drop(history);
        if heard < paused {
            // A worker that is cut off may run the chunks that it holds.
            return;
        }
        let since = granted.map_or(paused, |granted| granted.max(paused));
        let bound = 2 * process.dead_after();
        if self.now() > since + bound {
            self.violated("S9", || {
                format!("{job}/{index} began on {} after {bound:?} of pause", process.name)
            });
        }
    }

    /// Checks S11. Reductions may overlap.
    fn check_fenced(&self, process: &Process, job: JobId, index: u64) {
        let is_exclusive = |job: &Job| job.is_exclusive() && index < job.total;
        if !self.jobs.get(&job).is_some_and(is_exclusive) {
            return;
        }
        let heard = self.history.lock().heard.get(&process.name).copied().unwrap_or_default();
        let silent = self.now().saturating_sub(heard);
        if !process.is_dead() && silent > process.dead_after() + SLACK {
            self.violated("S11", || {
                format!("{job}/{index} runs on {}, unheard for {silent:?}", process.name)
            });
        }
    }

    /// Checks S16.
    fn check_begun(&self, process: &Process, job: JobId, index: u64, attempt: u32) {
        let mut history = self.history.lock();
        let known = history.indices.entry((job, index)).or_default();
        known.begun += 1;
        let again = known.failed.count_ones() + known.deferred + known.speculative_offers;
        let Index { begun, .. } = *known;
        drop(history);
        let may_begin_again = self.jobs.get(&job).is_none_or(Job::may_begin_again);
        // A build with another deliberate bug may begin attempts twice; the checker of that bug has
        // to catch it.
        let is_judged = self.sabotage.is_none_or(|by| by.breaks() == "S16");
        if self.only_servers_fail && is_judged && !may_begin_again && begun > 1 + again {
            self.violated("S16", || {
                format!("{job}/{index} began again on {}, attempt {attempt}", process.name)
            });
        }
    }

    /// Checks S17. A worker that was told to stop one grant may hold the subtask by another one.
    fn check_stopped(&self, process: &Process, job: JobId, index: u64, since: Duration) {
        let history = self.history.lock();
        let token = history.token_of(process, (job, index), since);
        let stop = token.and_then(|token| history.stopped.get(&token)).copied();
        drop(history);
        let stop = stop.filter(|(begun, _)| *begun > since);
        if stop.is_some_and(|(_, told_at)| self.now() > told_at + STOPPED_WITHIN + SLACK)
            && !process.is_dead()
        {
            self.violated("S17", || {
                format!("{job}/{index} runs on {} though it was told to stop", process.name)
            });
        }
    }

    /// Checks the part of S3 that a commit shows: no subtask is settled that did not run.
    pub(crate) fn check_ran(&self, job: JobId, commit: &Commit) {
        let mut index = commit.from;
        for run in &commit.runs {
            for index in index..index + run.len() {
                let known = self.history.lock().indices.get(&(job, index)).copied();
                let Some(known) = known.filter(Index::has_outcome) else {
                    self.violated("S3", || format!("{job}/{index} was settled but never ran"));
                    continue;
                };
                if matches!(run, OutcomeRun::Success { .. }) && !known.succeeded {
                    self.violated("S3", || format!("{job}/{index} counts as done but never was"));
                }
            }
            index += run.len();
        }
    }

    /// Checks S2 and S6 after each operation on a job.
    pub(crate) async fn inspect(&self, job: JobId) {
        let audit = self.ledger.audit(job).await.ok().flatten();
        let summary = self.ledger.job(job).await.ok().flatten();
        let (Some(mut audit), Some(summary)) = (audit, summary) else { return };
        if self.is_sabotaged(Sabotage::Miscount) && audit.kept.done == 3 {
            audit.kept.done += 1;
        }
        if let Some(complaint) = unbalanced(&audit, &summary) {
            self.violated("S2", || format!("{job}: {complaint}"));
        }
        let most = self.jobs.get(&job).and_then(|job| job.document.max_parallel);
        let Some(most) = most else { return };
        let (queued, running) = (summary.queued_chunks, summary.running_chunks);
        // Chunks are split after the death of two holders, and when they take long. Then more may
        // be open than may run.
        let may_be_split = summary.crashes >= 2 || self.history.lock().split.contains(&job);
        if running > most || queued + running > most && !may_be_split {
            let open = format!("{running} chunks run and {queued} wait, {most} allowed");
            self.violated("S6", || format!("{job}: {open}"));
        }
    }

    /// Checks the invariants that passing time can violate: S8, S11, S13, S17 and S20.
    pub(crate) async fn check_now(&self) {
        self.check_lost().await;
        self.check_explained().await;
        let running: Vec<(Arc<Process>, JobId, u64, Duration)> = {
            let history = self.history.lock();
            let all = history.running.values();
            all.map(|run| (run.process.clone(), run.job, run.index, run.since)).collect()
        };
        for (process, job, index, since) in running {
            // The handlers of a frozen process don't run.
            if !process.has(Impairment::Frozen) {
                self.check_fenced(&process, job, index);
                self.check_stopped(&process, job, index, since);
            }
        }
        let active = self.ledger.active_jobs().await.unwrap_or_default();
        let finished = self.ledger.finished_jobs(usize::MAX).await.unwrap_or_default();
        for job in active.iter().chain(&finished).filter(|job| !self.jobs.contains_key(job)) {
            self.violated("S8", || format!("{job} was never submitted"));
        }
    }
}

/// Describes what is wrong with the counts, by the audit and by sums over them.
fn unbalanced(audit: &Audit, summary: &JobSummary) -> Option<String> {
    let Audit { kept, counted, reduce_kept, reduce_counted, .. } = audit;
    if let Some(finding) = audit.findings.first() {
        return Some(finding.clone());
    }
    let agree = kept == counted && reduce_kept == reduce_counted;
    let sums = [kept, reduce_kept, &summary.counts, &summary.reduce];
    let balanced = sums.iter().all(|counts| counts.imbalance() == 0);
    (!agree || !balanced).then(|| format!("{kept:?} kept, {counted:?} counted"))
}
