//! Actions on all jobs of a filter.

use longshore_api::Exposure;
use longshore_ledger::{Admission, Ledger};
use longshore_protocol::Role;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Two jobs of tenant `a`, three of tenant `b`; those with odd numbers have the label `odd=yes`.
async fn stage() -> Stage {
    let stage = Stage::idle(Exposure::Loopback);
    for n in 1..=5_u64 {
        let job = format!("00000000-0000-4000-8000-{n:012x}").parse().expect("a UUID");
        let mut admission = Admission::plain(job, 4);
        admission.tenant = if n <= 2 { "a" } else { "b" }.into();
        if n % 2 == 1 {
            admission.labels.insert("odd".into(), "yes".into());
        }
        stage.ledger.admit(&admission).await.expect("memory does not fail");
    }
    stage
}

fn body(action: &str, filter: &Value) -> Value {
    json!({"action": action, "filter": filter})
}

#[tokio::test]
async fn a_plan_changes_nothing_and_an_action_answers_a_line_a_job() {
    let stage = stage().await;
    let http = stage.http();
    let mut dry = body("pause", &json!({"labels": {"odd": "yes"}}));
    dry["dry_run"] = json!(true);
    let plan = http.post("/v1/bulk", &dry).await.is(200).json();
    assert_eq!(json!([plan["matched"], plan["allowed"]]), json!([3, 3]), "{plan}");
    assert_eq!(plan["first"].as_array().map(Vec::len), Some(3));
    assert_eq!(http.get("/v1/jobs?state=paused").await.json()["jobs"], json!([]));

    let answer = http.post("/v1/bulk", &body("pause", &json!({"labels": {"odd": "yes"}}))).await;
    let lines = answer.is(200).lines();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["outcome"] == "done" && line["state"] == "paused"));
    let cancelled = http.post("/v1/bulk", &body("cancel", &json!({"states": ["paused"]}))).await;
    assert_eq!(cancelled.is(200).lines().len(), 3);
    let skipped = http.post("/v1/bulk", &body("resume", &json!({"tenant": "a"}))).await.is(200);
    let mut outcomes: Vec<String> =
        skipped.lines().iter().map(|line| line["outcome"].to_string()).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["\"done\"", "\"skipped\""], "{skipped:?}");
    let none = http.post("/v1/bulk", &body("delete", &json!({"task": "nothing"}))).await.is(200);
    assert_eq!((none.text.as_str(), none.lines().len()), ("", 0));
}

#[tokio::test]
async fn a_filter_without_a_condition_is_refused_also_of_a_token_with_tenants() {
    let stage = stage().await;
    let bound = stage.http().with(&stage.token(1, Role::Operator, Some(&["a"])).await);
    let all = stage.http().with(&stage.token(2, Role::Operator, None).await);
    for filter in [json!({}), json!({"labels": {}}), json!({"states": [], "tenants": []})] {
        all.post("/v1/bulk", &body("cancel", &filter)).await.expect_problem(422, "filter");
    }
    bound.post("/v1/bulk", &body("cancel", &json!({}))).await.expect_problem(422, "filter");
    assert_eq!(
        bound.get("/v1/jobs?state=queued").await.json()["jobs"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn a_token_of_one_tenant_acts_on_its_own_jobs_alone() {
    let stage = stage().await;
    let bound = stage.http().with(&stage.token(1, Role::Operator, Some(&["a"])).await);
    let admin = stage.http().with(&stage.token(2, Role::Admin, None).await);
    let odd = json!({"labels": {"odd": "yes"}});
    let paused = bound.post("/v1/bulk", &body("pause", &odd)).await.is(200).lines();
    assert_eq!(paused.len(), 1, "the odd job of `a`: {paused:?}");
    for filter in [json!({"tenant": "b"}), json!({"tenants": ["a", "b"]})] {
        bound.post("/v1/bulk", &body("cancel", &filter)).await.is(403);
    }
    let mut dry = body("cancel", &json!({"states": ["queued", "paused"]}));
    dry["dry_run"] = json!(true);
    assert_eq!(bound.post("/v1/bulk", &dry).await.is(200).json()["matched"], 2);
    let trail = admin.get("/v1/audit").await.is(200).json();
    let targets: Vec<&Value> =
        trail["actions"].as_array().expect("actions").iter().map(|it| &it["target"]).collect();
    assert_eq!(targets[0], r#"cancel {"states":["queued","paused"]} (dry run)"#);
    assert_eq!(targets[1], "/v1/bulk");
    assert_eq!(targets[3], r#"pause {"labels":{"odd":"yes"}}"#);
}

#[tokio::test]
async fn mistakes_in_a_request_are_named() {
    let http = Stage::idle(Exposure::Loopback).http();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    for wrong in [
        "",
        "[]",
        "{}",
        r#"{"action": "explode", "filter": {"task": "x"}}"#,
        r#"{"action": "pause"}"#,
        r#"{"action": "pause", "filter": {"task": 7}}"#,
        r#"{"action": "pause", "filter": {"state": "queued"}}"#,
        r#"{"action": "pause", "filter": {"states": ["asleep"]}}"#,
        r#"{"action": "pause", "filter": {"submitted_before": -1}}"#,
        r#"{"action": "pause", "filter": {"task": "x"}, "dry_run": "yes"}"#,
        r#"{"action": "pause", "filter": {"task": "x"}, "more": 1}"#,
        &format!(r#"{{"action": "pause", "filter": {deep}}}"#),
    ] {
        http.call("POST", "/v1/bulk", wrong.to_owned()).await.expect_problem(422, "body");
    }
    let invalid = b"{\"action\": \"pause\", \"filter\": {\"task\": \"\xff\"}}".as_slice();
    http.call("POST", "/v1/bulk", invalid).await.expect_problem(422, "body");
    http.call("POST", "/v1/bulk", vec![b' '; (1 << 20) + 1]).await.is(413);
}
