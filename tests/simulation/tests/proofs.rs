//! Proofs about the simulation itself: it repeats itself, its faults happen, its checkers catch.

#![expect(clippy::print_stdout, reason = "what a run met is for people to read")]

use longshore_simulation::{Sabotage, Tally, faults, run, run_sabotaged, run_traced};

#[test]
fn the_same_seed_is_the_same_run_byte_for_byte() {
    for seed in 1..41 {
        let (first, second) = (run_traced(seed), run_traced(seed));
        let lines = first.trace.lines().zip(second.trace.lines());
        let apart = lines.enumerate().find(|(_, (first, second))| first != second);
        assert_eq!(apart, None, "seed {seed} went two ways");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed} went on for longer once");
        assert_eq!(first.tally, run(seed).tally, "writing down seed {seed} changed it");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    assert_ne!(run_traced(1).trace, run_traced(2).trace);
}

#[test]
fn every_kind_of_trouble_happens() {
    let mut tally = Tally::default();
    for seed in 1..200 {
        tally.add(&run(seed).tally);
    }
    let by_chance = [
        "attempts lost in a hole",
        "calls late",
        "calls lost",
        "calls that waited for a cut line",
        "chunks cut because they took long",
        "chunks fetched ahead",
        "chunks revoked",
        "confirms lost",
        "copies offered",
        "copies run",
        "crashes after a call",
        "crashes before a call",
        "deadlines passed",
        "hints cut off",
        "hints lost",
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
        "stale commits refused",
    ];
    let absent: Vec<&str> = faults().chain(by_chance).filter(|what| tally.of(what) == 0).collect();
    assert!(absent.is_empty(), "never happened: {absent:?}\n{tally}");
}

/// How many seeds it takes to find each deliberate bug, at most.
const FOUND_WITHIN: u64 = 1_000;

/// Which invariant notices first, and at which seed.
fn caught(sabotage: Sabotage) -> Result<(), String> {
    for seed in 1..=FOUND_WITHIN {
        let Some(violation) = run_sabotaged(seed, sabotage).violation else { continue };
        println!("{sabotage:?}: seed {seed}, {}: {}", violation.invariant, violation.what);
        let right = violation.invariant == sabotage.breaks();
        return if right { Ok(()) } else { Err(format!("{sabotage:?}: {violation:?}")) };
    }
    Err(format!("{sabotage:?} was not noticed in {FOUND_WITHIN} seeds"))
}

#[test]
fn each_deliberate_bug_is_caught_by_its_invariant() {
    let failures: Vec<String> =
        Sabotage::ALL.into_iter().filter_map(|sabotage| caught(sabotage).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
