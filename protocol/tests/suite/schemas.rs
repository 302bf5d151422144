//! The schemas in `docs/` are those of the types, and agree with the parser as far as possible.

use std::path::PathBuf;

use longshore_protocol::document::{chunk_schema, job_schema, journal_schema, views_schema};
use longshore_protocol::state::JobState;
use longshore_protocol::wire::JobAnswer;
use longshore_protocol::{
    ChunkId, ChunkMessage, Epoch, ErrorKind, Finding, Hint, JobDocument, JobId, NodeId, Problem,
    SchedulerId, Severity,
};
use serde_json::{Value, json};

use crate::bad_documents::table;
use crate::documents::GOOD;

const BLESS: &str = "LONGSHORE_BLESS";

#[track_caller]
fn kept_in_docs(name: &str, schema: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, schema).expect("docs/ can be written");
    }
    // Compared as values: the order of keys depends on features of serde_json that other crates may
    // turn on.
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let [kept, schema] =
        [kept.as_str(), schema].map(|text| serde_json::from_str::<Value>(text).ok());
    let command = format!("{BLESS}=1 cargo test -p longshore-protocol schema");
    assert!(kept == schema, "docs/{name} is out of date; write it anew with\n    {command}");
}

pub(crate) fn validator(schema: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("the schema obeys its own draft");
    jsonschema::validator_for(&schema).expect("the schema can be used")
}

#[test]
fn the_schema_of_the_document_in_docs_is_the_one_of_the_types() {
    kept_in_docs("job.schema.json", &job_schema());
}

#[test]
fn the_schema_of_the_chunk_message_in_docs_is_the_one_of_the_types() {
    kept_in_docs("chunk.schema.json", &chunk_schema());
}

#[test]
fn the_schema_of_the_journal_in_docs_is_the_one_of_the_types() {
    kept_in_docs("journal.schema.json", &journal_schema());
}

#[test]
fn the_schema_of_the_views_in_docs_is_the_one_of_the_types() {
    kept_in_docs("views.schema.json", &views_schema());
}

#[test]
fn the_schema_of_the_views_accepts_a_job_and_an_answer_and_no_other_object() {
    let schema = validator(&views_schema());
    let id = JobId::from_uuid(uuid::Uuid::from_u128(7));
    for answer in [
        JobAnswer::submitted(id),
        JobAnswer::state(id, JobState::Paused),
        JobAnswer::deleted(id),
        JobAnswer::cancelled_before_admission(id),
    ] {
        let value = serde_json::to_value(&answer).expect("an answer is JSON");
        assert!(schema.is_valid(&value), "{value}");
        let read: JobAnswer = serde_json::from_value(value).expect("an answer reads back");
        assert_eq!(read, answer);
    }
    let deleted = serde_json::to_value(JobAnswer::deleted(id)).expect("an answer is JSON");
    assert_eq!(deleted["state"], "deleted");
    for wrong in [json!({}), json!({"id": 7}), json!({"id": id, "state": "asleep"}), json!([])] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn the_schema_of_the_views_accepts_problems_findings_and_hints() {
    let schema = validator(&views_schema());
    let job = JobId::from_uuid(uuid::Uuid::from_u128(7));
    let invalid = JobDocument::parse(b"{}").expect_err("it has no task");
    let problem = Problem::from(&invalid).about_job(Some(job));
    let value = serde_json::to_value(&problem).expect("a problem is JSON");
    assert_eq!((&value["kind"], &value["title"]), (&json!("bad_input"), &json!("bad input")));
    assert_eq!(value["errors"][0]["place"], json!(invalid.place));
    assert_eq!(serde_json::from_value::<Problem>(value.clone()).expect("it reads back"), problem);
    assert!(schema.is_valid(&value), "{value}");
    let plain = Problem::new(ErrorKind::NotFound, "no such job");
    let plain = serde_json::to_value(plain).expect("a problem is JSON");
    let expected = json!({"kind": "not_found", "title": "not found", "detail": "no such job"});
    assert_eq!(plain, expected);
    assert!(schema.is_valid(&plain), "{plain}");

    let (severity, check) = (Severity::Ok, "clock".to_owned());
    let finding = Finding { severity, check, found: "0.0s off".into(), remedy: String::new() };
    let finding = serde_json::to_value([finding]).expect("a finding is JSON");
    assert!(schema.is_valid(&finding[0]), "{finding}");

    for wrong in [
        json!({"kind": "not_found", "title": "not found"}),
        json!({"kind": "evil", "title": "", "detail": ""}),
        json!({"event": "gap"}),
        json!({"event": "room"}),
        json!({"event": "job", "job": job}),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn the_hints_in_docs_are_those_of_the_types() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/redis.md");
    let page = std::fs::read_to_string(docs).expect("the page can be read");
    let (_, table) = page.split_once("| hint | when |\n").expect("it has a table of hints");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with("| `"));
    let schema = validator(&views_schema());
    let job = JobId::from_uuid(uuid::Uuid::from_u128(7));
    let written = rows.map(|row| {
        let text = row.split('`').nth(1).expect("a row begins with a hint");
        // The letters of the table: a job, a state (or a scheduler), a node.
        let text = text.replace(":J", &format!(":\"{job}\""));
        let text = text.replace(":S}", ":\"queued\"}").replace(":N}", ":\"n\"}");
        let value: Value = serde_json::from_str(&text).expect("a hint is JSON");
        assert!(schema.is_valid(&value), "{value}");
        serde_json::from_value::<Hint>(value).expect("a hint")
    });
    let expected = [
        Hint::Job { job, state: JobState::Queued },
        Hint::Room { job },
        Hint::Node { node: NodeId::new("n") },
        Hint::Scheduler { scheduler: SchedulerId::new("queued") },
    ];
    assert_eq!(written.collect::<Vec<_>>(), expected);
}

#[test]
fn the_schema_accepts_what_the_parser_accepts_and_what_it_writes() {
    let schema = validator(&job_schema());
    for text in GOOD {
        let written = JobDocument::parse(text.as_bytes()).expect("a good document").to_json();
        for text in [text, written.as_str()] {
            let value: Value = serde_json::from_str(text).expect("a good document is JSON");
            if let Err(error) = schema.validate(&value) {
                panic!("{text}\n{}: {error}", error.instance_path);
            }
        }
    }
}

#[test]
fn the_schema_refuses_the_bad_documents_whose_shape_is_wrong() {
    let schema = validator(&job_schema());
    let mut refused = 0;
    for row in table() {
        let Ok(value) = serde_json::from_str::<Value>(&row.document) else { continue };
        assert_eq!(!schema.is_valid(&value), row.schema_can_tell, "{}", row.document);
        refused += usize::from(row.schema_can_tell);
    }
    assert!(refused >= 40, "the schema refused only {refused} documents");
}

#[test]
fn the_schema_of_the_chunk_message_accepts_what_is_written_and_nothing_else() {
    let schema = validator(&chunk_schema());
    let message = ChunkMessage {
        v: ChunkMessage::VERSION,
        job: JobId::from_uuid(uuid::Uuid::from_u128(7)),
        chunk: ChunkId(1),
        from: 0,
        to: 10,
        epoch: Epoch(1),
    };
    let good = serde_json::to_value(message).expect("a message is JSON");
    assert!(schema.is_valid(&good), "{good}");
    for (field, bad) in [
        ("v", json!("1")),
        ("v", json!(256)),
        ("from", json!(-1)),
        ("job", json!(7)),
        ("more", json!(1)),
    ] {
        let mut message = good.clone();
        message[field] = bad;
        assert!(!schema.is_valid(&message), "{message}");
        assert!(serde_json::from_value::<ChunkMessage>(message).is_err(), "{field}");
    }
    let mut short = good;
    short.as_object_mut().expect("an object").remove("epoch");
    assert!(!schema.is_valid(&short), "{short}");
}
