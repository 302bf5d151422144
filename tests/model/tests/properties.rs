//! All properties hold of the protocol without bugs, and one of them catches each deliberate bug.

#![expect(
    clippy::print_stdout,
    reason = "the number of states and the traces of deliberate bugs are for people to read"
)]

use std::time::Instant;

use longshore_model::world::WORKERS;
use longshore_model::{Config, Mutation, Report, explore};

fn faults() -> u8 {
    let variable = std::env::var("LONGSHORE_MODEL_FAULTS").ok();
    variable.map_or(2, |text| text.parse().expect("LONGSHORE_MODEL_FAULTS is a small number"))
}

/// Two workers without faults.
const PLAIN: Config =
    Config { faults: 0, workers: WORKERS, rolls_back: false, speculative: false, mutation: None };

fn run(config: Config) -> Report {
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
    is_right(Config { faults, rolls_back, mutation, ..PLAIN }, at_least);
}

#[track_caller]
fn is_right(config: Config, at_least: usize) {
    let report = run(config);
    assert!(report.violation.is_none(), "{:?}", report.violation);
    assert!(report.states >= at_least, "only {} states: the model has lost steps", report.states);
}

/// The property catches the bug with the given number of faults.
#[track_caller]
fn caught(mutation: Mutation, faults: u8, rolls_back: bool, property: &str) {
    is_caught(Config { faults, rolls_back, mutation: Some(mutation), ..PLAIN }, property);
}

#[track_caller]
fn is_caught(config: Config, property: &str) {
    let report = run(config);
    let violation = report.violation.expect("the bug is caught");
    println!("{violation:?}");
    assert!(violation.property.starts_with(property), "{violation:?}");
}

#[test]
fn every_property_holds_under_faults() {
    holds(faults(), false, None, 500_000);
}

#[test]
fn every_property_holds_under_a_rollback_of_the_ledger() {
    let faults = faults() - 1;
    is_right(Config { faults, rolls_back: true, speculative: true, ..PLAIN }, 2_500_000);
}

#[test]
fn every_property_holds_under_speculative_execution() {
    is_right(Config { faults: faults(), speculative: true, ..PLAIN }, 500_000);
}

#[test]
fn a_chunk_that_stays_on_offer_after_a_speculative_claim_is_caught() {
    let mutation = Some(Mutation::OffersStay);
    is_caught(Config { faults: 3, speculative: true, mutation, ..PLAIN }, "L2");
}

#[test]
fn a_commit_that_counts_the_other_holders_subtasks_again_is_caught() {
    let mutation = Some(Mutation::OverlapsCounted);
    is_caught(Config { faults: 1, speculative: true, mutation, ..PLAIN }, "L6");
}

#[test]
fn a_commit_without_a_token_is_caught() {
    caught(Mutation::CommitsUnchecked, 1, false, "L6");
}

#[test]
fn epochs_instead_of_tokens_fail_only_after_a_rollback() {
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
fn without_a_sweep_a_lost_message_is_a_dead_end() {
    caught(Mutation::NoSweep, 1, false, "L4");
}

#[test]
fn a_chunk_of_a_live_worker_that_forgot_it_must_be_reclaimed() {
    holds(1, false, Some(Mutation::NoReclaim), 1_000);
    caught(Mutation::NoReclaim, 2, false, "L4");
    caught(Mutation::NoReclaim, 0, true, "L4");
}

#[test]
fn a_verdict_on_void_evidence_is_caught() {
    caught(Mutation::EvidenceUnchecked, 1, false, "L9");
}

#[test]
fn a_verdict_that_outlives_a_heartbeat_is_caught() {
    caught(Mutation::VerdictsStay, 1, false, "L7");
}

#[test]
fn a_worker_that_leaves_the_list_without_a_verdict_is_caught() {
    caught(Mutation::VerdictsDropped, 1, false, "L8");
}

#[test]
fn a_recovery_by_one_scheduler_of_its_own_jobs_is_caught() {
    caught(Mutation::OneRecovers, 1, false, "L4");
}

#[test]
fn late_claims_of_a_lost_worker_must_be_revoked_as_well() {
    holds(1, false, Some(Mutation::RevokesOnce), 1_000);
    caught(Mutation::RevokesOnce, 2, false, "L4");
}

#[test]
fn an_unlisted_holder_must_be_declared_lost() {
    holds(1, false, Some(Mutation::NoAbsent), 1_000);
    // One worker is enough, with far fewer states.
    let mutation = Some(Mutation::NoAbsent);
    is_caught(Config { faults: 1, workers: 1, rolls_back: true, mutation, ..PLAIN }, "L4");
}
