//! Random walks: turns numbers into operations on a ledger, and records every answer as text.
//!
//! Two ledgers that get the same numbers must give the same text. Values that may differ between
//! two ledgers (times, rates, the text of a misuse) are left out. Valid operations are frequent
//! enough for progress, invalid ones frequent enough to test refusals: stale epochs, foreign
//! tokens, repeats, gaps. Delays are zero or hours, so that the text does not depend on the clock.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, Digest, Epoch, JobId, JobSummary, NodeId, NodeInfo, NodeState,
    OutcomeRun, Recovery, SchedulerId, Timestamp, Token,
};

use super::harness::{admission, check_map, job_id, lost, node, token};
use crate::op::{
    Admission, Admitted, BeatParams, Claim, ClaimParams, Commit, CommitParams, Committed,
    DeclareLostParams, ErrorsParams, Held, LossCause, LossEvidence, OpenParams,
    RegisterSchedulerParams, ReleaseParams, ResultsParams, RetryParams, RevokeParams,
    SpeculationRequest, SweepParams,
};
use crate::{ControlError, Error, Ledger};

/// Far longer than a walk takes.
const HOURS: Duration = Duration::from_secs(100 * 60 * 60);

/// Later than the time of any clock.
const AGES: Duration = Duration::from_hours(24 * 365 * 1_000);

/// The shape of the two jobs of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The number of subtasks.
    pub total: u64,
    /// The fan-in of the reduce, if there is one.
    pub fan_in: Option<u64>,
    /// The most chunks that are open at once.
    pub max_parallel: Option<u64>,
    /// The number of failures after which a job fails.
    pub stop_after_failures: Option<u64>,
}

/// Four numbers that decide one operation.
pub type Draw = (u8, u64, u64, u64);

/// A chunk that a worker believes to hold.
#[derive(Clone, Copy, Debug)]
struct HeldChunk {
    job: JobId,
    chunk: ChunkId,
    token: Token,
    from: u64,
    to: u64,
}

/// A claim that is about to be made.
struct Asked {
    job: JobId,
    chunk: ChunkId,
    epoch: Epoch,
    shown: Token,
    by: NodeId,
}

impl Asked {
    async fn ask(&self, ledger: &dyn Ledger) -> Result<Claim, Error> {
        let params = ClaimParams::new(self.chunk, self.epoch, self.shown, self.by.clone());
        ledger.claim(self.job, &params).await
    }
}

/// A commit that is about to be made, of one of the held chunks.
struct Settling {
    at: usize,
    job: JobId,
    chunk: ChunkId,
    shown: Token,
    commit: Commit,
}

impl Settling {
    async fn ask(&self, ledger: &dyn Ledger) -> Result<Committed, Error> {
        ledger
            .commit(self.job, &CommitParams::new(self.chunk, self.shown, self.commit.clone()))
            .await
    }
}

/// A walk on one ledger.
pub struct Walk {
    ledger: Arc<dyn Ledger>,
    shapes: [Shape; 2],
    messages: Vec<ChunkMessage>,
    held_chunks: Vec<HeldChunk>,
    tokens: u64,
    nodes: u64,
}

impl Walk {
    /// Begins with an empty ledger.
    pub fn new(ledger: Arc<dyn Ledger>, shapes: [Shape; 2]) -> Self {
        let (messages, held_chunks) = (Vec::new(), Vec::new());
        Self { ledger, shapes, messages, held_chunks, tokens: 0, nodes: 0 }
    }

    /// The jobs of the walk.
    pub fn jobs(&self) -> [JobId; 2] {
        [job_id(1), job_id(2)]
    }

    /// Calls one operation; returns its answer as text.
    ///
    /// # Panics
    /// When the ledger can't be reached.
    pub async fn step(&mut self, draw: Draw) -> String {
        let (kind, a, b, c) = draw;
        // Most operations are on the first job.
        let job = job_id(if c % 4 == 3 { 2 } else { 1 });
        match kind % 59 {
            0..=7 => self.open(job, a, b).await,
            8..=17 => self.claim(a, b, c).await,
            18..=31 => self.commit(a, b, c).await,
            32 => self.release(a, b).await,
            33 | 54 | 55 => self.ruin(job, a, b).await,
            34 => said(self.ledger.revoke(job, &RevokeParams::new(a_node(a), a_loss(b))).await),
            35 => self.sweep(job, a).await,
            36 => controlled(self.ledger.pause(job).await),
            37 | 38 => controlled(self.ledger.resume(job).await),
            39 if a % 3 == 0 => controlled(self.ledger.cancel(job).await),
            39 if a % 3 == 1 => controlled(self.ledger.fail(job, "the deadline passed").await),
            39 => controlled(self.ledger.delete(job).await),
            40 | 41 => controlled(self.ledger.retry(job, &RetryParams::all()).await),
            42 | 43 => self.retry_some(job, a, b).await,
            44 => self.admit(job, a).await,
            45 => said(self.ledger.archive(job).await),
            46 => self.beat(a, b).await,
            48..=50 => self.claim_together(a, b, c).await,
            51..=53 => self.commit_together(a, b, c).await,
            56..=58 => self.offer_speculative(job, a, b).await,
            _ => self.read(job, a, b, c).await,
        }
    }

    /// The whole visible state of the ledger as text.
    ///
    /// # Panics
    /// When the ledger can't be reached, or when its counts don't balance.
    pub async fn view(&self) -> String {
        let ledger = &self.ledger;
        let now = ledger.now().await.expect("now");
        let mut view = String::new();
        for job in self.jobs() {
            let summary = ledger.job(job).await.expect("job");
            let Some(summary) = summary else {
                let is_cancelled = ledger.pending_cancel(job).await.expect("cancel").is_some();
                let _ = writeln!(view, "{job}: absent, cancelled {is_cancelled}");
                continue;
            };
            let audit = ledger.audit(job).await.expect("audit").expect("it was there just now");
            assert!(audit.is_clean(), "{audit:#?}");
            assert_eq!((audit.kept.imbalance(), audit.reduce_kept.imbalance()), (0, 0));
            assert_eq!((audit.kept, audit.reduce_kept), (audit.counted, audit.reduce_counted));
            assert_eq!((audit.kept, audit.reduce_kept), (summary.counts, summary.reduce));
            check_map(ledger, &summary).await;
            let _ = writeln!(view, "{}", masked_summary(&summary, now));
            let _ = writeln!(view, "{:?}", ledger.document(job).await.expect("document"));
            let page =
                ledger.results(job, &ResultsParams::new(0..1_000, 1 << 20)).await.expect("results");
            let ends = page.runs.iter().map(|run| run.from + run.count);
            let overlap = ends.zip(page.runs.iter().skip(1)).find(|(end, run)| *end > run.from);
            assert!(overlap.is_none(), "an index has two results: {page:?}");
            let _ = writeln!(view, "{page:?}");
            for entry in ledger.errors(job, &ErrorsParams::new(0, 1_000)).await.expect("errors") {
                let (index, error) = (entry.index, entry.error);
                let _ = write!(view, "{index} {error} {} {}", entry.attempts, entry.node);
                for death in entry.deaths {
                    let _ = write!(view, ", {} among {}", death.node, death.among);
                }
                view.push('\n');
            }
            for recovery in ledger.recoveries(job, 1_000).await.expect("recoveries") {
                let (at, after) = (Timestamp::default(), recovery.again_after);
                assert_eq!(recovery.waiting == 0 && recovery.chunks > 0, after.is_some());
                let _ = writeln!(view, "{:?}", Recovery { at, again_after: None, ..recovery });
            }
        }
        let mut active = ledger.active_jobs().await.expect("active");
        let mut finished = ledger.finished_jobs(9).await.expect("finished");
        active.sort();
        finished.sort();
        let _ = writeln!(view, "active {active:?} finished {finished:?}");
        for node in ledger.nodes().await.expect("nodes") {
            let _ = writeln!(view, "{:?}", node.info);
        }
        view
    }

    async fn admit(&mut self, job: JobId, a: u64) -> String {
        let n = if job == job_id(1) { 1 } else { 2 };
        let Shape { total, fan_in, max_parallel, stop_after_failures } = self.shapes[n - 1];
        let mut wanted =
            Admission { fan_in, max_parallel, stop_after_failures, ..admission(n as u64, total) };
        if a.is_multiple_of(3) {
            let open = OpenParams::new((a % 5) as u32, a % 7, HOURS);
            wanted.open = Some(open);
        }
        match a % 4 {
            0 => return said(self.ledger.reject(job, "no such task").await),
            1 => wanted.digest = Digest::new("f".repeat(64)),
            _ => {}
        }
        match self.ledger.admit(&wanted).await {
            Ok(Admitted::Accepted { opened, .. }) => {
                let view = if opened.is_empty() {
                    "Accepted".to_owned()
                } else {
                    format!("Accepted, opened {opened:?}")
                };
                self.messages.extend(opened);
                view
            }
            // The time differs from ledger to ledger.
            Ok(Admitted::Cancelled { .. }) => "Cancelled".into(),
            other => said(other),
        }
    }

    async fn open(&mut self, job: JobId, a: u64, b: u64) -> String {
        let publish_within = if b.is_multiple_of(2) { HOURS } else { Duration::ZERO };
        let open = OpenParams::new((a % 5) as u32, b % 8, publish_within);
        let opened = self.ledger.open(job, &open).await;
        self.messages.extend(opened.iter().flatten());
        said(opened)
    }

    async fn claim(&mut self, a: u64, b: u64, c: u64) -> String {
        let Some(asked) = self.a_claim(a, b, c) else { return "nothing to claim".into() };
        let answer = asked.ask(&*self.ledger).await;
        self.claimed(&asked, answer)
    }

    /// Calls several operations at once, each decided before any is answered.
    async fn claim_together(&mut self, a: u64, b: u64, c: u64) -> String {
        let several = several(a, b, c);
        let asked: Vec<Asked> = several.filter_map(|(a, b, c)| self.a_claim(a, b, c)).collect();
        let answers = join_all(asked.iter().map(|asked| asked.ask(&*self.ledger))).await;
        let told = asked.iter().zip(answers).map(|(asked, answer)| self.claimed(asked, answer));
        told.collect::<Vec<_>>().join("\n")
    }

    fn a_claim(&mut self, a: u64, b: u64, c: u64) -> Option<Asked> {
        let message = recent(&self.messages, a)?;
        let epoch = if b % 8 == 7 { Epoch(message.epoch.0 + 1) } else { message.epoch };
        let shown = match recent(&self.held_chunks, b) {
            Some(held) if c % 8 == 7 => held.token,
            _ => {
                self.tokens += 1;
                token(self.tokens)
            }
        };
        Some(Asked { job: message.job, chunk: message.chunk, epoch, shown, by: a_node(c) })
    }

    fn claimed(&mut self, asked: &Asked, answer: Result<Claim, Error>) -> String {
        let &Asked { job, chunk, shown, .. } = asked;
        if let Ok(Claim::Granted(grant)) = &answer {
            let (from, to) = (grant.from, grant.to);
            self.held_chunks.push(HeldChunk { job, chunk, token: shown, from, to });
        }
        said(answer)
    }

    async fn commit(&mut self, a: u64, b: u64, c: u64) -> String {
        let Some(settling) = self.a_commit(a, b, c) else { return "nothing to commit".into() };
        let answer = settling.ask(&*self.ledger).await;
        self.committed(&settling, answer)
    }

    /// Calls several operations at once, each decided before any is answered.
    async fn commit_together(&mut self, a: u64, b: u64, c: u64) -> String {
        let several = several(a, b, c);
        let settling: Vec<Settling> =
            several.filter_map(|(a, b, c)| self.a_commit(a, b, c)).collect();
        let answers = join_all(settling.iter().map(|one| one.ask(&*self.ledger))).await;
        let told = settling.iter().zip(answers).map(|(one, answer)| self.committed(one, answer));
        told.collect::<Vec<_>>().join("\n")
    }

    fn a_commit(&self, a: u64, b: u64, c: u64) -> Option<Settling> {
        let at = recent_position(self.held_chunks.len(), a)?;
        let HeldChunk { job, chunk, token: held, from, to } = self.held_chunks[at];
        let shown = if b % 16 == 15 { token(u64::MAX) } else { held };
        let from = match b / 16 % 16 {
            0 => from.saturating_sub(1),
            1 => from + 1,
            _ => from,
        };
        let (mut left, mut numbers) = (to.saturating_sub(from), c);
        if (b / 256).is_multiple_of(16) {
            left += 1;
        }
        let mut runs = Vec::new();
        let mut index = from;
        while left > 0 && (numbers > 0 || runs.is_empty()) && runs.len() < 8 {
            let run = a_run(index, left, &mut numbers);
            index += run.len();
            left -= run.len();
            runs.push(run);
        }
        let commit = Commit::new(from, runs, Duration::from_millis(b % 100));
        Some(Settling { at, job, chunk, shown, commit })
    }

    fn committed(&mut self, settling: &Settling, answer: Result<Committed, Error>) -> String {
        let Settling { at, commit, .. } = settling;
        if matches!(answer, Ok(Committed::Settled { .. })) {
            let from = &mut self.held_chunks[*at].from;
            *from = (*from).max(commit.end());
        }
        format!("{commit:?} -> {}", said(answer))
    }

    async fn release(&self, a: u64, b: u64) -> String {
        let Some(held) = recent(&self.held_chunks, a) else {
            return "nothing to release".into();
        };
        let shown = if b % 8 == 7 { token(u64::MAX) } else { held.token };
        let part = [None, Some(1 + b % 5)][(b / 8 % 2) as usize];
        said(
            self.ledger
                .release(held.job, &ReleaseParams { part, ..ReleaseParams::new(held.chunk, shown) })
                .await,
        )
    }

    /// New nodes, one after the other, claim the queued chunks that they may, and die or leave; it
    /// takes more than one death in a row until a chunk is cut, and until a subtask fails.
    async fn ruin(&mut self, job: JobId, a: u64, b: u64) -> String {
        let mut told = String::new();
        for n in 0..a % 7 {
            let Ok(Some(sweep)) = self.ledger.sweep(job, &SweepParams::new(99, HOURS)).await else {
                break;
            };
            self.messages.extend(&sweep.publish);
            self.nodes += 1;
            let by = node(&format!("ruined{}", self.nodes));
            let of_job = |message: &&ChunkMessage| message.job == job;
            let recent: Vec<_> =
                self.messages.iter().rev().filter(of_job).take(4).copied().collect();
            for message in recent {
                self.tokens += 1;
                let shown = token(self.tokens);
                let (chunk, epoch) = (message.chunk, message.epoch);
                let claim = self
                    .ledger
                    .claim(job, &ClaimParams::new(chunk, epoch, shown, by.clone()))
                    .await;
                if let Ok(Claim::Granted(grant)) = &claim {
                    let (from, to) = (grant.from, grant.to);
                    self.held_chunks.push(HeldChunk { job, chunk, token: shown, from, to });
                }
                let _ = write!(told, "{chunk} {}; ", said(claim));
            }
            let died = b >> n & 7 != 0;
            let _ = writeln!(
                told,
                "{}",
                said(self.ledger.revoke(job, &RevokeParams::new(by.clone(), lost(died))).await)
            );
        }
        told
    }

    /// Offers all running chunks or none, whatever the clock.
    async fn offer_speculative(&mut self, job: JobId, a: u64, b: u64) -> String {
        let none_in = |n: u64| if n.is_multiple_of(8) { HOURS } else { Duration::ZERO };
        let request = SpeculationRequest {
            held_for: none_in(a),
            offer_for: none_in(b),
            chunks: 99,
            only: (a % 8 == 5).then(|| a_node(b)),
        };
        let mut offered = self.ledger.offer_speculative(job, &request).await;
        if let Ok(stragglers) = &mut offered {
            stragglers.sort_by_key(|straggler| straggler.message.chunk);
            self.messages.extend(stragglers.iter().map(|straggler| straggler.message));
        }
        said(offered)
    }

    async fn sweep(&mut self, job: JobId, a: u64) -> String {
        let now = self.ledger.now().await.expect("now");
        // All queued chunks or none, and for hours: otherwise the clock decides which chunks are
        // due.
        let suspect_lost = a.is_multiple_of(5).then_some(Duration::ZERO);
        match self
            .ledger
            .sweep(job, &SweepParams { suspect_lost, ..SweepParams::new((a % 9) as u32, HOURS) })
            .await
        {
            Ok(Some(sweep)) => {
                self.messages.extend(&sweep.publish);
                format!("{} {:?}", masked_summary(&sweep.summary, now), sweep.publish)
            }
            other => said(other),
        }
    }

    async fn retry_some(&self, job: JobId, a: u64, b: u64) -> String {
        let errors = self.ledger.errors(job, &ErrorsParams::new(0, 99)).await.expect("errors");
        let mut indices: Vec<u64> = errors
            .iter()
            .map(|entry| entry.index)
            .filter(|index| a >> (index % 64) & 1 == 1)
            .collect();
        if b.is_multiple_of(4) {
            indices.push(b / 4 % 50);
        }
        format!(
            "{indices:?} -> {}",
            controlled(self.ledger.retry(job, &RetryParams::only(indices.clone())).await)
        )
    }

    async fn beat(&mut self, a: u64, b: u64) -> String {
        let name = a_node(a);
        match b % 8 {
            0 => return said(self.ledger.drain(&name).await),
            1 => {
                let evidence =
                    if a.is_multiple_of(2) { LossEvidence::Certain } else { LossEvidence::Absent };
                let lost = self
                    .ledger
                    .declare_lost(&DeclareLostParams::new(name.clone(), evidence, LossCause::Left))
                    .await;
                return said(lost.map(|lost| lost.verdict().map(|lost| (lost.node, lost.loss))));
            }
            2 => {
                let scheduler = SchedulerId::new(format!("s{}", a % 3));
                let present = self
                    .ledger
                    .register_scheduler(&RegisterSchedulerParams::new(scheduler.clone(), HOURS))
                    .await;
                return said(
                    present.map(|all| all.into_iter().map(|one| one.id).collect::<Vec<_>>()),
                );
            }
            3 => {
                let scheduler = SchedulerId::new(format!("s{}", a % 3));
                return said(self.ledger.deregister_scheduler(&scheduler).await);
            }
            _ => {}
        }
        let recent = self.held_chunks.iter().rev().take(6);
        let held: Vec<Held> = recent
            .map(|held| Held { job: held.job, chunk: held.chunk, token: held.token })
            .collect();
        said(self.ledger.beat(&BeatParams::new(an_info(name, b), held.clone())).await)
    }

    async fn read(&self, job: JobId, a: u64, b: u64, c: u64) -> String {
        let page = self.ledger.results(job, &ResultsParams::new(a % 60..b % 60, c % 40)).await;
        let errors = self
            .ledger
            .errors(job, &ErrorsParams::new(a % 60, (b % 4) as usize))
            .await
            .expect("errors");
        let errors: Vec<u64> = errors.iter().map(|entry| entry.index).collect();
        let holders = self.ledger.holders(job).await;
        let names = holders.map(|all| all.into_iter().map(|it| it.node).collect::<Vec<_>>());
        format!("{} {errors:?} {}", said(page), said(names))
    }
}

/// A run of the rest: mostly successes, with their indices as results or without.
fn a_run(index: u64, left: u64, numbers: &mut u64) -> OutcomeRun {
    let number = *numbers % 64;
    *numbers /= 64;
    let delay = if number.is_multiple_of(2) { Duration::ZERO } else { HOURS };
    let count = (number / 8 + 1).min(left);
    match number % 8 {
        0 => OutcomeRun::Failed { error: format!("no {number}") },
        1 | 2 => OutcomeRun::Retry { error: "once more".into(), delay },
        3 => OutcomeRun::Defer { delay },
        4 | 5 => OutcomeRun::Success { count, results: None },
        6 => {
            OutcomeRun::Success { count, results: Some(format!("@file:///results/{index}").into()) }
        }
        _ => {
            // Sometimes so long that a ledger may compress it.
            let length = if number / 8 % 4 == 3 { 100 } else { 1 };
            let line = |index: u64| format!("\"{}\"\n", index.to_string().repeat(length));
            OutcomeRun::Success {
                count,
                results: Some((index..index + count).map(line).collect::<String>().into()),
            }
        }
    }
}

/// It revokes all claims or none: the time of a claim is not part of a walk.
fn a_loss(n: u64) -> LossCause {
    let claimed_by = Timestamp::default().plus(if n % 8 == 3 { Duration::ZERO } else { AGES });
    [LossCause::Left, LossCause::Vanished, lost(true), LossCause::Orphaned { claimed_by }]
        [n as usize % 4]
        .clone()
}

fn a_node(n: u64) -> NodeId {
    node(["a", "b", "c"][(n % 3) as usize])
}

fn an_info(id: NodeId, b: u64) -> NodeInfo {
    NodeInfo {
        host: "host".into(),
        pid: 1,
        version: "1".into(),
        queues: vec!["default".into()],
        labels: Default::default(),
        slots: 2,
        busy: (b % 3) as u32,
        state: if b.is_multiple_of(2) { NodeState::Active } else { NodeState::Draining },
        started_at: Timestamp::from_millis(5),
        cpu: 0.5,
        rss: 1,
        ..NodeInfo::new(id)
    }
}

/// The numbers of two to five operations at once.
fn several(a: u64, b: u64, c: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    (0..2 + a % 4).map(move |n| {
        (a.rotate_left(7 * n as u32), b.rotate_left(11 * n as u32), c.rotate_left(13 * n as u32))
    })
}

/// Mostly one of the newest, sometimes an old one.
fn recent_position(len: usize, n: u64) -> Option<usize> {
    let back = (if n.is_multiple_of(8) { n / 8 } else { n % 4 }) as usize;
    (len > 0).then(|| len - 1 - back % len)
}

fn recent<T: Copy>(list: &[T], n: u64) -> Option<T> {
    recent_position(list.len(), n).map(|at| list[at])
}

/// The summary without the values that depend on the clock.
fn masked_summary(summary: &JobSummary, now: Timestamp) -> String {
    let retry =
        summary.next_retry_at.map(|at| if at > now.plus(HOURS / 2) { "hours" } else { "now" });
    let started = summary.started_at.is_some();
    let finished = summary.finished_at.is_some();
    let ended = summary.state.is_terminal();
    assert_eq!(finished, ended, "{summary:?}");
    assert!(!ended || summary.counts.open() + summary.reduce.open() == 0, "{summary:?}");
    assert!(summary.state != JobState::Succeeded || summary.counts.done == summary.counts.total);
    let masked = JobSummary {
        submitted_at: Timestamp::default(),
        started_at: None,
        finished_at: None,
        next_retry_at: None,
        rate: 0.0,
        eta: None,
        ..summary.clone()
    };
    format!("{masked:?} started {started} finished {finished} retry {retry:?}")
}

fn said<A: std::fmt::Debug>(answer: Result<A, Error>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(Error::Misuse { operation, .. }) => format!("misuse of {operation}"),
        Err(error) => panic!("{error}"),
    }
}

fn controlled<A: std::fmt::Debug>(answer: Result<A, ControlError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(ControlError::Ledger(error)) => panic!("{error}"),
        Err(ControlError::BadIndices(_)) => "bad indices".into(),
        Err(refusal) => format!("{refusal:?}"),
    }
}
