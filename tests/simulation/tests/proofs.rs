//! A seed repeats its run, all faults happen, and each checker catches its deliberate bug.

#![expect(clippy::print_stdout, reason = "the counts of faults are for people to read")]

use std::sync::Mutex;
use std::thread;

use longshore_simulation::{Sabotage, Tally, faults, run, run_sabotaged, run_traced};

#[test]
fn the_same_seed_repeats_the_run_byte_for_byte() {
    for seed in 1..41 {
        let (first, second) = (run_traced(seed), run_traced(seed));
        let lines = first.trace.lines().zip(second.trace.lines());
        let difference = lines.enumerate().find(|(_, (first, second))| first != second);
        assert_eq!(difference, None, "the runs of seed {seed} differ");
        assert_eq!(first.trace.len(), second.trace.len(), "one run of seed {seed} was longer");
        assert_eq!(first.tally, run(seed).tally, "the trace changed the run of seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    assert_ne!(run_traced(1).trace, run_traced(2).trace);
}

#[test]
fn every_kind_of_fault_happens() {
    let mut tally = Tally::default();
    for seed in 1..200 {
        tally.add(&run(seed).tally);
    }
    let by_chance = [
        "attempts failed where all fail",
        "calls late",
        "calls lost",
        "calls that waited for a cut line",
        "chunks fetched ahead",
        "chunks offered speculatively",
        "chunks revoked",
        "chunks split because they took long",
        "confirms lost",
        "crashes after a call",
        "crashes before a call",
        "deadlines passed",
        "hints cut off",
        "hints lost",
        "idle jobs explained",
        "jobs cancelled",
        "jobs cancelled before they were admitted",
        "jobs submitted again after a rollback",
        "messages doubled",
        "messages late",
        "messages lost",
        "nodes isolated",
        "pauses",
        "publishes refused",
        "replies lost",
        "result objects late",
        "result objects refused",
        "result objects removed",
        "retries asked for",
        "speculative chunks run",
        "stale commits refused",
    ];
    let absent: Vec<&str> = faults().chain(by_chance).filter(|what| tally.of(what) == 0).collect();
    assert!(absent.is_empty(), "never happened: {absent:?}\n{tally}");
}

/// The maximum number of seeds until each deliberate bug is found.
const FOUND_WITHIN: u64 = 1_000;

/// Runs seeds until an invariant notices the deliberate bug; it must be the right one.
fn caught(sabotage: Sabotage) -> Result<(), String> {
    for seed in 1..=FOUND_WITHIN {
        let Some(violation) = run_sabotaged(seed, sabotage).violation else { continue };
        println!("{sabotage:?}: seed {seed}, {}: {}", violation.invariant, violation.what);
        let right = violation.invariant == sabotage.breaks();
        return if right { Ok(()) } else { Err(format!("{sabotage:?}: {violation:?}")) };
    }
    Err(format!("{sabotage:?} was not noticed in {FOUND_WITHIN} seeds"))
}

/// The number of threads that look for deliberate bugs, each of which takes seconds to find.
const THREADS: usize = 2;

#[test]
fn each_deliberate_bug_is_caught_by_its_invariant() {
    let bugs = Mutex::new(Sabotage::ALL.into_iter());
    let failures = Mutex::new(Vec::new());
    let search = || {
        while let Some(sabotage) = { bugs.lock().unwrap().next() } {
            let outcome = caught(sabotage);
            failures.lock().unwrap().extend(outcome.err());
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(search))));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
