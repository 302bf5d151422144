//! The table of endpoints: the one place that says what the API has.

use std::time::Duration;

use longshore_protocol::document::{JobDocument, MAX_DOCUMENT_BYTES};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::{
    ActionList, BulkRequest, Clock, DeadLettersRequest, ErrorGroups, Explanation, JobAnswer,
    JobDetails, JobList, NewApiToken, NewTokenRequest, NodeAnswer, NodeView, Present, QueueView,
    RetryRequest, SubmitOutcome, TokenAnswer,
};
use longshore_protocol::{
    ActionCursor, ApiToken, Audit, BulkOutcome, BulkPlan, DeadLetterAnswer, DeadLetterDetails,
    DeadLetterPage, DeadLettersPurged, ErrorEntry, JobCursor, JobId, JobMap, JobSummary, MAX_CELLS,
    MAX_PAGE, Recovery, Role,
};
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::endpoint::{
    Access, Answer, Content, Endpoint, MakeSchema, Parameter, RequestBody, SMALL_BODY, Scope, Verb,
    of,
};
use crate::handlers::health::{METRICS, TEXT};
use crate::handlers::{
    JSON, audit, bulk, control, dead, events, health, job_events, jobs, nodes, queues, results,
    submit, tokens,
};
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
            answer(201, "A new job", &[(JSON, of::<JobAnswer>)]),
            Answer {
                status: 200,
                description: "The same document was submitted before; of a batch, an outcome a \
                              line",
                content: &[(JSON, of::<JobAnswer>), (NDJSON, of::<SubmitOutcome>)],
            },
            answer(
                202,
                "RabbitMQ keeps the document until a scheduler takes it",
                &[(JSON, of::<JobAnswer>)],
            ),
        ])
        .refuses(&[409])
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
            parameter(
                "submitted_before",
                "Jobs that the ledger accepted before this time, in Unix milliseconds",
                of::<u64>,
            ),
            parameter(
                "cursor",
                "Where the page begins: `next` of the page before",
                of::<JobCursor>,
            ),
            parameter("limit", "The most jobs on the page, 100 by default", page_of_jobs),
            parameter("counts", "Also count all jobs of the filter, by state", of::<bool>),
        ])
        .answers(&[ok("A page of jobs", &[(JSON, of::<JobList>)])]),
    Endpoint::new("list_recent_jobs", Get, "/v1/recent", VIEWER, |call| {
        Box::pin(jobs::recent(call))
    })
    .says("List all jobs that have not ended, and those that ended last")
    .takes(&[parameter("finished", "The most jobs that have ended, 20 by default", ended_jobs)])
    .answers(&[ok("The jobs, those that have ended behind", &[(JSON, of::<Vec<JobSummary>>)])]),
    Endpoint::new("find_jobs", Get, "/v1/find", VIEWER, |call| Box::pin(jobs::find(call)))
        .says("Find the jobs that are kept and whose ids begin so, the smallest id first")
        .takes(&[
            parameter("id", "The beginning of the id, at least 8 characters", of::<String>),
            parameter("limit", "The most jobs, 100 by default", page_of_jobs),
        ])
        .answers(&[ok("The jobs", &[(JSON, of::<Vec<JobSummary>>)])]),
    Endpoint::new("get_id_lengths", Get, "/v1/id-lengths", VIEWER, |call| {
        Box::pin(jobs::id_lengths(call))
    })
    .says(
        "Tell how many characters of ids suffice to name the jobs, at least 8; all of them with a \
         token for some tenants",
    )
    .takes(&[repeated("job", "The id of a job", of::<JobId>)])
    .answers(&[ok("The numbers of characters, in the same order", &[(JSON, of::<Vec<usize>>)])]),
    Endpoint::new("get_clock", Get, "/v1/clock", VIEWER, |call| Box::pin(jobs::clock(call)))
        .says("Read the clock by which jobs and workers are dated")
        .answers(&[ok("The time", &[(JSON, of::<Clock>)])]),
    Endpoint::new("get_job", Get, "/v1/jobs/{job}", VIEWER, |call| Box::pin(jobs::get(call)))
        .says("Read a job, its recoveries, and why it waits")
        .answers(&[ok("The job", &[(JSON, of::<JobDetails>)])]),
    Endpoint::new("delete_job", Delete, "/v1/jobs/{job}", OPERATOR, |call| {
        Box::pin(control::delete(call))
    })
    .says("Delete a job that has ended, its results and its errors")
    .answers(&[ok("The job is gone", &[(JSON, of::<JobAnswer>)])])
    .refuses(&[409]),
    Endpoint::new("get_document", Get, "/v1/jobs/{job}/document", VIEWER, |call| {
        Box::pin(jobs::document(call))
    })
    .says("Read the document of a job as it was admitted")
    .answers(&[ok("The document", &[(JSON, of::<JobDocument>)])]),
    Endpoint::new("get_results", Get, "/v1/jobs/{job}/results", VIEWER, |call| {
        Box::pin(results::results(call))
    })
    .says("Stream the results of a job in index order, one a line")
    .takes(&[
        parameter("from", "The first index, 0 by default", of::<u64>),
        parameter("to", "The index behind the last one", of::<u64>),
        parameter("follow", "Go on until the job has ended", of::<bool>),
    ])
    .answers(&[ok("Results; indices without one are left out", &[(NDJSON, result)])])
    .refuses(&[410]),
    Endpoint::new("get_value", Get, "/v1/jobs/{job}/value", VIEWER, |call| {
        Box::pin(results::value(call))
    })
    .says("Read the reduced value of a job that has succeeded")
    .answers(&[ok("The value", &[(JSON, result)])])
    .refuses(&[409, 410]),
    Endpoint::new("get_errors", Get, "/v1/jobs/{job}/errors", VIEWER, |call| {
        Box::pin(jobs::errors(call))
    })
    .says("Stream the errors of failed subtasks in index order, one a line; 10,000 are kept")
    .takes(&[
        parameter("from", "The first index, 0 by default", of::<u64>),
        parameter("limit", "The most errors", from_one),
        parameter("grouped", "One answer: groups of errors that are alike", of::<bool>),
    ])
    .answers(&[Answer {
        status: 200,
        description: "Errors; with `grouped` their groups, the largest first",
        content: &[(NDJSON, of::<ErrorEntry>), (JSON, of::<ErrorGroups>)],
    }]),
    Endpoint::new("explain_job", Get, "/v1/jobs/{job}/explain", VIEWER, |call| {
        Box::pin(jobs::explain(call))
    })
    .says("Explain why a job has not ended, and what to do about it")
    .answers(&[ok("The reasons, ranked", &[(JSON, of::<Explanation>)])]),
    Endpoint::new("get_map", Get, "/v1/jobs/{job}/map", VIEWER, |call| Box::pin(jobs::map(call)))
        .says("Count the states of a job's subtasks for equal ranges of their indices")
        .takes(&[
            parameter("from", "The first index, 0 by default", of::<u64>),
            parameter("to", "The index behind the last one; all by default", of::<u64>),
            parameter("cells", "The number of ranges, 100 by default", cells),
        ])
        .answers(&[ok("The ranges in order", &[(JSON, of::<JobMap>)])])
        .refuses(&[410]),
    Endpoint::new("follow_job", Get, "/v1/jobs/{job}/events", VIEWER, |call| {
        Box::pin(job_events::events(call))
    })
    .says("Follow a job as server-sent events until it has ended; Last-Event-ID resumes")
    .answers(&[
        Answer {
            status: 200,
            description: "`snapshot` with the job, `job` with it whenever it has changed, \
                          `job_gone` with its id",
            content: &[(EVENTS, event_of_job)],
        },
        Answer { status: 204, description: "The job has ended, as the client knows", content: &[] },
    ]),
    Endpoint::new("get_recoveries", Get, "/v1/jobs/{job}/recoveries", VIEWER, |call| {
        Box::pin(jobs::recoveries(call))
    })
    .says("Read how work of a job was taken back from nodes, newest first")
    .answers(&[ok("The newest recoveries", &[(JSON, of::<Vec<Recovery>>)])]),
    Endpoint::new("audit_job", Get, "/v1/jobs/{job}/audit", VIEWER, |call| {
        Box::pin(jobs::audit(call))
    })
    .says("Recount the subtasks of a job from the ledger's raw data")
    .answers(&[ok("The counts as kept and as counted", &[(JSON, of::<Audit>)])]),
    Endpoint::new("wait_for_job", Get, "/v1/jobs/{job}/wait", VIEWER, |call| {
        Box::pin(jobs::wait(call))
    })
    .says("Wait until a job has ended, or the time is over")
    .takes(&[parameter("timeout", "The longest wait, such as `30s`; at most 2m", duration)])
    .answers(&[ok("The job, ended or not", &[(JSON, of::<JobSummary>)])])
    .within(POLL_WITHIN),
    Endpoint::new("pause_job", Post, "/v1/jobs/{job}/pause", OPERATOR, |call| {
        Box::pin(control::pause(call))
    })
    .says("Pause a job: running chunks finish, no new ones start")
    .answers(&[ok("The job's state", &[(JSON, of::<JobAnswer>)])])
    .refuses(&[409]),
    Endpoint::new("resume_job", Post, "/v1/jobs/{job}/resume", OPERATOR, |call| {
        Box::pin(control::resume(call))
    })
    .says("Resume a paused job")
    .answers(&[ok("The job's state", &[(JSON, of::<JobAnswer>)])])
    .refuses(&[409]),
    Endpoint::new("cancel_job", Post, "/v1/jobs/{job}/cancel", OPERATOR, |call| {
        Box::pin(control::cancel(call))
    })
    .says("Cancel a job, also before it is admitted")
    .answers(&[ok("The job's state", &[(JSON, of::<JobAnswer>)])])
    .refuses(&[409]),
    Endpoint::new("retry_job", Post, "/v1/jobs/{job}/retry", OPERATOR, |call| {
        Box::pin(control::retry(call))
    })
    .says("Try failed subtasks again: all of them, or some")
    .body(RequestBody { content: &[(JSON, of::<RetryRequest>)], is_required: false }, SMALL_BODY)
    .answers(&[ok("The job's state", &[(JSON, of::<JobAnswer>)])])
    .refuses(&[409]),
    Endpoint::new("act_on_jobs", Post, "/v1/bulk", OPERATOR, |call| Box::pin(bulk::act(call)))
        .says("Pause, resume, cancel, retry or delete all jobs that a filter shows")
        .body(RequestBody { content: &[(JSON, of::<BulkRequest>)], is_required: true }, SMALL_BODY)
        .answers(&[Answer {
            status: 200,
            description: "An outcome a job, one a line, in no particular order; of a dry run the \
                          plan",
            content: &[(NDJSON, of::<BulkOutcome>), (JSON, of::<BulkPlan>)],
        }]),
    Endpoint::new("list_nodes", Get, "/v1/nodes", FLEET_VIEWER, |call| Box::pin(nodes::list(call)))
        .says("List the workers")
        .answers(&[ok("The workers, by id", &[(JSON, of::<Vec<NodeView>>)])]),
    Endpoint::new("list_queues", Get, "/v1/queues", FLEET_VIEWER, |call| {
        Box::pin(queues::list(call))
    })
    .says("List the queues that have jobs or workers: who waits, who works, what blocks them")
    .answers(&[ok("The queues, by name", &[(JSON, of::<Vec<QueueView>>)])]),
    Endpoint::new("drain_node", Post, "/v1/nodes/{node}/drain", FLEET_OPERATOR, |call| {
        Box::pin(nodes::drain(call))
    })
    .says("Ask a worker to finish its chunks and take no new ones until it is undrained")
    .answers(&[ok("The worker was asked", &[(JSON, of::<NodeAnswer>)])]),
    Endpoint::new("undrain_node", Post, "/v1/nodes/{node}/undrain", FLEET_OPERATOR, |call| {
        Box::pin(nodes::undrain(call))
    })
    .says("Withdraw a drain: the worker takes chunks again")
    .answers(&[ok("The worker was asked", &[(JSON, of::<NodeAnswer>)])]),
    Endpoint::new("readmit_node", Post, "/v1/nodes/{node}/readmit", FLEET_OPERATOR, |call| {
        Box::pin(nodes::readmit(call))
    })
    .says("Put a worker back into rotation for all of its tasks")
    .answers(&[ok("The worker is in rotation", &[(JSON, of::<NodeAnswer>)])]),
    Endpoint::new("follow_events", Get, "/v1/events", VIEWER, |call| {
        Box::pin(events::events(call))
    })
    .says("Follow changes of jobs and workers as server-sent events; Last-Event-ID resumes")
    .answers(&[Answer {
        status: 200,
        description: "`snapshot` with the present; then `job` with a job, `node` with a worker, \
                      `job_gone` and `node_gone` with an id",
        content: &[(EVENTS, event)],
    }]),
    Endpoint::new("list_actions", Get, "/v1/audit", FLEET_ADMIN, |call| {
        Box::pin(audit::list(call))
    })
    .says("Read the audit trail, newest first; 10,000 entries are kept")
    .takes(&[
        parameter("cursor", "Where the page begins: `next` of the page before", of::<ActionCursor>),
        parameter("limit", "The most entries on the page, 100 by default", page_of_actions),
    ])
    .answers(&[ok("A page of the audit trail", &[(JSON, of::<ActionList>)])]),
    Endpoint::new("list_tokens", Get, "/v1/tokens", FLEET_ADMIN, |call| {
        Box::pin(tokens::list(call))
    })
    .says("List the API tokens; their secrets are not kept")
    .answers(&[ok("The tokens", &[(JSON, of::<Vec<ApiToken>>)])]),
    Endpoint::new("create_token", Post, "/v1/tokens", FLEET_ADMIN, |call| {
        Box::pin(tokens::create(call))
    })
    .says("Create an API token; the answer alone has its secret")
    .body(RequestBody { content: &[(JSON, of::<NewTokenRequest>)], is_required: true }, SMALL_BODY)
    .answers(&[answer(201, "The token and its secret", &[(JSON, of::<NewApiToken>)])])
    .refuses(&[409]),
    Endpoint::new("revoke_token", Delete, "/v1/tokens/{token}", FLEET_ADMIN, |call| {
        Box::pin(tokens::revoke(call))
    })
    .says("Revoke an API token; servers refuse it within two seconds")
    .answers(&[ok("The token is gone", &[(JSON, of::<TokenAnswer>)])]),
    Endpoint::new("list_dead_letters", Get, "/v1/dead", FLEET_OPERATOR, |call| {
        Box::pin(dead::list(call))
    })
    .says("List the job documents that were refused, the oldest first; they stay where they are")
    .takes(&[parameter("limit", "The most letters, 50 by default", letters)])
    .answers(&[ok("Dead letters, and how many there are", &[(JSON, of::<DeadLetterPage>)])]),
    Endpoint::new("get_dead_letter", Get, "/v1/dead/{letter}", FLEET_OPERATOR, |call| {
        Box::pin(dead::get(call))
    })
    .says("Read a dead letter and its document; it stays where it is")
    .answers(&[ok("The letter", &[(JSON, of::<DeadLetterDetails>)])]),
    Endpoint::new("requeue_dead_letters", Post, "/v1/dead/requeue", FLEET_OPERATOR, |call| {
        Box::pin(dead::requeue(call))
    })
    .says("Put the documents of dead letters back into the queue of jobs")
    .body(LETTERS, SMALL_BODY)
    .answers(&[ok("An answer a letter, one a line", &[(NDJSON, of::<DeadLetterAnswer>)])]),
    Endpoint::new("purge_dead_letters", Post, "/v1/dead/purge", FLEET_OPERATOR, |call| {
        Box::pin(dead::purge(call))
    })
    .says("Delete dead letters")
    .body(LETTERS, SMALL_BODY)
    .answers(&[ok(
        "An answer a letter, one a line; of all letters their number",
        &[(NDJSON, of::<DeadLetterAnswer>), (JSON, of::<DeadLettersPurged>)],
    )]),
    Endpoint::new("is_alive", Get, "/healthz", Access::Open, |call| Box::pin(health::alive(call)))
        .says("Whether the process answers")
        .answers(&[ok("The process answers", &[(TEXT, of::<String>)])]),
    Endpoint::new("is_ready", Get, "/readyz", Access::Open, |call| Box::pin(health::ready(call)))
        .says("Whether the process reaches Redis and RabbitMQ")
        .answers(&[ok("The process reaches both", &[(TEXT, of::<String>)])])
        .refuses(&[503]),
    Endpoint::new("get_metrics", Get, "/metrics", Access::Open, |call| {
        Box::pin(health::metrics(call))
    })
    .says("The metrics of this process in the text format of Prometheus")
    .answers(&[ok("Metrics", &[(METRICS, of::<String>)])])
    .refuses(&[404]),
    Endpoint::new("get_description", Get, "/openapi.json", Access::Open, |call| {
        Box::pin(health::description(call))
    })
    .says("This description of the API")
    .answers(&[ok("An OpenAPI 3.1 document", &[(JSON, any_object)])]),
];

/// The content type of server-sent events.
const EVENTS: &str = "text/event-stream";

/// Which dead letters.
const LETTERS: RequestBody =
    RequestBody { content: &[(JSON, of::<DeadLettersRequest>)], is_required: true };

const fn parameter(name: &'static str, description: &'static str, schema: MakeSchema) -> Parameter {
    Parameter { name, description, schema, may_repeat: false }
}

const fn repeated(name: &'static str, description: &'static str, schema: MakeSchema) -> Parameter {
    Parameter { name, description, schema, may_repeat: true }
}

const fn answer(status: u16, description: &'static str, content: Content) -> Answer {
    Answer { status, description, content }
}

const fn ok(description: &'static str, content: Content) -> Answer {
    Answer { status: 200, description, content }
}

fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "examples": ["30s"] })
}

fn label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[^=]+=" })
}

fn from_one(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": u64::MAX })
}

fn cells(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_CELLS })
}

fn letters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": dead::MAX_LETTERS })
}

fn page_of_jobs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE })
}

fn ended_jobs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX_PAGE })
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

/// A server-sent event whose data is JSON of one of these schemas.
fn event_with(data: &[Schema]) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "event": { "type": "string" },
            "id": { "type": "string" },
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": { "anyOf": data },
            },
        },
        "required": ["event", "data"],
    })
}

fn gone(name: &str) -> Schema {
    json_schema!({
        "type": "object",
        "properties": { name: { "type": "string" } },
        "required": [name],
    })
}

fn event_of_job(generator: &mut SchemaGenerator) -> Schema {
    event_with(&[of::<JobSummary>(generator), gone("id")])
}

fn event(generator: &mut SchemaGenerator) -> Schema {
    let (present, job) = (of::<Present>(generator), of::<JobSummary>(generator));
    event_with(&[present, job, of::<NodeView>(generator), gone("id"), gone("node")])
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}
