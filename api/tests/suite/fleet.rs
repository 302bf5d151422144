//! Queues, tokens, dead letters, and drains.

use longshore_api::Exposure;
use longshore_broker::{Broker, Outgoing, Queue};
use longshore_protocol::Role;
use serde_json::{Value, json};

use crate::client::{Http, noop};
use crate::stage::{PATIENCE, Stage};

/// The first worker, once it is there and in this state.
async fn worker(http: &Http, state: &str) -> String {
    let found = async {
        loop {
            let nodes = http.get("/v1/nodes").await.is(200).json();
            if nodes[0]["state"] == state {
                return nodes[0]["id"].as_str().expect("an id").to_owned();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no worker is {state}"))
}

#[tokio::test]
async fn queues_show_who_waits_and_who_works() {
    let stage = Stage::new();
    let http = stage.http();
    worker(&http, "active").await;
    let mut elsewhere = noop(1);
    elsewhere["queue"] = json!("gpu");
    http.submit(&elsewhere).await;
    let queues = http.get("/v1/queues").await.is(200).json();
    let names: Vec<&Value> =
        queues.as_array().expect("queues").iter().map(|queue| &queue["queue"]).collect();
    assert_eq!(names, ["default", "gpu"]);
    let of = |place: usize| {
        json!(["jobs", "workers", "slots", "scheduler"].map(|name| &queues[place][name]))
    };
    assert_eq!(of(0), json!([0, 1, 2, "scheduler-1"]));
    assert_eq!(of(1), json!([1, 0, 0, "scheduler-1"]));
}

#[tokio::test]
async fn a_drained_worker_takes_jobs_again_once_it_is_undrained() {
    let stage = Stage::new();
    let http = stage.http();
    let node = worker(&http, "active").await;
    http.call("POST", &format!("/v1/nodes/{node}/drain"), "").await.is(200);
    assert_eq!(worker(&http, "drained").await, node);
    let path = http.submit(&noop(3)).await;
    let waits = http.get(&format!("{path}/wait?timeout=300ms")).await.is(200).json();
    assert_eq!(waits["done"], 0, "nobody takes it: {waits}");
    let undrained = http.call("POST", &format!("/v1/nodes/{node}/undrain"), "").await.is(200);
    assert_eq!(undrained.json(), json!({"node": node, "state": "active"}));
    let ended = http.get(&format!("{path}/wait?timeout=20s")).await.is(200).json();
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(worker(&http, "active").await, node);
    http.call("POST", "/v1/nodes/nobody/undrain", "").await.is(404);
}

#[tokio::test]
async fn tokens_are_created_listed_and_revoked() {
    let stage = Stage::idle(Exposure::Loopback);
    let admin = stage.http().with(&stage.token(1, Role::Admin, None).await);
    let request = json!({"name": "ci", "role": "submitter", "tenants": ["web"], "expires": "90d"});
    let new = admin.post("/v1/tokens", &request).await.is(201).json();
    let (secret, id) = (new["secret"].as_str().unwrap(), new["id"].as_str().unwrap());
    let lifetime = new["expires_at"].as_u64().unwrap() - new["created_at"].as_u64().unwrap();
    assert_eq!((&new["tenants"], lifetime), (&json!(["web"]), 90 * 24 * 60 * 60 * 1_000));
    let listed = admin.get("/v1/tokens").await.is(200);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(2));
    assert!(!listed.text.contains("secret") && !listed.text.contains("digest"), "{listed:?}");
    let ci = stage.http().with(secret);
    ci.get("/v1/jobs").await.is(200);
    let revoked = admin.call("DELETE", &format!("/v1/tokens/{id}"), "").await.is(200).json();
    assert_eq!(revoked, json!({"id": id, "state": "revoked"}));
    ci.get("/v1/jobs").await.is(401);
    admin.call("DELETE", &format!("/v1/tokens/{id}"), "").await.is(404);
    for (wrong, place) in [
        (json!({"name": "", "role": "viewer"}), "name"),
        (json!({"name": "a\nb", "role": "viewer"}), "name"),
        (json!({"name": "x", "role": "root"}), "body"),
        (json!({"name": "x", "role": "viewer", "tenants": []}), "tenants"),
        (json!({"name": "x", "role": "viewer", "tenants": ["a b"]}), "tenants"),
        (json!({"name": "x", "role": "viewer", "expires": "soon"}), "expires"),
        (json!({"role": "viewer"}), "body"),
        (json!({"name": "x", "role": "viewer", "secret": "y"}), "body"),
        (json!(["x", "viewer"]), "body"),
    ] {
        admin.post("/v1/tokens", &wrong).await.expect_problem(422, place);
    }
    let trail = admin.get("/v1/audit?limit=50").await.is(200);
    assert!(!trail.text.contains(secret), "no secret is in the trail");
    let targets: Vec<Value> =
        trail.json()["actions"].as_array().unwrap().iter().map(|it| it["target"].clone()).collect();
    assert!(targets.contains(&json!(format!("{id} ci (submitter)"))), "{targets:?}");
}

/// Puts documents into the dead-letter queue, as schedulers do.
async fn reject(stage: &Stage, ids: &[&str]) {
    for id in ids {
        let body = json!({"id": id, "task": "noop", "split": {"by": "items", "items": [1]}});
        let letter = Outgoing {
            body: body.to_string().into(),
            message_id: Some((*id).to_owned()),
            headers: vec![("reason".into(), "split: no".into())],
        };
        stage.broker.publish(&Queue::Dead, letter).await.expect("memory does not fail");
    }
}

#[tokio::test]
async fn dead_letters_are_listed_read_put_back_and_deleted() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let ids = [1, 2, 3].map(|n| format!("0190b0a{n}-0000-7000-8000-000000000001"));
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    reject(&stage, &names).await;
    let page = http.get("/v1/dead?limit=2").await.is(200).json();
    assert_eq!((&page["total"], page["letters"].as_array().map(Vec::len)), (&json!(3), Some(2)));
    let letter = http.get("/v1/dead/0190b0a2").await.is(200).json();
    assert_eq!((&letter["id"], &letter["reason"]), (&json!(ids[1]), &json!("split: no")));
    assert_eq!(letter["document"]["task"], "noop");
    http.get("/v1/dead/0190b0a9").await.is(404);
    http.get("/v1/dead?limit=0").await.expect_problem(400, "limit");
    let back = http.post("/v1/dead/requeue", &json!({"ids": ["0190b0a2"]})).await.is(200).lines();
    assert_eq!((back.len(), &back[0]["outcome"]), (1, &json!("requeued")));
    let gone = http.post("/v1/dead/purge", &json!({"ids": [ids[0]]})).await.is(200).lines();
    assert_eq!((gone.len(), &gone[0]["outcome"]), (1, &json!("purged")));
    let none = http.post("/v1/dead/purge", &json!({"ids": ["0190b0a9"]})).await.is(200);
    assert_eq!(none.text, "");
    let rest = http.post("/v1/dead/purge", &json!({"all": true})).await.is(200).json();
    assert_eq!(rest, json!({"purged": 1}));
    assert_eq!(http.get("/v1/dead").await.is(200).json()["total"], 0);
    for (wrong, place) in [
        (json!({}), "ids"),
        (json!({"ids": []}), "ids"),
        (json!({"ids": ["x"], "all": true}), "ids"),
        (json!({"ids": vec!["x"; 1_001]}), "ids"),
        (json!({"ids": [7]}), "body"),
        (json!({"all": "yes"}), "body"),
        (json!({"every": true}), "body"),
    ] {
        http.post("/v1/dead/purge", &wrong).await.expect_problem(422, place);
        http.post("/v1/dead/requeue", &wrong).await.expect_problem(422, place);
    }
}
