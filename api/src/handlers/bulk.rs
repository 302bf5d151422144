//! Actions on all jobs that a filter shows.

use axum::http::StatusCode;
use futures_util::StreamExt;
use longshore_producer::EmptyFilter;
use longshore_protocol::wire::BulkRequest;
use longshore_protocol::{Invalid, JobFilter};

use super::{Outcome, json};
use crate::access::Caller;
use crate::call::Call;
use crate::lines::{self, Live, line};
use crate::refusal::Refusal;
use crate::router::Target;

/// The jobs that a plan shows.
const SAMPLE: usize = 10;

/// The most characters of a filter that the audit trail shows.
const SHOWN: usize = 500;

const ALLOWED: &str = r#"write {"action": "cancel", "filter": {"task": "thumbnail"}}"#;

pub(crate) async fn act(mut call: Call) -> Outcome {
    let request: BulkRequest = call.object(ALLOWED).await?;
    let target = target(&request);
    let BulkRequest { action, filter, dry_run } = request;
    let filter = bound(&call.caller, filter)?;
    let jobs = call.shared.client.jobs();
    let mut response = if dry_run {
        let plan = jobs.bulk_plan(action, &filter, SAMPLE).map_err(no_condition)?.await?;
        json(StatusCode::OK, &plan)
    } else {
        let outcomes = jobs.bulk(action, &filter).map_err(no_condition)?;
        let lines = outcomes.map(|outcome| Ok(line(&outcome?)));
        let mut response = lines::respond(lines.boxed(), call.shared.stop.clone()).await?;
        response.extensions_mut().insert(Live);
        response
    };
    response.extensions_mut().insert(Target(target));
    Ok(response)
}

/// The filter within the tenants of the caller. Whether it has a condition is decided before the
/// tenants are added, which are the caller's and not the client's.
fn bound(caller: &Caller, mut filter: JobFilter) -> Result<JobFilter, Refusal> {
    if filter.is_empty() {
        return Err(no_condition(EmptyFilter));
    }
    let Some(own) = caller.tenants() else { return Ok(filter) };
    let mut named = filter.tenant.iter().chain(&filter.tenants);
    if let Some(foreign) = named.find(|tenant| !own.contains(tenant)) {
        let own = own.join(", ");
        return Err(Refusal::forbidden(format_args!(
            "filter: the token may not act on jobs of `{foreign}`; use {own}"
        )));
    }
    if filter.tenants.is_empty() {
        filter.tenants = own;
    }
    Ok(filter)
}

fn no_condition(_: EmptyFilter) -> Refusal {
    Refusal::bad_body(&Invalid {
        place: "filter".into(),
        found: "no condition, which would take every job".into(),
        allowed: "give one condition at least".into(),
    })
}

/// What the audit trail says of a bulk action.
fn target(request: &BulkRequest) -> String {
    let filter = serde_json::to_string(&request.filter).expect("a filter is JSON");
    let shown: String = filter.chars().take(SHOWN).collect();
    let dry = if request.dry_run { " (dry run)" } else { "" };
    format!("{} {shown}{dry}", request.action)
}
