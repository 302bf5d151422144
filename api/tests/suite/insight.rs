//! What a job tells of itself: its map, why it waits, its errors in groups; and counts of jobs.

use longshore_api::Exposure;
use longshore_ledger::{Admission, Ledger};
use longshore_protocol::Role;
use serde_json::{Value, json};

use crate::client::noop;
use crate::stage::Stage;

#[tokio::test]
async fn a_map_counts_each_range_of_indices() {
    let stage = Stage::new();
    let http = stage.http();
    let path = http.finish(&noop(1_000), "succeeded").await;
    let map = http.get(&format!("{path}/map?cells=3")).await.is(200).json();
    assert_eq!(json!([map["from"], map["to"]]), json!([0, 1_000]));
    let cells = map["cells"].as_array().expect("cells");
    let of = |name: &str| cells.iter().map(|cell| cell[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("from"), [0, 333, 666]);
    assert_eq!((of("total"), of("done")), (vec![json!(333), json!(333), json!(334)], of("total")));
    let part = http.get(&format!("{path}/map?from=10&to=13&cells=2000")).await.is(200).json();
    let froms: Vec<&Value> =
        part["cells"].as_array().expect("cells").iter().map(|it| &it["from"]).collect();
    assert_eq!(froms, [10, 11, 12]);
    let beyond = http.get(&format!("{path}/map?from=5000&to=9000")).await.is(200).json();
    assert_eq!(json!([beyond["from"], beyond["to"], beyond["cells"]]), json!([1_000, 1_000, []]));
    http.get(&format!("{path}/map?from=2&to=1")).await.expect_problem(400, "to");
    http.get(&format!("{path}/map?cells=0")).await.expect_problem(400, "cells");
    http.get(&format!("{path}/map?cells=2001")).await.expect_problem(400, "cells");
}

#[tokio::test]
async fn a_job_explains_why_it_waits_and_how_it_ended() {
    let stage = Stage::idle(Exposure::Loopback);
    let http = stage.http();
    let id = "0190b0a2-0000-7000-8000-000000000001";
    stage.ledger.admit(&Admission::plain(id.parse().unwrap(), 4)).await.unwrap();
    let path = format!("/v1/jobs/{id}/explain");
    let waits = http.get(&path).await.is(200).json();
    let codes: Vec<&Value> =
        waits["reasons"].as_array().expect("reasons").iter().map(|it| &it["code"]).collect();
    assert!(codes.contains(&&json!("no_scheduler")), "{waits}");
    assert!(codes.contains(&&json!("no_worker_for_queue")), "{waits}");
    for reason in waits["reasons"].as_array().expect("reasons") {
        assert_eq!(reason["needs_action"], true, "{reason}");
        assert!(reason["advice"].as_str().is_some_and(|advice| advice.ends_with('.')), "{reason}");
    }
    http.call("POST", &format!("/v1/jobs/{id}/cancel"), "").await.is(200);
    let ended = http.get(&path).await.is(200).json();
    assert_eq!((&ended["state"], &ended["reasons"]), (&json!("cancelled"), &json!([])));
    assert_eq!(ended["text"], "the job was cancelled when 0 of 4 subtasks were done");
    let unknown = id.replace("0001", "0002");
    http.get(&format!("/v1/jobs/{unknown}/explain")).await.is(404);
}

#[tokio::test]
async fn errors_come_in_groups_of_those_that_are_alike() {
    let stage = Stage::new();
    let http = stage.http();
    let document = json!({
        "task": "sum", "retry": {"attempts": 1},
        "split": {"by": "items", "items": ["a", [1], "b", {"c": 1}, "d"]},
    });
    let path = http.finish(&document, "failed").await;
    let found = http.get(&format!("{path}/errors?grouped=true")).await.is(200).json();
    let counts = json!([found["failed"], found["kept"], found["in_other_groups"]]);
    assert_eq!(counts, json!([4, 4, 0]), "{found}");
    let groups = found["groups"].as_array().expect("groups");
    let sum: u64 = groups.iter().map(|group| group["count"].as_u64().expect("a count")).sum();
    assert_eq!(sum, 4);
    assert_eq!(groups[0]["first"], groups[0]["example"]["index"], "{found}");
    assert!(groups[0]["count"].as_u64() >= Some(3), "three inputs are strings: {found}");
    let query = "grouped=true&from=3";
    http.get(&format!("{path}/errors?{query}")).await.expect_problem(400, "from");
    http.get(&format!("{path}/errors?grouped=1")).await.expect_problem(400, "grouped");
}

#[tokio::test]
async fn jobs_are_counted_by_state_beside_a_page() {
    let stage = Stage::new();
    let bound = stage.http().with(&stage.token(1, Role::Viewer, Some(&["a"])).await);
    let http = stage.http().with(&stage.token(2, Role::Admin, None).await);
    for _ in 0..3 {
        http.finish(&noop(1), "succeeded").await;
    }
    let mut failing = noop(1);
    (failing["task"], failing["retry"]) = (json!("fail"), json!({"attempts": 1}));
    failing["tenant"] = json!("a");
    http.finish(&failing, "failed").await;
    let counts = |open, succeeded, failed| {
        json!({"open": open, "succeeded": succeeded, "failed": failed, "cancelled": 0,
            "rejected": 0})
    };
    let page = http.get("/v1/jobs?limit=1&counts=true&state=failed").await.is(200).json();
    assert_eq!(page["counts"], counts(0, 3, 1));
    assert_eq!(page["jobs"].as_array().map(Vec::len), Some(1));
    let filtered = http.get("/v1/jobs?counts=true&task=noop").await.is(200).json();
    assert_eq!(filtered["counts"], counts(0, 3, 0));
    assert_eq!(http.get("/v1/jobs").await.is(200).json().get("counts"), None);
    assert_eq!(bound.get("/v1/jobs?counts=true").await.is(200).json()["counts"], counts(0, 0, 1));
    let foreign = bound.get("/v1/jobs?counts=true&tenant=b").await.is(200).json();
    assert_eq!(foreign["counts"], counts(0, 0, 0));
}
