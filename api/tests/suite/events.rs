//! Streams of events.

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use longshore_api::Exposure;
use longshore_ledger::{Admission, Ledger};
use longshore_protocol::Role;
use serde_json::{Value, json};

use crate::client::{Http, noop};
use crate::stage::{PATIENCE, Stage};

/// A stream of events.
struct Stream {
    parts: BodyDataStream,
    text: String,
}

/// An event: its name, id and data.
type Event = (String, String, Value);

impl Stream {
    async fn open(http: &Http, after: Option<&str>) -> Self {
        Self::of("/v1/events", http, after).await
    }

    async fn of(path: &str, http: &Http, after: Option<&str>) -> Self {
        let mut request = Request::builder().uri(path).header("accept-encoding", "gzip");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = http.send(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(!response.headers().contains_key("content-encoding"), "nothing is held back");
        Self { parts: response.into_body().into_data_stream(), text: String::new() }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let [name, id, data] = ["event:", "id:", "data:"].map(field);
                self.text = rest.to_owned();
                if name.is_empty() {
                    continue;
                }
                return Some((name, id, serde_json::from_str(&data).expect("JSON")));
            }
            let part = tokio::time::timeout(PATIENCE, self.parts.next()).await.expect("a part");
            let part = part?.expect("a whole part");
            self.text += std::str::from_utf8(&part).expect("text");
        }
    }

    /// The next event that is about a job in this state.
    async fn until(&mut self, path: &str, state: &str) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.find(path, state)).await;
        event.unwrap_or_else(|_| panic!("{path} is not told to be {state}"))
    }

    async fn find(&mut self, path: &str, state: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            let is_it = event.2["id"].as_str().is_some_and(|id| path.ends_with(id));
            if event.0 == "job" && is_it && event.2["state"] == state {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_tells_the_present_and_then_each_change() {
    let stage = Stage::new();
    let http = stage.http();
    let old = http.finish(&noop(1), "succeeded").await;
    let mut stream = Stream::open(&http, None).await;
    let (name, _, present) = stream.next().await.expect("the present");
    assert_eq!((name.as_str(), present["jobs"].as_array().map(Vec::len)), ("snapshot", Some(1)));
    assert!(old.ends_with(present["jobs"][0]["id"].as_str().expect("a job")), "{present}");
    let path = http.submit(&noop(3)).await;
    let (_, _, ended) = stream.until(&path, "succeeded").await;
    assert_eq!((&ended["done"], &ended["total"]), (&json!(3), &json!(3)));
}

#[tokio::test]
async fn a_stream_resumes_where_it_was_and_else_with_the_present() {
    let stage = Stage::new();
    let http = stage.http();
    let mut stream = Stream::open(&http, None).await;
    stream.next().await.expect("the present");
    let first = http.submit(&noop(1)).await;
    let (_, id, _) = stream.until(&first, "succeeded").await;
    let second = http.finish(&noop(1), "succeeded").await;
    stream.until(&second, "succeeded").await;
    let mut resumed = Stream::open(&http, Some(&id)).await;
    let (name, _, data) = resumed.next().await.expect("what was missed");
    assert_eq!(name, "job", "the present is not told again: {data}");
    assert!(second.ends_with(data["id"].as_str().expect("a job")), "{data}");
    for unknown in ["", "x", "-", "elsewhere-7", &format!("{id}9999")] {
        let mut stream = Stream::open(&http, Some(unknown)).await;
        assert_eq!(stream.next().await.expect("an event").0, "snapshot", "{unknown}");
    }
}

#[tokio::test]
async fn the_counts_of_a_running_job_are_told() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({
        "task": "sleep", "params": {"ms": 40}, "split": noop(150)["split"], "chunk": 5,
    });
    let mut stream = Stream::open(&http, None).await;
    let path = http.submit(&document).await;
    let mut told = Vec::new();
    loop {
        let (name, _, data) = stream.next().await.expect("the stream goes on");
        if name == "job" && path.ends_with(data["id"].as_str().expect("a job")) {
            told.push(data["done"].as_u64().expect("a count"));
            if data["state"] == "succeeded" {
                break;
            }
        }
    }
    assert!(told.iter().any(|done| (1..150).contains(done)), "{told:?}");
    assert_eq!(told.last(), Some(&150));
}

#[tokio::test]
async fn a_token_of_one_tenant_is_told_of_its_own_jobs_alone() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http().with(&stage.token(1, Role::Viewer, Some(&["a"])).await);
    let admit = async |n: u64, tenant: &str| {
        let job = format!("00000000-0000-4000-8000-{n:012x}").parse().expect("a UUID");
        let admission = Admission { tenant: tenant.into(), ..Admission::plain(job, 1) };
        stage.ledger.admit(&admission).await.expect("memory does not fail");
    };
    admit(1, "b").await;
    admit(2, "a").await;
    let mut stream = Stream::open(&http, None).await;
    let (_, _, present) = stream.next().await.expect("the present");
    assert_eq!(present["jobs"].as_array().map(Vec::len), Some(1), "{present}");
    assert_eq!((&present["jobs"][0]["tenant"], present.get("nodes")), (&json!("a"), None));
    // The hub follows from its first poll on.
    for n in 10..40 {
        admit(n, if n.is_multiple_of(2) { "b" } else { "a" }).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        let (name, _, data) = stream.next().await.expect("the stream goes on");
        assert_eq!((name.as_str(), &data["tenant"]), ("job", &json!("a")), "{data}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_the_server() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http().with(&stage.token(1, Role::Viewer, None).await);
    let other = stage.http().with(&stage.token(2, Role::Viewer, None).await);
    let mut revoked = Stream::open(&http, None).await;
    let mut stopped = Stream::open(&other, None).await;
    for stream in [&mut revoked, &mut stopped] {
        assert_eq!(stream.next().await.expect("the present").0, "snapshot");
    }
    let tokens = stage.ledger.api_tokens().await.unwrap();
    let id = &tokens.iter().find(|kept| kept.token.name == "token-1").expect("the token").token.id;
    assert!(stage.ledger.remove_api_token(id).await.unwrap());
    assert!(revoked.next().await.is_none());
    stage.stop.cancel();
    assert!(stopped.next().await.is_none());
}

#[tokio::test]
async fn a_stream_of_one_job_ends_with_the_job() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({"task": "sleep", "params": {"ms": 40}, "split": noop(40)["split"]});
    let path = http.submit(&document).await;
    let events = format!("{path}/events");
    let mut stream = Stream::of(&events, &http, None).await;
    let (mut told, mut last) = (Vec::new(), String::new());
    while let Some((name, id, data)) = stream.next().await {
        assert!(path.ends_with(data["id"].as_str().expect("a job")), "{data}");
        told.push((name, data["state"].as_str().expect("a state").to_owned()));
        last = id;
    }
    assert_eq!(told.first().map(|(name, _)| name.as_str()), Some("snapshot"), "{told:?}");
    assert!(told[1..].iter().all(|(name, _)| name == "job"), "{told:?}");
    let ends = told.iter().filter(|(_, state)| state == "succeeded").count();
    assert_eq!((ends, told.last().map(|(_, state)| state.as_str())), (1, Some("succeeded")));

    // A client that has the end is told not to come back; others are told the end.
    let again = Request::builder().uri(&events).header("last-event-id", &last);
    let answer = http.whole(again.body(Body::empty()).expect("a request")).await.is(204);
    assert_eq!(answer.text, "");
    let mut late = Stream::of(&events, &http, Some("0123456789abcdef")).await;
    let (name, id, _) = late.next().await.expect("the end");
    assert_eq!((name.as_str(), id), ("snapshot", last));
    assert!(late.next().await.is_none());
    http.get("/v1/jobs/0190b0a2-0000-7000-8000-000000000009/events").await.is(404);
}
