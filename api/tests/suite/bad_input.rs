//! Bad requests are answered with a problem that names the place, and with nothing worse.

use axum::body::Body;
use axum::http::Request;
use longshore_api::{Exposure, endpoints};
use serde_json::json;

use crate::client::noop;
use crate::stage::Stage;

const ID: &str = "0190b0a2-0000-7000-8000-000000000001";

#[tokio::test]
async fn mistakes_in_the_query_are_named() {
    let http = Stage::idle(Exposure::Loopback).http();
    for (query, place) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e3", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=1&limit=2", "limit"),
        ("state=asleep", "state"),
        ("state=queued&state=Failed", "state"),
        ("label=zone", "label"),
        ("label==x", "label"),
        ("cursor=5", "cursor"),
        ("cursor=-", "cursor"),
        ("cursor=1-nonsense", "cursor"),
        ("name=%ff%fe", "name"),
        ("name=a%00b", "name"),
        ("nonsense=1", "query"),
        ("Limit=1", "query"),
    ] {
        http.get(&format!("/v1/jobs?{query}")).await.expect_problem(400, place);
    }
    http.get("/healthz?x=1").await.expect_problem(400, "query");
    http.get(&format!("/v1/jobs/{ID}?limit=1")).await.expect_problem(400, "query");
    http.get("/v1/audit?cursor=x").await.expect_problem(400, "cursor");
}

#[tokio::test]
async fn ranges_that_end_before_they_begin_and_wrong_ids_are_named() {
    let stage = Stage::new();
    let http = stage.http();
    let path = http.finish(&noop(3), "succeeded").await;
    http.get(&format!("{path}/results?from=2&to=1")).await.expect_problem(400, "to");
    http.get(&format!("{path}/results?from=-1")).await.expect_problem(400, "from");
    http.get(&format!("{path}/results?follow=yes")).await.expect_problem(400, "follow");
    assert_eq!(http.get(&format!("{path}/results?from=9&to=99")).await.is(200).text, "");
    http.get(&format!("{path}/wait?timeout=1h")).await.expect_problem(400, "timeout");
    http.get(&format!("{path}/wait?timeout=5")).await.expect_problem(400, "timeout");
    http.get("/v1/jobs/7").await.expect_problem(400, "job");
    http.get("/v1/jobs/%ff").await.is(404);
    http.get(&format!("/v1/jobs/{ID}")).await.is(404);
    http.get("/v1/jobs/").await.is(404);
    http.get("/v1/jobs/a/b/c").await.is(404);
    http.get("//v1/jobs").await.is(404);
}

#[tokio::test]
async fn a_cursor_of_another_list_is_a_place_in_this_one() {
    let stage = Stage::new();
    let http = stage.http();
    for _ in 0..3 {
        http.finish(&noop(1), "succeeded").await;
    }
    let next = http.get("/v1/jobs?limit=1&task=noop").await.is(200).json()["next"].clone();
    let query = format!("cursor={}&state=failed", next.as_str().expect("more follow"));
    assert_eq!(http.get(&format!("/v1/jobs?{query}")).await.is(200).json()["jobs"], json!([]));
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told() {
    let http = Stage::idle(Exposure::Loopback).http();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v2/jobs", 404),
        ("POST", "/nowhere", 404),
        ("PUT", "/v1/jobs", 405),
        ("DELETE", "/v1/jobs", 405),
        ("POST", "/healthz", 405),
        ("BREW", "/v1/jobs", 405),
    ] {
        let answer = http.call(method, path, Body::empty()).await.is(status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{answer:?}");
    }
}

#[tokio::test]
async fn bad_documents_are_refused_with_their_place() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    for (body, place) in [
        ("".to_owned(), "document"),
        ("{".to_owned(), "document"),
        ("[]".to_owned(), "document"),
        ("null".to_owned(), "document"),
        ("\"x\"".to_owned(), "document"),
        ("{} {}".to_owned(), "document"),
        ("\u{feff}{}".to_owned(), "document"),
        (r#"{"task": 7}"#.to_owned(), "task"),
        (deep.clone(), "document"),
        (format!(r#"{{"task": "noop", "params": {deep}}}"#), "document"),
        (r#"{"task": "noop", "split": {"by": "dozen"}}"#.to_owned(), "split.by"),
        (
            r#"{"task": "noop", "split": {"by": "files", "files": ["x.txt"]}}"#.to_owned(),
            "split.files[0]",
        ),
    ] {
        http.call("POST", "/v1/jobs", body).await.expect_problem(422, place);
    }
    let body = Body::from(b"{\"task\": \"\xff\"}".as_slice());
    http.call("POST", "/v1/jobs", body).await.expect_problem(422, "document");
    for body in ["[]", "{\"indices\": [-1]}", "{\"indices\": [1.5]}", "{\"more\": 1}", "{"] {
        http.call("POST", &format!("/v1/jobs/{ID}/retry"), body).await.expect_problem(422, "body");
    }
    let list = stage.http().get("/v1/jobs").await.is(200).json();
    assert_eq!(list["jobs"], json!([]), "nothing was submitted");
}

#[tokio::test]
async fn bodies_are_bounded_whatever_they_announce() {
    let http = Stage::idle(Exposure::Loopback).http();
    let large = vec![b' '; (16 << 20) + 1];
    http.call("POST", "/v1/jobs", large).await.is(413);
    let parts = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
    let endless = Body::from_stream(futures_util::stream::iter(parts));
    http.call("POST", "/v1/jobs", endless).await.is(413);
    let announced = Request::builder().method("POST").uri(format!("/v1/jobs/{ID}/retry"));
    let announced = announced.header("content-length", "99999999999").body(Body::empty());
    http.whole(announced.expect("a request")).await.is(413);
}

#[tokio::test]
async fn a_content_type_that_a_form_has_is_refused() {
    let http = Stage::idle(Exposure::Loopback).http();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; x"] {
        let request = Request::builder().method("POST").uri("/v1/jobs");
        let request = request.header("content-type", kind).body(Body::from("{}"));
        let answer = http.whole(request.expect("a request")).await.is(415);
        assert!(answer.json()["detail"].as_str().unwrap().contains("application/x-ndjson"));
    }
}

#[tokio::test]
async fn no_endpoint_answers_odd_requests_with_a_failure() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let odd = ["?", "?%", "?%zz=%zz", "?a=b&&&=&", "?from=18446744073709551616", "?follow"];
    for endpoint in endpoints().iter().filter(|endpoint| endpoint.id != "follow_events") {
        for job in [ID, "00000000-0000-0000-0000-000000000000", "x", "%2e%2e", "%00", "\u{2028}"] {
            let job: String = job
                .chars()
                .flat_map(|char| {
                    match char.is_ascii() {
                        true => char.to_string(),
                        false => "%E2%80%A8".to_owned(),
                    }
                    .chars()
                    .collect::<Vec<_>>()
                })
                .collect();
            let path = ["{job}", "{node}", "{token}", "{letter}"]
                .iter()
                .fold(endpoint.path.to_owned(), |path, segment| path.replace(segment, &job));
            for query in odd {
                let body = if endpoint.verb.may_change() { "\u{0}\u{1}" } else { "" };
                let answer =
                    http.call(endpoint.verb.as_str(), &format!("{path}{query}"), body).await;
                assert!(!answer.status.is_server_error(), "{endpoint:?} {path}{query}: {answer:?}");
            }
        }
    }
}
