//! The suite that every ledger has to pass, written once.
//!
//! A case gets a fresh, empty ledger, plays some moves of schedulers and workers, and asserts every answer; each ends with
//! an audit. Cases tell time only by "due at once" and "not for hours", so that they run on any clock.
//! Deliberately absent: anything that knows an implementation.

mod absolving;
mod admission;
mod cancelling;
mod control;
mod copying;
mod fleet;
mod handing_out;
mod holding;
pub mod ordeal;
mod play;
mod poison;
mod reading;
mod recovering;
mod reducing;
mod restoring;
mod retrying;
mod settling;
pub mod walk;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use crate::Ledger;

/// One case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it shows, as a sentence with underscores.
    pub name: &'static str,
    /// Plays it on a fresh ledger; panics if something is not as it should be.
    pub run: fn(Arc<dyn Ledger>) -> LocalBoxFuture<'static, ()>,
}

macro_rules! cases {
    ($($file:ident: $($name:ident)*;)*) => {
        /// All cases.
        pub const CASES: &[Case] = &[
            $($(Case {
                name: stringify!($name),
                run: |ledger| Box::pin($file::$name(ledger)),
            },)*)*
        ];
    };
}

cases! {
    absolving:
        failed_attempts_are_remembered_with_their_nodes
        the_newest_nodes_are_remembered
        what_an_absolved_node_failed_uses_up_no_attempt
        what_a_node_failed_for_good_is_tried_again_once_it_is_absolved
        a_node_is_out_of_rotation_until_that_is_taken_back;
    admission:
        a_new_job_is_queued_and_all_waiting
        the_same_content_is_known_and_other_content_a_conflict
        chunks_are_opened_together_with_a_new_job
        a_job_of_more_indices_than_a_bitmap_has_is_refused
        a_rejected_job_is_shown_and_can_be_admitted_later
        why_a_job_cannot_be_judged_is_told_and_changes_nothing
        what_a_worker_stalls_on_is_told_until_it_goes_on
        what_a_job_leaves_out_is_kept_with_it
        a_reduce_is_counted_in_books_of_its_own
        a_document_is_given_back_as_admitted
        an_ended_job_is_forgotten_after_its_time
        jobs_move_from_the_active_to_the_finished_list;
    cancelling:
        a_job_that_was_cancelled_before_is_admitted_as_cancelled
        a_cancel_before_admission_counts_once
        a_rejection_leaves_it_at_that
        a_job_that_was_cancelled_while_it_was_lost_is_put_back_as_cancelled
        the_cancel_of_a_deleted_job_is_not_remembered;
    handing_out:
        chunks_are_opened_in_order_up_to_the_end
        max_parallel_counts_open_chunks
        due_retries_come_first_grouped_by_attempt
        retries_that_are_not_due_wait
        nothing_is_opened_of_a_job_that_does_not_feed
        what_is_done_is_stepped_over
        the_sweep_publishes_what_is_due
        the_sweep_leaves_alone_what_is_not_due
        in_doubt_the_sweep_publishes_what_has_been_queued_for_so_long
        a_paused_job_is_swept_without_messages;
    copying:
        a_copy_is_offered_of_what_was_held_for_long
        no_copies_break_max_parallel
        a_copy_goes_to_another_node_once
        whichever_commits_first_decides
        an_error_names_the_node_that_ran_the_copy
        a_url_is_cut_where_the_copy_overtook
        a_long_run_is_cut_where_the_copy_overtook
        whoever_of_two_lets_go_leaves_the_chunk_to_the_other
        whoever_of_two_lets_go_in_parts_takes_the_chunk_from_both
        what_one_of_two_dies_of_is_charged_and_runs_on
        an_orphaned_copy_is_dropped
        who_runs_a_copy_is_told_to_stop_as_any_holder_is;
    holding:
        a_claim_is_granted_once_and_repeated_to_its_holder
        the_first_claim_starts_the_job
        a_claim_of_nothing_is_gone
        a_released_rest_waits_for_somebody_else
        a_released_rest_is_cut_into_parts
        a_revoke_takes_all_that_a_node_holds
        of_an_orphaning_node_what_it_claimed_later_stays
        holders_are_named_once_and_only_while_they_hold
        a_token_that_lost_its_hold_is_fenced;
    poison:
        a_chunk_that_killed_two_nodes_is_cut
        a_subtask_that_kills_its_nodes_alone_is_given_up
        a_node_that_leaves_charges_nobody
        a_node_that_dies_is_counted_once
        a_node_holds_one_suspect_of_a_job_at_a_time
        cut_chunks_keep_within_max_parallel
        a_poisonous_subtask_ends_the_job_as_any_failure_does
        a_poisonous_reduce_node_is_given_up;
    recovering:
        each_lost_node_is_told_of_until_all_runs_again
        what_a_living_node_knows_nothing_of_is_nobodys_loss
        the_newest_hundred_recoveries_are_kept;
    settling:
        a_chunk_settles_in_parts_and_closes
        a_repeated_commit_changes_nothing
        a_commit_that_breaks_the_rules_is_misuse
        failures_are_retried_deferred_or_final
        a_job_tells_why_an_attempt_failed_last
        a_failed_reduce_node_is_told_of_as_such
        a_limit_of_failures_ends_the_job
        a_job_with_failures_fails_when_all_is_settled
        a_paused_job_is_finished_by_what_runs;
    reducing:
        the_tree_is_worked_off_level_by_level
        a_paused_job_goes_on_to_its_reduce_when_resumed
        failed_leaves_give_up_the_tree_until_a_retry
        a_failed_reduce_node_can_be_retried
        a_limit_of_failures_holds_in_the_reduce_too;
    control:
        pause_and_resume_move_between_states
        a_resumed_job_has_its_queued_chunks_due
        an_ended_job_counts_what_was_open_as_cancelled
        controls_refuse_what_the_table_does_not_allow
        controls_of_an_absent_job_find_nothing
        an_ended_job_can_be_deleted;
    retrying:
        a_failed_job_is_retried_whole
        a_failed_job_is_retried_by_index
        a_running_job_gets_its_failed_subtasks_back
        a_retry_of_bad_indices_changes_nothing;
    restoring:
        a_lost_job_is_put_back_as_it_was_submitted
        an_ended_job_is_put_back_with_its_numbers
        what_was_put_back_by_its_numbers_runs_again_whole
        a_job_whose_time_has_passed_is_not_put_back
        what_is_known_or_was_deleted_is_not_put_back
        numbers_that_do_not_add_up_are_misuse
        lost_jobs_are_told_from_deleted_ones
        the_place_in_the_journal_moves_by_agreement;
    reading:
        results_come_in_index_order
        long_runs_of_results_come_back_as_they_were
        results_are_paged_by_bytes
        results_are_found_from_the_middle
        discarded_results_cost_no_search
        errors_are_paged_by_index;
    fleet:
        a_beat_tells_what_to_stop
        nodes_come_drain_and_go
        a_verdict_on_a_lost_node_stands_until_it_beats
        schedulers_see_each_other
        events_tell_of_changes
        hints_reach_whom_they_concern
        a_separate_handle_is_the_same_ledger;
}

/// Runs all cases, each on a ledger of its own, and panics with the names of those that failed. Their own messages are on stderr.
///
/// # Panics
/// When a case fails.
pub async fn check_all<F>(fresh: F)
where
    F: AsyncFn() -> Arc<dyn Ledger>,
{
    let mut failed = Vec::new();
    for case in CASES {
        let ledger = fresh().await;
        if AssertUnwindSafe((case.run)(ledger)).catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:#?}", failed.len(), CASES.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLedger;

    #[tokio::test]
    async fn the_memory_ledger_passes() {
        check_all(async || Arc::new(MemoryLedger::default()) as Arc<dyn Ledger>).await;
    }
}
