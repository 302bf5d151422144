//! The OpenAPI document agrees with the router, and the copy in `docs/` with the code.

use std::collections::BTreeSet;
use std::path::PathBuf;

use longshore_api::{Exposure, endpoints, openapi_document, reference_page};
use serde_json::Value;

use crate::stage::Stage;

const BLESS: &str = "LONGSHORE_BLESS";

const METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "options", "trace"];

fn description() -> Value {
    serde_json::from_str(openapi_document()).expect("the document is JSON")
}

#[test]
fn the_document_in_docs_is_the_one_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, openapi_document()).expect("docs/ can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let kept: Option<Value> = serde_json::from_str(&kept).ok();
    let command = format!("{BLESS}=1 cargo test -p longshore-api description");
    let is_kept = kept.as_ref() == Some(&description());
    assert!(is_kept, "docs/openapi.json is out of date; write it anew with\n    {command}");
}

#[test]
fn the_reference_page_in_docs_is_the_one_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/http-reference.md");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, reference_page()).expect("docs/ can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let command = format!("{BLESS}=1 cargo test -p longshore-api description");
    let is_kept = kept == reference_page();
    assert!(is_kept, "docs/http-reference.md is out of date; write it anew with\n    {command}");
    for endpoint in endpoints() {
        let headline = format!("\n## {} {}\n", endpoint.verb.as_str(), endpoint.path);
        assert!(kept.contains(&headline), "{endpoint:?} is not on the page");
    }
}

#[tokio::test]
async fn the_router_has_the_operations_of_the_document_and_no_others() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let description = description();
    let paths = description["paths"].as_object().expect("paths");
    let mut described = BTreeSet::new();
    for (path, operations) in paths {
        let real = path
            .replace("{job}", "0190b0a2-0000-7000-8000-000000000001")
            .replace("{node}", "box-1")
            .replace("{token}", "0123456789abcdef")
            .replace("{letter}", "0190b0a2");
        for method in METHODS {
            let is_described = operations.get(method).is_some();
            if is_described {
                described.insert((method.to_owned(), path.clone()));
            }
            let upper = method.to_ascii_uppercase();
            let response = http
                .send(
                    axum::http::Request::builder()
                        .method(upper.as_str())
                        .uri(&real)
                        .body(axum::body::Body::empty())
                        .expect("a request"),
                )
                .await;
            let is_routed = response.status() != 405;
            assert_eq!(is_routed, is_described, "{upper} {path}: {}", response.status());
        }
    }
    let table: BTreeSet<(String, String)> = endpoints()
        .iter()
        .map(|endpoint| (endpoint.verb.as_str().to_ascii_lowercase(), endpoint.path.to_owned()))
        .collect();
    assert_eq!(described, table);
    assert_eq!(table.len(), endpoints().len(), "no endpoint is there twice");
    let ids: BTreeSet<&str> = endpoints().iter().map(|endpoint| endpoint.id).collect();
    assert_eq!(ids.len(), endpoints().len(), "no operation has the name of another");
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn check(value: &Value, root: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let pointer = to.strip_prefix('#').expect("a local reference");
                    assert!(root.pointer(pointer).is_some(), "{to} leads nowhere");
                }
                members.values().for_each(|value| check(value, root));
            }
            Value::Array(values) => values.iter().for_each(|value| check(value, root)),
            _ => {}
        }
    }
    let description = description();
    check(&description, &description);
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    for name in ["JobDocument", "JobSummary", "JobDetails", "JobList", "NodeView", "HttpProblem"] {
        assert!(schemas.contains_key(name), "{name} is not among {:?}", schemas.keys());
    }
}

#[test]
fn every_operation_says_what_it_does_and_who_may() {
    for (path, operations) in description()["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 10), "{path}");
            let is_open =
                ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&path.as_str());
            assert_eq!(operation.get("security").is_none(), is_open, "{method} {path}");
        }
    }
}
