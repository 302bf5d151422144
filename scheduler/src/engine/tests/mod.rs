//! Fair shares, windows, sizes, admissions and reads of the engine, in the simulated `world`.

mod losses;
mod outages;
mod pools;
mod reasons;
mod speculation;
mod world;

use std::time::Duration;

use longshore_ledger::Ledger as _;
use longshore_protocol::document::{Chunk, Placement};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, Epoch, Hint, JobId, JobSummary, SchedulerId, Timestamp,
};

use super::peers::tests::record;
use super::{Action, Config, Engine, Event, JobSpec, RoutedChunk, fair_queue};

use world::{World, at_once};

const ENDLESS: u64 = 10_000_000;

#[track_caller]
fn ends(world: &mut World, ms: u64, job: JobId) {
    world.run_until(ms, "the job's end", |world| world.summary(job).state == JobState::Succeeded);
    let summary = world.summary(job);
    assert_eq!(summary.counts.done, summary.counts.total);
    assert_eq!(summary.counts.imbalance(), 0);
}

/// Runs jobs (subtasks, µs of each, fields of the document, weight) for 30 s: each has received its
/// part of the workers' time.
#[track_caller]
fn shares(jobs: &[(u64, u64, String, f64)]) {
    let mut world = World::new(2, 8);
    let ids: Vec<JobId> =
        jobs.iter().map(|(total, us, fields, _)| world.submit(*total, *us, fields)).collect();
    world.run_for(30_000);
    let busy: Vec<f64> = ids.iter().map(|id| world.summary(*id).busy.as_secs_f64()).collect();
    let all: f64 = busy.iter().sum();
    let weights: f64 = jobs.iter().map(|(.., weight)| weight).sum();
    assert!(all > 0.97 * 30.0 * 16.0, "the slots were busy for {all} s of 480");
    for (busy, (total, us, fields, weight)) in busy.iter().zip(jobs) {
        let (share, fair) = (busy / all, weight / weights);
        let off = (share - fair).abs() / fair;
        assert!(off < 0.1, "{total} x {us} us {fields} got {share:.4}, not {fair:.4}");
    }
}

#[test]
fn ten_tenants_of_very_different_sizes_get_equal_shares() {
    let jobs: Vec<_> = (0..10_u32)
        .map(|i| {
            // From 20,000,000 subtasks of 1 ms to 40,000 of half a second.
            let us =
                [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 300_000, 500_000]
                    [i as usize];
            (20_000_000_000 / us, us, format!(r#","tenant":"t{i}""#), 1.0)
        })
        .collect();
    shares(&jobs);
}

#[test]
fn ten_tenants_get_shares_by_their_weights() {
    let jobs: Vec<_> = (0..10_u8)
        .map(|i| {
            let fields = format!(r#","tenant":"t{i}","priority":{i}"#);
            (ENDLESS / (u64::from(i) + 1), 5_000, fields, fair_queue::weight(i))
        })
        .collect();
    shares(&jobs);
}

#[test]
fn jobs_of_one_tenant_share_what_it_gets() {
    let job = |fields: &str, weight| (ENDLESS, 10_000, fields.to_owned(), weight);
    shares(&[
        job(r#","tenant":"a""#, 0.5),
        job(r#","tenant":"b","priority":5"#, 0.125),
        job(r#","tenant":"b","priority":5"#, 0.125),
        job(r#","tenant":"b","priority":5"#, 0.125),
        job(r#","tenant":"b","priority":5"#, 0.125),
    ]);
}

/// Submits a job of one subtask 10 s after a job of 10,000,000 of `us` each; returns the time in ms
/// until it began.
fn new_job_waits(us: u64, fields: &str) -> u64 {
    let mut world = World::new(1, 4);
    let big = world.submit(ENDLESS, us, fields);
    world.run_for(10_000);
    assert!(world.summary(big).counts.done > 0 || us > 10_000_000);
    let small = world.submit(1, 1_000, r#","tenant":"other""#);
    let before = world.now_ms();
    world.run_until(us / 1_000 + 10_000, "the new job to begin", |world| {
        world.began_ms.contains_key(&small)
    });
    world.began_ms[&small] - before
}

#[test]
fn one_subtask_behind_ten_million_starts_within_a_second() {
    for us in [10, 1_000, 5_000, 250_000] {
        let waited = new_job_waits(us, "");
        assert!(waited <= 1_000, "{waited} ms behind subtasks of {us} us");
    }
    let waited = new_job_waits(5_000, r#","priority":9"#);
    assert!(waited <= 1_000, "{waited} ms behind a job of the highest priority");
}

#[test]
fn one_subtask_behind_long_ones_starts_when_the_second_slot_frees() {
    // 4 slots with staggered ends would free one every 5 s; all began together, so the next ends
    // come 20 s apart.
    let waited = new_job_waits(20_000_000, "");
    assert!(waited <= 20_000, "{waited} ms");
}

#[test]
fn the_first_chunk_of_a_new_job_is_opened_at_once() {
    let mut world = World::new(1, 4);
    world.submit(ENDLESS, 60_000_000, "");
    world.run_for(1_000);
    let small = world.submit(1, 1_000, "");
    world.run_for(60_000);
    assert!(world.began_ms.contains_key(&small), "it is before the next of the big job");
}

#[track_caller]
fn waits_at_most(nodes: usize, slots: usize, us: u64, expected: usize) {
    let mut world = World::new(nodes, slots);
    let job = world.submit(ENDLESS, us, r#","chunk":1"#);
    // The first second measures.
    world.run_for(1_000 + us / 1_000);
    world.most_waiting = 0;
    world.run_for(5_000 + us / 1_000);
    assert!(world.most_waiting <= expected, "{} chunks waited", world.most_waiting);
    let busy = world.summary(job).busy.as_secs_f64();
    let floor = if us < 1_000 { 0.0 } else { 0.8 };
    let run = world.now_ms() as f64 / 1_000.0 * (nodes * slots) as f64;
    assert!(busy >= floor * (run - us as f64 / 1e6 * (nodes * slots) as f64), "{busy} s of {run}");
}

#[test]
fn half_a_second_of_work_waits_in_the_broker() {
    waits_at_most(1, 4, 100, 4 * 200);
    waits_at_most(1, 4, 10_000, 8);
    waits_at_most(2, 8, 50_000, 32);
    waits_at_most(2, 8, 1_000_000, 8);
    waits_at_most(2, 8, 5_000_000, 2);
}

#[test]
fn nothing_is_opened_without_workers_and_nothing_while_the_broker_is_away() {
    let mut world = World::new(0, 1);
    let job = world.submit(100, 1_000, "");
    world.run_for(3_000);
    assert_eq!(world.summary(job).cursor, 0);

    let mut world = World::new(1, 1);
    world.step(Event::Link { up: false });
    let job = world.submit(100, 1_000, "");
    world.run_for(3_000);
    assert_eq!(world.summary(job).cursor, 0);
    world.step(Event::Link { up: true });
    ends(&mut world, 10_000, job);
}

#[test]
fn chunks_grow_to_a_quarter_of_a_second_and_shrink_at_the_end() {
    let mut world = World::new(1, 4);
    let job = world.submit(40_000, 1_000, "");
    ends(&mut world, 15_000, job);
    let sizes = &world.sizes[&job];
    assert_eq!(sizes[0], 1);
    assert_eq!(sizes.iter().max(), Some(&250));
    assert!(sizes[sizes.len() - 4..].iter().all(|size| *size <= 4), "{sizes:?}");
    // 40 s of work on 4 slots: the tail costs next to nothing.
    assert!(world.now_ms() < 10_400, "{} ms", world.now_ms());
}

#[test]
fn max_parallel_is_never_passed_and_is_used() {
    let mut world = World::new(2, 8);
    let job = world.submit(200, 50_000, r#","max_parallel":3"#);
    world.run_until(10_000, "the job's end", |world| {
        let summary = world.summary(job);
        assert!(summary.queued_chunks + summary.running_chunks <= 3);
        summary.state == JobState::Succeeded
    });
    // 10 s of work, three at a time.
    assert!(world.now_ms() < 4_200, "{} ms", world.now_ms());
}

#[test]
fn idle_capacity_goes_to_jobs_that_have_work() {
    let mut world = World::new(1, 4);
    world.submit(ENDLESS, 10_000, r#","max_parallel":1,"tenant":"a","priority":9"#);
    let other = world.submit(ENDLESS, 10_000, r#","tenant":"b","priority":0"#);
    world.run_for(10_000);
    let busy = world.summary(other).busy.as_secs_f64();
    assert!(busy > 28.0, "{busy} s of 30");
}

#[test]
fn a_paused_job_gets_nothing_and_goes_on_when_resumed() {
    let mut world = World::new(1, 4);
    let job = world.submit(2_000, 10_000, "");
    world.run_for(1_000);
    at_once(world.ledger.pause(job)).unwrap();
    world.run_for(500);
    let paused_at = world.summary(job).counts.done;
    world.run_for(3_000);
    assert_eq!(world.summary(job).counts.done, paused_at);
    at_once(world.ledger.resume(job)).unwrap();
    let resumed = world.now_ms();
    world.run_until(100, "work to go on", |world| world.summary(job).counts.running > 0);
    assert!(world.now_ms() - resumed < 100);
    ends(&mut world, 20_000, job);
}

#[test]
fn a_deadline_fails_the_job_when_it_passes() {
    let mut world = World::new(1, 1);
    let job = world.submit(ENDLESS, 10_000, r#","deadline":"3s""#);
    world.run_until(4_000, "the deadline", |world| world.summary(job).state == JobState::Failed);
    assert!((3_000..3_050).contains(&world.now_ms()), "{} ms", world.now_ms());
    assert_eq!(world.summary(job).error.as_deref(), Some("the deadline has passed"));
}

#[test]
fn a_finished_job_is_archived() {
    let mut world = World::new(1, 1);
    let job = world.submit(3, 1_000, "");
    ends(&mut world, 2_000, job);
    world.run_for(100);
    assert_eq!(at_once(world.ledger.active_jobs()).unwrap(), []);
    assert_eq!(at_once(world.ledger.finished_jobs(9)).unwrap(), [job]);
    assert!(world.engine.jobs.is_empty() && world.engine.pools.is_empty());
    assert!(world.engine.timers.is_empty() && world.engine.calls.in_flight() == 0);
}

#[test]
fn a_reduce_runs_level_by_level() {
    let mut world = World::new(2, 4);
    let job = world.submit(1_000, 1_000, r#","reduce":{"task":"sum","fan_in":10}"#);
    ends(&mut world, 10_000, job);
    let summary = world.summary(job);
    assert_eq!((summary.reduce.total, summary.reduce.done), (111, 111));
}

#[test]
fn a_thousand_jobs_end() {
    let mut world = World::new(4, 8);
    let jobs: Vec<JobId> = (0..1_000)
        .map(|i| world.submit(1 + i % 40, 1_000, &format!(r#","tenant":"t{}""#, i % 7)))
        .collect();
    for job in jobs {
        ends(&mut world, 20_000, job);
    }
}

/// A world with this many jobs of a queue without workers, each of which was read once.
fn many_that_wait(jobs: usize) -> World {
    let mut world = World::new(1, 1);
    for _ in 0..jobs {
        world.submit(2, 1_000, r#","queue":"empty""#);
    }
    world.run_until(4_000, "all to be known", |world| world.reads >= jobs);
    world
}

#[test]
fn many_jobs_that_only_wait_are_read_rarely() {
    let mut world = many_that_wait(4_000);
    let before = world.reads;
    world.run_for(10_000);
    let reads = world.reads - before;
    assert!(reads <= 2_000, "{reads} in ten seconds");
}

#[test]
fn a_lost_message_is_found_as_soon_among_many_jobs_as_with_one() {
    let mut world = many_that_wait(4_000);
    world.submit(1, 3_000_000, "");
    world.run_for(1_000);
    let job = world.submit(1, 1_000, "");
    world.run_for(1_000);
    world.swallow();
    world.run_until(6_100, "its beginning", |world| world.began_ms.contains_key(&job));
}

#[test]
fn missed_hints_cost_one_read_after_the_other_for_jobs_that_only_wait() {
    let mut world = World::new(0, 1);
    for _ in 0..1_000 {
        world.submit(2, 1_000, "");
    }
    world.run_for(2_000);
    let gap = Event::Hint(longshore_ledger::Event::Gap);
    let mut asked = 0;
    for second in [0, 1, 2, 3] {
        let base = world.now_ms();
        if second == 0 {
            let actions = world.engine.step(Timestamp::from_millis(base), gap.clone());
            assert_eq!(actions, [], "no job is read at once");
        }
        let before = world.reads;
        world.run_for(1_000);
        asked += world.reads - before;
        assert!(world.reads - before <= 510, "{} in a second", world.reads - before);
    }
    assert!(asked >= 1_000, "only {asked} were asked about");
}

#[test]
fn a_ledger_that_does_not_answer_gets_ever_fewer_calls_one_at_a_time() {
    let me = SchedulerId::new("me");
    let mut engine = Engine::new(Config { me, dead_after: Duration::from_secs(5) });
    engine.step(Timestamp::default(), Event::Peers(vec![record("me", 1)]));
    let jobs: Vec<JobId> =
        (1..=1_000_u128).map(|i| JobId::from_uuid(uuid::Uuid::from_u128(i))).collect();
    let mut pending = engine.step(Timestamp::default(), Event::ActiveJobs(jobs));
    assert_eq!(pending.len(), 128);
    let mut calls = 0;
    for ms in 0..60_000 {
        let now = Timestamp::from_millis(ms);
        for action in std::mem::take(&mut pending) {
            let Action::ReadJob { job } = action else { panic!("unexpected {action:?}") };
            pending.extend(engine.step(now, Event::CallFailed { job }));
            calls += 1;
        }
        if engine.next_wake().is_some_and(|at| at <= now) {
            pending.extend(engine.step(now, Event::Tick));
        }
    }
    assert!((128 + 30..128 + 40).contains(&calls), "{calls} calls in a minute");
}

/// A world in which the admission of a job is in flight, and the job as it will be stored.
fn admitting() -> (World, JobId, Box<JobSummary>) {
    let mut world = World::new(1, 4);
    world.run_for(1_000);
    let job = world.submit(10, 1_000, "");
    let summary = Box::new(world.summary(job));
    let now = Timestamp::from_millis(world.now_ms());
    assert_eq!(world.engine.begin_admission(now, *summary.clone(), spec()), Some(1));
    assert_eq!(step(&mut world, job_hint(job, JobState::Queued)), [], "the admitter will say more");
    (world, job, summary)
}

/// The message of a job's first chunk, of this many subtasks.
fn first_message(job: JobId, to: u64) -> ChunkMessage {
    ChunkMessage { v: 1, job, chunk: ChunkId(1), from: 0, to, epoch: Epoch::FIRST }
}

fn publish(message: ChunkMessage) -> Action {
    let queue = longshore_broker::Queue::Work("default".into());
    Action::Publish { queue, chunk: RoutedChunk { message, key: None, tried: Vec::new() } }
}

fn step(world: &mut World, event: Event) -> Vec<Action> {
    let now = Timestamp::from_millis(world.now_ms());
    world.engine.step(now, event)
}

fn job_hint(job: JobId, state: JobState) -> Event {
    Event::Hint(longshore_ledger::Event::Hint(Hint::Job { job, state }))
}

fn spec() -> JobSpec {
    let document = br#"{"task": "noop", "split": {"by": "items", "items": [1]}}"#;
    JobSpec::of(&longshore_protocol::JobDocument::parse(document).expect("it is right"))
}

#[test]
fn a_new_job_is_opened_without_being_read() {
    let (mut world, job, summary) = admitting();
    let actions = step(&mut world, Event::Admitted { summary, spec: spec(), opened: None });
    assert_eq!(
        actions,
        [Action::Open { job, chunks: 5, size: 1, with_keys: false, with_tried: false }]
    );
}

#[test]
fn a_cancel_of_a_job_that_is_being_admitted_is_not_missed() {
    let (mut world, job, summary) = admitting();
    assert_eq!(step(&mut world, job_hint(job, JobState::Cancelled)), []);
    step(&mut world, Event::Admitted { summary, spec: spec(), opened: None });
    let actions = step(&mut world, Event::Opened { job, chunks: Vec::new() });
    assert_eq!(actions, [Action::ReadJob { job }]);
}

#[test]
fn a_document_that_is_not_admitted_leaves_nothing_or_a_read() {
    let (mut world, job, _) = admitting();
    assert_eq!(
        step(&mut world, Event::NotAdmitted { job, known: true }),
        [Action::ReadJob { job }]
    );
    let (mut world, job, _) = admitting();
    assert_eq!(step(&mut world, Event::NotAdmitted { job, known: false }), []);
    assert!(world.engine.jobs.get(job).is_none());
}

/// Whether the job is read, or will be after the call that is in flight.
fn is_read(world: &mut World, event: Event, job: JobId) -> bool {
    let is_read = |action: &Action| matches!(action, Action::ReadJob { .. } | Action::Sweep { .. });
    step(world, event).iter().any(is_read)
        || world.engine.jobs.get(job).is_some_and(|entry| entry.wants_read)
}

/// The size of the first chunk that the `n`th new job may have; its admission stays in flight.
fn first_chunk(
    world: &mut World,
    n: u128,
    change: impl Fn(&mut JobSummary, &mut JobSpec),
) -> Option<u64> {
    let job = JobId::from_uuid(uuid::Uuid::from_u128(n));
    let admission = longshore_ledger::Admission::plain(job, 10);
    let (mut summary, mut spec) = (Box::new(admission.accepted(Timestamp::default())), spec());
    change(&mut summary, &mut spec);
    let now = Timestamp::from_millis(world.now_ms());
    world.engine.begin_admission(now, *summary, spec)
}

#[test]
fn a_first_chunk_is_opened_with_the_job_if_the_window_has_room() {
    let mut world = World::new(1, 2);
    assert_eq!(first_chunk(&mut world, 1, |_, _| {}), None, "no worker is there yet");
    world.run_for(1_000);
    let fixed = |_: &mut JobSummary, spec: &mut JobSpec| spec.chunk = Chunk::Fixed(7);
    assert_eq!(first_chunk(&mut world, 2, fixed), Some(7));
    let keyed =
        |_: &mut JobSummary, spec: &mut JobSpec| spec.placement = Placement::Hash("".into());
    assert_eq!(first_chunk(&mut world, 3, keyed), None, "the key has to be read");
    let elsewhere = |summary: &mut JobSummary, _: &mut JobSpec| summary.queue = "other".into();
    assert_eq!(first_chunk(&mut world, 4, elsewhere), None);
    // Two slots, and one ahead of the worker.
    assert_eq!(first_chunk(&mut world, 5, |_, _| {}), Some(1));
    assert_eq!(first_chunk(&mut world, 6, |_, _| {}), Some(1));
    assert_eq!(first_chunk(&mut world, 7, |_, _| {}), None, "chunks of admissions in flight count");
    let not =
        |n| Event::NotAdmitted { job: JobId::from_uuid(uuid::Uuid::from_u128(n)), known: false };
    step(&mut world, not(5));
    assert_eq!(first_chunk(&mut world, 8, |_, _| {}), Some(1), "there is room again");
    step(&mut world, Event::Link { up: false });
    step(&mut world, not(8));
    assert_eq!(first_chunk(&mut world, 9, |_, _| {}), None, "it could not be published");
}

#[test]
fn the_first_chunk_is_published_once_the_job_is_admitted_and_the_rest_is_opened() {
    let (mut world, job, summary) = admitting();
    let message = first_message(job, 1);
    let opened = Some(RoutedChunk { message, key: None, tried: Vec::new() });
    let actions = step(&mut world, Event::Admitted { summary, spec: spec(), opened });
    let open = Action::Open { job, chunks: 4, size: 1, with_keys: false, with_tried: false };
    assert_eq!(actions, [publish(message), open]);
}

#[test]
fn a_first_chunk_that_is_placed_in_turn_goes_to_one_worker() {
    let mut world = World::new(1, 2);
    world.run_for(1_000);
    let in_turn = |_: &mut JobSummary, spec: &mut JobSpec| spec.placement = Placement::RoundRobin;
    assert_eq!(first_chunk(&mut world, 1, in_turn), Some(1));
    let job = JobId::from_uuid(uuid::Uuid::from_u128(1));
    let summary =
        Box::new(longshore_ledger::Admission::plain(job, 10).accepted(Timestamp::default()));
    let spec = JobSpec { placement: Placement::RoundRobin, ..spec() };
    let opened = Some(RoutedChunk { message: first_message(job, 1), key: None, tried: Vec::new() });
    let actions = step(&mut world, Event::Admitted { summary, spec, opened });
    let is_for_a_node = |action: &Action| {
        matches!(action, Action::Publish { queue: longshore_broker::Queue::Node(_), .. })
    };
    assert!(actions.first().is_some_and(is_for_a_node), "{actions:?}");
}

/// A job of ten subtasks was admitted, and five chunks of this size opened.
fn opened(size: u64) -> (World, JobId) {
    let (mut world, job, summary) = admitting();
    step(&mut world, Event::Admitted { summary, spec: spec(), opened: None });
    let opened = (0..5).map(|n| {
        let (chunk, from, to) = (ChunkId(n + 1), n * size, (n + 1) * size);
        let message = ChunkMessage { v: 1, job, chunk, from, to, epoch: Epoch(1) };
        RoutedChunk { message, key: None, tried: Vec::new() }
    });
    step(&mut world, Event::Opened { job, chunks: opened.collect() });
    (world, job)
}

#[test]
fn a_hint_that_a_new_job_is_queued_leads_to_no_read_but_a_pause_does() {
    let (mut world, job) = opened(2);
    assert!(!is_read(&mut world, job_hint(job, JobState::Queued), job));
    assert!(is_read(&mut world, job_hint(job, JobState::Paused), job));
}

#[test]
fn the_first_claim_of_a_job_that_is_all_opened_leads_to_no_read() {
    for (size, asked) in [(2, false), (1, true)] {
        let (mut world, job) = opened(size);
        let runs = job_hint(job, JobState::Running);
        assert_eq!(is_read(&mut world, runs.clone(), job), asked, "chunks of {size}");
        assert!(is_read(&mut world, runs, job), "a second such hint is not expected");
    }
}
