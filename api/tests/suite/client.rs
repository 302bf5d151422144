//! A client that calls the router itself.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::stage::PATIENCE;

/// A client.
#[derive(Clone)]
pub(crate) struct Http {
    router: Router,
    token: Option<String>,
}

/// An answer that was read as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).expect("a line of JSON");
        self.text.lines().map(line).collect()
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// Asserts that the answer is a problem with one error at this place.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, place: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{answer:?}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["errors"][0]["place"], place, "{problem}");
        for member in ["found", "allowed"] {
            assert!(problem["errors"][0][member].is_string(), "{problem}");
        }
        answer
    }
}

impl Http {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, token: None }
    }

    pub(crate) fn with(&self, token: &str) -> Self {
        Self { router: self.router.clone(), token: Some(token.to_owned()) }
    }

    /// Sends a request and gives the answer, whose body is still to be read.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Response {
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.headers_mut().insert("authorization", value);
        }
        let answer = tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request));
        answer.await.expect("an answer in time").expect("a router answers everything")
    }

    pub(crate) async fn whole(&self, request: Request<Body>) -> Answer {
        read(self.send(request).await).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into());
        self.whole(request.expect("a request")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, body.to_string()).await
    }

    /// Submits a document, which has to be new, and gives the path of the job.
    pub(crate) async fn submit(&self, document: &Value) -> String {
        let answer = self.post("/v1/jobs", document).await.is(201);
        let path = answer.headers["location"].to_str().expect("text").to_owned();
        assert_eq!(answer.json()["id"], path["/v1/jobs/".len()..], "{answer:?}");
        path
    }

    /// Submits a document and waits for its end.
    pub(crate) async fn finish(&self, document: &Value, state: &str) -> String {
        let path = self.submit(document).await;
        let ended = self.get(&format!("{path}/wait?timeout=20s")).await.is(200).json();
        assert_eq!(ended["state"], state, "{ended}");
        path
    }
}

pub(crate) async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("a body in time");
    let bytes = body.expect("a whole body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    Answer { status: parts.status, headers: parts.headers, text }
}

/// A document of `total` subtasks that do nothing.
pub(crate) fn noop(total: u64) -> Value {
    json!({ "task": "noop", "split": { "by": "range", "start": 0, "end": total } })
}
