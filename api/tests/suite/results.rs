//! Streams of results.

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::client::{Http, noop};
use crate::stage::{PATIENCE, Stage};

fn indices(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["index"].as_u64().expect("an index")).collect()
}

#[tokio::test]
async fn results_come_in_order_and_in_ranges() {
    let stage = Stage::new();
    let http = stage.http();
    let path = http.finish(&noop(2_000), "succeeded").await;
    let read = async |query: &str| {
        let answer = http.get(&format!("{path}/results{query}")).await.is(200);
        assert_eq!(answer.headers["content-type"], "application/x-ndjson");
        indices(&answer.lines())
    };
    assert_eq!(read("").await, (0..2_000).collect::<Vec<_>>());
    assert_eq!(read("?from=255&to=258").await, [255, 256, 257]);
    assert_eq!(read("?from=1999").await, [1_999]);
    assert_eq!(read("?from=7&to=7").await, [0; 0]);
    assert_eq!(read("?follow=true&from=1990").await, (1_990..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_digit_of_a_result_is_lost() {
    let stage = Stage::new();
    let http = stage.http();
    let document = r#"{"task": "echo",
        "split": {"by": "items", "items": [12345678901234567890123, [9007199254740993, 1.50]]}}"#;
    let answer = http.call("POST", "/v1/jobs", document).await.is(201);
    let path = answer.headers["location"].to_str().expect("text").to_owned();
    http.get(&format!("{path}/wait?timeout=20s")).await.is(200);
    let text = http.get(&format!("{path}/results")).await.is(200).text;
    let lines = [
        r#"{"index":0,"result":12345678901234567890123}"#,
        r#"{"index":1,"result":[9007199254740993,1.50]}"#,
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
}

/// The indices of a stream of results, one after the other.
struct Following {
    parts: axum::body::BodyDataStream,
    text: String,
}

impl Following {
    async fn of(http: &Http, path: &str) -> Self {
        let request = Request::builder().uri(format!("{path}/results?follow=true"));
        let response = http.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(response.status(), 200);
        Self { parts: response.into_body().into_data_stream(), text: String::new() }
    }

    async fn next(&mut self) -> Option<u64> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line: Value = serde_json::from_str(line).expect("JSON");
                self.text = rest.to_owned();
                return line["index"].as_u64();
            }
            let part = tokio::time::timeout(PATIENCE, self.parts.next()).await.expect("a part");
            let part = part?.expect("a whole part");
            self.text += std::str::from_utf8(&part).expect("text");
        }
    }
}

#[tokio::test]
async fn a_running_job_is_followed_to_its_end() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({
        "task": "sleep", "params": {"ms": 20}, "split": noop(100)["split"], "chunk": 5,
    });
    let path = http.submit(&document).await;
    let mut following = Following::of(&http, &path).await;
    let mut seen = vec![following.next().await.expect("a result")];
    let state = http.get(&path).await.is(200).json()["state"].clone();
    assert_eq!(state, "running", "the first result comes before the end");
    while let Some(index) = following.next().await {
        seen.push(index);
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_subtask_does_not_hold_up_those_behind_it() {
    let stage = Stage::new();
    let http = stage.http();
    // The first one fails at once; the last one takes long.
    let document = r#"{
        "task": "sleep", "retry": {"attempts": 1}, "chunk": 1,
        "split": {"by": "items", "items": ["no duration", 0, 60000]}
    }"#;
    let answer = http.call("POST", "/v1/jobs", document).await.is(201);
    let path = answer.headers["location"].to_str().expect("text").to_owned();
    let mut following = Following::of(&http, &path).await;
    assert_eq!(following.next().await, Some(1));
    http.call("POST", &format!("{path}/cancel"), "").await.is(200);
    assert_eq!(following.next().await, None);
}

#[tokio::test]
async fn a_stopped_server_breaks_off_what_is_not_complete() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({"task": "sleep", "params": {"ms": 60_000}, "split": noop(1)["split"]});
    let path = http.submit(&document).await;
    let mut following = Following::of(&http, &path).await;
    stage.stop.cancel();
    let part = tokio::time::timeout(PATIENCE, following.parts.next()).await.expect("an end");
    assert!(part.expect("no quiet end").is_err(), "no client takes it for the whole");
}

#[tokio::test]
async fn followers_take_no_tasks_which_could_outlive_them() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({"task": "sleep", "params": {"ms": 60_000}, "split": noop(1)["split"]});
    let path = http.submit(&document).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let followers: Vec<Following> =
        futures_util::future::join_all((0..50).map(|_| Following::of(&http, &path))).await;
    assert!(tasks() <= before + 5, "{} tasks, {before} before", tasks());
    drop(followers);
}

#[tokio::test]
async fn a_reduced_value_is_read() {
    let stage = Stage::new();
    let http = stage.http();
    let document = r#"{"task": "sum", "reduce": {"task": "sum"},
        "split": {"by": "items", "items": [[1, 2], [3]]}}"#;
    let answer = http.call("POST", "/v1/jobs", document).await.is(201);
    let path = answer.headers["location"].to_str().expect("text").to_owned();
    let ended = http.get(&format!("{path}/wait?timeout=20s")).await.is(200).json();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(http.get(&format!("{path}/value")).await.is(200).json(), json!({"result": 6}));
    let path = http.finish(&noop(1), "succeeded").await;
    http.get(&format!("{path}/value")).await.is(409);
}
