//! Random paths through the model, on which the memory ledger must answer as the model's does.
//!
//! The differential test of the ledger crate compares the memory ledger with Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use longshore_ledger::memory::{Clock, MemoryLedger};
use longshore_ledger::{
    Admission, BeatParams, Claim, ClaimParams, Commit, CommitParams, Committed, DeclareLostParams,
    Error, Ledger as _, LossCause, LossEvidence as RealEvidence, NodeSnapshot, OpenParams,
    ReleaseParams, Released, RevokeParams, SpeculationRequest, SweepParams,
};
use longshore_model::fleet::{Beat, Fleet, LossEvidence};
use longshore_model::ledger::{Answer, Message, Node, RANGES, Request, SUBTASKS, name, real};
use longshore_model::world::{Action, Fate, NextStep, State, WORKERS};
use longshore_model::{Config, Model};
use longshore_protocol::{ChunkId, ChunkMessage, Epoch, JobId, NodeInfo, OutcomeRun, Timestamp};

const PATHS: u64 = 6_000;
const STEPS: usize = 80;
/// The initial time of the ledger.
const BEGIN: Timestamp = Timestamp::from_millis(1_000);
const JOB: JobId = JobId::from_uuid(uuid::Uuid::from_u128(1));

/// A clock in milliseconds that stands still between heartbeats, so that every queued chunk is due.
#[derive(Debug)]
struct Stopped(AtomicU64);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// The heartbeat of a worker.
fn info(node: Node) -> NodeInfo {
    NodeInfo { jobs: Some(BTreeSet::new()), ..NodeInfo::new(name(node)) }
}

/// An operation on the memory ledger, in a form that can be repeated.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    OfferSpeculative,
    Ask(Request),
    Revoke(Node),
    Beat(Node, Beat, Timestamp),
    Lose(Node, LossEvidence),
    /// A release on behalf of a worker that does not know that it holds the chunk.
    Reclaim(u8, u8),
}

/// The memory ledger with all operations so far. A rollback repeats the first of them on a new
/// ledger.
struct Real {
    clock: Arc<Stopped>,
    /// The times of heartbeats by number, and the newest of all. The model reuses a number that is
    /// not in use any more; no two heartbeats have the same time.
    beats: BTreeMap<Beat, Timestamp>,
    newest: Timestamp,
    ledger: MemoryLedger,
    steps: Vec<Step>,
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the memory ledger never waits")
}

impl Real {
    fn new() -> Self {
        let clock = Arc::new(Stopped(AtomicU64::new(BEGIN.as_millis())));
        let ledger = MemoryLedger::new(clock.clone());
        let admission = Admission::plain(JOB, SUBTASKS.into());
        at_once(ledger.admit(&admission)).expect("admitted");
        let (beats, newest) = (BTreeMap::new(), BEGIN);
        Self { clock, beats, newest, ledger, steps: Vec::new() }
    }

    fn roll_back(&mut self, to: usize) {
        let steps = self.steps[..to].to_vec();
        let (beats, newest) = (std::mem::take(&mut self.beats), self.newest);
        *self = Self { beats, newest, ..Self::new() };
        for step in steps {
            self.take(step);
        }
    }

    /// Takes a step; gives the answer, if it has one.
    fn take(&mut self, step: Step) -> Option<Answer> {
        self.steps.push(step);
        let ledger = &self.ledger;
        match step {
            Step::Open => {
                let open = OpenParams::new(1, 2, Duration::ZERO);
                at_once(ledger.open(JOB, &open)).expect("opened");
                None
            }
            Step::OfferSpeculative => {
                let (held_for, offer_for) = (Duration::ZERO, Duration::from_hours(1));
                let request = SpeculationRequest { held_for, offer_for, chunks: 1, only: None };
                assert_eq!(
                    at_once(ledger.offer_speculative(JOB, &request)).expect("offered").len(),
                    1
                );
                None
            }
            Step::Ask(request) => Some(self.ask(request)),
            Step::Revoke(node) => {
                at_once(ledger.revoke(JOB, &RevokeParams::new(name(node), LossCause::Left)))
                    .expect("revoked");
                None
            }
            Step::Beat(node, beat, at) => {
                self.clock.0.store(at.as_millis(), Ordering::Relaxed);
                self.beats.insert(beat, at);
                self.newest = self.newest.max(at);
                at_once(ledger.beat(&BeatParams::new(info(node), []))).expect("heard");
                None
            }
            Step::Lose(node, evidence) => {
                let evidence = match evidence {
                    LossEvidence::LastBeat(beat) => RealEvidence::LastBeat(self.beats[&beat]),
                    LossEvidence::Absent => RealEvidence::Absent,
                };
                at_once(ledger.declare_lost(&DeclareLostParams::new(
                    name(node),
                    evidence,
                    LossCause::Vanished,
                )))
                .expect("answered");
                None
            }
            Step::Reclaim(chunk, token) => Some(self.release(chunk, token)),
        }
    }

    fn ask(&self, request: Request) -> Answer {
        match request {
            Request::Claim { message: (chunk, epoch), token, node } => {
                let (chunk, epoch) = (id(chunk), Epoch(epoch.into()));
                let node = name(node);
                let params = ClaimParams::new(chunk, epoch, real(token), node);
                let claim = self.ledger.claim(JOB, &params);
                match at_once(claim).expect("answered") {
                    Claim::Granted(grant) => {
                        Answer::Granted { from: grant.from as u8, to: grant.to as u8 }
                    }
                    Claim::Stale { .. } => Answer::Stale,
                    Claim::Gone => Answer::Gone,
                }
            }
            Request::Commit { message: (chunk, _), token, from, to } => {
                let runs = vec![OutcomeRun::Success { count: (to - from).into(), results: None }];
                let commit = Commit::new(from.into(), runs, Duration::ZERO);
                let params = CommitParams::new(id(chunk), real(token), commit);
                match at_once(self.ledger.commit(JOB, &params)) {
                    Ok(Committed::Settled { .. }) => Answer::Settled,
                    Ok(Committed::Fenced) => Answer::Fenced,
                    // After a rollback the holder may know more than the ledger. It gives the chunk
                    // up, as if it were fenced.
                    Err(Error::Misuse { .. }) => Answer::Fenced,
                    Err(error) => panic!("{request:?}: {error}"),
                }
            }
            Request::Release { message: (chunk, _), token } => self.release(chunk, token),
        }
    }

    fn release(&self, chunk: u8, token: u8) -> Answer {
        let params = ReleaseParams::new(id(chunk), real(token));
        match at_once(self.ledger.release(JOB, &params)).expect("answered") {
            Released::Queued => Answer::Queued,
            Released::Fenced => Answer::Fenced,
        }
    }

    /// The messages of all queued chunks, including those published a moment ago.
    fn waiting(&self) -> Vec<ChunkMessage> {
        let suspect_lost = Some(Duration::ZERO);
        let params = SweepParams { suspect_lost, ..SweepParams::new(10, Duration::ZERO) };
        let sweep = at_once(self.ledger.sweep(JOB, &params));
        sweep.expect("swept").expect("the job is there").publish
    }

    /// Fails unless the memory ledger is in the same state as the model's.
    #[track_caller]
    fn assert_agrees(&self, state: &State) {
        let ledger = &state.ledger;
        let waiting: Vec<ChunkMessage> =
            (0..RANGES.len() as u8).filter_map(|chunk| message(ledger, chunk)).collect();
        assert_eq!(self.waiting(), waiting);

        let job = at_once(self.ledger.job(JOB)).expect("read").expect("it is there");
        assert_eq!(job.state, ledger.state);
        let counts = [job.counts.queued, job.counts.running, job.counts.done];
        assert_eq!(
            counts,
            ledger.counts.map(|count| u64::try_from(count).expect("no negative counts"))
        );

        let mut holders: Vec<_> =
            (0..RANGES.len() as u8).flat_map(|chunk| ledger.holders(chunk)).collect();
        holders.sort_unstable_by_key(|(_, node)| *node);
        holders.dedup_by_key(|(_, node)| *node);
        let holders: Vec<_> = holders.into_iter().map(|(_, node)| name(node)).collect();
        let found = at_once(self.ledger.holders(JOB)).expect("read");
        let found: Vec<_> = found.into_iter().map(|holder| holder.node).collect();
        assert_eq!(found, holders);

        let snapshot = at_once(self.ledger.nodes_since(&NodeSnapshot::default())).expect("read");
        let Fleet { listed, lost } = &ledger.fleet;
        let mut listed: Vec<_> =
            listed.iter().map(|(node, beat)| (name(*node), self.beats[beat])).collect();
        listed.sort_unstable();
        let found: Vec<_> =
            snapshot.nodes.iter().map(|node| (node.info.id.clone(), node.beat_at)).collect();
        assert_eq!(found, listed);
        let mut lost: Vec<_> = lost.iter().map(|node| name(*node)).collect();
        lost.sort_unstable();
        let found: Vec<_> = snapshot.lost.iter().map(|verdict| verdict.node.clone()).collect();
        assert_eq!(found, lost);

        let audit = at_once(self.ledger.audit(JOB)).expect("read").expect("it is there");
        assert_eq!(audit.findings, Vec::<String>::new());
    }
}

fn id(chunk: u8) -> ChunkId {
    ChunkId(u64::from(chunk) + 1)
}

fn message(ledger: &longshore_model::ledger::Ledger, chunk: u8) -> Option<ChunkMessage> {
    let (number, epoch): Message = ledger.sweep(chunk)?;
    let open = ledger.chunks[usize::from(number)]?;
    let (from, to, epoch) = (open.from.into(), open.to.into(), Epoch(epoch.into()));
    Some(ChunkMessage { v: ChunkMessage::VERSION, job: JOB, chunk: id(number), from, to, epoch })
}

/// The operation of the memory ledger for a step of the model; `at` is the time of a heartbeat.
fn step(state: &State, action: Action, at: Timestamp) -> Option<Step> {
    match action {
        Action::Open => Some(Step::Open),
        Action::OfferSpeculative => Some(Step::OfferSpeculative),
        Action::Declare { scheduler } | Action::Revoke { scheduler } => {
            match state.next_steps[scheduler] {
                NextStep::Judging { node, evidence } => Some(Step::Lose(node, evidence)),
                NextStep::Revoking { node } => Some(Step::Revoke(node)),
                NextStep::Nothing => None,
            }
        }
        Action::Start { worker } => {
            let (starts, _) = state.workers[usize::from(worker)];
            Some(Step::Beat((worker, starts + 1), state.fresh_beat(), at))
        }
        Action::Beat { node, .. } => Some(Step::Beat(node, state.fresh_beat(), at)),
        Action::Reclaim { chunk } => {
            state.forgotten(chunk).map(|token| Step::Reclaim(chunk, token))
        }
        Action::Ask { worker, to, fate: Fate::Heard | Fate::Unheard } => {
            state.request(worker, to).map(Step::Ask)
        }
        Action::Arrive { request } => Some(Step::Ask(request)),
        _ => None,
    }
}

/// Random numbers (SplitMix64) that repeat with the seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// Walks one random path; counts the answers by kind.
fn walk(seed: u64, answers: &mut BTreeMap<&'static str, u32>) {
    let speculative = seed.is_multiple_of(2);
    let model =
        Config { faults: 6, workers: WORKERS, rolls_back: true, speculative, mutation: None };
    let mut rng = Rng(seed);
    let mut real = Real::new();
    let mut state = model.initial();
    let mut saved = 0;
    for _ in 0..STEPS {
        let actions = model.actions(&state);
        if actions.is_empty() {
            break;
        }
        let action = actions[rng.below(actions.len())];
        let at = real.newest.plus(Duration::from_millis(1));
        let expected = step(&state, action, at).map(|step| {
            let mut after = state.ledger.clone();
            let expected = match step {
                Step::Ask(request) => Some(after.serve(request, None)),
                _ => None,
            };
            (step, expected)
        });
        let next = model.next(&state, action).unwrap_or_else(|property| panic!("{property}"));
        match action {
            Action::Save => saved = real.steps.len(),
            Action::RollBack => real.roll_back(saved),
            _ => {}
        }
        if let Some((step, expected)) = expected {
            let answer = real.take(step);
            if let Some(expected) = expected {
                assert_eq!(
                    answer,
                    Some(expected),
                    "seed {seed}: {step:?} in {}",
                    model.describe(&state)
                );
                let word = match expected {
                    Answer::Granted { .. } => "granted",
                    Answer::Stale => "stale",
                    Answer::Gone => "gone",
                    Answer::Settled => "settled",
                    Answer::Fenced => "fenced",
                    Answer::Queued => "queued",
                };
                *answers.entry(word).or_default() += 1;
            }
        }
        if let Action::Declare { scheduler } = action
            && let NextStep::Judging { node, .. } = state.next_steps[scheduler]
        {
            let word = if next.ledger.fleet.is_lost(node) { "lost" } else { "lives" };
            *answers.entry(word).or_default() += 1;
        }
        state = next;
        real.assert_agrees(&state);
    }
    *answers.entry("ended").or_default() += u32::from(model.is_done(&state));
    *answers.entry("rolled back").or_default() += u32::from(!state.may_roll_back);
}

#[test]
fn the_memory_ledger_answers_like_the_model() {
    let mut answers = BTreeMap::new();
    (0..PATHS).for_each(|seed| walk(seed, &mut answers));
    let of_workers = ["lost", "lives", "ended", "rolled back"];
    for word in
        ["granted", "stale", "gone", "settled", "fenced", "queued"].into_iter().chain(of_workers)
    {
        let times = answers.get(word).copied().unwrap_or_default();
        assert!(times >= 100, "{word} only {times} times: {answers:?}");
    }
}
