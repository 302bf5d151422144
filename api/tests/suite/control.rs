//! Submitting and controlling jobs.

use longshore_api::Exposure;
use serde_json::json;

use crate::client::noop;
use crate::stage::Stage;

const ID: &str = "0190b0a2-0000-7000-8000-000000000001";

#[tokio::test]
async fn a_document_is_new_the_same_or_in_conflict() {
    let stage = Stage::new();
    let http = stage.http();
    let mut document = noop(3);
    document["id"] = json!(ID);
    let path = http.submit(&document).await;
    assert_eq!(path, format!("/v1/jobs/{ID}"));
    let again = http.post("/v1/jobs", &document).await.is(200);
    assert_eq!(
        (again.json(), &again.headers["location"]),
        (json!({"id": ID}), &path.parse().unwrap())
    );
    document["split"]["end"] = json!(4);
    let conflict = http.post("/v1/jobs", &document).await.is(409).json();
    assert_eq!((&conflict["kind"], &conflict["job"]), (&json!("conflict"), &json!(ID)));
    assert_eq!(conflict["type"], "urn:longshore:problem:conflict");
}

#[tokio::test]
async fn a_document_that_no_scheduler_takes_yet_is_kept() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let answer = http.post("/v1/jobs?within=100ms", &noop(1)).await.is(202);
    let path = answer.headers["location"].to_str().expect("text").to_owned();
    http.get(&path).await.is(404);
    stage.start_scheduler();
    stage.start_worker();
    let there = async {
        while http.get(&path).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::stage::PATIENCE, there).await.expect("it is admitted");
    let ended = http.get(&format!("{path}/wait?timeout=20s")).await.is(200).json();
    assert_eq!(ended["state"], "succeeded");
}

#[tokio::test]
async fn a_job_is_paused_resumed_cancelled_and_deleted() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({"task": "sleep", "params": {"ms": 50}, "split": noop(1_000)["split"]});
    let path = http.submit(&document).await;
    let post = async |verb: &str, status: u16| {
        http.call("POST", &format!("{path}/{verb}"), "").await.is(status).json()
    };
    for _ in 0..2 {
        assert_eq!(post("pause", 200).await["state"], "paused");
    }
    let refused = http.call("DELETE", &path, "").await.is(409).json();
    assert_eq!(refused["kind"], "illegal_state", "{refused}");
    let resumed = post("resume", 200).await;
    assert!(["running", "queued"].contains(&resumed["state"].as_str().unwrap()), "{resumed}");
    for _ in 0..2 {
        assert_eq!(post("cancel", 200).await["state"], "cancelled");
    }
    assert_eq!(post("pause", 409).await["kind"], "illegal_state");
    assert_eq!(post("retry", 409).await["kind"], "illegal_state");
    let deleted = http.call("DELETE", &path, "").await.is(200).json();
    assert_eq!(deleted["state"], "deleted");
    http.get(&path).await.is(404);
    http.call("DELETE", &path, "").await.is(404);
}

#[tokio::test]
async fn failed_subtasks_are_tried_again() {
    let stage = Stage::new();
    let http = stage.http();
    let mut document = noop(3);
    document["task"] = json!("fail");
    document["retry"] = json!({"attempts": 1});
    let path = http.finish(&document, "failed").await;
    let retry = format!("{path}/retry");
    let wrong = http.post(&retry, &json!({"indices": [7]})).await.is(422).json();
    assert_eq!(wrong["kind"], "bad_input", "{wrong}");
    http.post(&retry, &json!({"indices": [1]})).await.is(200);
    http.get(&format!("{path}/wait?timeout=20s")).await.is(200);
    assert_eq!(http.call("POST", &retry, "").await.is(200).json()["state"], "running");
    let ended = http.get(&format!("{path}/wait?timeout=20s")).await.is(200).json();
    assert_eq!((&ended["state"], &ended["generation"]), (&json!("failed"), &json!(2)));
}

#[tokio::test]
async fn a_job_is_cancelled_before_it_arrives() {
    let stage = Stage::new();
    let http = stage.http();
    let cancelled = http.call("POST", &format!("/v1/jobs/{ID}/cancel"), "").await.is(200).json();
    assert_eq!(cancelled, json!({"id": ID, "state": "cancelled", "admitted": false}));
    http.get(&format!("/v1/jobs/{ID}")).await.is(404);
    let mut document = noop(3);
    document["id"] = json!(ID);
    http.finish(&document, "cancelled").await;
}
