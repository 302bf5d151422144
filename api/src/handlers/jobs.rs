//! Reads jobs, and waits for their end.
//!
//! Lists, one job, its document, map, errors, recoveries and audit, and why it waits.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::StreamExt;
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{Clock, JobCounts, JobList};
use longshore_protocol::{JobFilter, JobId, JobIdPrefix, JobPage, MAX_CELLS, MAX_PAGE, Timestamp};

use super::{JSON, Outcome, json, text};
use crate::call::Call;
use crate::lines::{self, line};
use crate::params::{Params, wrong};
use crate::refusal::Refusal;

/// The jobs on a page unless the client asks for another number.
const PAGE: u64 = 100;

/// The jobs that have ended among the recent ones unless the client asks for another number.
const RECENT: u64 = 20;

/// The ranges of a map unless the client asks for another number.
const CELLS: u64 = 100;

/// The longest wait for the end of a job.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(120);

/// The wait for the end of a job unless the client asks for another one.
const WAIT: Duration = Duration::from_secs(30);

pub(crate) async fn list(call: Call) -> Outcome {
    let params = &call.params;
    let limit = params.whole("limit", 1..=MAX_PAGE as u64, PAGE)?;
    let cursor = params.parsed("cursor")?;
    let is_counted = params.flag("counts")?;
    let mut filter = filter(params)?;
    if let Some(own) = call.caller.tenants() {
        if filter.tenant.as_ref().is_some_and(|tenant| !own.contains(tenant)) {
            let (page, counts) = (JobPage::default(), is_counted.then(JobCounts::default));
            return Ok(json(StatusCode::OK, &JobList { page, counts }));
        }
        filter.tenants = own;
    }
    let limit = usize::try_from(limit).unwrap_or(MAX_PAGE);
    let page = call.shared.client.jobs().list(&filter, cursor, limit).await?;
    let counts = match is_counted {
        true => call.shared.ledger().count_jobs(&filter).await?,
        false => None,
    };
    Ok(json(StatusCode::OK, &JobList { page, counts }))
}

/// The filter of the query.
fn filter(params: &Params) -> Result<JobFilter, Refusal> {
    let state = |text: &str| {
        text.parse::<JobState>().map_err(|_| {
            let known = JobState::ALL.map(JobState::as_str).join(", ");
            wrong("state", text, format!("use one of {known}"))
        })
    };
    let label = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(wrong("label", text, "write it as key=value")),
    };
    Ok(JobFilter {
        states: params.all("state").map(state).collect::<Result<_, _>>()?,
        task: params.owned("task"),
        queue: params.owned("queue"),
        tenant: params.owned("tenant"),
        name: params.owned("name"),
        labels: params.all("label").map(label).collect::<Result<BTreeMap<_, _>, _>>()?,
        submitted_before: match params.text("submitted_before") {
            Some(_) => {
                let time = params.whole("submitted_before", 0..=u64::MAX, 0)?;
                Some(Timestamp::from_millis(time))
            }
            None => None,
        },
        ..JobFilter::default()
    })
}

/// The jobs that have not ended, in order of submission, and those that ended last.
pub(crate) async fn recent(call: Call) -> Outcome {
    let finished = call.params.whole("finished", 0..=MAX_PAGE as u64, RECENT)?;
    let finished = usize::try_from(finished).unwrap_or(MAX_PAGE);
    // Of one tenant there may be fewer among those that ended last, so more are looked at.
    let wanted = if call.caller.tenants().is_some() { MAX_PAGE } else { finished };
    let mut jobs = call.shared.client.jobs().recent(wanted).await?;
    jobs.retain(|job| call.caller.shows(&job.tenant));
    let open = jobs.iter().filter(|job| !job.state.is_terminal()).count();
    jobs.truncate(open + finished);
    Ok(json(StatusCode::OK, &jobs))
}

pub(crate) async fn find(call: Call) -> Outcome {
    let Some(prefix) = call.params.parsed::<JobIdPrefix>("id")? else {
        return Err(wrong("id", "", "give the beginning of a job's id"));
    };
    let limit = call.params.whole("limit", 1..=MAX_PAGE as u64, PAGE)?;
    let limit = usize::try_from(limit).unwrap_or(MAX_PAGE);
    let wanted = if call.caller.tenants().is_some() { MAX_PAGE } else { limit };
    let mut jobs = call.shared.client.jobs().with_prefix(&prefix, wanted).await?;
    jobs.retain(|job| call.caller.shows(&job.tenant));
    jobs.truncate(limit);
    Ok(json(StatusCode::OK, &jobs))
}

pub(crate) async fn id_lengths(call: Call) -> Outcome {
    let id = |text: &str| {
        text.parse::<JobId>().map_err(|_| wrong("job", text, "use a job's id, a UUID"))
    };
    let ids = call.params.all("job").map(id).collect::<Result<Vec<_>, _>>()?;
    // A smaller number would tell a tenant which ids others have.
    let lengths: Vec<usize> = match call.caller.tenants() {
        Some(_) => ids.iter().map(|id| id.to_string().len()).collect(),
        None => call.shared.client.jobs().id_lengths(&ids).await?,
    };
    Ok(json(StatusCode::OK, &lengths))
}

pub(crate) async fn clock(call: Call) -> Outcome {
    Ok(json(StatusCode::OK, &Clock { now: call.shared.client.jobs().now().await? }))
}

pub(crate) async fn get(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    Ok(json(StatusCode::OK, &job.details().await?))
}

/// The document as it was admitted: its text, so that no number in it changes.
pub(crate) async fn document(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    match call.shared.ledger().document(job.id()).await? {
        Some(stored) => Ok(text(StatusCode::OK, JSON, stored.document)),
        None => Err(Refusal::no_such_job(job.id())),
    }
}

pub(crate) async fn errors(call: Call) -> Outcome {
    let from = call.params.whole("from", 0..=u64::MAX, 0)?;
    let limit = call.params.whole("limit", 1..=u64::MAX, u64::MAX)?;
    let is_grouped = call.params.flag("grouped")?;
    let ranged = ["from", "limit"].into_iter().find(|name| call.params.text(name).is_some());
    if let Some(name) = ranged.filter(|_| is_grouped) {
        let found = call.params.text(name).unwrap_or_default();
        return Err(wrong(name, found, "leave it out with grouped=true, which takes all errors"));
    }
    let (job, _) = call.job().await?;
    if is_grouped {
        return Ok(json(StatusCode::OK, &job.error_groups().await?));
    }
    let errors = job.errors().map(|entry| entry.map_err(Refusal::from));
    let is_before = move |entry: &Result<longshore_protocol::ErrorEntry, Refusal>| {
        let is_before = entry.as_ref().is_ok_and(|entry| entry.index < from);
        std::future::ready(is_before)
    };
    let errors = errors.skip_while(is_before).take(usize::try_from(limit).unwrap_or(usize::MAX));
    let lines = errors.map(|entry| Ok(line(&entry?)));
    lines::respond(lines.boxed(), call.shared.stop.clone()).await
}

pub(crate) async fn explain(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    Ok(json(StatusCode::OK, &job.explain().await?))
}

pub(crate) async fn map(call: Call) -> Outcome {
    let indices = call.params.indices()?;
    let cells = call.params.whole("cells", 1..=MAX_CELLS, CELLS)?;
    let (job, _) = call.job().await?;
    Ok(json(StatusCode::OK, &job.map(indices, cells).await?))
}

pub(crate) async fn recoveries(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    Ok(json(StatusCode::OK, &job.recoveries().await?))
}

pub(crate) async fn audit(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    Ok(json(StatusCode::OK, &job.audit().await?))
}

/// Answers with the job once it has ended, or as it is when the time is over.
pub(crate) async fn wait(call: Call) -> Outcome {
    let within = call.params.duration("timeout", MAX_WAIT, WAIT)?;
    let (job, summary) = call.job().await?;
    if summary.state.is_terminal() {
        return Ok(json(StatusCode::OK, &summary));
    }
    let ended = tokio::select! {
        ended = tokio::time::timeout(within, job.wait()) => ended.ok(),
        () = call.shared.stop.cancelled() => None,
    };
    let summary = match ended {
        Some(ended) => ended?,
        None => job.summary().await?,
    };
    Ok(json(StatusCode::OK, &summary))
}
