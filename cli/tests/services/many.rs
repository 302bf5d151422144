//! Verbs on many jobs, short ids and names, tables, and dead letters.

use longshore_test_servers::wait_until;
use serde_json::{Value, json};

use super::{Fleet, LONG, UNKNOWN};

/// Submits a job that no worker takes, as the notice on standard error says.
#[track_caller]
fn submit(fleet: &Fleet, more: &[&str]) -> String {
    let arguments = ["submit", "--task", "noop", "--range", "0..2"];
    let left = fleet.given.longshore(&[&arguments, more].concat());
    assert_eq!(left.code, Some(0), "{left:?}");
    left.stdout.trim().to_owned()
}

#[track_caller]
fn fits(table: &str) {
    let wide: Vec<&str> = table.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}\n{table}");
}

/// The first word of each row of a table.
fn first_words(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn an_action_takes_all_jobs_that_a_filter_shows() {
    let mut fleet = Fleet::new("bulk");
    fleet.start(&["scheduler"]);
    let eu: Vec<String> = (0..3)
        .map(|number| {
            let name = format!("run {number}");
            submit(&fleet, &["--label", "zone=eu", "--name", &name])
        })
        .collect();
    let us = submit(&fleet, &["--label", "zone=us", "--name", "run 0"]);
    fleet.ok(&["cancel", &eu[2]]);

    let filter = ["--label", "zone=eu"];
    let with = |verb: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        [&[verb], &filter[..], more].concat()
    };
    let plan = fleet.ok(&with("pause", &["--dry-run"]));
    let begin = "3 jobs found, 2 would be paused; 1 skipped, whose state does not allow it\nJOB ";
    assert!(plan.starts_with(begin), "{plan}");
    fits(&plan);
    let plan = fleet.json(&with("pause", &["--dry-run"]));
    assert_eq!(
        (&plan["action"], &plan["matched"], &plan["allowed"]),
        (&json!("pause"), &json!(3), &json!(2))
    );
    assert_eq!(plan["first"][0]["id"], eu[1].as_str(), "the newest first");
    assert_eq!(fleet.json(&["status", &eu[0]])["state"], "queued", "nothing has changed");
    let unsure = "error: this would pause every job that the filter shows; add --dry-run to see \
                  how many, or --yes to do it";
    fleet.fails(&with("pause", &[]), 2, unsure);

    let left = fleet.given.longshore(&with("pause", &["--yes"]));
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_eq!(left.stderr, "2 jobs paused, 1 skipped\n");
    let skipped = format!("{} skipped: a job that is cancelled can't pause\n", eu[2]);
    assert!(left.stdout.contains(&skipped), "{left:?}");
    assert!(left.stdout.contains(&format!("{} paused\n", eu[0])), "{left:?}");
    assert_eq!(fleet.json(&["status", &us])["state"], "queued", "the filter does not show it");

    let left = fleet.given.longshore(&["resume", "--state", "paused", "--yes", "--json"]);
    let mut resumed: Vec<Value> =
        left.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    resumed.sort_by_key(|outcome| outcome["id"].to_string());
    let done = |id: &String| json!({"id": id, "outcome": "done", "state": "queued"});
    assert_eq!(resumed, [done(&eu[0]), done(&eu[1])]);

    let old = fleet.given.longshore(&["cancel", "--older-than", "1h", "--yes"]);
    assert_eq!((old.code, old.stderr.as_str()), (Some(0), "no job satisfies the filter\n"));
    let left = fleet.given.longshore(&["delete", "--task", "noop", "--yes"]);
    assert_eq!(left.stderr, "1 job deleted, 3 skipped\n", "{left:?}");
    let left = fleet.given.longshore(&["cancel", "--name", "run 0", "--yes"]);
    assert_eq!(left.stderr, "2 jobs cancelled\n", "{left:?}");
}

#[test]
fn a_job_is_named_by_the_beginning_of_its_id_or_its_name() {
    let mut fleet = Fleet::new("prefixes");
    fleet.start(&["scheduler"]);
    let ids = [
        "01890a5d-ac96-774b-bcce-000000000001",
        "01890a5d-ac96-774b-bcce-000000000002",
        "11890a5d-ac96-774b-bcce-000000000003",
    ];
    for (id, name) in ids.iter().zip(["hourly", "hourly", "nightly"]) {
        submit(&fleet, &["--id", id, "--name", name]);
    }
    let list = fleet.ok(&["list", "--name", "hourly"]);
    assert_eq!(first_words(&list), [ids[1], ids[0]], "as long as it takes to tell them apart");
    assert_eq!(first_words(&fleet.ok(&["list", "--name", "nightly"])), ["11890a5d"]);
    assert_eq!(fleet.json(&["status", "11890a5d"])["id"], ids[2]);
    assert_eq!(fleet.json(&["status", "11890A5DAC96"])["id"], ids[2], "in any form");
    assert_eq!(fleet.json(&["status", "--name", "nightly"])["id"], ids[2]);
    assert_eq!(fleet.ok(&["pause", "11890a5d"]), format!("{} paused\n", ids[2]));
    assert_eq!(fleet.ok(&["resume", "--name", "nightly"]), format!("{} queued\n", ids[2]));
    assert_eq!(fleet.ok(&["results", "11890a5d-ac"]), "");

    let two = format!("{} (queued, `hourly`), {} (queued, `hourly`)", ids[0], ids[1]);
    let ambiguous = format!(
        "error: there are several jobs with an id that begins with `01890a5d`: {two}; write more \
         of the id"
    );
    for verb in ["status", "results", "errors", "audit", "pause", "resume", "cancel", "retry"] {
        fleet.fails(&[verb, "01890a5d"], 2, &ambiguous);
    }
    let two = format!("{} (queued, `hourly`), {} (queued, `hourly`)", ids[1], ids[0]);
    let ambiguous = format!(
        "error: there are several jobs with the name `hourly`: {two}; write the id of one of them"
    );
    fleet.fails(&["cancel", "--name", "hourly"], 2, &ambiguous);
    let unknown = "error: there is no job with an id that begins with `f1890a5d`";
    for verb in ["status", "results", "errors", "audit", "cancel", "delete"] {
        fleet.fails(&[verb, "f1890a5d"], 4, unknown);
    }
    let unknown = "error: there is no job with the name `weekly`";
    fleet.fails(&["errors", "--name", "weekly"], 4, unknown);
    fleet.ok(&["cancel", &ids[0][..36]]);
    fleet.ok(&["delete", ids[0]]);
    assert_eq!(fleet.json(&["status", "01890a5d"])["id"], ids[1], "one is left");
}

#[test]
fn tables_have_80_columns_and_more_on_request() {
    let mut fleet = Fleet::new("tables");
    fleet.start(&["scheduler"]);
    let name = "a name that people chose and that takes more room than there is";
    let queue = "q".repeat(40);
    let id = submit(&fleet, &["--name", name, "--queue", &queue]);
    submit(&fleet, &["--name", "short"]);
    for verb in ["list", "status"] {
        let table = fleet.ok(&[verb]);
        fits(&table);
        let header: Vec<&str> =
            table.lines().next().expect("a header").split_whitespace().collect();
        let columns = ["JOB", "STATE", "AGE", "DONE", "FAILED", "TOTAL", "TASK", "QUEUE", "NAME"];
        assert_eq!(header, columns, "{table}");
        assert!(table.contains("a name") && table.contains('…'), "{table}");
        let wide = fleet.ok(&[verb, "--wide"]);
        assert!(wide.contains(&id) && wide.contains(name) && wide.contains(&queue), "{wide}");
    }

    fleet.start(&["worker", "--queues", "first,second", "--labels", "zone=a,rack=b"]);
    let node = fleet.await_worker();
    let table = fleet.ok(&["nodes"]);
    fits(&table);
    let shown = first_words(&table);
    assert!(node.starts_with(shown[0]) && shown[0].len() < node.len(), "{table}");
    assert!(fleet.ok(&["nodes", "--wide"]).contains(&node));
    assert_eq!(fleet.ok(&["drain", shown[0]]), format!("{node} draining\n"));
}

#[test]
fn dead_letters_are_shown_put_back_and_deleted() {
    let mut fleet = Fleet::new("dead-letters");
    assert_eq!(fleet.json(&["dead", "list"]), json!({"letters": [], "total": 0}));
    fleet.start(&["scheduler"]);
    fleet.start(&["worker"]);
    fleet.await_worker();
    let folder = fleet.given.folder().join("later");
    let files = folder.join("*.txt").display().to_string();
    let refuse = |fleet: &Fleet, id: &str| {
        let submit = ["submit", "--id", id, "--task", "wordcount", "--files", &files];
        let left = fleet.given.longshore(&submit);
        assert_eq!(left.code, Some(2), "{left:?}");
    };
    let others = ["21890a5d-ac96-774b-bcce-000000000001", "31890a5d-ac96-774b-bcce-000000000002"];
    refuse(&fleet, UNKNOWN);
    refuse(&fleet, others[0]);
    let listed = || fleet.json(&["dead", "list"]);
    let until = |total: u64| {
        wait_until(&format!("{total} letters"), LONG, || listed()["total"] == total);
    };
    until(2);
    let letter = listed()["letters"][0].clone();
    let reason = format!("split.files: no file matches `{files}`");
    assert_eq!((&letter["id"], &letter["reason"]), (&json!(UNKNOWN), &json!(reason)));
    assert!(letter["dead_at"].is_u64() && letter["bytes"].as_u64() > Some(50), "{letter}");
    let table = fleet.ok(&["dead", "list"]);
    fits(&table);
    assert!(table.starts_with("N  ID  ") && table.contains(UNKNOWN), "{table}");
    assert!(fleet.ok(&["dead", "list", "--wide"]).contains(&reason));
    let first = fleet.ok(&["dead", "show", "1"]);
    assert!(first.contains(&format!("reason    {reason}\n")), "{first}");
    assert!(first.lines().last().is_some_and(|line| line.contains("\"wordcount\"")), "{first}");
    let second = fleet.json(&["dead", "show", "21890a5d"]);
    assert_eq!(
        (&second["id"], &second["document"]["task"]),
        (&json!(others[0]), &json!("wordcount"))
    );
    fleet.fails(&["dead", "show", "7"], 4, "error: no such dead letter: `7`");
    until(2);

    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("a.txt"), "one two two\n").expect("written");
    assert_eq!(fleet.ok(&["dead", "requeue", &UNKNOWN[..13]]), format!("{UNKNOWN} requeued\n"));
    fleet.await_state(UNKNOWN, "succeeded");
    until(1);
    let unknown = "error: no such dead letter: `nobody`";
    let left = fleet.given.longshore(&["dead", "requeue", "nobody", others[0]]);
    assert_eq!((left.code, left.stderr), (Some(4), format!("{unknown}\n")));
    assert_eq!(left.stdout, format!("{} requeued\n", others[0]), "the other one is put back");
    fleet.await_state(others[0], "succeeded");

    std::fs::remove_dir_all(&folder).expect("removed");
    refuse(&fleet, others[1]);
    until(1);
    let again = fleet.json(&["dead", "requeue", "--all"]);
    assert_eq!((&again["outcome"], &again["id"]), (&json!("requeued"), &json!(others[1])));
    until(1);
    let unsure = "error: this would delete every dead letter; add --yes, or give the ids of some";
    fleet.fails(&["dead", "purge"], 2, unsure);
    assert_eq!(fleet.json(&["dead", "purge", "--yes"]), json!({"purged": 1}));
    until(0);
    fleet.fails(&["dead", "purge", "nobody"], 4, unknown);
    let doctor = fleet.given.longshore(&["doctor", "--json"]);
    assert!(!doctor.stdout.contains("longshore dead list"), "{doctor:?}");
}
