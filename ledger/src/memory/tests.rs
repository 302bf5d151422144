//! Random walks on the memory ledger, and tests that need a manual clock or a look inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longshore_protocol::state::JobState;
use longshore_protocol::{ChunkId, Hint, JobId, NodeId, OutcomeRun, Timestamp, Token};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::conformance::stress::Stress;
use crate::conformance::walk::{Draw, Shape, Walk};
use crate::{
    ClaimParams, Commit, CommitParams, LossCause, RegisterSchedulerParams, RetryParams,
    RevokeParams, SweepParams,
};

/// A clock that goes when it is told to.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn manual() -> (Arc<ManualClock>, MemoryLedger) {
    let clock = Arc::new(ManualClock::default());
    (Arc::clone(&clock), MemoryLedger::new(clock))
}

fn job() -> JobId {
    "00000000-0000-4000-8000-000000000001".parse().unwrap()
}

fn admission(total: u64) -> Admission {
    Admission::plain(job(), total)
}

fn token(n: u8) -> Token {
    Token::from_bytes([n; 16])
}

fn successes(from: u64, count: u64) -> Commit {
    Commit::new(from, vec![OutcomeRun::Success { count, results: None }], Duration::ZERO)
}

async fn open(
    ledger: &MemoryLedger,
    chunks: u32,
    size: u64,
    within: Duration,
) -> Vec<ChunkMessage> {
    let open = OpenParams::new(chunks, size, within);
    ledger.open(job(), &open).await.unwrap()
}

async fn claim(ledger: &MemoryLedger, message: &ChunkMessage) -> Claim {
    let node = NodeId::new("n");
    ledger.claim(job(), &ClaimParams::of(message, token(1), node.clone())).await.unwrap()
}

/// Hands out and settles whatever is left, as often as it takes.
async fn finish(ledger: &MemoryLedger, clock: &ManualClock, job: JobId) {
    for _ in 0..200 {
        // Beyond every delay of a walk, yet within the time that ended jobs are kept.
        match ledger.job(job).await.unwrap() {
            None => return,
            Some(summary) if summary.state.is_terminal() => return,
            Some(summary) if summary.state == JobState::Paused => {
                ledger.resume(job).await.unwrap();
            }
            Some(summary) if summary.next_retry_at.is_some_and(|due| due > clock.now()) => {
                clock.advance(Duration::from_secs(100 * 3_600));
            }
            Some(_) => {}
        }
        for node in ["a", "b", "c", "n"] {
            ledger
                .revoke(job, &RevokeParams::new(NodeId::new(node), LossCause::Vanished))
                .await
                .unwrap();
        }
        let open = OpenParams::new(9, 9, Duration::ZERO);
        ledger.open(job, &open).await.unwrap();
        // A revoke may have ended it.
        if ledger.pause(job).await.is_ok() {
            ledger.resume(job).await.unwrap();
        }
        let swept = ledger.sweep(job, &SweepParams::new(99, Duration::ZERO)).await.unwrap();
        for (n, message) in swept.into_iter().flat_map(|sweep| sweep.publish).enumerate() {
            let token = token(n as u8);
            let node = NodeId::new("n");
            let claimed = ledger.claim(job, &ClaimParams::of(&message, token, node.clone())).await;
            if let Ok(Claim::Granted(grant)) = claimed {
                let commit = successes(grant.from, grant.to - grant.from);
                ledger
                    .commit(job, &CommitParams::new(message.chunk, token, commit.clone()))
                    .await
                    .unwrap();
            }
        }
    }
    panic!("{job} does not come to an end: {:#?}", ledger.job(job).await.unwrap());
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..=40u64, prop::option::of(2..=5u64), prop::option::of(1..=4u64), prop::option::of(1..=4u64))
        .prop_map(|(total, fan_in, max_parallel, stop_after_failures)| Shape {
            total,
            fan_in,
            max_parallel,
            stop_after_failures,
        })
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    prop::collection::vec(any::<Draw>(), 1..120)
}

proptest! {
    #[test]
    fn counts_balance_after_every_move_and_every_job_can_be_brought_to_its_end(
        shapes in [shape(), shape()],
        draws in draws(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (clock, ledger) = manual();
            let mut walk = Walk::new(ledger.separate(), shapes);
            walk.step((44, 2, 0, 0)).await;
            walk.step((44, 2, 0, 3)).await;
            for draw in draws {
                walk.step(draw).await;
                // The view checks the counts, and that no index has two results.
                walk.view().await;
                clock.advance(Duration::from_millis(7));
            }
            for job in walk.jobs() {
                finish(&ledger, &clock, job).await;
            }
            walk.view().await;
        });
    }
}

/// What compares two ledgers by their walks shows nothing of what no walk meets.
#[test]
fn walks_meet_deaths_cuts_and_subtasks_given_up() {
    let mut runner = TestRunner::deterministic();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut met = String::new();
    for _ in 0..64 {
        let mut draw = || (shape(), shape(), draws()).new_tree(&mut runner).unwrap().current();
        let (one, two, draws) = draw();
        runtime.block_on(async {
            let mut walk = Walk::new(manual().1.separate(), [one, two]);
            for draw in [(44, 2, 0, 0), (44, 2, 0, 3)].into_iter().chain(draws) {
                met += &walk.step(draw).await;
            }
            met += &walk.view().await;
        });
    }
    let count = |what: &str| met.matches(what).count();
    assert!(count("nodes died running it alone") > 5, "subtasks given up");
    assert!(count("cut: ") - count("cut: 0,") > 20, "chunks cut");
    assert!(count("crashes: 2, digest") > 20, "suspects claimed");
    assert!(count("holder: Some(") > 20, "claims of what another holds");
}

fn stress(guilty: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Stress> {
    let size = prop_oneof![Just(1), 1..40u64, 1..10_000u64];
    let fleet =
        (1..6usize, 1..5usize, any::<bool>(), any::<bool>(), prop::option::weighted(0.3, 1..4u64));
    let guilty = prop::collection::vec(any::<prop::sample::Index>(), guilty);
    (size, 1..10u64, guilty, fleet, any::<u64>()).prop_map(|(size, chunks, guilty, fleet, seed)| {
        let total = size * chunks;
        let guilty = guilty.iter().map(|guilty| guilty.index(total as usize) as u64).collect();
        let (nodes, slots, careful, slow, max_parallel) = fleet;
        Stress { total, size, guilty, nodes, slots, careful, slow, max_parallel, seed }
    })
}

fn run(stress: &Stress) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(stress.execute(Arc::new(manual().1)))
}

proptest! {
    #[test]
    fn one_poisonous_subtask_costs_eight_nodes_at_most_and_nobody_else(stress in stress(0..=1)) {
        run(&stress);
    }

    #[test]
    fn two_poisonous_subtasks_both_fail_and_nobody_else(stress in stress(2..=2)) {
        run(&stress);
    }
}

#[test]
fn care_finds_a_poisonous_subtask_among_a_hundred_thousand_with_fewer_deaths() {
    #[track_caller]
    fn check(careful: bool, most: u32) {
        let deaths = (0..20u64).map(|seed| {
            let guilty = [seed * 4_999].into();
            run(&Stress {
                total: 100_000,
                size: 10_000,
                guilty,
                nodes: 4,
                slots: 2,
                careful,
                slow: false,
                max_parallel: None,
                seed,
            })
        });
        assert_eq!(deaths.max(), Some(most));
    }
    check(false, 8);
    check(true, 6);
}

#[tokio::test]
async fn repeats_of_a_message_thin_out_with_the_time_that_it_waits() {
    let (clock, ledger) = manual();
    ledger.admit(&admission(4)).await.unwrap();
    let within = Duration::from_secs(10);
    open(&ledger, 1, 4, within).await;
    let mut published = Vec::new();
    for second in 0..=100u64 {
        let swept = ledger.sweep(job(), &SweepParams::new(9, within)).await.unwrap().unwrap();
        published.extend(swept.publish.iter().map(|_| second));
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(published, [10, 20, 40, 80]);
}

#[tokio::test]
async fn an_ended_job_is_kept_for_its_time_and_not_longer() {
    let (clock, ledger) = manual();
    ledger.admit(&admission(4)).await.unwrap();
    ledger.cancel(job()).await.unwrap();
    ledger.archive(job()).await.unwrap();
    clock.advance(HOUR - Duration::from_millis(1));
    assert!(ledger.job(job()).await.unwrap().is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(ledger.job(job()).await.unwrap(), None);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
    // A retry lifts it.
    ledger.admit(&admission(4)).await.unwrap();
    ledger.fail(job(), "deadline").await.unwrap();
    ledger.retry(job(), &RetryParams::all()).await.unwrap();
    clock.advance(HOUR * 48);
    assert!(ledger.job(job()).await.unwrap().is_some());
    ledger.reject("00000000-0000-4000-8000-000000000002".parse().unwrap(), "no").await.unwrap();
    clock.advance(HOUR * 24);
    assert_eq!(ledger.finished_jobs(9).await.unwrap(), []);
}

#[tokio::test]
async fn the_rate_is_that_of_the_last_seconds_and_tells_when_it_will_end() {
    let (clock, ledger) = manual();
    ledger.admit(&admission(10_000)).await.unwrap();
    let opened = open(&ledger, 1, 10_000, HOUR).await;
    claim(&ledger, &opened[0]).await;
    for second in 0..60 {
        let commit = successes(second * 100, 100);
        ledger
            .commit(job(), &CommitParams::new(ChunkId(1), token(1), commit.clone()))
            .await
            .unwrap();
        clock.advance(Duration::from_secs(1));
        ledger.sweep(job(), &SweepParams::new(0, HOUR)).await.unwrap();
    }
    let summary = ledger.job(job()).await.unwrap().unwrap();
    assert!((summary.rate - 100.0).abs() < 1.0, "{}", summary.rate);
    let eta = summary.eta.expect("it moves");
    assert!((eta.as_secs_f64() - 40.0).abs() < 1.0, "{eta:?}");
    clock.advance(HOUR);
    let swept = ledger.sweep(job(), &SweepParams::new(0, HOUR)).await.unwrap().unwrap();
    assert!(swept.summary.rate < 1.0, "nothing was settled for an hour");
    ledger.pause(job()).await.unwrap();
    assert_eq!(ledger.job(job()).await.unwrap().unwrap().eta, None);
}

#[tokio::test]
async fn schedulers_that_fell_silent_are_left_out() {
    let (clock, ledger) = manual();
    let [one, two] = ["one", "two"].map(SchedulerId::new);
    let within = Duration::from_secs(5);
    let register = async |id: &SchedulerId| -> Vec<SchedulerId> {
        let present = ledger
            .register_scheduler(&RegisterSchedulerParams::new(id.clone(), within))
            .await
            .unwrap();
        present.into_iter().map(|record| record.id).collect()
    };
    register(&one).await;
    clock.advance(within);
    assert_eq!(register(&two).await, [one, two.clone()]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(register(&two).await, [two]);
}

#[tokio::test]
async fn a_follower_that_falls_behind_is_told_of_the_gap() {
    let ledger = MemoryLedger::default();
    let mut events = ledger.events(Topic::Schedulers).await.unwrap();
    ledger.admit(&admission(4)).await.unwrap();
    for _ in 0..EVENTS_KEPT {
        ledger.pause(job()).await.unwrap();
        ledger.resume(job()).await.unwrap();
    }
    assert_eq!(events.next().await, Event::Gap);
    assert!(matches!(events.next().await, Event::Hint(Hint::Job { .. })));
}

#[test]
fn a_bit_that_is_set_counts_once_and_keeps_its_result() {
    let now = Timestamp::from_millis(1);
    let mut counts = Job::admit(&admission(8), now);
    let opened = counts.open(&OpenParams::new(1, 8, HOUR), now);
    counts.claim(&ClaimParams::of(&opened[0], token(1), NodeId::new("n")), now);
    // Another worker was first with 2, 3 and 6.
    counts.done.set_range(2..4);
    counts.done.set_range(6..7);
    let results = Some("0\n1\n2\n3\n4\n5\n6\n".into());
    let runs = vec![OutcomeRun::Success { count: 7, results }];
    let commit = Commit::new(0, runs, Duration::ZERO);
    let mut events = Vec::new();
    counts.commit(&CommitParams::new(opened[0].chunk, token(1), commit), now, &mut events).unwrap();
    assert_eq!(counts.counts.done, 4);
    let page = counts.results.page(0..8, 99);
    let kept: Vec<_> = page.runs.iter().map(|run| (run.from, run.body.text())).collect();
    assert_eq!(kept, [(0, "0\n1\n".into()), (4, "4\n5\n".into())]);
    // Failures of what is done are no failures.
    counts.done.set_range(7..8);
    let runs = vec![OutcomeRun::Failed { error: "late".into() }];
    let commit = Commit::new(7, runs, Duration::ZERO);
    counts.commit(&CommitParams::new(opened[0].chunk, token(1), commit), now, &mut events).unwrap();
    assert_eq!((counts.counts.failed, counts.errors.page(0, 9)), (0, vec![]));
}

#[test]
fn the_audit_sees_what_is_wrong() {
    #[track_caller]
    fn check(break_it: fn(&mut Job), expected: &str) {
        let now = Timestamp::from_millis(1);
        let mut job = Job::admit(&Admission { fan_in: Some(4), ..admission(12) }, now);
        let opened = job.open(&OpenParams::new(2, 3, HOUR), now);
        job.claim(&ClaimParams::of(&opened[0], token(1), NodeId::new("n")), now);
        let runs = vec![
            OutcomeRun::Failed { error: "no".into() },
            OutcomeRun::Retry { error: "again".into(), delay: HOUR },
        ];
        let commit = Commit::new(0, runs, Duration::ZERO);
        let params = CommitParams::new(opened[0].chunk, token(1), commit);
        job.commit(&params, now, &mut Vec::new()).unwrap();
        assert_eq!(job.audit().findings, Vec::<String>::new());
        break_it(&mut job);
        let found = job.audit().findings.join("; ");
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
    check(|job| job.counts.done += 1, "off by -1");
    check(|job| job.counts.done += 1, "1 subtasks are kept as done, 0 counted");
    check(|job| job.reduce.waiting -= 1, "the counts of the reduce nodes are off by 1");
    check(|job| drop(job.chunks.pop_last()), "3 subtasks are kept as queued, 0 counted");
    check(|job| job.retries.clear(), "1 subtasks are kept as retrying, 0 counted");
    check(|job| job.cursor = 9, "kept as waiting, 3 counted");
    check(|job| _ = job.done.set_range(4..5), "chunk 2 has subtasks open that are settled");
    check(|job| _ = job.done.set_range(0..1), "0 is both done and failed");
    check(|job| _ = job.done.set_range(1..2), "1 waits for a retry and is settled");
    check(|job| _ = job.failed.clear_range(0..1), "0 has an error and has not failed");
    check(|job| job.chunks.get_mut(&ChunkId(1)).unwrap().range.end = 5, "chunks 1 and 2 overlap");
    check(|job| job.chunks.get_mut(&ChunkId(2)).unwrap().range.end = 13, "outside the level");
}

#[tokio::test]
async fn ten_million_subtasks_cost_bits_and_not_rows() {
    let ledger = MemoryLedger::default();
    let total = 10_000_000;
    ledger.admit(&admission(total)).await.unwrap();
    loop {
        let opened = open(&ledger, 100, 1_000, HOUR).await;
        if opened.is_empty() {
            break;
        }
        for message in opened {
            claim(&ledger, &message).await;
            let commit = successes(message.from, message.to - message.from);
            ledger
                .commit(job(), &CommitParams::new(message.chunk, token(1), commit.clone()))
                .await
                .unwrap();
        }
    }
    let summary = ledger.job(job()).await.unwrap().unwrap();
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, total));
    ledger.read(job(), |job| {
        assert_eq!(job.chunks.len(), 0);
        assert_eq!(job.results.page(0..total, 1).runs, []);
    });
}

#[tokio::test]
async fn a_restored_ledger_has_no_record_of_what_came_after_the_snapshot() {
    let (_, ledger) = manual();
    ledger.admit(&admission(4)).await.unwrap();
    let message = open(&ledger, 1, 4, HOUR).await[0];
    let before = ledger.snapshot();
    assert!(matches!(claim(&ledger, &message).await, Claim::Granted(_)));
    ledger
        .commit(job(), &CommitParams::new(message.chunk, token(1), successes(0, 2)))
        .await
        .unwrap();
    ledger.restore(&before);
    let summary = ledger.job(job()).await.unwrap().unwrap();
    assert_eq!((summary.counts.done, summary.counts.queued), (0, 4));
    assert!(ledger.audit(job()).await.unwrap().unwrap().is_clean());
    let late = ledger
        .commit(job(), &CommitParams::new(message.chunk, token(1), successes(2, 2)))
        .await
        .unwrap();
    assert_eq!(late, Committed::Fenced);
}
