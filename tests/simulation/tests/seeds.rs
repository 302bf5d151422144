//! Runs seeds: as many as fit into 40 seconds, or the number in `LONGSHORE_SIM_SEEDS`.

#![expect(clippy::print_stdout, reason = "the counts of faults are for people to read")]

use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use longshore_simulation::{Report, Tally, Violation, run, run_traced};

/// How long the default run may take; the proofs beside it take as long on the second core.
const TIME: Duration = Duration::from_secs(40);

/// A seed takes a few milliseconds. A run in which virtual time stands still, because a task loops
/// without waiting, would never end.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// How many seeds of a default run are new each time.
const NEW: u64 = 20;

/// Seeds that once found a bug: a worker that could not be stopped while its acknowledgement was
/// stuck; a checker that did not count a death between a claim and its first step.
const KEPT: [u64; 2] = [4373, 293_273_798_350];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`; give a number")))
}

/// Fails with the command that repeats the run, if an invariant was violated.
#[track_caller]
fn holds(report: &Report) {
    if let Some(Violation { invariant, at, what }) = &report.violation {
        fails(report.seed, &format!("{invariant} broken at {at:?}: {what}"));
    }
}

#[track_caller]
fn fails(seed: u64, why: &str) -> ! {
    panic!(
        "seed {seed}: {why}\nrepeat it with its trace: LONGSHORE_SIM_SEED={seed} \
         cargo test -p longshore-simulation one_seed -- --nocapture"
    );
}

#[test]
fn one_seed() {
    let Some(seed) = number("LONGSHORE_SIM_SEED") else { return };
    let report = run_traced(seed);
    println!("{}\n{}", report.trace, report.tally);
    holds(&report);
}

/// Runs seeds one after another, on a thread that is abandoned if a seed does not end.
fn reports(seeds: impl Iterator<Item = u64>) -> impl Iterator<Item = Report> {
    let (next, nexts) = sync_channel(0);
    let (done, dones) = sync_channel(0);
    thread::spawn(move || nexts.iter().map(run).try_for_each(|report| done.send(report).ok()));
    seeds.map(move |seed| {
        let _ = next.send(seed);
        dones.recv_timeout(ENDS_WITHIN).unwrap_or_else(|why| fails(seed, &format!("no end: {why}")))
    })
}

/// Runs all seeds and prints the counts of their faults.
fn all(seeds: impl Iterator<Item = u64>) {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    let mut slowest = (Duration::ZERO, 0);
    let mut count = 0;
    for report in reports(seeds) {
        count += 1;
        tally.add(&report.tally);
        slowest = slowest.max((report.settled_in, report.seed));
        broken.extend(report.violation.is_some().then_some(report));
    }
    println!("{count} seeds in {:?}", begun.elapsed());
    println!("seed {} took longest to settle: {:?} of virtual time\n{tally}", slowest.1, slowest.0);
    for report in &broken {
        println!("seed {}: {:?}", report.seed, report.violation);
    }
    broken.iter().for_each(holds);
}

#[test]
fn seeds() {
    let first = number("LONGSHORE_SIM_FIRST").unwrap_or(1);
    if let Some(wanted) = number("LONGSHORE_SIM_SEEDS") {
        return all(first..first + wanted);
    }
    let begun = Instant::now();
    // Far from the fixed seeds, and short enough to type.
    let new = RandomState::new().hash_one(0) % 1_000_000_000 * 1_000;
    println!("{NEW} new seeds from {new} on");
    let fixed = (first..).take_while(|_| begun.elapsed() < TIME);
    all(KEPT.into_iter().chain(new..new + NEW).chain(fixed));
}
