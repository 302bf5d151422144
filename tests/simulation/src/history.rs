//! What really happened, as handlers and the ledger's operations tell it, and the checkers that look at each step.
//! The history is written outside of broker and ledger, so a mistake of theirs can't hide itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_ledger::{Commit, Ledger, LossEvidence, Stop, StopReason};
use longshore_protocol::{
    Audit, ChunkId, Epoch, JobId, JobSummary, NodeId, OutcomeRun, Timestamp, Token,
};

use crate::process::Process;
use crate::sabotage::Sabotage;
use crate::workload::{Job, Temper};
use crate::world::World;

/// Timers have milliseconds, and what is due at one moment happens in some order.
const SLACK: Duration = Duration::from_millis(20);

/// How long a handler that is stopped may take to be dropped (`WIND_UP` of the worker's Rust tasks).
const WIND_UP: Duration = Duration::from_millis(500);

/// By then schedulers know all workers.
const FLEET_IS_KNOWN: Duration = Duration::from_secs(3);

/// What happened so far.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) holders: Holders,
    /// Under which epoch each token was granted; a rollback makes nobody forget it.
    pub(crate) epochs: HashMap<Token, Epoch>,
    /// Chunks that were taken from a node.
    pub(crate) revoked: BTreeSet<(JobId, ChunkId)>,
    /// Jobs of which a chunk was handed back in parts.
    pub(crate) cut: BTreeSet<JobId>,
    /// Jobs that were cancelled before they were admitted, by a ledger that has lost nothing since.
    pub(crate) cancelled_early: BTreeSet<JobId>,
    /// Jobs that are paused, and since when.
    pub(crate) paused: BTreeMap<JobId, Duration>,
    /// What a claim wrote outside of the ledger: the lines from this subtask on.
    pub(crate) written: HashMap<(JobId, u64, Token), Vec<String>>,
    /// What the attempt returned that was counted, by index.
    pub(crate) counted: BTreeMap<(JobId, u64), String>,
    indices: BTreeMap<(JobId, u64), Index>,
    /// Where attempts failed because everything fails there.
    holes: BTreeSet<(JobId, u64, String)>,
    running: BTreeMap<u64, Running>,
    next_run: u64,
    /// When the last heartbeat that got through was begun, by process.
    heard: HashMap<String, Duration>,
    /// Which indices a token was granted.
    subtasks: HashMap<Token, Range<u64>>,
    /// Under which tokens a subtask was granted, oldest first.
    grants: HashMap<(JobId, u64), Vec<SubtaskGrant>>,
    /// When the heartbeat began that told to stop what a token holds, and when its answer came.
    stopped: HashMap<Token, (Duration, Duration)>,
    /// Workers that were killed or are frozen.
    pub(crate) lost: BTreeMap<NodeId, LostWorker>,
    /// When a scheduler was last killed, or the first one started again after all were.
    pub(crate) scheduler_died: Duration,
    /// When a process last learned of a grant of a job.
    granted: HashMap<(String, JobId), Duration>,
}

impl History {
    /// A node holds these subtasks now. Who claims again under his token counts once.
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

    /// The token under which a process runs an attempt that began at this time: the newest that it
    /// had been granted by then.
    fn token_of(&self, process: &Process, at: (JobId, u64), since: Duration) -> Option<Token> {
        let own = format!("{}-", process.name);
        let grants = self.grants.get(&at)?.iter();
        let mut own = grants.filter(|it| it.at <= since && it.node.as_str().starts_with(&own));
        own.next_back().map(|grant| grant.token)
    }
}

/// A subtask was granted to a worker.
#[derive(Clone, Debug)]
struct SubtaskGrant {
    at: Duration,
    node: NodeId,
    token: Token,
}

/// What the attempts at one index came to.
#[derive(Clone, Copy, Debug, Default)]
struct Index {
    /// Bit a: attempt a failed, or may have.
    failed: u32,
    /// An attempt failed, or may have, where not everything fails.
    failed_of_itself: bool,
    deferred: u32,
    succeeded: bool,
    /// How often it was held.
    holders: u32,
    /// The last attempt that its job allows failed where everything fails.
    lost_in_hole: bool,
    /// How many attempts began, as far as no failure and no deferral led to another one.
    begun: u32,
    /// How often a copy of it was offered.
    copies: u32,
}

impl Index {
    /// An attempt failed for the subtask's own sake.
    fn fail(&mut self, attempt: u32) {
        self.failed |= 1 << attempt;
        self.failed_of_itself = true;
    }

    fn came_to_something(&self) -> bool {
        self.succeeded || self.failed != 0 || self.deferred > 0
    }
}

struct Running {
    process: Arc<Process>,
    job: JobId,
    index: u64,
    since: Duration,
}

/// A worker that runs no more, or not for now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LostWorker {
    /// When it stopped.
    pub(crate) at: Duration,
    /// Within this time what it holds has to be queued again.
    pub(crate) within: Duration,
}

/// Who holds a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) token: Token,
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) to: u64,
    /// When it was granted, by the ledger's clock.
    pub(crate) since: Timestamp,
}

/// The holders of all chunks, by what the ledger answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    chunks: BTreeMap<(JobId, ChunkId), Vec<Holder>>,
    /// Of these somebody else than the holder may claim a copy.
    offered: BTreeSet<(JobId, ChunkId)>,
}

impl Holders {
    /// Whether a second one may be granted.
    pub(crate) fn offers(&self, job: JobId, chunk: ChunkId) -> bool {
        self.offered.contains(&(job, chunk))
    }

    /// A grant; gives the token that held the chunk, if it was another and no copy was on offer.
    pub(crate) fn granted(&mut self, job: JobId, chunk: ChunkId, holder: Holder) -> Option<Token> {
        let holders = self.chunks.entry((job, chunk)).or_default();
        if holders.iter().any(|other| other.token == holder.token) {
            return None;
        }
        let before = holders.first().map(|other| other.token);
        let is_copy = self.offered.remove(&(job, chunk));
        if !is_copy {
            holders.clear();
        }
        holders.push(holder);
        before.filter(|_| !is_copy)
    }

    pub(crate) fn offered(&mut self, job: JobId, chunk: ChunkId) {
        self.offered.insert((job, chunk));
    }

    pub(crate) fn of(&self, job: JobId, chunk: ChunkId) -> &[Holder] {
        self.chunks.get(&(job, chunk)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a token may do something to the chunk: it holds it, or nobody does as far as we know.
    pub(crate) fn allow(&self, job: JobId, chunk: ChunkId, token: Token) -> bool {
        let holders = self.of(job, chunk);
        holders.is_empty() || holders.iter().any(|holder| holder.token == token)
    }

    pub(crate) fn let_go(&mut self, job: JobId, chunk: ChunkId, token: Token) {
        if let Some(holders) = self.chunks.get_mut(&(job, chunk)) {
            holders.retain(|holder| holder.token != token);
            if holders.is_empty() {
                self.offered.remove(&(job, chunk));
            }
        }
    }

    /// Nobody holds the chunk any more.
    pub(crate) fn parted(&mut self, job: JobId, chunk: ChunkId) {
        self.chunks.remove(&(job, chunk));
        self.offered.remove(&(job, chunk));
    }

    /// All that a node holds of a job is taken from it, of what it claimed up to this time if one is given.
    pub(crate) fn taken(&mut self, job: JobId, node: &NodeId, claimed_by: Option<Timestamp>) {
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

/// An attempt that runs; dropped when it ends, however it ends.
pub(crate) struct Attempt {
    world: Arc<World>,
    /// Its number; no other attempt of the run has it.
    pub(crate) run: u64,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.world.history.lock().running.remove(&self.run);
    }
}

impl World {
    /// A handler begins.
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
        let overruns = self.jobs.get(&job).map(|job| job.temper(index));
        if matches!(overruns, Some(Temper::Overruns(times)) if attempt <= times) {
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

    /// S14. A retry goes to another node than those on which an attempt failed, if there is one: the
    /// first worker can run everything, and is there. It has not failed there unless of itself.
    pub(crate) fn attempt_failed_in_hole(
        &self,
        process: &Process,
        job: JobId,
        index: u64,
        attempt: u32,
    ) {
        self.count("attempts lost in a hole");
        let allowed = self.jobs.get(&job).map_or(0, |job| job.document.retry.attempts);
        let mut history = self.history.lock();
        let entry = history.indices.entry((job, index)).or_default();
        entry.failed |= 1 << attempt;
        entry.lost_in_hole |= attempt >= allowed;
        let failed_of_itself = entry.failed_of_itself;
        let is_news = history.holes.insert((job, index, process.name.clone()));
        drop(history);
        let is_steady = self.is_steady.load(Ordering::Relaxed) && self.now() > FLEET_IS_KNOWN;
        if !is_news && attempt > 1 && is_steady && !failed_of_itself {
            self.violated("S14", || {
                format!("{job}/{index}: attempt {attempt} on {} again, as before", process.name)
            });
        }
    }

    /// Whether to say "not now" once more; if so it is said.
    pub(crate) fn attempt_deferred(&self, job: JobId, index: u64, times: u32) -> bool {
        let mut history = self.history.lock();
        let index = history.indices.entry((job, index)).or_default();
        index.deferred += 1;
        index.deferred <= times
    }

    /// A copy was offered of all that the holders of a chunk were granted.
    pub(crate) fn copy_offered(&self, job: JobId, chunk: ChunkId) {
        let mut history = self.history.lock();
        let holders = history.holders.of(job, chunk);
        let held = holders.iter().filter_map(|holder| history.subtasks.get(&holder.token));
        for index in held.cloned().collect::<Vec<_>>().into_iter().flatten() {
            history.indices.entry((job, index)).or_default().copies += 1;
        }
    }

    pub(crate) fn stops_heard(&self, begun: Duration, stops: &[Stop]) {
        let (now, mut history) = (self.now(), self.history.lock());
        for stop in stops.iter().filter(|stop| stop.reason != StopReason::Paused) {
            // Its hold takes a while to go, and may be listed once more.
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

    /// How many subtasks of a job may have been taken for poison though they don't fail: so many nodes held them that as many
    /// may have died, two until a subtask is set apart and three alone. Nobody but the node knows whether it had begun. And those
    /// whose last attempt failed where everything fails: without another attempt nobody can know better.
    pub(crate) fn unlucky(&self, job: &Job) -> u64 {
        const DEATHS: u32 = 5;
        let history = self.history.lock();
        let indices = history.indices.range((job.id, 0)..(job.id, job.total));
        let is_unlucky = |it: &Index| it.holders >= DEATHS || it.lost_in_hole;
        indices.filter(|((_, index), it)| is_unlucky(it) && !job.fails(*index)).count() as u64
    }

    // Checkers of a step

    /// S19.
    fn check_wanted(&self, job: JobId, index: u64) {
        if self.history.lock().cancelled_early.contains(&job) {
            self.violated("S19", || {
                format!("{job}/{index} began though the job was cancelled before")
            });
        }
    }

    /// S5.
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

    /// S9. A worker learns of a pause with its next heartbeat. A claim
    /// whose answer was lost may be granted again later; then it takes until the next heartbeat after that.
    fn check_pause(&self, process: &Process, job: JobId, index: u64) {
        let history = self.history.lock();
        let Some(paused) = history.paused.get(&job).copied() else { return };
        let granted = history.granted.get(&(process.name.clone(), job)).copied();
        let heard = history.heard.get(&process.name).copied().unwrap_or_default();
        drop(history);
        if heard < paused {
            // A worker that is cut off goes on with what it holds.
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

    /// S11. Reductions may overlap.
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

    /// S18. Whose connections are gone may be taken for dead; so may whoever is on no list, and has
    /// announced nothing there.
    pub(crate) fn check_living(&self, node: &NodeId, grounds: LossEvidence) {
        let process =
            self.processes.lock().iter().find(|it| it.node().as_ref() == Some(node)).cloned();
        let Some(process) = process.filter(|it| !it.is_dead()) else { return };
        let heard = self.history.lock().heard.get(&process.name).copied().unwrap_or_default();
        let silent = self.now().saturating_sub(heard);
        if matches!(grounds, LossEvidence::LastBeat(_)) && silent < process.dead_after() {
            self.violated("S18", || format!("{node} lives, and was heard {silent:?} ago"));
        }
    }

    /// S16.
    fn check_begun(&self, process: &Process, job: JobId, index: u64, attempt: u32) {
        let mut history = self.history.lock();
        let known = history.indices.entry((job, index)).or_default();
        known.begun += 1;
        let again = known.failed.count_ones() + known.deferred + known.copies;
        let Index { begun, .. } = *known;
        drop(history);
        let may_begin_again = self.jobs.get(&job).is_none_or(Job::may_begin_again);
        // A build that is broken in another way may begin things twice, and is caught for that way.
        let is_judged = self.sabotage.is_none_or(|by| by.breaks() == "S16");
        if self.is_gentle && is_judged && !may_begin_again && begun > 1 + again {
            self.violated("S16", || {
                format!("{job}/{index} began again on {}, attempt {attempt}", process.name)
            });
        }
    }

    /// S13. A scheduler that dies in the middle of it is found as soon as a worker is, and another one
    /// goes on. A claim that was under way is carried out after the death of its worker.
    pub(crate) async fn check_lost(&self) {
        let has_scheduler = || self.living().iter().any(|it| it.name.starts_with("scheduler"));
        if !self.is_clear || !has_scheduler() {
            return;
        }
        for job in self.jobs.keys() {
            for holder in self.ledger.holders(*job).await.unwrap_or_default() {
                self.check_holder(*job, &holder);
            }
        }
    }

    fn check_holder(&self, job: JobId, holder: &longshore_ledger::Holder) {
        let history = self.history.lock();
        let Some(lost) = history.lost.get(&holder.node).copied() else { return };
        let since = lost.at.max(self.clock.virtual_time(holder.oldest)).max(history.scheduler_died);
        drop(history);
        let held = self.now().saturating_sub(since);
        if held > lost.within {
            let node = &holder.node;
            self.violated("S13", || {
                format!("{node} was lost {held:?} ago and holds some of {job}")
            });
        }
    }

    /// S17. Whoever was told of one grant may hold the subtask by another.
    fn check_stopped(&self, process: &Process, job: JobId, index: u64, since: Duration) {
        let history = self.history.lock();
        let token = history.token_of(process, (job, index), since);
        let told = token.and_then(|token| history.stopped.get(&token)).copied();
        drop(history);
        let told = told.filter(|(begun, _)| *begun > since);
        if told.is_some_and(|(_, told)| self.now() > told + WIND_UP + SLACK) && !process.is_dead() {
            self.violated("S17", || format!("{job}/{index} runs on {} though told", process.name));
        }
    }

    /// S3, as far as a commit can tell: nothing is settled that did not run.
    pub(crate) fn check_ran(&self, job: JobId, commit: &Commit) {
        let mut index = commit.from;
        for run in &commit.runs {
            for index in index..index + run.len() {
                let known = self.history.lock().indices.get(&(job, index)).copied();
                let Some(known) = known.filter(Index::came_to_something) else {
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

    /// S2 and S6, after each operation on a job.
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
        // A chunk that two nodes died of is cut, and one that takes long, so more may be open than may run.
        let may_be_cut = summary.crashes >= 2 || self.history.lock().cut.contains(&job);
        if running > most || queued + running > most && !may_be_cut {
            let open = format!("{running} chunks run and {queued} wait, {most} allowed");
            self.violated("S6", || format!("{job}: {open}"));
        }
    }

    /// What only time can break: S8, S11, S13 and S17.
    pub(crate) async fn look_round(&self) {
        self.check_lost().await;
        let running: Vec<(Arc<Process>, JobId, u64, Duration)> = {
            let history = self.history.lock();
            let all = history.running.values();
            all.map(|it| (it.process.clone(), it.job, it.index, it.since)).collect()
        };
        for (process, job, index, since) in running {
            // What is frozen does not run.
            if !process.has(crate::process::Trouble::Frozen) {
                self.check_fenced(&process, job, index);
                self.check_stopped(&process, job, index, since);
            }
        }
        let active = self.ledger.active_jobs().await.unwrap_or_default();
        let finished = self.ledger.finished_jobs(usize::MAX).await.unwrap_or_default();
        for job in active.iter().chain(&finished).filter(|job| !self.jobs.contains_key(job)) {
            self.violated("S8", || format!("nobody submitted {job}"));
        }
    }
}

/// What is wrong with the books, by the audit and by our own sums.
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
