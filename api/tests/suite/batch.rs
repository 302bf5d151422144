//! Many documents in one request.

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use longshore_protocol::Role;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::{Answer, Http, noop};
use crate::stage::{PATIENCE, Stage};

async fn submit(http: &Http, body: impl Into<Body>) -> Answer {
    let request = axum::http::Request::builder()
        .method("POST")
        .uri("/v1/jobs")
        .header("content-type", "application/x-ndjson; charset=utf-8")
        .body(body.into())
        .expect("a request");
    http.whole(request).await
}

fn statuses(answer: &Answer) -> Vec<Value> {
    answer.lines().iter().map(|line| line["status"].clone()).collect()
}

#[tokio::test]
async fn each_document_has_an_outcome_in_its_order() {
    let stage = Stage::new();
    let http = stage.http();
    let id = "0190b0a2-0000-7000-8000-000000000001";
    let mut known = noop(2);
    known["id"] = json!(id);
    let mut other = known.clone();
    other["split"]["end"] = json!(3);
    let body = format!("{known}\n\n{{\n{known}\n{other}\n[]\n{}", noop(1));
    let answer = submit(&http, body).await.is(200);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines = answer.lines();
    // The same document twice at once is new once or twice: both found no job.
    let found = statuses(&answer);
    assert_eq!(json!([found[0], found[1], found[4], found[5]]), json!([201, 422, 422, 201]));
    assert!([200, 201].contains(&found[2].as_u64().unwrap()), "{found:?}");
    let places: Vec<&Value> = lines.iter().map(|line| &line["line"]).collect();
    assert_eq!(json!(places), json!([1, 2, 3, 4, 5, 6]));
    assert_eq!((&lines[0]["id"], lines[0].get("problem")), (&json!(id), None));
    assert_eq!(lines[1]["problem"]["errors"][0]["place"], "document");
    let again = submit(&http, format!("{known}\n{other}\n")).await;
    assert_eq!(statuses(&again), [200, 409]);
}

#[tokio::test]
async fn outcomes_come_while_the_batch_is_still_sent() {
    let stage = Stage::new();
    let http = stage.http();
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    let request = axum::http::Request::builder()
        .method("POST")
        .uri("/v1/jobs")
        .header("content-type", "application/x-ndjson")
        .body(Body::from_stream(body))
        .expect("a request");
    let mut outcomes = http.send(request).await.into_body().into_data_stream();
    for line in 1..=3 {
        sender.send(Ok(format!("{}\n", noop(1)).into())).await.expect("the body is read");
        let part = tokio::time::timeout(PATIENCE, outcomes.next()).await.expect("an outcome");
        let part = part.expect("a part").expect("a whole part");
        let outcome: Value = serde_json::from_slice(&part).expect("one line");
        assert_eq!((&outcome["line"], &outcome["status"]), (&json!(line), &json!(201)));
    }
    sender.send(Err(std::io::Error::other("cut"))).await.expect("the body is read");
    let last = outcomes.next().await.expect("a part").expect("a whole part");
    let last: Value = serde_json::from_slice(&last).expect("one line");
    assert_eq!((&last["line"], &last["status"]), (&json!(4), &json!(400)));
    assert!(outcomes.next().await.is_none());
}

#[tokio::test]
async fn a_thousand_documents_are_a_thousand_jobs() {
    let stage = Stage::new();
    let http = stage.http();
    let body: String = (0..1_000).map(|_| format!("{}\n", noop(1))).collect();
    let answer = submit(&http, body).await.is(200);
    assert_eq!(statuses(&answer), vec![json!(201); 1_000]);
    let mut ids: Vec<String> = answer.lines().iter().map(|line| line["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1_000);
}

#[tokio::test]
async fn a_foreign_tenant_s_document_is_refused_and_the_others_are_not() {
    let stage = Stage::new();
    let http = stage.http().with(&stage.token(1, Role::Submitter, Some(&["a"])).await);
    let of = |tenant: &str| {
        let mut document = noop(1);
        document["tenant"] = json!(tenant);
        document
    };
    let answer = submit(&http, format!("{}\n{}\n{}\n", of("a"), of("b"), of("a"))).await.is(200);
    assert_eq!(statuses(&answer), [201, 403, 201]);
}
