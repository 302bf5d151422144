//! Jobs, for people and for programs.

use std::time::Duration;

use longshore_ledger::{CANCEL_KEPT, Cancelled};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    Audit, Counts, ErrorEntry, JobId, JobSummary, LeftOut, Reason, Recovery, Timestamp,
};
use serde::Serialize;

use super::table::table;
use super::{Output, recovery};
use crate::failure::Failure;

/// A job as `--json` shows it: flat, with the words of `HGETALL longshore:{J}`.
#[derive(Serialize)]
struct View<'a> {
    id: JobId,
    state: JobState,
    task: &'a str,
    queue: &'a str,
    tenant: &'a str,
    priority: u8,
    total: u64,
    done: u64,
    failed: u64,
    cancelled: u64,
    running: u64,
    queued: u64,
    retrying: u64,
    waiting: u64,
    /// The nodes of the reduce tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    reduce: Option<Counts>,
    generation: u64,
    attempts: u64,
    lost: u64,
    recoveries: u64,
    crashes: u64,
    orphaned: u64,
    reissued: u64,
    copies: u64,
    fenced: u64,
    busy_ms: u64,
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    deadline_at: Option<Timestamp>,
    restored_at: Option<Timestamp>,
    rate: f64,
    eta_ms: Option<u64>,
    error: Option<&'a str>,
    last_error: Option<&'a str>,
    /// What its globs match and it leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'a LeftOut>,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> View<'a> {
    fn new(job: &'a JobSummary) -> Self {
        Self {
            id: job.id,
            state: job.state,
            task: &job.task,
            queue: &job.queue,
            tenant: &job.tenant,
            priority: job.priority,
            total: job.counts.total,
            done: job.counts.done,
            failed: job.counts.failed,
            cancelled: job.counts.cancelled,
            running: job.counts.running,
            queued: job.counts.queued,
            retrying: job.counts.retrying,
            waiting: job.counts.waiting,
            reduce: (job.reduce.total > 0).then_some(job.reduce),
            generation: job.generation,
            attempts: job.attempts,
            lost: job.lost,
            recoveries: job.recoveries,
            crashes: job.crashes,
            orphaned: job.orphaned,
            reissued: job.reissued,
            copies: job.copies,
            fenced: job.fenced,
            busy_ms: millis(job.busy),
            submitted_at: job.submitted_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            deadline_at: job.deadline_at,
            restored_at: job.restored_at,
            rate: job.rate,
            eta_ms: job.eta.map(millis),
            error: job.error.as_deref(),
            last_error: job.last_error.as_deref(),
            left_out: Some(&job.left_out).filter(|left_out| !left_out.is_empty()),
        }
    }
}

/// One job with what was done for the nodes that it lost, newest first.
#[derive(Serialize)]
struct WholeView<'a> {
    #[serde(flatten)]
    job: View<'a>,
    recovered: Vec<recovery::View<'a>>,
    /// Why it does not go on, or not with all of it.
    reasons: &'a [Reason],
}

/// All that is known of one job.
pub(crate) fn summary(
    output: &mut Output,
    job: &JobSummary,
    recoveries: &[Recovery],
    reasons: &[Reason],
) -> Result<(), Failure> {
    if output.is_json() {
        let recovered = recoveries.iter().map(recovery::View::new).collect();
        return output.json(&WholeView { job: View::new(job), recovered, reasons });
    }
    let mut facts = vec![("job", job.id.to_string()), ("state", job.state.as_str().to_owned())];
    if job.state == JobState::Rejected {
        // The ledger keeps of such a job why it was rejected and nothing of its document.
        facts.extend(job.error.clone().map(|error| ("error", error)));
        return print_facts(output, facts);
    }
    facts.extend(reasons.iter().map(|reason| ("waits", reason.text.clone())));
    facts.extend([
        ("task", job.task.clone()),
        ("queue", format!("{}, priority {}, tenant {}", job.queue, job.priority, job.tenant)),
        ("subtasks", counts(&job.counts)),
    ]);
    if job.reduce.total > 0 {
        facts.push(("reduce", counts(&job.reduce)));
    }
    if !job.left_out.is_empty() {
        facts.push(("left out", job.left_out.to_string()));
    }
    facts.push(("attempts", job.attempts.to_string()));
    if job.copies > 0 {
        let chunks = recovery::counted(job.copies, "chunk");
        facts.push(("copied", format!("{chunks} that took long, run by a second worker too")));
    }
    facts.extend(recovery::facts(job, recoveries));
    facts.extend(pace(job));
    facts.extend(job.error.clone().map(|error| ("error", error)));
    // What the task said may have many lines; the first tells most, `errors JOB` tells all.
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

fn pace(job: &JobSummary) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let (Some(start), Some(end)) = (job.started_at, job.finished_at) {
        facts.push(("took", seconds(end.since(start))));
    } else if !job.state.is_terminal() {
        let eta = job.eta.map_or_else(String::new, |eta| format!(", {} to go", seconds(eta)));
        facts.push(("rate", format!("{:.1} a second{eta}", job.rate)));
    }
    facts
}

/// `1000: 600 done, 3 failed, …`, without what is zero.
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

/// Tenths of a second for what is short, whole units for what is long.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// Many jobs, a row each.
pub(crate) fn list(output: &mut Output, jobs: &[JobSummary]) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&jobs.iter().map(View::new).collect::<Vec<_>>());
    }
    let header = ["JOB", "STATE", "TASK", "QUEUE", "DONE", "FAILED", "TOTAL", "RATE", "ETA"];
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            let is_moving = !job.state.is_terminal();
            vec![
                job.id.to_string(),
                job.state.as_str().to_owned(),
                or_dash(&job.task),
                or_dash(&job.queue),
                job.counts.done.to_string(),
                job.counts.failed.to_string(),
                job.counts.total.to_string(),
                if is_moving { format!("{:.1}/s", job.rate) } else { "-".into() },
                job.eta.filter(|_| is_moving).map_or_else(|| "-".into(), seconds),
            ]
        })
        .collect();
    output.text(&table(&header, &rows))
}

/// A rejected job has no words but its error.
fn or_dash(word: &str) -> String {
    if word.is_empty() { "-".to_owned() } else { word.to_owned() }
}

/// One line about a job that has moved or ended.
pub(crate) fn line(output: &mut Output, job: &JobSummary, from: &str) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&View::new(job));
    }
    if job.state == JobState::Rejected {
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

/// A job and the state that it is in now.
pub(crate) fn state(output: &mut Output, job: JobId, state: &str) -> Result<(), Failure> {
    if output.is_json() {
        output.json(&serde_json::json!({ "id": job, "state": state }))
    } else {
        output.line(format_args!("{job} {state}"))
    }
}

/// A job that was cancelled, perhaps before it is there.
pub(crate) fn cancelled(
    output: &mut Output,
    job: JobId,
    cancelled: Cancelled,
) -> Result<(), Failure> {
    let state = JobState::Cancelled.as_str();
    match cancelled {
        Cancelled::Ended => self::state(output, job, state),
        Cancelled::BeforeAdmission if output.is_json() => {
            let view = serde_json::json!({ "id": job, "state": state, "admitted": false });
            output.json(&view)
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

/// The id of a job that was just accepted.
pub(crate) fn id(output: &mut Output, job: JobId) -> Result<(), Failure> {
    if output.is_json() { output.json(&serde_json::json!({ "id": job })) } else { output.line(job) }
}

/// Why one subtask failed, as people read it.
pub(crate) fn failed_subtask(entry: &ErrorEntry, total: u64) -> String {
    let attempts = if entry.attempts == 1 { "attempt" } else { "attempts" };
    let what = if entry.index < total { "subtask" } else { "reduce node" };
    // A traceback has many lines; the first column says where the next entry begins.
    let error = entry.error.trim_end().replace('\n', "\n    ");
    format!("{what} {}: {error} ({} {attempts})", entry.index, entry.attempts)
}

/// Why one subtask failed.
pub(crate) fn error(output: &mut Output, entry: &ErrorEntry, total: u64) -> Result<(), Failure> {
    if output.is_json() { output.json(entry) } else { output.line(failed_subtask(entry, total)) }
}

/// The books as kept and as counted.
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
