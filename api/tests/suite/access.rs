//! Tests who may call what.
//!
//! The matrix of every endpoint, role and tenant is generated from the table of endpoints.

use longshore_api::{Access, Endpoint, Exposure, Scope, endpoints};
use longshore_ledger::{Admission, Ledger};
use longshore_protocol::{JobId, Role};
use serde_json::{Value, json};

use crate::client::Http;
use crate::stage::Stage;

fn job(n: u64) -> JobId {
    format!("00000000-0000-4000-8000-{n:012x}").parse().expect("a UUID")
}

/// A job of tenant `a`, one of tenant `b`, and none.
const OWN: u64 = 1;
const FOREIGN: u64 = 2;
const ABSENT: u64 = 3;

async fn admit(stage: &Stage, n: u64, tenant: &str) {
    let admission = Admission {
        tenant: tenant.into(),
        document: json!({"task": "noop", "split": {"by": "range", "start": 0, "end": 4}})
            .to_string(),
        ..Admission::plain(job(n), 4)
    };
    stage.ledger.admit(&admission).await.expect("memory does not fail");
}

/// The path of an endpoint for a job.
fn path(endpoint: &Endpoint, n: u64) -> String {
    let path = endpoint
        .path
        .replace("{job}", &job(n).to_string())
        .replace("{node}", "box-1")
        .replace("{token}", "0123456789abcdef")
        .replace("{letter}", "0190b0a2");
    match endpoint.id {
        "wait_for_job" => path + "?timeout=1ms",
        _ => path,
    }
}

/// The status of a call. The body is not read: a stream of events has no end.
async fn status(http: &Http, endpoint: &Endpoint, n: u64, tenant: &str) -> u16 {
    let body = match endpoint.id {
        // A document that no scheduler would take, so that nothing waits for one.
        "submit_job" => json!({"task": "noop", "tenant": tenant, "split": {
            "by": "files", "files": ["relative"]
        }}),
        "act_on_jobs" => json!({"action": "pause", "filter": {"tenant": tenant}}),
        "create_token" => json!({"name": "new", "role": "viewer"}),
        "requeue_dead_letters" | "purge_dead_letters" => json!({"all": true}),
        _ => Value::Null,
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = axum::http::Request::builder()
        .method(endpoint.verb.as_str())
        .uri(path(endpoint, n))
        .body(body.into())
        .expect("a request");
    http.send(request).await.status().as_u16()
}

#[tokio::test]
async fn every_endpoint_answers_each_role_and_tenant_as_its_entry_says() {
    for endpoint in endpoints() {
        for role in Role::ALL {
            for tenants in [None, Some(&["a"][..])] {
                let stage = Stage::idle(Exposure::Loopback);
                admit(&stage, OWN, "a").await;
                admit(&stage, FOREIGN, "b").await;
                let http = stage.http().with(&stage.token(1, role, tenants).await);
                let what = format!("{endpoint:?} as {role} of {tenants:?}");
                let of = |n: u64, tenant: &'static str| status(&http, endpoint, n, tenant);
                let (own, foreign) = (of(OWN, "a").await, of(FOREIGN, "b").await);
                let absent = of(ABSENT, "b").await;
                let Access::Needs(needed, scope) = endpoint.access else {
                    assert!(![401, 403].contains(&own), "{what}: {own}");
                    continue;
                };
                let is_bound = tenants.is_some();
                if !role.permits(needed) || scope == Scope::Fleet && is_bound {
                    assert_eq!((own, foreign, absent), (403, 403, 403), "{what}");
                    continue;
                }
                assert!(![401, 403, 405].contains(&own) && own < 500, "{what}: {own}");
                let names_job = endpoint.path.contains("{job}");
                if is_bound && names_job {
                    assert_ne!(own, 404, "{what}: its own job is there");
                    assert_eq!((foreign, absent), (404, 404), "{what}: a foreign job is not");
                } else if is_bound && endpoint.id == "act_on_jobs" {
                    assert_eq!((own, foreign), (200, 403), "{what}");
                } else if is_bound && endpoint.id == "submit_job" {
                    assert_eq!((own, foreign), (422, 403), "{what}");
                } else {
                    assert_eq!(own, foreign, "{what}: all tenants are alike");
                }
            }
        }
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_shown_once_there_are_tokens() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    http.get("/v1/jobs").await.is(200);
    let stage = Stage::idle(Exposure::Loopback);
    let secret = stage.token(1, Role::Viewer, None).await;
    for endpoint in endpoints() {
        let found = status(&stage.http(), endpoint, OWN, "a").await;
        assert_eq!(found == 401, endpoint.access != Access::Open, "{endpoint:?}: {found}");
    }
    let answer = stage.http().get("/v1/jobs").await.is(401);
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    stage.http().with(&secret).get("/v1/jobs").await.is(200);
    stage.http().with("longshore_nonsense").get("/v1/jobs").await.is(401);
    stage.http().with(&secret.replace("01", "02")).get("/v1/jobs").await.is(401);
}

#[tokio::test]
async fn a_server_on_the_network_without_tls_serves_no_jobs() {
    let stage = Stage::idle(Exposure::Network);
    let secret = stage.token(1, Role::Admin, None).await;
    stage.http().with(&secret).get("/v1/jobs").await.is(403);
    stage.http().get("/metrics").await.is(200);
}

#[tokio::test]
async fn a_server_on_the_network_with_tls_needs_a_token_also_while_there_are_none() {
    let stage = Stage::idle(Exposure::NetworkTls);
    for endpoint in endpoints() {
        let found = status(&stage.http(), endpoint, OWN, "a").await;
        assert_eq!(found == 401, endpoint.access != Access::Open, "{endpoint:?}: {found}");
    }
    let stage = Stage::idle(Exposure::NetworkTls);
    let secret = stage.token(1, Role::Viewer, None).await;
    stage.http().with(&secret).get("/v1/jobs").await.is(200);
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_two_seconds_and_the_door_stays_shut() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http().with(&stage.token(1, Role::Viewer, None).await);
    http.get("/v1/jobs").await.is(200);
    let id = stage.ledger.api_tokens().await.unwrap()[0].token.id.clone();
    assert!(stage.ledger.remove_api_token(&id).await.unwrap());
    let revoked = async {
        while http.get("/v1/jobs").await.status != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(2), revoked).await.expect("refused");
    // There are no tokens now, but there were.
    stage.http().get("/v1/jobs").await.is(401);
}

#[tokio::test]
async fn failed_logins_are_told_to_wait_and_good_tokens_are_not() {
    let stage = Stage::idle(Exposure::Loopback);
    let secret = stage.token(1, Role::Viewer, None).await;
    let wrong = stage.http().with(&secret.replace("01", "02"));
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(wrong.get("/v1/jobs").await.status.as_u16());
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 2]);
    let answer = wrong.get("/v1/jobs").await.is(429);
    assert_eq!(answer.headers["retry-after"], "60");
    stage.http().with(&secret).get("/v1/jobs").await.is(200);
}

#[tokio::test]
async fn a_foreign_web_page_can_change_nothing_on_a_fleet_without_tokens() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let call = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = axum::http::Request::builder().method(method).uri(
            format!("/v1/jobs/{}/cancel", job(1)).replace(
                "/cancel",
                match method {
                    "GET" => "",
                    _ => "/cancel",
                },
            ),
        );
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::empty()).expect("a request");
        http.send(request).await.status().as_u16()
    };
    assert_eq!(call("POST", &[("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(
        call("POST", &[("host", "localhost"), ("origin", "http://evil.example")]).await,
        403
    );
    assert_eq!(call("GET", &[("host", "rebound.example:7700")]).await, 403);
    let own = [("host", "localhost:7700"), ("origin", "http://localhost:7700")];
    assert_eq!(call("POST", &own).await, 200);
    assert_eq!(call("GET", &[("host", "127.0.0.1:7700")]).await, 404);
}

#[tokio::test]
async fn a_token_of_one_tenant_lists_its_own_jobs_alone() {
    let stage = Stage::idle(Exposure::Loopback);
    for n in 10..20 {
        admit(&stage, n, if n.is_multiple_of(2) { "a" } else { "b" }).await;
    }
    admit(&stage, 30, "c").await;
    let of_a = stage.http().with(&stage.token(1, Role::Viewer, Some(&["a"])).await);
    let of_both = stage.http().with(&stage.token(2, Role::Viewer, Some(&["a", "c"])).await);
    let count = async |http: &Http, query: &str| {
        let page = http.get(&format!("/v1/jobs?limit=1000{query}")).await.is(200).json();
        let jobs = page["jobs"].as_array().expect("jobs").clone();
        assert!(jobs.iter().all(|job| job["tenant"] != "b"), "{page}");
        assert_eq!(page["next"], Value::Null);
        jobs.len()
    };
    assert_eq!(count(&of_a, "").await, 5);
    assert_eq!(count(&of_a, "&tenant=a").await, 5);
    assert_eq!(count(&of_a, "&tenant=b").await, 0);
    assert_eq!(count(&of_both, "").await, 6);
    assert_eq!(count(&of_both, "&tenant=c").await, 1);
    // How far ids are alike tells nothing about foreign ones.
    let lengths = of_a.get(&format!("/v1/id-lengths?job={}&job={}", job(10), job(77))).await;
    assert_eq!(lengths.is(200).json(), json!([36, 36]));
    // No cursor names a foreign job.
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = of_a.get(&format!("/v1/jobs?limit=1{cursor}")).await.is(200).json();
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        let shown = page["jobs"][0]["id"].as_str().expect("a job");
        assert!(next.ends_with(shown), "{page}");
        cursor = format!("&cursor={next}");
    }
    assert!(pages >= 5, "{pages} pages");
}

#[tokio::test]
async fn changes_and_refused_attempts_are_in_the_audit_trail() {
    let stage = Stage::idle(Exposure::Loopback);
    admit(&stage, OWN, "a").await;
    admit(&stage, FOREIGN, "b").await;
    let operator = stage.http().with(&stage.token(1, Role::Operator, Some(&["a"])).await);
    let viewer = stage.http().with(&stage.token(2, Role::Viewer, None).await);
    let admin = stage.http().with(&stage.token(3, Role::Admin, None).await);
    let pause = |n: u64| format!("/v1/jobs/{}/pause", job(n));
    let (own, foreign) = (pause(OWN), pause(FOREIGN));
    operator.call("POST", &own, "").await.is(200);
    operator.call("POST", &foreign, "").await.is(404);
    viewer.call("POST", &own, "").await.is(403);
    viewer.get("/v1/jobs").await.is(200);
    operator.get("/v1/audit").await.is(403);
    let trail = admin.get("/v1/audit").await.is(200).json();
    let found: Vec<[&Value; 5]> = trail["actions"]
        .as_array()
        .expect("actions")
        .iter()
        .map(|action| ["who", "action", "target", "outcome", "status"].map(|name| &action[name]))
        .collect();
    let expected = json!([
        ["token-2", "pause_job", own, "refused", 403],
        ["token-1", "pause_job", foreign, "refused", 404],
        ["token-1", "pause_job", own, "done", 200],
    ]);
    assert_eq!(json!(found), expected);
    let first = admin.get("/v1/audit?limit=1").await.is(200).json();
    let next = first["next"].as_str().expect("more follow");
    let second = admin.get(&format!("/v1/audit?limit=9&cursor={next}")).await.is(200).json();
    assert_eq!(second["actions"], json!(trail["actions"].as_array().expect("actions")[1..]));
}

/// Every endpoint that changes something refuses viewers, and foreign tenants where a tenant's jobs
/// are changed, and has each attempt in the audit trail.
#[tokio::test]
async fn every_refused_attempt_at_a_change_is_in_the_audit_trail() {
    let stage = Stage::idle(Exposure::Loopback);
    admit(&stage, FOREIGN, "b").await;
    let viewer = stage.http().with(&stage.token(1, Role::Viewer, None).await);
    let bound = stage.http().with(&stage.token(2, Role::Admin, Some(&["a"])).await);
    let admin = stage.http().with(&stage.token(3, Role::Admin, None).await);
    let mut expected = Vec::new();
    for endpoint in endpoints().iter().filter(|endpoint| endpoint.verb.may_change()) {
        for (http, who) in [(&viewer, "token-1"), (&bound, "token-2")] {
            let found = status(http, endpoint, FOREIGN, "b").await;
            assert!([403, 404].contains(&found), "{endpoint:?} by {who}: {found}");
            expected.push(json!([who, endpoint.id, "refused", found]));
        }
    }
    assert!(expected.len() >= 28, "{} attempts", expected.len());
    let trail = admin.get("/v1/audit?limit=1000").await.is(200).json();
    let entry =
        |action: &Value| json!(["who", "action", "outcome", "status"].map(|it| &action[it]));
    let mut found: Vec<Value> =
        trail["actions"].as_array().expect("actions").iter().map(entry).collect();
    found.reverse();
    assert_eq!(found, expected);
    assert_eq!(stage.ledger.api_tokens().await.expect("memory does not fail").len(), 3);
}
