//! Prints jobs, lists of jobs, errors of subtasks and audits, as text or as JSON.

use std::time::Duration;

use longshore_ledger::{CANCEL_KEPT, Cancelled};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{JobAnswer, JobDetails};
use longshore_protocol::{Audit, Counts, ErrorEntry, JobId, JobSummary};

use super::{Output, recovery};
use crate::failure::Failure;

/// Prints everything that is known of a job.
pub(crate) fn details(output: &mut Output, details: &JobDetails) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(details);
    }
    let JobDetails { job, recovered, reasons } = details;
    let mut facts = vec![("job", job.id.to_string()), ("state", job.state.as_str().to_owned())];
    if !job.state.was_accepted() {
        // Of a rejected job the ledger keeps the error and nothing of the document.
        facts.extend(job.error.clone().map(|error| ("error", error)));
        return print_facts(output, facts);
    }
    facts.extend(job.name.clone().map(|name| ("name", name)));
    facts.extend(reasons.iter().map(|reason| ("waits", reason.text.clone())));
    facts.extend([
        ("task", job.task.clone()),
        ("queue", format!("{}, priority {}, tenant {}", job.queue, job.priority, job.tenant)),
        ("subtasks", counts(&job.counts)),
    ]);
    if !job.labels.is_empty() {
        let labels = job.labels.iter().map(|(key, value)| format!("{key}={value}"));
        facts.push(("labels", labels.collect::<Vec<_>>().join(", ")));
    }
    if job.reduce.total > 0 {
        facts.push(("reduce", counts(&job.reduce)));
    }
    if !job.left_out.is_empty() {
        facts.push(("left out", job.left_out.to_string()));
    }
    facts.push(("attempts", job.attempts.to_string()));
    if job.speculative_chunks > 0 {
        let chunks = recovery::counted(job.speculative_chunks, "chunk");
        let text = format!("{chunks} that took long, run speculatively by a second worker too");
        facts.push(("twice", text));
    }
    facts.extend(recovery::facts(job, recovered));
    facts.extend(progress(job));
    facts.extend(job.error.clone().map(|error| ("error", error)));
    // The message of a task can have many lines; `errors JOB` prints all of them.
    let last = job.last_error.as_deref().and_then(|error| error.lines().next());
    facts.extend(last.map(|error| ("latest", format!("failure: {error}"))));
    print_facts(output, facts)
}

fn print_facts(output: &mut Output, facts: Vec<(&str, String)>) -> Result<(), Failure> {
    for (name, fact) in facts {
        output.line(format_args!("{name:<9} {fact}"))?;
    }
    Ok(())
}

fn progress(job: &JobSummary) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let (Some(start), Some(end)) = (job.started_at, job.finished_at) {
        facts.push(("took", seconds(end.since(start))));
    } else if !job.state.is_terminal() {
        let eta = job.eta.map_or_else(String::new, |eta| format!(", {} to go", seconds(eta)));
        facts.push(("rate", format!("{:.1} a second{eta}", job.rate)));
    }
    facts
}

/// `1000: 600 done, 3 failed, …`, without zeros.
fn counts(counts: &Counts) -> String {
    let parts: Vec<String> = [
        (counts.done, "done"),
        (counts.failed, "failed"),
        (counts.cancelled, "cancelled"),
        (counts.running, "running"),
        (counts.queued, "queued"),
        (counts.retrying, "retrying"),
        (counts.waiting, "waiting"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    format!("{}: {}", counts.total, parts.join(", "))
}

/// Formats a duration: short ones in tenths of a second, long ones in whole units.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// Prints a line about a job that has progressed or ended.
pub(crate) fn line(output: &mut Output, job: &JobSummary, from: &str) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(job);
    }
    if !job.state.was_accepted() {
        let error = job.error.as_deref().unwrap_or_default();
        let from = if from.is_empty() { String::new() } else { format!(" ({from})") };
        return output.line(format_args!("{} rejected: {error}{from}", job.id));
    }
    let took = match (job.started_at, job.finished_at) {
        (Some(start), Some(end)) => format!(" in {}", seconds(end.since(start))),
        _ => String::new(),
    };
    let failed = match job.counts.failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let from = if from.is_empty() { String::new() } else { format!(" ({from})") };
    output.line(format_args!(
        "{} {}: {} of {} done{failed}{took}{from}",
        job.id, job.state, job.counts.done, job.counts.total
    ))
}

/// Prints a job's id and its state.
pub(crate) fn state(output: &mut Output, job: JobId, state: JobState) -> Result<(), Failure> {
    if output.is_json() {
        output.json(&JobAnswer::state(job, state))
    } else {
        output.line(format_args!("{job} {state}"))
    }
}

/// Prints a deleted job.
pub(crate) fn deleted(output: &mut Output, job: JobId) -> Result<(), Failure> {
    if output.is_json() {
        output.json(&JobAnswer::deleted(job))
    } else {
        output.line(format_args!("{job} deleted"))
    }
}

/// Prints a cancelled job, which may not be admitted yet.
pub(crate) fn cancelled(
    output: &mut Output,
    job: JobId,
    cancelled: Cancelled,
) -> Result<(), Failure> {
    let state = JobState::Cancelled;
    match cancelled {
        Cancelled::Ended => self::state(output, job, state),
        Cancelled::BeforeAdmission if output.is_json() => {
            output.json(&JobAnswer::cancelled_before_admission(job))
        }
        Cancelled::BeforeAdmission => {
            let hours = CANCEL_KEPT.as_secs() / 3600;
            output.line(format_args!(
                "{job} {state}; it is not known (yet): a document with this id that comes within \
                 {hours} hours is admitted as cancelled, and nothing of it runs"
            ))
        }
    }
}

/// Prints the id of an accepted job.
pub(crate) fn id(output: &mut Output, job: JobId) -> Result<(), Failure> {
    if output.is_json() { output.json(&JobAnswer::submitted(job)) } else { output.line(job) }
}

/// The error of a failed subtask, as text.
pub(crate) fn failed_subtask(entry: &ErrorEntry, total: u64) -> String {
    let attempts = if entry.attempts == 1 { "attempt" } else { "attempts" };
    let what = if entry.index < total { "subtask" } else { "reduce node" };
    // A traceback has many lines, which are indented so that the next entry stands out.
    let error = entry.error.trim_end().replace('\n', "\n    ");
    format!("{what} {}: {error} ({} {attempts})", entry.index, entry.attempts)
}

/// Prints the error of a failed subtask.
pub(crate) fn error(output: &mut Output, entry: &ErrorEntry, total: u64) -> Result<(), Failure> {
    if output.is_json() { output.json(entry) } else { output.line(failed_subtask(entry, total)) }
}

/// Prints the counts of a job as stored and as recounted.
pub(crate) fn audit(output: &mut Output, audit: &Audit) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(audit);
    }
    output.line(format_args!("job      {}", audit.job))?;
    output.line(format_args!("state    {}", audit.state))?;
    output.line(format_args!("kept     {}", counts(&audit.kept)))?;
    output.line(format_args!("counted  {}", counts(&audit.counted)))?;
    if audit.reduce_kept.total > 0 {
        output.line(format_args!("reduce   {}", counts(&audit.reduce_kept)))?;
        output.line(format_args!("counted  {}", counts(&audit.reduce_counted)))?;
    }
    for finding in &audit.findings {
        output.line(format_args!("wrong    {finding}"))?;
    }
    if audit.is_clean() { output.line("the counts balance") } else { Ok(()) }
}
