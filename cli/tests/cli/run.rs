//! `longshore run` and other verbs without services: inputs, results, signals and exit codes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::given::{self, Given};

#[track_caller]
fn prints(given: &Given, arguments: &[&str], stdout: &str) {
    let left = given.longshore(arguments);
    assert_eq!(left.stderr, "", "{arguments:?}");
    assert_eq!(left.stdout, stdout, "{arguments:?}");
    assert_eq!(left.code, Some(0), "{arguments:?}");
}

/// `longshore run --task T …`, split at spaces.
#[track_caller]
fn quick(line: &str, stdout: &str) {
    let arguments: Vec<&str> = ["run", "--task"].into_iter().chain(line.split(' ')).collect();
    prints(&Given::nothing().file("a.txt", "b a\nA\n").file("b.txt", "c"), &arguments, stdout);
}

/// A command that prints its subtask.
const ECHO: &str = r#"
[task.echo]
command = ["python3", "-c", "import json,sys; print(json.dumps(json.load(sys.stdin)['input']))"]
"#;

#[test]
fn each_item_gives_a_line_in_order() {
    quick("sum --items [1,2] [3] [4,5,6]", "3\n3\n15\n");
    quick("concat --items [\"a\",\"b\"]", "\"ab\"\n");
    quick("noop --items a 1 null", "null\nnull\nnull\n");
}

#[test]
fn each_number_of_a_range_gives_a_line() {
    quick("noop --range 0..3", "null\nnull\nnull\n");
    quick("noop --range -4..4..4", "null\nnull\n");
    let given = Given::nothing().file("longshore.toml", ECHO);
    prints(&given, &["run", "--task", "echo", "--range", "5..-1..-3"], "5\n2\n");
}

#[test]
fn lines_and_files_are_read() {
    quick("wordcount --lines *.txt --bytes 4B", "{\"a\":1,\"b\":1}\n{\"a\":1}\n{\"c\":1}\n");
    quick("wordcount --files *.txt", "{\"a\":2,\"b\":1}\n{\"c\":1}\n");
    quick("wordcount --files b.txt a.txt", "{\"a\":2,\"b\":1}\n{\"c\":1}\n");
    quick("wordcount --lines *.txt --reduce merge_counts", "{\"a\":2,\"b\":1,\"c\":1}\n");
}

#[test]
fn a_grid_has_a_subtask_for_each_combination_last_axis_fastest() {
    let job = r#"{"task": "echo", "split": {"by": "grid", "axes": {
        "lr": [0.1, 0.01], "seed": {"start": 0, "end": 2}}}}"#;
    let given = Given::nothing().file("job.json", job).file("longshore.toml", ECHO);
    prints(
        &given,
        &["run", "job.json"],
        "{\"lr\":0.1,\"seed\":0}\n{\"lr\":0.1,\"seed\":1}\n\
         {\"lr\":0.01,\"seed\":0}\n{\"lr\":0.01,\"seed\":1}\n",
    );
}

#[test]
fn a_document_may_come_from_standard_input_and_a_reduce_gives_one_value() {
    let job = r#"{"task": "sum", "split": {"by": "items", "items": [[1], [2], [3], [4], [5]]},
        "reduce": {"task": "sum", "fan_in": 2}, "queue": "anything"}"#;
    prints(&Given::nothing().stdin(job), &["run", "-"], "15\n");
    prints(&Given::nothing().stdin(job), &["run", "-", "--json"], "{\"result\":15}\n");
}

#[test]
fn json_names_the_index_of_each_result() {
    quick("sum --items [1] [2] --json", "{\"index\":0,\"result\":1}\n{\"index\":1,\"result\":2}\n");
}

#[test]
fn discarded_results_print_nothing() {
    let job = r#"{"task": "noop", "split": {"by": "range", "start": 0, "end": 9},
        "results": "discard"}"#;
    prints(&Given::nothing().file("job.json", job), &["run", "job.json"], "");
}

#[test]
fn results_that_are_written_to_files_are_read_back() {
    let given = Given::nothing();
    let url = format!("file://{}/out", given.folder().display());
    let job = format!(
        r#"{{"task": "sum", "split": {{"by": "items", "items": [[1], [2], [3]]}}, "results": "{url}"}}"#
    );
    let given = given.file("job.json", job);
    prints(&given, &["run", "job.json"], "1\n2\n3\n");
    assert!(given.folder().join("out").is_dir());
}

#[test]
fn a_failed_job_prints_its_results_and_its_errors() {
    let job = r#"{"task": "odd", "split": {"by": "range", "start": 0, "end": 4},
        "retry": {"attempts": 2, "backoff": "1ms"}}"#;
    let task = r#"
[task.odd]
command = ["sh", "-c", "[ $((LONGSHORE_INDEX % 2)) = 1 ] && echo $LONGSHORE_INDEX || { echo even >&2; exit 1; }"]
"#;
    let given = Given::nothing().file("job.json", job).file("longshore.toml", task);
    let left = given.longshore(&["run", "job.json"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert_eq!(left.stdout, "1\n3\n");
    let lines: Vec<&str> = left.stderr.lines().collect();
    assert!(lines[0].starts_with("subtask 0: ") && lines[0].contains("even"), "{left:?}");
    assert!(lines[0].ends_with(" (2 attempts)"), "{left:?}");
    assert!(lines[1].starts_with("subtask 2: "), "{left:?}");
    assert_eq!(lines[2], "error: the job failed: 2 of 4 subtasks failed");
    assert_eq!(lines.len(), 3);
}

#[test]
fn the_first_ten_of_many_errors_are_shown() {
    let job = r#"{"task": "fail", "split": {"by": "range", "start": 0, "end": 30},
        "retry": {"attempts": 1}}"#;
    let left = Given::nothing().file("job.json", job).longshore(&["run", "job.json"]);
    assert_eq!(left.code, Some(1));
    let lines: Vec<&str> = left.stderr.lines().collect();
    assert!(lines[9].starts_with("subtask 9: ") && lines[9].ends_with(" (1 attempt)"), "{left:?}");
    assert_eq!(lines[10..], ["… and 20 more", "error: the job failed: 30 of 30 subtasks failed"]);
}

#[test]
fn ctrl_c_and_a_closed_terminal_cancel_and_exit_130() {
    for signal in ["INT", "HUP"] {
        cancels_and_exits_130(signal);
    }
}

#[track_caller]
fn cancels_and_exits_130(signal: &str) {
    let given = Given::nothing();
    let child = given.start(&[
        "run",
        "--task",
        "sleep",
        "--items",
        "600000",
        "--params",
        "{\"ms\":600000}",
    ]);
    let pid = child.id().to_string();
    // Without the handler the signal would end the process, too, but would prove nothing.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !catches_interrupts(&pid) {
        assert!(Instant::now() < deadline, "longshore follows SIGINT");
        std::thread::yield_now();
    }
    send(signal, &pid);
    let left = given::finish(child);
    assert_eq!(left.code, Some(130), "{left:?}");
    assert_eq!((left.stdout.as_str(), left.stderr.as_str()), ("", ""));
}

fn send(signal: &str, pid: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), pid]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{signal} {pid}");
}

#[test]
fn under_nohup_a_closed_terminal_is_ignored() {
    let given = Given::nothing().file("longshore.toml", RUNAWAY);
    let run = given.command(&["run", "--task", "t", "--items", "1"]);
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(run.get_program());
    nohup.args(run.get_args()).current_dir(given.folder()).stdin(Stdio::null());
    let mut child = nohup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
    let pids = await_pids(&given);
    let id = child.id().to_string();
    // By now its signal handlers are installed.
    assert_eq!((mask(&id, "SigIgn:") & 1, mask(&id, "SigCgt:") & 3), (1, 2));
    send("HUP", &id);
    send("INT", &id);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    pids.iter().for_each(|pid| await_death(pid));
}

/// A command that writes its process id and that of a child which leaves its session.
const RUNAWAY: &str = "[task.t]\ncommand = ['sh', '-c', \
    'setsid sleep 600 & echo $! >> pids; echo $$ >> pids; wait']\n";

fn await_pids(given: &Given) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let pids = std::fs::read_to_string(given.folder().join("pids")).unwrap_or_default();
        if pids.lines().count() == 2 {
            return pids.lines().map(str::to_owned).collect();
        }
        assert!(Instant::now() < deadline, "the command runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn await_death(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    // A zombie is dead, too.
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or("").starts_with('Z'))
    };
    while lives() {
        assert!(Instant::now() < deadline, "process {pid} is gone");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_run_that_is_killed_leaves_no_command_behind() {
    let given = Given::nothing().file("longshore.toml", RUNAWAY);
    let mut child = given.start(&["run", "--task", "t", "--items", "1"]);
    let pids = await_pids(&given);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    pids.iter().for_each(|pid| await_death(pid));
}

/// Whether the process has a handler for SIGINT, which is the second bit of the mask.
fn catches_interrupts(pid: &str) -> bool {
    mask(pid, "SigCgt:") & 2 != 0
}

/// A mask of signals; SIGHUP is the first bit.
fn mask(pid: &str, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(which));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

#[test]
fn a_closed_pipe_is_no_error() {
    let given = Given::nothing();
    let mut child = given.start(&["run", "--task", "noop", "--range", "0..100000"]);
    drop(child.stdout.take());
    let left = given::finish(child);
    assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
}

#[test]
fn cargo_run_needs_no_name_of_a_binary() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    let workspace: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = workspace["packages"].as_array().expect("an array");
    let by_default: Vec<&str> =
        packages.iter().filter_map(|package| package["default_run"].as_str()).collect();
    assert_eq!(by_default, ["longshore"], "the README says `cargo run` and no more");
}

/// A shell expands `*.txt`, so the names are files and not globs.
#[test]
fn the_name_of_an_existing_file_is_not_a_glob() {
    let given = Given::nothing()
        .file("longshore.toml", ECHO)
        .file("report1.txt", "x")
        .file("report[1].txt", "x")
        .file("a[b", "x")
        .file("other.txt", "x");
    let run = ["run", "--task", "echo", "--files"];
    let all = ["other.txt", "report1.txt", "report[1].txt", "a[b"];
    let left = given.longshore(&[&run[..], &all].concat());
    assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
    let mut found: Vec<&str> = left
        .stdout
        .lines()
        .map(|line| line.trim_matches('"').rsplit('/').next().expect("a name"))
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["a[b", "other.txt", "report1.txt", "report[1].txt"]);
    let left = given.longshore(&[&run[..], &["report[1].txt"]].concat());
    assert!(left.stdout.ends_with("/report[1].txt\"\n"), "the file itself alone: {left:?}");
    let document = r#"{"task":"echo","split":{"by":"files","files":["report[1].txt"]}}"#;
    let left = given.file("job.json", document).longshore(&["run", "job.json"]);
    assert!(left.stdout.ends_with("/report[1].txt\"\n"), "in a document, too: {left:?}");
}

#[test]
fn matches_that_a_job_leaves_out_are_reported() {
    let given = Given::nothing()
        .file("longshore.toml", ECHO)
        .file("in/a.txt", "x")
        .file("in/folder/b.txt", "x")
        .file("in/other/c.txt", "x");
    let run = ["run", "--task", "echo", "--files"];
    let left = given.longshore(&[&run[..], &["in/*"]].concat());
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_eq!(left.stdout.lines().count(), 1, "{left:?}");
    assert!(
        left.stderr.starts_with("2 names that the globs match are no regular files: /"),
        "{left:?}"
    );
    assert!(left.stderr.ends_with("; the job leaves them out\n"), "{left:?}");
    assert!(left.stderr.contains("/in/folder") && left.stderr.contains("/in/other"), "{left:?}");
    let left = given.longshore(&[&run[..], &["i*/*"]].concat());
    assert!(left.stderr.starts_with("2 names "), "wildcards in names of folders: {left:?}");
    let here = given.folder().to_str().expect("a plain name");
    let split = format!(r#"{{"by":"files","files":["{here}/in/*"]}}"#);
    let document = format!(r#"{{"task":"echo","split":{split}}}"#);
    let given = given.stdin(document);
    let left = given.longshore(&["dev"]);
    assert!(left.stderr.starts_with("line 1: 2 names that the globs match are no "), "{left:?}");
    let given = given.stdin("");
    let left = given.longshore(&[&run[..], &["in/folder"]].concat());
    assert_eq!(left.code, Some(2), "a folder that is named is refused: {left:?}");
    assert!(left.stderr.contains("in/folder` is a directory; write `"), "{left:?}");
}

#[test]
fn control_characters_are_escaped_in_messages_and_kept_in_results() {
    let tasks = r#"
[task.loud]
command = ["sh", "-c", "printf '\\033]0;title\\007\\033[2Jgone' >&2; exit 1"]
[task.odd]
command = ["printf", "\"a\\302\\233b\""]
"#;
    let given = Given::nothing().file("longshore.toml", tasks);
    let left = given.longshore(&["run", "--task", "loud", "--range", "0..1"]);
    assert!(!left.stderr.contains('\u{1b}') && !left.stderr.contains('\u{7}'), "{left:?}");
    assert!(left.stderr.contains(r"\u{1b}]0;title\u{7}\u{1b}[2Jgone"), "{left:?}");
    let left = given.longshore(&["run", "--task", "odd", "--range", "0..1"]);
    assert_eq!(left.stdout, "\"a\u{9b}b\"\n", "a pipe gets the data: {left:?}");
}

#[test]
fn an_id_can_be_given_to_a_document_that_has_none() {
    let id = "01900000-0000-7000-8000-000000000001";
    let document = r#"{"task":"noop","split":{"by":"range","start":0,"end":1}}"#;
    let given = Given::nothing().file("job.json", document);
    prints(&given, &["run", "job.json", "--id", id], "null\n");
    let with_id =
        document.replace("{\"task\"", "{\"id\":\"01900000-0000-7000-8000-000000000002\",\"task\"");
    let given = given.file("job.json", with_id);
    let left = given.longshore(&["run", "job.json", "--id", id]);
    assert_eq!(left.code, Some(2), "{left:?}");
    assert!(
        left.stderr.contains("but the document has the id 01900000-0000-7000-8000-000000000002")
    );
}

/// `submit` makes the paths of a document absolute: in a container, relative to the folder of the
/// image.
#[test]
fn the_job_of_the_readme_finds_its_files_in_the_containers() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cli/ lies in it");
    let read = |name: &str| std::fs::read_to_string(repository.join(name)).expect("it is there");
    let readme = read("README.md");
    let line = readme.lines().find(|line| line.contains("docker-compose exec scheduler"));
    let job = "longshore submit examples/wordcount.json --wait";
    assert!(line.is_some_and(|line| line.trim().ends_with(job)), "{line:?}");
    let dockerfile = read("Dockerfile");
    let folder = dockerfile.lines().filter_map(|line| line.strip_prefix("WORKDIR ")).next_back();
    let mount = format!("- ./examples:{}/examples:ro", folder.expect("a folder"));
    let compose = read("docker-compose.yml");
    let (shared, services) = compose.split_once("\nservices:\n").expect("services");
    assert!(shared.lines().any(|line| line.trim() == mount), "{mount}: {shared}");
    for service in ["scheduler", "worker"] {
        let of_image = format!("  {service}:\n    <<: *longshore\n    command: {service}\n");
        assert!(services.contains(&of_image), "{service} is what the image is, and no more");
    }
}

#[test]
fn the_word_count_of_the_readme_is_that_of_tr_sort_and_uniq() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cli/ lies in it");
    let run = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["run", "examples/wordcount.json"])
        .current_dir(repository)
        .env_remove("RUST_LOG")
        .output()
        .expect("longshore starts");
    assert_eq!(String::from_utf8_lossy(&run.stderr), "");
    let ours: BTreeMap<String, u64> = serde_json::from_slice(&run.stdout).expect("a map of counts");
    let pipeline =
        "cat examples/text/*.txt | tr -cs A-Za-z '\\n' | tr A-Z a-z | grep . | sort | uniq -c";
    let theirs = Command::new("sh")
        .args(["-c", pipeline])
        .current_dir(repository)
        .env("LC_ALL", "C")
        .output()
        .expect("sh runs");
    let theirs: BTreeMap<String, u64> = String::from_utf8_lossy(&theirs.stdout)
        .lines()
        .map(|line| line.trim().split_once(' ').expect("a count and a word"))
        .map(|(count, word)| (word.to_owned(), count.parse().expect("a number")))
        .collect();
    assert!(theirs.len() > 100, "there is something to count");
    assert_eq!(ours, theirs);
    let keys: Vec<&str> =
        std::str::from_utf8(&run.stdout).expect("text").split('"').skip(1).step_by(2).collect();
    assert!(keys.is_sorted(), "the words stand in order");
}
