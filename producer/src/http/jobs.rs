//! The jobs of a server. What each call does is said at [`crate::Jobs`].

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use longshore_protocol::wire::{BulkRequest, Clock};
use longshore_protocol::{
    BulkAction, BulkOutcome, BulkPlan, JobCursor, JobFilter, JobId, JobIdPrefix, JobPage,
    JobSummary, Timestamp,
};

use super::job::{Job, of_server};
use super::request::Request;
use super::{Server, ServerError, lines};
use crate::Error;

/// The ids that one request asks about, which have to fit into its URL.
const IDS_AT_ONCE: usize = 200;

/// The time for the plan of a bulk action, for which the server reads all jobs.
const PLAN_WITHIN: Duration = Duration::from_secs(120);

/// The jobs of a server.
#[derive(Clone)]
pub(crate) struct Jobs {
    server: Server,
}

impl Jobs {
    pub(crate) fn new(server: Server) -> Self {
        Self { server }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn job(&self, id: JobId) -> Job {
        Job::new(self.server.clone(), id)
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        Ok(now(&self.server).await?)
    }

    pub(crate) async fn recent(&self, finished: usize) -> Result<Vec<JobSummary>, Error> {
        let request = Request::get(&[&"recent"]).with("finished", finished);
        Ok(self.server.json(&request).await?)
    }

    pub(crate) async fn list(
        &self,
        filter: &JobFilter,
        cursor: Option<JobCursor>,
        limit: usize,
    ) -> Result<JobPage, Error> {
        let request = filtered(filter)?.with_some("cursor", cursor).with("limit", limit);
        Ok(self.server.json(&request).await?)
    }

    pub(crate) async fn with_prefix(
        &self,
        prefix: &JobIdPrefix,
        limit: usize,
    ) -> Result<Vec<JobSummary>, Error> {
        let request = Request::get(&[&"find"]).with("id", prefix).with("limit", limit);
        Ok(self.server.json(&request).await?)
    }

    pub(crate) async fn id_lengths(&self, ids: &[JobId]) -> Result<Vec<usize>, Error> {
        let mut lengths = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_AT_ONCE) {
            let request = Request::get(&[&"id-lengths"]);
            let request = ids.iter().fold(request, |request, id| request.with("job", id));
            lengths.extend(self.server.json::<Vec<usize>>(&request).await?);
        }
        Ok(lengths)
    }

    pub(crate) fn bulk(
        &self,
        action: BulkAction,
        filter: &JobFilter,
    ) -> BoxStream<'static, Result<BulkOutcome, Error>> {
        let body = BulkRequest { action, filter: filter.clone(), dry_run: false };
        let outcomes = lines::once(self.server.clone(), Request::post(&[&"bulk"]).json(&body));
        outcomes.map(|outcome| outcome.map_err(of_server)).boxed()
    }

    pub(crate) async fn bulk_plan(
        self,
        action: BulkAction,
        filter: JobFilter,
        sample: usize,
    ) -> Result<BulkPlan, Error> {
        let body = BulkRequest { action, filter, dry_run: true };
        let request = Request::post(&[&"bulk"]).json(&body).within(PLAN_WITHIN);
        let mut plan: BulkPlan = self.server.json(&request).await?;
        plan.first.truncate(sample);
        Ok(plan)
    }
}

/// The time of the ledger's clock.
pub(super) async fn now(server: &Server) -> Result<Timestamp, ServerError> {
    let clock: Clock = server.json(&Request::get(&[&"clock"])).await?;
    Ok(clock.now)
}

/// A list of the jobs that a filter shows.
fn filtered(filter: &JobFilter) -> Result<Request, ServerError> {
    let JobFilter { states, task, queue, tenant, tenants, name, labels, submitted_before } = filter;
    if !tenants.is_empty() {
        return Err(ServerError::unsupported(
            "tenants: a server lists the jobs of one tenant or of all that the token shows; use \
             tenant",
        ));
    }
    let mut request = Request::get(&[&"jobs"])
        .with_some("task", task.as_ref())
        .with_some("queue", queue.as_ref())
        .with_some("tenant", tenant.as_ref())
        .with_some("name", name.as_ref())
        .with_some("submitted_before", submitted_before.map(Timestamp::as_millis));
    for state in states {
        request = request.with("state", state);
    }
    for (name, value) in labels {
        request = request.with("label", format_args!("{name}={value}"));
    }
    Ok(request)
}
