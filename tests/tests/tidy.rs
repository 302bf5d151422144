//! Rules about the repository's text that no compiler checks.
//!
//! A rule is a pure function of a file's path and text, which gives its complaints. Every rule has
//! a broken input below that it catches.

use std::fs;
use std::path::Path;

type Rule = fn(&str, &str) -> Vec<String>;

const RULES: [Rule; 10] = [
    short_enough,
    lua_says_its_keys,
    lua_decides_by_predicates,
    rust_decides_by_predicates,
    clients_stay_in_their_rooms,
    twins_know_no_client,
    the_engine_is_pure,
    rooms_lean_downwards,
    nothing_of_one_machine,
    silence_has_a_reason,
];

const LONGEST: usize = 600;

/// Rooms by floor; a room may lean only on lower floors.
const FLOORS: [(&str, u8); 11] = [
    ("protocol", 0),
    ("broker", 1),
    ("ledger", 1),
    ("storage", 1),
    ("producer", 2),
    ("scheduler", 2),
    ("worker", 2),
    ("bench", 3),
    ("closed-stdout", 3),
    ("cli", 4),
    ("tests", 5),
];

/// What the pure engine may not name, and why it would not be pure any more.
const IMPURE: [(&str, &str); 8] = [
    ("async fn", "waits"),
    (".await", "waits"),
    ("tokio::", "waits"),
    ("Instant", "reads a clock"),
    ("SystemTime", "reads a clock"),
    ("Timestamp::now", "reads a clock"),
    ("rand::", "draws randomness"),
    ("tracing::", "logs"),
];

fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// The lines of Rust that are neither comments nor unit tests, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Whether a line names something at the start of a path: `redis::`, but not `crate::redis::`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn short_enough(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let judged = ["rs", "lua", "py"].contains(&extension(path));
    if !judged || lines <= LONGEST {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines; at most {LONGEST}, so split it")]
}

fn lua_says_its_keys(path: &str, text: &str) -> Vec<String> {
    let Some(file) = path.strip_prefix("ledger/lua/") else { return Vec::new() };
    let Some(operation) = file.strip_suffix(".lua") else { return Vec::new() };
    if operation.starts_with('_') {
        return Vec::new();
    }
    let Some((header, body)) = text.split_once("]]") else {
        return vec![format!("{path}: no header comment --[[ … ]]")];
    };
    let opening = format!("--[[ {operation}:");
    // An operation without arguments has none to tell of.
    let takes = ["KEYS", "ARGV"].into_iter().filter(|given| body.contains(given));
    let wanted = [opening.as_str(), "Output"].into_iter().chain(takes);
    let missing = wanted.filter(|word| !header.contains(word));
    missing.map(|word| format!("{path}: the header comment lacks `{word}`")).collect()
}

/// The words of the states of jobs and chunks.
const STATES: [&str; 8] =
    ["queued", "running", "reducing", "paused", "succeeded", "failed", "cancelled", "rejected"];

/// Lua neither compares with the name of a state nor sets one: the tables that are generated from
/// `protocol` say what a state allows. Counts and answers may have the same names.
fn lua_decides_by_predicates(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("ledger/lua/") {
        return Vec::new();
    }
    let forms = ["== {}", "~= {}", "{} ==", "{} ~=", "state = {}", "'state', {}", "[{}]"];
    let code = text.split_once("]]").map_or(text, |(_, code)| code);
    let mut complaints = Vec::new();
    for line in code.lines().map(|line| line.split("--").next().unwrap_or_default()) {
        for state in STATES {
            let quoted = [format!("'{state}'"), format!("\"{state}\"")];
            let names =
                |form: &str| quoted.iter().any(|word| line.contains(&form.replace("{}", word)));
            if forms.into_iter().any(names) {
                let line = line.trim();
                complaints
                    .push(format!("{path}: decides by the name of the state {state}: {line}"));
            }
        }
    }
    complaints
}

/// Outside of `protocol`, Rust asks a state's methods (`feeds()`, `is_terminal()`, …) and does not
/// compare it. Tests compare what they expect.
fn rust_decides_by_predicates(path: &str, text: &str) -> Vec<String> {
    let is_test = ["tests/", "tests.rs", "conformance"].iter().any(|part| path.contains(part));
    if extension(path) != "rs" || path.starts_with("protocol/") || is_test {
        return Vec::new();
    }
    let compares = |line: &str| {
        let forms = ["== JobState::", "!= JobState::", "{ state: JobState::"];
        forms.iter().any(|form| line.contains(form))
            || line.contains("matches!(") && line.contains("JobState::")
    };
    code(text)
        .filter(|(_, line)| compares(line))
        .map(|(number, _)| format!("{path}:{number}: compares a state; ask one of its methods"))
        .collect()
}

fn dependencies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            return None;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        let depends = section.ends_with("dependencies") && section != "workspace.dependencies";
        (depends && !name.is_empty() && !name.starts_with('#')).then_some((section, name))
    })
}

fn clients_stay_in_their_rooms(path: &str, text: &str) -> Vec<String> {
    let Some(room) = path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let owner = |name: &str| match name {
        "lapin" => Some("broker"),
        "redis" | "deadpool-redis" => Some("ledger"),
        _ => None,
    };
    // The benchmark measures both without us in between.
    let is_yardstick = |name: &str| room == "bench" && ["lapin", "redis"].contains(&name);
    dependencies(text)
        .filter_map(|(_, name)| Some((name, owner(name)?)))
        .filter(|(name, owner)| *owner != room && !is_yardstick(name))
        .map(|(name, owner)| format!("{path}: only {owner} may depend on {name}"))
        .collect()
}

fn twins_know_no_client(path: &str, text: &str) -> Vec<String> {
    let clients: &[&str] = match path.split_once("/src/") {
        Some(("broker", file)) if !file.starts_with("rabbit") => &["lapin"],
        Some(("ledger", file)) if !file.starts_with("redis") => &["redis::", "deadpool_redis"],
        _ => return Vec::new(),
    };
    let mut complaints = Vec::new();
    for (number, line) in code(text) {
        for client in clients.iter().filter(|client| names(line, client)) {
            complaints.push(format!("{path}:{number}: names {client} outside its own module"));
        }
    }
    complaints
}

fn the_engine_is_pure(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("scheduler/src/engine") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (number, line) in code(text) {
        for (word, why) in IMPURE.iter().filter(|(word, _)| line.contains(word)) {
            complaints.push(format!("{path}:{number}: `{word}`: the engine never {why}"));
        }
    }
    complaints
}

fn rooms_lean_downwards(path: &str, text: &str) -> Vec<String> {
    let Some(room) = path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let floor_of = |room: &str| FLOORS.iter().find(|(name, _)| *name == room).map(|(_, at)| *at);
    let Some(floor) = floor_of(room) else { return Vec::new() };
    let mut complaints = Vec::new();
    for (section, name) in dependencies(text) {
        let below = match name.strip_prefix("longshore-") {
            // A floor below all, but only tests may stand on it.
            Some("test-servers") => section == "dev-dependencies" || room == "tests",
            // A room's own tests may switch on its features.
            Some(other) if other == room => section == "dev-dependencies",
            Some(other) => floor_of(other).is_some_and(|other| other < floor),
            None => name != "longshore" || room == "tests",
        };
        if !below {
            complaints.push(format!("{path}: {name} is not on a floor below {room}"));
        }
    }
    complaints
}

fn nothing_of_one_machine(path: &str, text: &str) -> Vec<String> {
    // Put together from halves, or this file would complain about itself.
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
    let unmerged = [concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(home) = homes.iter().find(|home| line.contains(**home)) {
            complaints.push(format!("{path}:{}: {home} is somebody's own folder", index + 1));
        }
        if unmerged.iter().any(|mark| line.starts_with(mark)) {
            complaints.push(format!("{path}:{}: a merge was left half done", index + 1));
        }
    }
    complaints
}

fn silence_has_a_reason(path: &str, text: &str) -> Vec<String> {
    if extension(path) != "rs" {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let attribute = line.trim_start();
        let attribute = attribute.strip_prefix("#![").or_else(|| attribute.strip_prefix("#["));
        let Some(attribute) = attribute else { continue };
        // An attribute may run over several lines, up to the bracket that closes it.
        let rest: Vec<&str> = text.lines().skip(index).take(6).collect();
        let rest = rest.join(" ");
        let whole = rest.split_once(")]").map_or(rest.as_str(), |(whole, _)| whole);
        let silences = ["allow(", "expect("].iter().any(|word| attribute.starts_with(word));
        if attribute.starts_with("ignore]") || silences && !whole.contains("reason =") {
            complaints.push(format!("{path}:{}: say why: {line}", index + 1));
        }
    }
    complaints
}

/// All text files of the repository, as paths from its top and their texts.
fn files() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    let mut folders = vec![top.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            if path.is_dir() {
                if ![".git", "target", "__pycache__"].contains(&name) {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(top).expect("below the top");
                files.push((path.to_str().expect("plain names").to_owned(), text));
            }
        }
    }
    files
}

#[test]
fn the_repository_is_tidy() {
    let files = files();
    for judged in ["Cargo.toml", "tests/tests/tidy.rs", "protocol/src/lib.rs"] {
        assert!(files.iter().any(|(path, _)| path == judged), "{judged} was not looked at");
    }
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| RULES.iter().flat_map(move |rule| rule(path, text)))
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Exactly one rule complains, once, in these words.
#[track_caller]
fn caught(path: &str, text: &str, complaint: &str) {
    let complaints: Vec<String> = RULES.iter().flat_map(|rule| rule(path, text)).collect();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains(complaint), "{complaints:?}");
}

#[track_caller]
fn accepted(path: &str, text: &str) {
    let complaints: Vec<String> = RULES.iter().flat_map(|rule| rule(path, text)).collect();
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn long_files_are_caught() {
    caught("worker/src/lib.rs", &"\n".repeat(LONGEST + 1), "601 lines");
    accepted("worker/src/lib.rs", &"\n".repeat(LONGEST));
    accepted("Cargo.lock", &"\n".repeat(LONGEST + 1));
}

#[test]
fn lua_without_its_header_is_caught() {
    let header = "--[[ renew: extend a lease\n  KEYS[1] job\n  ARGV[1] token\n  Output {} ]]\n";
    accepted("ledger/lua/renew.lua", header);
    accepted("ledger/lua/_books.lua", "local function counts() end\n");
    caught("ledger/lua/renew.lua", "return 1\n", "no header");
    caught("ledger/lua/renew.lua", &header.replace("Output", ""), "lacks `Output`");
    let body = format!("{}return ARGV[1]\n", header.replace("ARGV", "what"));
    caught("ledger/lua/renew.lua", &body, "lacks `ARGV`");
    caught("ledger/lua/claim.lua", header, "lacks `--[[ claim:`");
}

#[test]
fn lua_that_decides_by_the_name_of_a_state_is_caught() {
    let path = "ledger/lua/_renewal.lua";
    let complaint = "by the name of the state paused";
    caught(path, "if jobs.state(job) == 'paused' then\n", complaint);
    caught(path, "if 'paused' ~= state then\n", complaint);
    caught(path, "jobs.set(job, 'state', 'paused')\n", complaint);
    caught(path, "local chunk = { state = \"queued\" }\n", "by the name of the state queued");
    accepted(path, "--[[ state == 'paused' ]]\n-- state == 'paused'\nreturn { 'paused' }\n");
    accepted(path, "jobs.add(job, prefix .. 'queued', 1)\n");
    accepted("ledger/src/redis/x.rs", "let lua = \"state == 'paused'\";\n");
}

#[test]
fn rust_that_decides_by_the_name_of_a_state_is_caught() {
    let line = "    if job.state == JobState::Paused {\n";
    caught("worker/src/pipeline.rs", line, "pipeline.rs:1: compares a state");
    let line = "let feeds = matches!(state, JobState::Queued | JobState::Running);\n";
    caught("worker/src/pipeline.rs", line, "compares a state");
    accepted("worker/src/pipeline.rs", "let state = JobState::Paused;\n");
    accepted("worker/src/pipeline.rs", "#[cfg(test)]\nassert!(state == JobState::Paused);\n");
    accepted("protocol/src/state.rs", "self == JobState::Paused\n");
}

#[test]
fn clients_in_a_wrong_room_are_caught() {
    let depends = "[dependencies]\nlapin.workspace = true\n";
    caught("worker/Cargo.toml", depends, "only broker may depend on lapin");
    caught("broker/Cargo.toml", "[dev-dependencies]\nredis = \"1\"\n", "only ledger");
    accepted("broker/Cargo.toml", depends);
    accepted("bench/Cargo.toml", depends);
    caught("bench/Cargo.toml", "[dependencies]\ndeadpool-redis = \"1\"\n", "only ledger");
    accepted("Cargo.toml", "[workspace.dependencies]\nlapin = \"4\"\n");
}

#[test]
fn clients_in_a_memory_twin_are_caught() {
    caught("broker/src/memory.rs", "use lapin::Channel;\n", "memory.rs:1: names lapin");
    caught("ledger/src/lib.rs", "fn f(c: redis::Client) {}\n", "names redis::");
    accepted("ledger/src/lib.rs", "//! Over redis::Client.\npub use crate::redis::Ledger;\n");
    accepted("ledger/src/redis/pool.rs", "use deadpool_redis::Pool;\n");
}

#[test]
fn an_engine_that_is_not_pure_is_caught() {
    let path = "scheduler/src/engine/window.rs";
    caught(path, "use std::time::Instant;\n", "never reads a clock");
    caught(path, "fn f() {}\nasync fn g() {}\n", "window.rs:2");
    accepted(path, "// Instant is not for here.\n#[cfg(test)]\nuse rand::random;\n");
    accepted("scheduler/src/service.rs", "use std::time::Instant;\n");
}

#[test]
fn rooms_that_lean_upwards_or_sideways_are_caught() {
    let on = |room: &str| format!("[dependencies]\nlongshore-{room}.workspace = true\n");
    caught("protocol/Cargo.toml", &on("broker"), "not on a floor below protocol");
    caught("worker/Cargo.toml", &on("scheduler"), "not on a floor below worker");
    caught("worker/Cargo.toml", &on("test-servers"), "longshore-test-servers");
    accepted("worker/Cargo.toml", &on("ledger"));
    accepted("worker/Cargo.toml", &on("worker").replace('[', "[dev-"));
    accepted("worker/Cargo.toml", &on("test-servers").replace('[', "[dev-"));
}

#[test]
fn traces_of_one_machine_are_caught() {
    caught("README.md", concat!("see /ho", "me/me/x\n"), "somebody's own folder");
    caught("README.md", concat!("<<<<", "<<< mine\n"), "half done");
}

#[test]
fn silence_without_a_reason_is_caught() {
    caught("worker/src/lib.rs", "#[ignore]\n", "say why");
    caught("worker/src/lib.rs", "#![allow(dead_code)]\n", "say why");
    accepted("worker/src/lib.rs", "#[expect(\n    dead_code,\n    reason = \"soon\"\n)]\n");
    accepted("worker/src/lib.rs", "#[ignore = \"run by the other\"]\n");
}
