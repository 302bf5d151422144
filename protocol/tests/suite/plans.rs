//! The input of each index, for all five splits and for a reduce, and which plans are refused.

use longshore_protocol::document::{Axis, MAX_TOTAL, Reduce, Split};
use longshore_protocol::{Input, InputFile, JobDocument, LineWindow, MAX_FILES, Manifest, Plan};
use serde_json::json;

fn file(path: &str, size: u64) -> InputFile {
    InputFile { path: path.into(), size, version: None }
}

fn manifest(files: &[(&str, u64)]) -> Manifest {
    let files = files.iter().map(|(path, size)| file(path, *size)).collect();
    Manifest { files, ..Manifest::default() }
}

fn plan(split: Split, files: &[(&str, u64)]) -> Plan {
    Plan::new(JobDocument::new("t", split), manifest(files)).expect("a valid plan")
}

/// The inputs as handlers see them, one JSON a line.
#[track_caller]
fn inputs(plan: &Plan, expected: &[&str]) {
    let found = (0..plan.total())
        .map(|index| serde_json::to_string(&plan.input(index)).expect("an input is JSON"))
        .collect::<Vec<_>>();
    assert_eq!(found, expected);
}

#[track_caller]
fn refused(split: Split, files: Manifest, expected: &str) {
    let error = Plan::new(JobDocument::new("t", split), files).expect_err("it has to be refused");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn items_are_the_elements() {
    let items = [json!(1), json!("two"), json!({"three": [3]})];
    inputs(&plan(Split::items(items), &[]), &["1", r#""two""#, r#"{"three":[3]}"#]);
}

#[test]
fn a_range_counts_up_or_down_to_before_its_end() {
    inputs(&plan(Split::range(-1..2), &[]), &["-1", "0", "1"]);
    let by = |start, end, step| plan(Split::Range { start, end, step }, &[]);
    inputs(&by(0, 7, 3), &["0", "3", "6"]);
    inputs(&by(0, 6, 3), &["0", "3"]);
    inputs(&by(5, -2, -3), &["5", "2", "-1"]);
    inputs(
        &by(i64::MIN, i64::MAX, i64::MAX),
        &["-9223372036854775808", "-1", "9223372036854775806"],
    );
    inputs(&by(i64::MAX, i64::MIN, i64::MIN), &["9223372036854775807", "-1"]);
}

#[test]
fn lines_are_windows_that_tile_each_file() {
    let files = [("/a", 10), ("/b", 0), ("/c", 8), ("/d", 0), ("/e", 1)];
    let plan = plan(Split::lines(["/*"], 4), &files);
    inputs(
        &plan,
        &[
            r#"{"file":"/a","start":0,"end":4}"#,
            r#"{"file":"/a","start":4,"end":8}"#,
            r#"{"file":"/a","start":8,"end":10}"#,
            r#"{"file":"/c","start":0,"end":4}"#,
            r#"{"file":"/c","start":4,"end":8}"#,
            r#"{"file":"/e","start":0,"end":1}"#,
        ],
    );
}

#[test]
fn a_file_of_the_largest_size_has_exact_windows() {
    let bytes = 1 << 40;
    let plan = plan(Split::lines(["/*"], bytes), &[("/huge", u64::MAX)]);
    assert_eq!(plan.total(), 1 << 24);
    let last = LineWindow { file: "/huge".into(), start: u64::MAX - (bytes - 1), end: u64::MAX };
    assert_eq!(plan.input(plan.total() - 1), Input::Window(last));
}

#[test]
fn files_are_one_each_empty_ones_too() {
    inputs(&plan(Split::files(["/*"]), &[("/a", 3), ("/b", 0)]), &[r#""/a""#, r#""/b""#]);
}

#[test]
fn a_grid_turns_its_last_axis_fastest() {
    let axes = [
        ("lr", Axis::Values(vec![json!(0.1), json!([])].into())),
        ("a", Axis::Range { start: 2, end: -1, step: -2 }),
    ];
    inputs(
        &plan(Split::grid(axes), &[]),
        &[r#"{"a":2,"lr":0.1}"#, r#"{"a":0,"lr":0.1}"#, r#"{"a":2,"lr":[]}"#, r#"{"a":0,"lr":[]}"#],
    );
}

#[test]
fn a_reduce_node_gets_the_results_that_it_combines() {
    let input = Input::Combine { inputs: vec![json!(1).into(), json!({"b": 2}).into()] };
    assert_eq!(json!(input), json!({"inputs": [1, {"b": 2}]}));
}

#[test]
fn indices_past_the_subtasks_belong_to_the_task_that_combines() {
    let mut document = JobDocument::new("count", Split::range(0..10));
    document.reduce = Some(Reduce { task: "sum".into(), fan_in: 4 });
    let plan = Plan::new(document, Manifest::default()).expect("a valid plan");
    assert_eq!(
        (plan.task(0), plan.task(9), plan.task(10), plan.task(13)),
        ("count", "count", "sum", "sum")
    );
    assert_eq!(plan.reduce_tree().map(|tree| tree.root()), Some(13));
}

#[test]
#[should_panic(expected = "subtask 3 of 3")]
fn an_index_past_the_end_is_a_bug_of_the_caller() {
    plan(Split::range(0..3), &[]).input(3);
}

#[test]
fn a_plan_without_subtasks_is_refused() {
    let none =
        "split.files: the globs match no file; match at least one that the scheduler can see";
    refused(Split::files(["/*"]), Manifest::default(), none);
    refused(Split::lines(["/*"], 4), Manifest::default(), none);
    refused(
        Split::lines(["/*"], 4),
        manifest(&[("/a", 0), ("/b", 0)]),
        "split.files: all files that the globs match are empty; match at least one line",
    );
    // Built in Rust, without `validate`.
    refused(
        Split::range(3..3),
        Manifest::default(),
        "split: no numbers from 3 to before 3 in steps of 1; use an end above the start",
    );
    refused(
        Split::items(Vec::<i64>::new()),
        Manifest::default(),
        "split.items: an empty list; list at least one item",
    );
}

#[test]
fn a_plan_of_more_than_the_largest_total_is_refused() {
    let limit = "use at most 1099511627776 (2^40)";
    refused(
        Split::lines(["/*"], 1),
        manifest(&[("/a", MAX_TOTAL), ("/b", 1)]),
        &format!("split: 1099511627777 subtasks; {limit}"),
    );
    refused(
        Split::lines(["/*"], 1),
        manifest(&[("/a", u64::MAX), ("/b", u64::MAX)]),
        &format!("split: 36893488147419103230 subtasks; {limit}"),
    );
    refused(
        Split::range(0..MAX_TOTAL as i64 + 1),
        Manifest::default(),
        &format!("split: 1099511627777 subtasks; {limit}"),
    );
    assert_eq!(plan(Split::lines(["/*"], 1), &[("/a", MAX_TOTAL)]).total(), MAX_TOTAL);
    assert_eq!(plan(Split::range(0..MAX_TOTAL as i64), &[]).total(), MAX_TOTAL);
}

#[test]
fn a_manifest_is_sorted_and_has_no_path_twice() {
    let allowed = "sort by path, each path once";
    for files in [[("/b", 1), ("/a", 1)], [("/a", 1), ("/a", 2)]] {
        let expected = format!("manifest[1]: `/a` in the wrong order; {allowed}");
        refused(Split::files(["/*"]), manifest(&files), &expected);
    }
    refused(
        Split::files(["/*"]),
        manifest(&[("", 1)]),
        "manifest[0]: an empty path; name the file",
    );
    refused(
        Split::range(0..3),
        manifest(&[("/a", 1)]),
        "manifest: 1 files; only splits by lines or files have any",
    );
    let sorted = Manifest::new(vec![file("/b", 1), file("/a", 2), file("/b", 1)]);
    assert_eq!(sorted, manifest(&[("/a", 2), ("/b", 1)]));
}

#[test]
fn a_manifest_has_a_largest_size() {
    let files = |count: usize| {
        let files = (0..count).map(|number| file(&format!("/{number:08}"), 1));
        Manifest { files: files.collect(), ..Manifest::default() }
    };
    let most = Plan::new(JobDocument::new("t", Split::files(["/*"])), files(MAX_FILES));
    assert_eq!(most.map(|plan| plan.total()), Ok(MAX_FILES as u64));
    refused(
        Split::files(["/*"]),
        files(MAX_FILES + 1),
        "split.files: the globs match 1000001 files; match at most 1000000; pack small files, \
            or use several jobs",
    );
}

#[test]
fn a_subtask_knows_the_file_that_it_has_to_find_unchanged() {
    let files = vec![file("/a", 10), file("/b", 0), file("/c", 5)];
    let manifest = Manifest::new(files);
    let path = |split: &str, more: &str, index| {
        let text = format!(r#"{{"task":"t","split":{split}{more}}}"#);
        let document = JobDocument::parse(text.as_bytes()).expect("it is valid");
        let manifest = if split.contains("files") { manifest.clone() } else { Manifest::default() };
        let plan = Plan::new(document, manifest).expect("it has subtasks");
        plan.unchanged_file(index).map(|file| file.path.clone())
    };
    let lines = r#"{"by":"lines","files":["/*"],"bytes":"4B"}"#;
    assert_eq!(path(lines, "", 2).as_deref(), Some("/a"));
    assert_eq!(path(lines, "", 3).as_deref(), Some("/c"), "the second file has no window");
    assert_eq!(path(r#"{"by":"files","files":["/*"]}"#, "", 1).as_deref(), Some("/b"));
    assert_eq!(path(lines, r#","changed":"read""#, 2), None, "it reads what is there");
    assert_eq!(path(r#"{"by":"range","start":0,"end":9}"#, "", 2), None);
}

#[test]
fn lines_of_a_compressed_file_are_refused() {
    let text = r#"{"task":"t","split":{"by":"lines","files":["/*"],"bytes":"4B"}}"#;
    let document = JobDocument::parse(text.as_bytes()).expect("it is valid");
    let manifest = Manifest::new(vec![file("/a.txt", 10), file("/logs.gz", 10)]);
    let error = Plan::new(document, manifest).expect_err("a window of it holds no lines");
    assert_eq!(
        error.to_string(),
        "split.files: `/logs.gz` is compressed; decompress it, or split by `files`, where a subtask gets the whole file"
    );
}
