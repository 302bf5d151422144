//! The table of endpoints: the one place that says what the API has.

use std::time::Duration;

use longshore_protocol::document::{JobDocument, MAX_DOCUMENT_BYTES};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{
    ActionList, JobAnswer, JobDetails, NodeAnswer, NodeView, Present, RetryRequest, SubmitOutcome,
};
use longshore_protocol::{
    ActionCursor, Audit, ErrorEntry, JobCursor, JobPage, JobSummary, MAX_PAGE, Recovery, Role,
};
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::endpoint::{
    Access, Answer, Endpoint, MakeSchema, Parameter, RequestBody, Scope, Verb, of,
};
use crate::handlers::health::{METRICS, TEXT};
use crate::handlers::{JSON, audit, control, events, health, jobs, nodes, results, submit};
use crate::lines::NDJSON;

use Verb::{Delete, Get, Post};

const VIEWER: Access = Access::Needs(Role::Viewer, Scope::Tenant);
const SUBMITTER: Access = Access::Needs(Role::Submitter, Scope::Tenant);
const OPERATOR: Access = Access::Needs(Role::Operator, Scope::Tenant);
const FLEET_VIEWER: Access = Access::Needs(Role::Viewer, Scope::Fleet);
const FLEET_OPERATOR: Access = Access::Needs(Role::Operator, Scope::Fleet);
const FLEET_ADMIN: Access = Access::Needs(Role::Admin, Scope::Fleet);

/// The time for a request that waits for a scheduler: the longest wait, and some.
const SUBMIT_WITHIN: Duration = Duration::from_secs(90);

/// The time for a long poll: the longest wait, and some.
const POLL_WITHIN: Duration = jobs::MAX_WAIT.saturating_add(Duration::from_secs(10));

/// All endpoints.
pub fn endpoints() -> &'static [Endpoint] {
    ENDPOINTS
}

static ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("submit_job", Post, "/v1/jobs", SUBMITTER, |call| Box::pin(submit::submit(call)))
        .says("Submit a job document, or a batch of them, one a line")
        .takes(&[parameter("within", "The longest wait for a scheduler, such as `10s`", duration)])
        .body(
            RequestBody {
                content: &[(JSON, of::<JobDocument>), (NDJSON, of::<JobDocument>)],
                is_required: true,
            },
            MAX_DOCUMENT_BYTES,
        )
        .answers(&[
            json(201, "A new job", of::<JobAnswer>),
            Answer {
                status: 200,
                description: "The same document was submitted before; of a batch, an outcome a line",
                content: (JSON, of::<JobAnswer>),
                also: Some((NDJSON, of::<SubmitOutcome>)),
            },
            json(202, "RabbitMQ keeps the document until a scheduler takes it", of::<JobAnswer>),
        ])
        .within(SUBMIT_WITHIN),
    Endpoint::new("list_jobs", Get, "/v1/jobs", VIEWER, |call| Box::pin(jobs::list(call)))
        .says("List jobs, newest first")
        .takes(&[
            repeated("state", "Jobs in one of these states", of::<JobState>),
            parameter("task", "Jobs that run this task", of::<String>),
            parameter("queue", "Jobs of this queue", of::<String>),
            parameter("tenant", "Jobs of this tenant", of::<String>),
            parameter("name", "Jobs with this name", of::<String>),
            repeated("label", "Jobs with all of these labels, each `key=value`", label),
            parameter("cursor", "Where the page begins: `next` of the page before", of::<JobCursor>),
            parameter("limit", "The most jobs on the page, 100 by default", page_of_jobs),
        ])
        .answers(&[json(200, "A page of jobs", of::<JobPage>)]),
    Endpoint::new("get_job", Get, "/v1/jobs/{job}", VIEWER, |call| Box::pin(jobs::get(call)))
        .says("Read a job, its recoveries, and why it waits")
        .answers(&[json(200, "The job", of::<JobDetails>)]),
    Endpoint::new("delete_job", Delete, "/v1/jobs/{job}", OPERATOR, |call| {
        Box::pin(control::delete(call))
    })
    .says("Delete a job that has ended, its results and its errors")
    .answers(&[json(200, "The job is gone", of::<JobAnswer>)]),
    Endpoint::new("get_document", Get, "/v1/jobs/{job}/document", VIEWER, |call| {
        Box::pin(jobs::document(call))
    })
    .says("Read the document of a job as it was admitted")
    .answers(&[json(200, "The document", of::<JobDocument>)]),
    Endpoint::new("get_results", Get, "/v1/jobs/{job}/results", VIEWER, |call| {
        Box::pin(results::results(call))
    })
    .says("Stream the results of a job in index order, one a line")
    .takes(&[
        parameter("from", "The first index, 0 by default", of::<u64>),
        parameter("to", "The index behind the last one", of::<u64>),
        parameter("follow", "Go on until the job has ended", of::<bool>),
    ])
    .answers(&[lines("Results; indices without one are left out", result)]),
    Endpoint::new("get_value", Get, "/v1/jobs/{job}/value", VIEWER, |call| {
        Box::pin(results::value(call))
    })
    .says("Read the reduced value of a job that has succeeded")
    .answers(&[json(200, "The value", result)]),
    Endpoint::new("get_errors", Get, "/v1/jobs/{job}/errors", VIEWER, |call| {
        Box::pin(jobs::errors(call))
    })
    .says("Stream the errors of failed subtasks in index order, one a line; 10,000 are kept")
    .takes(&[
        parameter("from", "The first index, 0 by default", of::<u64>),
        parameter("limit", "The most errors", of::<u64>),
    ])
    .answers(&[lines("Errors", of::<ErrorEntry>)]),
    Endpoint::new("get_recoveries", Get, "/v1/jobs/{job}/recoveries", VIEWER, |call| {
        Box::pin(jobs::recoveries(call))
    })
    .says("Read how work of a job was taken back from nodes, newest first")
    .answers(&[json(200, "The newest recoveries", of::<Vec<Recovery>>)]),
    Endpoint::new("audit_job", Get, "/v1/jobs/{job}/audit", VIEWER, |call| {
        Box::pin(jobs::audit(call))
    })
    .says("Recount the subtasks of a job from the ledger's raw data")
    .answers(&[json(200, "The counts as kept and as counted", of::<Audit>)]),
    Endpoint::new("wait_for_job", Get, "/v1/jobs/{job}/wait", VIEWER, |call| {
        Box::pin(jobs::wait(call))
    })
    .says("Wait until a job has ended, or the time is over")
    .takes(&[parameter("timeout", "The longest wait, such as `30s`; at most 2m", duration)])
    .answers(&[json(200, "The job, ended or not", of::<JobSummary>)])
    .within(POLL_WITHIN),
    Endpoint::new("pause_job", Post, "/v1/jobs/{job}/pause", OPERATOR, |call| {
        Box::pin(control::pause(call))
    })
    .says("Pause a job: running chunks finish, no new ones start")
    .answers(&[json(200, "The job's state", of::<JobAnswer>)]),
    Endpoint::new("resume_job", Post, "/v1/jobs/{job}/resume", OPERATOR, |call| {
        Box::pin(control::resume(call))
    })
    .says("Resume a paused job")
    .answers(&[json(200, "The job's state", of::<JobAnswer>)]),
    Endpoint::new("cancel_job", Post, "/v1/jobs/{job}/cancel", OPERATOR, |call| {
        Box::pin(control::cancel(call))
    })
    .says("Cancel a job, also before it is admitted")
    .answers(&[json(200, "The job's state", of::<JobAnswer>)]),
    Endpoint::new("retry_job", Post, "/v1/jobs/{job}/retry", OPERATOR, |call| {
        Box::pin(control::retry(call))
    })
    .says("Try failed subtasks again: all of them, or some")
    .body(
        RequestBody { content: &[(JSON, of::<RetryRequest>)], is_required: false },
        RETRY_BODY,
    )
    .answers(&[json(200, "The job's state", of::<JobAnswer>)]),
    Endpoint::new("list_nodes", Get, "/v1/nodes", FLEET_VIEWER, |call| {
        Box::pin(nodes::list(call))
    })
    .says("List the workers")
    .answers(&[json(200, "The workers, by id", of::<Vec<NodeView>>)]),
    Endpoint::new("drain_node", Post, "/v1/nodes/{node}/drain", FLEET_OPERATOR, |call| {
        Box::pin(nodes::drain(call))
    })
    .says("Ask a worker to finish its chunks, take no new ones, and stop")
    .answers(&[json(200, "The worker was asked", of::<NodeAnswer>)]),
    Endpoint::new("readmit_node", Post, "/v1/nodes/{node}/readmit", FLEET_OPERATOR, |call| {
        Box::pin(nodes::readmit(call))
    })
    .says("Put a worker back into rotation for all of its tasks")
    .answers(&[json(200, "The worker is in rotation", of::<NodeAnswer>)]),
    Endpoint::new("follow_events", Get, "/v1/events", VIEWER, |call| {
        Box::pin(events::events(call))
    })
    .says("Follow changes of jobs and workers as server-sent events; Last-Event-ID resumes")
    .answers(&[Answer {
        status: 200,
        description: "`snapshot` with the present; then `job` with a job, `node` with a worker, \
                      `job_gone` and `node_gone` with an id",
        content: ("text/event-stream", of::<Present>),
        also: None,
    }]),
    Endpoint::new("list_actions", Get, "/v1/audit", FLEET_ADMIN, |call| Box::pin(audit::list(call)))
        .says("Read the audit trail, newest first; 10,000 entries are kept")
        .takes(&[
            parameter(
                "cursor",
                "Where the page begins: `next` of the page before",
                of::<ActionCursor>,
            ),
            parameter("limit", "The most entries on the page, 100 by default", page_of_actions),
        ])
        .answers(&[json(200, "A page of the audit trail", of::<ActionList>)]),
    Endpoint::new("is_alive", Get, "/healthz", Access::Open, |call| Box::pin(health::alive(call)))
        .says("Whether the process answers")
        .answers(&[plain("The process answers", TEXT)]),
    Endpoint::new("is_ready", Get, "/readyz", Access::Open, |call| Box::pin(health::ready(call)))
        .says("Whether the process reaches Redis and RabbitMQ")
        .answers(&[plain("The process reaches both", TEXT)]),
    Endpoint::new("get_metrics", Get, "/metrics", Access::Open, |call| {
        Box::pin(health::metrics(call))
    })
    .says("The metrics of this process in the text format of Prometheus")
    .answers(&[plain("Metrics", METRICS)]),
    Endpoint::new("get_description", Get, "/openapi.json", Access::Open, |call| {
        Box::pin(health::description(call))
    })
    .says("This description of the API")
    .answers(&[json(200, "An OpenAPI 3.1 document", any_object)]),
];

/// The most bytes of a request for a retry: 10,000 indices of up to 20 digits.
const RETRY_BODY: usize = 1 << 20;

const fn parameter(name: &'static str, description: &'static str, schema: MakeSchema) -> Parameter {
    Parameter { name, description, schema, may_repeat: false }
}

const fn repeated(name: &'static str, description: &'static str, schema: MakeSchema) -> Parameter {
    Parameter { name, description, schema, may_repeat: true }
}

const fn json(status: u16, description: &'static str, schema: MakeSchema) -> Answer {
    Answer { status, description, content: (JSON, schema), also: None }
}

const fn lines(description: &'static str, schema: MakeSchema) -> Answer {
    Answer { status: 200, description, content: (NDJSON, schema), also: None }
}

const fn plain(description: &'static str, kind: &'static str) -> Answer {
    Answer { status: 200, description, content: (kind, of::<String>), also: None }
}

fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "examples": ["30s"] })
}

fn label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[^=]+=" })
}

fn page_of_jobs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE })
}

fn page_of_actions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": audit::MAX_ENTRIES })
}

/// A result: the application's own JSON, with its index unless it is the reduced value.
fn result(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": { "index": { "type": "integer", "minimum": 0 }, "result": true },
        "required": ["result"],
    })
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}
