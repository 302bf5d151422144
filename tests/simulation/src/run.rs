//! One run: a seed becomes jobs, a fleet and its troubles; time passes until all is done; then everything is judged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longshore_broker::{Broker, Queue};
use longshore_ledger::{Ledger, ResultsParams};
use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, JobSummary};
use tokio::runtime::RngSeed;
use tokio::time::Instant;

use crate::dice::{self, Dice};
use crate::nemesis::{self, Fault};
use crate::sabotage::Sabotage;
use crate::storage::lines;
use crate::workload::{self, Job, MARK};
use crate::world::{Weather, World};
use crate::{Report, fleet};

/// After the last fault every job ends within this time and what its work takes on one slot (S1). Freezes and cuts may last
/// 12 s beyond the fault, late messages 8 s, the clock may have been set back by some jumps of 8 s each, the sweep's repeats thin
/// out, and an orphan is found after up to 20 s.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// After the end of all jobs no message is left after this time (S10).
const SILENT_WITHIN: Duration = Duration::from_secs(30);

/// Objects that nobody needs are removed within this time.
const TIDY_WITHIN: Duration = Duration::from_secs(60);

/// How often the world is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    let dice = Dice::new(seed);
    let queues = workload::queues(&dice);
    let jobs = (0..dice.among(1..6)).map(|_| Job::random(&dice, &queues)).collect();
    let hasty = dice.chance(500);
    let dead_after = Duration::from_millis(if hasty { 1_500 } else { 5_000 });
    let is_clear = dice::is_clear(seed);
    let (mut faults, mut weather) = (nemesis::some_faults(&dice), nemesis::some_weather(&dice));
    let is_gentle = dice.chance(150) && !is_clear;
    if is_gentle {
        (faults, weather) = nemesis::outages(&dice, weather);
    }
    if is_clear {
        (faults, weather) = (nemesis::clear_faults(&dice), Weather::default());
    }
    let rage_for = dice.millis(2_000..15_000);
    let fewest = if is_clear { 2 } else { 1 };
    let workers = dice.among(fewest..6) as usize;
    let configs: Vec<_> =
        (0..workers).map(|place| fleet::worker_config(&dice, place, &queues, hasty)).collect();
    let mut kinds = fleet::Kind::some(&dice, workers);
    if is_gentle {
        kinds.fill(fleet::Kind::Sound);
    }
    let schedulers = dice.among(fewest..4) as usize;

    // Late calls and crashes may leave nobody but a hole for a while.
    let calm = faults.is_empty() && weather.crash_at_call + weather.call_late == 0;
    let is_steady = calm && !is_clear;
    let world =
        World::new(dice.fork(), jobs, weather, (dead_after, is_gentle, is_clear), sabotage, traced);
    world.is_steady.store(is_steady, Ordering::Relaxed);
    world.note(|| plan(&world, &faults, &weather));
    for place in 0..schedulers {
        tokio::spawn(fleet::keep_scheduler(world.clone(), place));
    }
    for (place, (config, kind)) in configs.into_iter().zip(kinds).enumerate() {
        world.note(|| format!("worker {place}: {kind:?}, {config:?}"));
        tokio::spawn(fleet::keep_worker(world.clone(), place, config, kind));
    }
    tokio::spawn(fleet::application(world.clone()));
    let until = world.at(rage_for);
    if is_clear {
        nemesis::strike_early(&world);
    }
    tokio::spawn(nemesis::rage(world.clone(), faults, queues.clone(), until));

    while Instant::now() < until && !world.is_violated() {
        tokio::time::sleep(LOOK_EVERY).await;
        world.look_round().await;
    }
    *world.weather.lock() = Weather::default();
    world.note(|| "the weather is fine now".into());
    let calm = Instant::now();
    settle(&world, calm).await;
    let took = calm.elapsed();
    if !world.is_violated() {
        judge_jobs(&world).await;
        quieten(&world, &queues).await;
        tidy(&world).await;
    }
    // Each process knows the world, and the world its processes.
    world.processes.lock().clear();
    let (tally, violation, trace) =
        (world.tally.lock().clone(), world.violation(), world.take_trace());
    Report { seed, tally, violation, trace, settled_in: took }
}

fn plan(world: &World, faults: &[Fault], weather: &Weather) -> String {
    let jobs = world.jobs.values().map(|job| format!("\n  {job:?}")).collect::<String>();
    format!("faults {faults:?}, {weather:?}, jobs{jobs}")
}

/// S1: waits until all jobs have ended. What is still paused is resumed: a pause is for ever if nobody does.
async fn settle(world: &Arc<World>, calm: Instant) {
    let mut next_resume = calm;
    let work: Duration = world.jobs.values().map(Job::work).sum();
    let bound = ENDS_WITHIN + work;
    while !world.is_violated() {
        world.look_round().await;
        let mut open = Vec::new();
        for id in world.jobs.keys() {
            match world.ledger.job(*id).await.ok().flatten() {
                Some(summary) if summary.state.is_terminal() => {}
                other => open.push((*id, other)),
            }
        }
        // Everybody controls and submits at his time, even if that comes after the calm.
        let all_said = world.confirmed_jobs().len() == world.jobs.len();
        if open.is_empty() && all_said && world.now() > Duration::from_secs(12) {
            return;
        }
        if calm.elapsed() > bound {
            let open: Vec<String> =
                open.iter().map(|(id, job)| stands(*id, job.as_ref())).collect();
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
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn stands(id: JobId, summary: Option<&JobSummary>) -> String {
    match summary {
        Some(it) => format!("{id} is {}, {:?}, reduce {:?}", it.state, it.counts, it.reduce),
        None => format!("{id} is not there"),
    }
}

/// S10: waits until the queues are empty and everything is settled.
async fn quieten(world: &World, queues: &[String]) {
    let since = Instant::now();
    while !world.is_violated() {
        world.look_round().await;
        let mut ready = 0;
        for queue in queues {
            let depth = world.broker.depth(&Queue::Work(queue.clone())).await.ok().flatten();
            ready += depth.unwrap_or_default().ready;
        }
        let unsettled: usize = world.living().iter().map(|process| process.unsettled()).sum();
        if ready == 0 && unsettled == 0 {
            return;
        }
        if since.elapsed() > SILENT_WITHIN {
            return world.violated("S10", || {
                format!("{ready} messages wait and {unsettled} are not settled, long after the end")
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Lets time pass while there are result objects that the ledger does not name: workers remove what they know of. What a dead
/// one left behind of a job that somebody cancelled may stay.
async fn tidy(world: &World) {
    let since = Instant::now();
    while since.elapsed() < TIDY_WITHIN {
        let mut named = 0;
        for job in world.jobs.values() {
            let page =
                world.ledger.results(job.id, &ResultsParams::new(0..u64::MAX, u64::MAX)).await;
            let runs = page.unwrap_or_default().runs;
            named += runs.iter().filter(|run| run.lines.starts_with('@')).count();
        }
        if world.objects.lock().len() <= named {
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    world.count("runs that left result objects behind");
}

/// S3 and S7: what came of each job.
async fn judge_jobs(world: &World) {
    for job in world.jobs.values() {
        let Some(summary) = world.ledger.job(job.id).await.ok().flatten() else {
            world.violated("S1", || format!("{} is gone", job.id));
            continue;
        };
        if let Some(complaint) = misjudged(job, &summary, world.unlucky(job)) {
            world.violated("S3", || format!("{}: {complaint}", job.id));
        }
        judge_results(world, job, &summary).await;
    }
}

/// What is wrong with how a job ended.
fn misjudged(job: &Job, summary: &JobSummary, unlucky: u64) -> Option<String> {
    let JobSummary { state, counts, reduce, .. } = summary;
    if *state == JobState::Rejected && job.is_cancelled() {
        // Before its files could be read.
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

/// S7, and the end of S3: results are there for what is done, and right.
async fn judge_results(world: &World, job: &Job, summary: &JobSummary) {
    let indices = job.tree().map_or(job.total, |tree| tree.root() + 1);
    let page = world
        .ledger
        .results(job.id, &ResultsParams::new(0..indices, u64::MAX))
        .await
        .unwrap_or_default();
    let mut found = 0;
    for run in &page.runs {
        for (index, line) in (run.from..run.from + run.count).zip(lines_of(world, &run.lines)) {
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

/// The lines of a run, wherever they are: `@URL` or `@URL#k` is an object, from its line k on.
fn lines_of(world: &World, run: &str) -> Vec<String> {
    let Some(place) = run.trim_end().strip_prefix('@') else { return lines(run.as_bytes()) };
    let (url, skip) = place.rsplit_once('#').unwrap_or((place, "0"));
    let objects = world.objects.lock();
    let all = objects.get(url).map(|bytes| lines(bytes)).unwrap_or_default();
    all.into_iter().skip(skip.parse().expect("the number of a line")).collect()
}
