//! Runs one seed: draws jobs, a fleet and faults, waits for the end, and checks the outcome.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_broker::{Broker, Queue};
use longshore_ledger::{Ledger, ResultsParams};
use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, JobSummary, ResultBody};
use tokio::runtime::RngSeed;
use tokio::time::Instant;

use crate::nemesis::{self, Fault};
use crate::rng::{self, Rng};
use crate::sabotage::Sabotage;
use crate::storage::lines;
use crate::workload::{self, Job, MARK};
use crate::world::{FaultRates, World};
use crate::{Report, fleet};

/// Every job ends within this time of the last fault, plus the time that its work takes on one slot
/// (S1). Freezes and cuts may last 12 s beyond the fault, late messages 8 s, the clock may have
/// been set back by a few jumps of 8 s each, the sweep repeats less and less often, and an orphan
/// is found after up to 20 s.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// All queues are empty within this time after the end of all jobs (S10).
const EMPTY_WITHIN: Duration = Duration::from_secs(30);

/// Result objects that no job refers to are removed within this time.
const CLEAN_WITHIN: Duration = Duration::from_secs(60);

/// The interval of the checks that depend on time.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Runs a seed on a runtime of its own.
pub(crate) fn run(seed: u64, sabotage: Option<Sabotage>, traced: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // Needs `--cfg tokio_unstable`, see .cargo/config.toml.
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime without threads or sockets");
    runtime.block_on(play(seed, sabotage, traced))
}

async fn play(seed: u64, sabotage: Option<Sabotage>, traced: bool) -> Report {
    let rng = Rng::new(seed);
    let queues = workload::queues(&rng);
    let jobs = (0..rng.among(1..6)).map(|_| Job::random(&rng, &queues)).collect();
    let has_short_timeouts = rng.chance(500);
    let dead_after = Duration::from_millis(if has_short_timeouts { 1_500 } else { 5_000 });
    let only_processes_fail = rng::only_processes_fail(seed);
    let (mut faults, mut fault_rates) =
        (nemesis::some_faults(&rng), nemesis::some_fault_rates(&rng));
    let only_servers_fail = rng.chance(150) && !only_processes_fail;
    if only_servers_fail {
        (faults, fault_rates) = nemesis::outages(&rng, fault_rates);
    }
    if only_processes_fail {
        (faults, fault_rates) = (nemesis::process_faults(&rng), FaultRates::default());
    }
    let faults_for = rng.millis(2_000..15_000);
    let fewest = if only_processes_fail { 2 } else { 1 };
    let workers = rng.among(fewest..6) as usize;
    let configs: Vec<_> = (0..workers)
        .map(|place| fleet::worker_config(&rng, place, &queues, has_short_timeouts))
        .collect();
    let mut kinds = fleet::Kind::some(&rng, workers);
    if only_servers_fail {
        kinds.fill(fleet::Kind::Sound);
    }
    let schedulers = rng.among(fewest..4) as usize;

    // Late calls and crashes may leave only a node where all fails for a while.
    let calm = faults.is_empty() && fault_rates.crash_at_call + fault_rates.call_late == 0;
    let is_steady = calm && !only_processes_fail;
    let world = World::new(
        rng.fork(),
        jobs,
        fault_rates,
        (dead_after, only_servers_fail, only_processes_fail),
        sabotage,
        traced,
    );
    world.is_steady.store(is_steady, Ordering::Relaxed);
    world.note(|| plan(&world, &faults, &fault_rates));
    for place in 0..schedulers {
        tokio::spawn(fleet::keep_scheduler(world.clone(), place));
    }
    for (place, (config, kind)) in configs.into_iter().zip(kinds).enumerate() {
        world.note(|| format!("worker {place}: {kind:?}, {config:?}"));
        tokio::spawn(fleet::keep_worker(world.clone(), place, config, kind));
    }
    tokio::spawn(fleet::application(world.clone()));
    let until = world.at(faults_for);
    if only_processes_fail {
        nemesis::fail_workers_early(&world);
    }
    tokio::spawn(nemesis::inject_faults(world.clone(), faults, queues.clone(), until));

    while Instant::now() < until && !world.is_violated() {
        tokio::time::sleep(CHECK_EVERY).await;
        world.check_now().await;
    }
    *world.fault_rates.lock() = FaultRates::default();
    world.note(|| "no more faults".into());
    let faults_over = Instant::now();
    settle(&world, faults_over).await;
    let took = faults_over.elapsed();
    if !world.is_violated() {
        check_outcomes(&world).await;
        await_empty_queues(&world, &queues).await;
        await_cleanup(&world).await;
    }
    // The processes and the world refer to each other.
    world.processes.lock().clear();
    let (tally, violation, trace) =
        (world.tally.lock().clone(), world.violation(), world.take_trace());
    Report { seed, tally, violation, trace, settled_in: took }
}

fn plan(world: &World, faults: &[Fault], fault_rates: &FaultRates) -> String {
    let jobs = world.jobs.values().map(|job| format!("\n  {job:?}")).collect::<String>();
    format!("faults {faults:?}, {fault_rates:?}, jobs{jobs}")
}

/// S1: waits until all jobs have ended. Resumes paused jobs, which would never end.
async fn settle(world: &Arc<World>, faults_over: Instant) {
    let mut next_resume = faults_over;
    let work: Duration = world.jobs.values().map(Job::work).sum();
    let bound = ENDS_WITHIN + work;
    while !world.is_violated() {
        world.check_now().await;
        let mut open = Vec::new();
        for id in world.jobs.keys() {
            match world.ledger.job(*id).await.ok().flatten() {
                Some(summary) if summary.state.is_terminal() => {}
                other => open.push((*id, other)),
            }
        }
        // Submissions and controls have their times, which may come after the last fault.
        let all_submitted = world.confirmed_jobs().len() == world.jobs.len();
        if open.is_empty() && all_submitted && world.now() > Duration::from_secs(12) {
            return;
        }
        if faults_over.elapsed() > bound {
            let open: Vec<String> =
                open.iter().map(|(id, job)| describe(*id, job.as_ref())).collect();
            return world
                .violated("S1", || format!("not ended after {bound:?}: {}", open.join("; ")));
        }
        if Instant::now() >= next_resume && world.now() > Duration::from_secs(20) {
            next_resume = Instant::now() + Duration::from_secs(1);
            for (id, summary) in open {
                if summary.is_some_and(|summary| summary.state == JobState::Paused) {
                    let _ = world.resume(id).await;
                }
            }
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

fn describe(id: JobId, summary: Option<&JobSummary>) -> String {
    match summary {
        Some(job) => format!("{id} is {}, {:?}, reduce {:?}", job.state, job.counts, job.reduce),
        None => format!("{id} does not exist"),
    }
}

/// S10: waits until the queues are empty and all deliveries are settled.
async fn await_empty_queues(world: &World, queues: &[String]) {
    let since = Instant::now();
    while !world.is_violated() {
        world.check_now().await;
        let mut ready = 0;
        for queue in queues {
            let depth = world.broker.depth(&Queue::Work(queue.clone())).await.ok().flatten();
            ready += depth.unwrap_or_default().ready;
        }
        let unsettled: usize = world.living().iter().map(|process| process.unsettled()).sum();
        if ready == 0 && unsettled == 0 {
            return;
        }
        if since.elapsed() > EMPTY_WITHIN {
            return world.violated("S10", || {
                format!("{ready} messages wait and {unsettled} are not settled, long after the end")
            });
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

/// Lets time pass while there are result objects that the ledger does not name: workers remove the
/// objects that they know. Objects that a killed worker wrote for a cancelled job may stay.
async fn await_cleanup(world: &World) {
    let since = Instant::now();
    while since.elapsed() < CLEAN_WITHIN {
        let mut named = 0;
        for job in world.jobs.values() {
            let page =
                world.ledger.results(job.id, &ResultsParams::new(0..u64::MAX, u64::MAX)).await;
            let runs = page.unwrap_or_default().runs;
            named += runs.iter().filter(|run| run.body.url().is_some()).count();
        }
        if world.objects.lock().len() <= named {
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    world.count("runs that left result objects behind");
}

/// S3 and S7: checks the outcome of each job.
async fn check_outcomes(world: &World) {
    for job in world.jobs.values() {
        let Some(summary) = world.ledger.job(job.id).await.ok().flatten() else {
            world.violated("S1", || format!("{} is gone", job.id));
            continue;
        };
        if let Some(complaint) = wrong_end(job, &summary, world.unlucky(job)) {
            world.violated("S3", || format!("{}: {complaint}", job.id));
        }
        check_results(world, job, &summary).await;
    }
}

/// Describes what is wrong with the end of a job.
fn wrong_end(job: &Job, summary: &JobSummary, unlucky: u64) -> Option<String> {
    let JobSummary { state, counts, reduce, .. } = summary;
    if *state == JobState::Rejected && job.is_cancelled() {
        // It was cancelled before its files could be read.
        return None;
    }
    let failures = job.failures()..=job.failures() + unlucky;
    let accounted = counts.done + counts.failed + counts.cancelled == job.total;
    let ended_well = match state {
        JobState::Succeeded => {
            failures.contains(&0) && counts.done == job.total && reduce.done == reduce.total
        }
        _ if job.may_be_cut_short() => counts.failed <= *failures.end(),
        JobState::Failed => {
            counts.failed > 0 && failures.contains(&counts.failed) && counts.cancelled == 0
        }
        _ => false,
    };
    let right = accounted && ended_well;
    (!right).then(|| format!("{failures:?} of {} fail, but it is {state}: {counts:?}", job.total))
}

/// S7, and the end of S3: each done index has its result.
async fn check_results(world: &World, job: &Job, summary: &JobSummary) {
    let indices = job.tree().map_or(job.total, |tree| tree.root() + 1);
    let page = world
        .ledger
        .results(job.id, &ResultsParams::new(0..indices, u64::MAX))
        .await
        .unwrap_or_default();
    let mut found = 0;
    for run in &page.runs {
        for (index, line) in (run.from..run.from + run.count).zip(lines_of(world, &run.body)) {
            found += 1;
            let expected = job.value(index);
            let value = line.parse::<u64>().map(|number| number % MARK);
            if value != Ok(expected) {
                world.violated("S7", || {
                    format!("{}/{index} gave {line}, expected {expected}", job.id)
                });
            }
            let counted = world.history.lock().counted.get(&(job.id, index)).cloned();
            if counted.as_ref() != Some(&line) {
                world.violated("S7", || {
                    format!("{}/{index} gave {line}, {counted:?} was counted", job.id)
                });
            }
            if !world.succeeded(job.id, index) {
                world.violated("S3", || format!("{}/{index} has a result but never ran", job.id));
            }
        }
    }
    let done = summary.counts.done + summary.reduce.done;
    if found != done {
        world.violated("S7", || format!("{}: {found} results of {done} done", job.id));
    }
}

/// The lines of a run, from the object that holds them if there is one.
fn lines_of(world: &World, body: &ResultBody) -> Vec<String> {
    let (url, first_line) = match body {
        ResultBody::Lines(text) => return lines(text.as_bytes()),
        ResultBody::Object { url, first_line } => (url, *first_line),
    };
    let objects = world.objects.lock();
    let all = objects.get(url).map(|bytes| lines(bytes)).unwrap_or_default();
    all.into_iter().skip(usize::try_from(first_line).expect("the number of a line")).collect()
}
