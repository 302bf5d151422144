//! Explores the protocol as it is, and as it would be with mistakes.

#![expect(
    clippy::print_stdout,
    reason = "how many states there are, and how a mistake shows, is worth a look"
)]

use std::time::Instant;

use longshore_model::{Config, Mutation, Report, explore};

fn faults() -> u8 {
    let variable = std::env::var("LONGSHORE_MODEL_FAULTS").ok();
    variable.map_or(2, |text| text.parse().expect("LONGSHORE_MODEL_FAULTS is a small number"))
}

fn look(config: Config) -> Report {
    let begun = Instant::now();
    let report = explore(&config);
    println!(
        "{config:?}: {} states, {} steps, {} of them done, depth {}, {:?}",
        report.states,
        report.steps,
        report.done,
        report.depth,
        begun.elapsed()
    );
    report
}

#[track_caller]
fn holds(faults: u8, rolls_back: bool, mutation: Option<Mutation>, at_least: usize) {
    is_right(Config { faults, rolls_back, copies: false, mutation }, at_least);
}

#[track_caller]
fn is_right(config: Config, at_least: usize) {
    let report = look(config);
    assert!(report.violation.is_none(), "{:?}", report.violation);
    assert!(
        report.states >= at_least,
        "only {} states: the model has lost something",
        report.states
    );
}

/// The mistake is caught by the property, though not a single fault or rollback more than needed happens.
#[track_caller]
fn caught(mutation: Mutation, faults: u8, rolls_back: bool, property: &str) {
    is_caught(Config { faults, rolls_back, copies: false, mutation: Some(mutation) }, property);
}

#[track_caller]
fn is_caught(config: Config, property: &str) {
    let report = look(config);
    let violation = report.violation.expect("it is caught");
    println!("{violation:?}");
    assert!(violation.property.starts_with(property), "{violation:?}");
}

#[test]
fn every_property_holds_whatever_the_faults() {
    holds(faults(), false, None, 200_000);
}

#[test]
fn every_property_holds_though_the_ledger_rolls_back() {
    holds(faults() - 1, true, None, 500_000);
}

#[test]
fn every_property_holds_though_two_nodes_run_the_same_chunk() {
    is_right(Config { faults: faults(), rolls_back: false, copies: true, mutation: None }, 200_000);
    let rolls_back = Config { faults: 1, rolls_back: true, copies: true, mutation: None };
    is_right(rolls_back, 500_000);
}

#[test]
fn a_copy_that_stays_on_offer_is_caught() {
    let mutation = Some(Mutation::OffersStay);
    is_caught(Config { faults: 3, rolls_back: false, copies: true, mutation }, "L2");
}

#[test]
fn a_commit_that_counts_what_the_other_holder_did_is_caught() {
    let mutation = Some(Mutation::OverlapsCounted);
    is_caught(Config { faults: 1, rolls_back: false, copies: true, mutation }, "L6");
}

#[test]
fn a_commit_without_a_token_is_caught() {
    caught(Mutation::CommitsUnchecked, 1, false, "L6");
}

#[test]
fn epochs_in_place_of_tokens_do_until_the_ledger_rolls_back() {
    for mutation in [Mutation::EpochsCompared, Mutation::EpochsOrdered] {
        holds(1, false, Some(mutation), 1_000);
        caught(mutation, 0, true, "L3");
    }
}

#[test]
fn a_claim_that_takes_over_is_caught() {
    caught(Mutation::ClaimsTakeOver, 1, false, "L2");
}

#[test]
fn a_repeat_that_counts_is_caught() {
    caught(Mutation::RepeatsCounted, 1, false, "L1");
}

#[test]
fn a_revoke_that_keeps_the_epoch_is_caught() {
    caught(Mutation::EpochsKept, 2, false, "L2");
}

#[test]
fn without_a_sweep_a_lost_message_is_the_end() {
    caught(Mutation::NoSweep, 1, false, "L4");
}

#[test]
fn a_chunk_of_a_live_worker_that_forgot_it_must_be_reclaimed() {
    holds(1, false, Some(Mutation::NoReclaim), 1_000);
    caught(Mutation::NoReclaim, 2, false, "L4");
    caught(Mutation::NoReclaim, 0, true, "L4");
}
