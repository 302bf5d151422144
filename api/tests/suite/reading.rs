//! Reading jobs, and what needs no job.

use longshore_api::Exposure;
use serde_json::{Value, json};

use crate::client::noop;
use crate::stage::Stage;

#[tokio::test]
async fn a_job_is_read_as_a_whole_and_in_parts() {
    let stage = Stage::new();
    let http = stage.http();
    let document = r#"{
        "task": "fail", "name": "nightly", "labels": {"zone": "eu"}, "retry": {"attempts": 1},
        "split": {"by": "items", "items": [12345678901234567890123, 2, 3]}
    }"#;
    let answer = http.call("POST", "/v1/jobs", document).await.is(201);
    let path = answer.headers["location"].to_str().expect("text").to_owned();
    let ended = http.get(&format!("{path}/wait?timeout=20s")).await.is(200).json();
    assert_eq!((&ended["state"], &ended["failed"]), (&json!("failed"), &json!(3)));

    let job = http.get(&path).await.is(200).json();
    assert_eq!((&job["name"], &job["total"]), (&json!("nightly"), &json!(3)));
    assert_eq!((&job["recovered"], &job["reasons"]), (&json!([]), &json!([])));
    let kept = http.get(&format!("{path}/document")).await.is(200).text;
    assert!(kept.contains("[12345678901234567890123,2,3]"), "no digit is lost: {kept}");
    let errors = http.get(&format!("{path}/errors")).await.is(200).lines();
    let indices: Vec<&Value> = errors.iter().map(|error| &error["index"]).collect();
    assert_eq!(json!(indices), json!([0, 1, 2]));
    let errors = http.get(&format!("{path}/errors?from=1&limit=1")).await.is(200).lines();
    assert_eq!((errors.len(), &errors[0]["index"]), (1, &json!(1)));
    let audit = http.get(&format!("{path}/audit")).await.is(200).json();
    assert_eq!((&audit["findings"], &audit["counted"]["failed"]), (&json!([]), &json!(3)));
    assert_eq!(http.get(&format!("{path}/recoveries")).await.is(200).json(), json!([]));
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let stage = Stage::new();
    let http = stage.http();
    let mut document = noop(1);
    for n in 0..5 {
        document["labels"] = json!({"n": format!("{}", n % 2), "all": "a=b&c"});
        document["name"] = json!(format!("job {n}"));
        http.finish(&document, "succeeded").await;
    }
    let list = async |query: &str| {
        let page = http.get(&format!("/v1/jobs?{query}")).await.is(200).json();
        let names = page["jobs"].as_array().expect("jobs").iter().map(|job| job["name"].clone());
        (json!(names.collect::<Vec<_>>()), page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(list("name=job%203").await.0, json!(["job 3"]));
    assert_eq!(list("label=n=1").await.0, json!(["job 3", "job 1"]));
    let both = "label=n=0&label=all%3Da%3Db%26c&state=succeeded&state=failed";
    assert_eq!(list(both).await.0, json!(["job 4", "job 2", "job 0"]));
    assert_eq!(list("state=failed").await.0, json!([]));
    let (first, next) = list("limit=3").await;
    assert_eq!(first, json!(["job 4", "job 3", "job 2"]));
    let (second, end) = list(&format!("limit=3&cursor={}", next.expect("more"))).await;
    assert_eq!((second, end), (json!(["job 1", "job 0"]), None));
}

#[tokio::test]
async fn a_long_poll_ends_with_its_time() {
    let stage = Stage::new();
    let document = json!({"task": "sleep", "params": {"ms": 60_000}, "split": noop(1)["split"]});
    let path = stage.http().submit(&document).await;
    let waiting = stage.http().get(&format!("{path}/wait?timeout=300ms")).await.is(200).json();
    assert!(waiting["finished_at"].is_null(), "{waiting}");
}

#[tokio::test]
async fn what_needs_no_token_is_there() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    assert_eq!(http.get("/healthz").await.is(200).text, "ok\n");
    assert_eq!(http.get("/metrics").await.is(200).text, "metrics 1\n");
    assert_eq!(http.get("/readyz").await.is(200).text, "ready\n");
    assert_eq!(http.get("/openapi.json").await.is(200).json()["openapi"], "3.1.0");
    assert_eq!(http.call("HEAD", "/healthz", "").await.is(200).text, "");
}

#[tokio::test]
async fn every_answer_has_the_id_of_its_request() {
    let http = Stage::idle(Exposure::Loopback).http();
    let answer = http.get("/nowhere").await.is(404);
    let id = answer.headers["x-request-id"].to_str().expect("text").to_owned();
    assert_eq!((id.len(), &answer.json()["request"]), (36, &json!(id)));
    let request = axum::http::Request::builder().uri("/healthz").header("x-request-id", "mine-1");
    let answer = http.whole(request.body(axum::body::Body::empty()).expect("a request")).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn large_answers_are_compressed_for_clients_that_ask_for_it() {
    let http = Stage::idle(Exposure::Loopback).http();
    let request =
        axum::http::Request::builder().uri("/openapi.json").header("accept-encoding", "gzip");
    let response = http.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    assert_eq!(bytes[..2], [0x1f, 0x8b], "it is gzip");
    assert!(bytes.len() < http.get("/openapi.json").await.text.len() / 4);
}

#[tokio::test]
async fn workers_are_listed_and_controlled() {
    let stage = Stage::new();
    let http = stage.http();
    let nodes = async {
        loop {
            let nodes = http.get("/v1/nodes").await.is(200).json();
            if let Some(node) = nodes[0]["id"].as_str() {
                return node.to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let node = tokio::time::timeout(crate::stage::PATIENCE, nodes).await.expect("a worker");
    let readmitted = http.call("POST", &format!("/v1/nodes/{node}/readmit"), "").await.is(200);
    assert_eq!(readmitted.json(), json!({"node": node, "isolated": []}));
    let drained = http.call("POST", &format!("/v1/nodes/{node}/drain"), "").await.is(200);
    assert_eq!(drained.json(), json!({"node": node, "state": "draining"}));
    let gone = http.call("POST", "/v1/nodes/nobody/drain", "").await.is(404).json();
    assert_eq!((&gone["kind"], &gone["node"]), (&json!("not_found"), &json!("nobody")));
}
