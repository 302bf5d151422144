//! Rules about files, crates and their dependencies.

use crate::extension;

/// The limit of a source file, in lines.
const LONGEST: usize = 600;

/// Crates by layer; a crate may depend only on lower layers.
const LAYERS: [(&str, u8); 14] = [
    ("protocol", 0),
    ("tls", 0),
    ("broker", 1),
    ("ledger", 1),
    ("storage", 1),
    ("producer", 2),
    ("scheduler", 2),
    ("worker", 2),
    ("api", 3),
    ("longshore", 3),
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

pub(crate) fn files_are_short(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let judged = ["rs", "lua", "py"].contains(&extension(path));
    if !judged || lines <= LONGEST {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines; at most {LONGEST}, so split it")]
}

pub(crate) fn lua_operations_have_headers(path: &str, text: &str) -> Vec<String> {
    let Some(file) = path.strip_prefix("ledger/lua/") else { return Vec::new() };
    let Some(operation) = file.strip_suffix(".lua") else { return Vec::new() };
    if operation.starts_with('_') {
        return Vec::new();
    }
    let Some((header, body)) = text.split_once("]]") else {
        return vec![format!("{path}: no header comment --[[ … ]]")];
    };
    let opening = format!("--[[ {operation}:");
    // An operation without arguments has none to describe.
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
pub(crate) fn lua_decides_by_predicates(path: &str, text: &str) -> Vec<String> {
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
pub(crate) fn rust_decides_by_predicates(path: &str, text: &str) -> Vec<String> {
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

pub(crate) fn clients_stay_in_their_crates(path: &str, text: &str) -> Vec<String> {
    let Some(krate) = path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let owner = |name: &str| match name {
        "lapin" => Some("broker"),
        "redis" | "deadpool-redis" => Some("ledger"),
        _ => None,
    };
    // The benchmark measures both servers without Longshore in between.
    let is_baseline = |name: &str| krate == "bench" && ["lapin", "redis"].contains(&name);
    dependencies(text)
        .filter_map(|(_, name)| Some((name, owner(name)?)))
        .filter(|(name, owner)| *owner != krate && !is_baseline(name))
        .map(|(name, owner)| format!("{path}: only {owner} may depend on {name}"))
        .collect()
}

pub(crate) fn memory_implementations_know_no_client(path: &str, text: &str) -> Vec<String> {
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

pub(crate) fn the_engine_is_pure(path: &str, text: &str) -> Vec<String> {
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

pub(crate) fn crates_depend_downwards(path: &str, text: &str) -> Vec<String> {
    let Some(krate) = path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let layer_of = |krate: &str| LAYERS.iter().find(|(name, _)| *name == krate).map(|(_, at)| *at);
    let Some(layer) = layer_of(krate) else { return Vec::new() };
    let mut complaints = Vec::new();
    for (section, name) in dependencies(text) {
        let is_below = match name.strip_prefix("longshore-") {
            // Below all layers, and for tests only.
            Some("test-servers") => section == "dev-dependencies" || krate == "tests",
            // A crate's own tests may switch on its features.
            Some(other) if other == krate => section == "dev-dependencies",
            Some(other) => layer_of(other).is_some_and(|other| other < layer),
            None => name != "longshore" || krate == "tests",
        };
        if !is_below {
            complaints.push(format!("{path}: {name} is not on a layer below {krate}"));
        }
    }
    complaints
}

pub(crate) fn nothing_belongs_to_one_machine(path: &str, text: &str) -> Vec<String> {
    // Put together from halves, because this file is judged, too.
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
    let unmerged = [concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(home) = homes.iter().find(|home| line.contains(**home)) {
            complaints.push(format!("{path}:{}: {home} is a folder of one machine", index + 1));
        }
        if unmerged.iter().any(|mark| line.starts_with(mark)) {
            complaints.push(format!("{path}:{}: a mark of an unfinished merge", index + 1));
        }
    }
    complaints
}

pub(crate) fn lints_are_silenced_with_a_reason(path: &str, text: &str) -> Vec<String> {
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

#[cfg(test)]
mod proofs {
    use super::LONGEST;
    use crate::{accepted, caught};

    #[test]
    fn long_files_are_caught() {
        caught("worker/src/lib.rs", &"\n".repeat(LONGEST + 1), "601 lines");
        accepted("worker/src/lib.rs", &"\n".repeat(LONGEST));
        accepted("Cargo.lock", &"\n".repeat(LONGEST + 1));
    }

    #[test]
    fn lua_without_its_header_is_caught() {
        let header = "--[[ renew: renew a lease.\n  KEYS[1] job\n  ARGV[1] token\n  Output {} ]]\n";
        accepted("ledger/lua/renew.lua", header);
        accepted("ledger/lua/_counts.lua", "local function counts() end\n");
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
        accepted(path, "--[[ state == 'paused'. ]]\n-- state == 'paused'\nreturn { 'paused' }\n");
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
    fn clients_in_a_wrong_crate_are_caught() {
        let depends = "[dependencies]\nlapin.workspace = true\n";
        caught("worker/Cargo.toml", depends, "only broker may depend on lapin");
        caught("broker/Cargo.toml", "[dev-dependencies]\nredis = \"1\"\n", "only ledger");
        accepted("broker/Cargo.toml", depends);
        accepted("bench/Cargo.toml", depends);
        caught("bench/Cargo.toml", "[dependencies]\ndeadpool-redis = \"1\"\n", "only ledger");
        accepted("Cargo.toml", "[workspace.dependencies]\nlapin = \"4\"\n");
    }

    #[test]
    fn clients_in_a_memory_implementation_are_caught() {
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
    fn dependencies_upwards_or_sideways_are_caught() {
        let on = |krate: &str| format!("[dependencies]\nlongshore-{krate}.workspace = true\n");
        caught("protocol/Cargo.toml", &on("broker"), "not on a layer below protocol");
        caught("worker/Cargo.toml", &on("scheduler"), "not on a layer below worker");
        caught("worker/Cargo.toml", &on("test-servers"), "longshore-test-servers");
        accepted("worker/Cargo.toml", &on("ledger"));
        accepted("worker/Cargo.toml", &on("worker").replace('[', "[dev-"));
        accepted("worker/Cargo.toml", &on("test-servers").replace('[', "[dev-"));
    }

    #[test]
    fn folders_of_one_machine_and_marks_of_merges_are_caught() {
        caught("README.md", concat!("see /ho", "me/me/x\n"), "a folder of one machine");
        caught("README.md", concat!("<<<<", "<<< mine\n"), "unfinished merge");
    }

    #[test]
    fn lints_silenced_without_a_reason_are_caught() {
        caught("worker/src/lib.rs", "#[ignore]\n", "say why");
        caught("worker/src/lib.rs", "#![allow(dead_code)]\n", "say why");
        accepted("worker/src/lib.rs", "#[expect(\n    dead_code,\n    reason = \"soon\"\n)]\n");
        accepted("worker/src/lib.rs", "#[ignore = \"run by the other\"]\n");
    }
}
