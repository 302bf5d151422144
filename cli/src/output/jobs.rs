//! Prints lists of jobs, as tables of 80 columns, as wider tables, or as JSON.

use longshore_producer::Jobs;
use longshore_protocol::{JobId, JobPage, JobSummary, Timestamp};

use super::Output;
use super::job::seconds;
use super::table::{age, brief_count, fitted, table};
use crate::failure::Failure;

/// Prints a row for each job.
pub(crate) async fn list(
    output: &mut Output,
    jobs: &Jobs,
    rows: &[JobSummary],
    is_wide: bool,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&rows);
    }
    print(output, jobs, rows, is_wide).await
}

/// Prints a page of a list, with JSON together with the cursor of the next page.
pub(crate) async fn page(
    output: &mut Output,
    jobs: &Jobs,
    page: &JobPage,
    is_wide: bool,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(page);
    }
    print(output, jobs, &page.jobs, is_wide).await
}

/// Prints a table. Ids are as short as all jobs that are kept allow.
pub(super) async fn print(
    output: &mut Output,
    jobs: &Jobs,
    rows: &[JobSummary],
    is_wide: bool,
) -> Result<(), Failure> {
    let now = jobs.now().await?;
    if is_wide {
        return output.text(&wide(rows, now));
    }
    let ids: Vec<JobId> = rows.iter().map(|job| job.id).collect();
    let lengths = jobs.id_lengths(&ids).await?;
    output.text(&narrow(rows, &lengths, now))
}

/// The columns that people look for jobs by, in 80 columns.
fn narrow(rows: &[JobSummary], lengths: &[usize], now: Timestamp) -> String {
    let header = ["JOB", "STATE", "AGE", "DONE", "FAILED", "TOTAL", "TASK", "QUEUE", "NAME"];
    let cells = |(job, length): (&JobSummary, &usize)| {
        vec![
            job.id.to_string().chars().take(*length).collect(),
            job.state.as_str().to_owned(),
            age_of(job, now),
            brief_count(job.counts.done),
            brief_count(job.counts.failed),
            brief_count(job.counts.total),
            or_dash(&job.task),
            or_dash(&job.queue),
            job.name.clone().unwrap_or_default(),
        ]
    };
    let mut header = header.to_vec();
    let mut cells: Vec<Vec<String>> = rows.iter().zip(lengths).map(cells).collect();
    if rows.iter().all(|job| job.name.is_none()) {
        header.pop();
        for row in &mut cells {
            row.pop();
        }
    }
    fitted(&header, &cells, &["TASK", "QUEUE", "NAME"])
}

/// Everything that fits in a cell, however wide.
fn wide(rows: &[JobSummary], now: Timestamp) -> String {
    let header = [
        "JOB", "STATE", "AGE", "TASK", "QUEUE", "TENANT", "DONE", "FAILED", "TOTAL", "RATE", "ETA",
        "NAME", "LABELS",
    ];
    let cells = |job: &JobSummary| {
        let is_moving = !job.state.is_terminal();
        let labels = job.labels.iter().map(|(key, value)| format!("{key}={value}"));
        vec![
            job.id.to_string(),
            job.state.as_str().to_owned(),
            age_of(job, now),
            or_dash(&job.task),
            or_dash(&job.queue),
            or_dash(&job.tenant),
            job.counts.done.to_string(),
            job.counts.failed.to_string(),
            job.counts.total.to_string(),
            if is_moving { format!("{:.1}/s", job.rate) } else { "-".into() },
            job.eta.filter(|_| is_moving).map_or_else(|| "-".into(), seconds),
            or_dash(job.name.as_deref().unwrap_or_default()),
            or_dash(&labels.collect::<Vec<_>>().join(",")),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>())
}

/// The time since the job was submitted, or since it was rejected.
fn age_of(job: &JobSummary, now: Timestamp) -> String {
    let since = if job.state.was_accepted() { Some(job.submitted_at) } else { job.finished_at };
    since.map_or_else(|| "-".to_owned(), |since| age(now.since(since)))
}

/// The text of a rejected job, which has nothing but its error.
fn or_dash(word: &str) -> String {
    if word.is_empty() { "-".to_owned() } else { word.to_owned() }
}
