//! Assembles the Redis Function library `longshore_v1` from `lua/` and from generated tables.
//!
//! It has a head of generated tables, the shared pieces (`_*.lua`), and every operation as one
//! function `longshore_<operation>`.
//!
//! The head holds the table of transitions and the predicates of `JobState`, and the fields of a
//! new job. Deliberately absent: any decision about states in Lua.

use std::fmt::Write as _;
use std::sync::LazyLock;

use longshore_protocol::state::{ChunkState, JobEvent, JobState};
use sha2::{Digest as _, Sha256};

use super::job_fields;

/// Its name in Redis.
pub const NAME: &str = "longshore_v1";

/// Gives the digest of the source that is loaded.
pub const VERSION_FUNCTION: &str = "longshore_version";

macro_rules! lua {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../lua/", $name, ".lua")))),+]
    };
}

/// Shared pieces, each before those that use it.
const PIECES: &[(&str, &str)] = lua![
    "_jobs",
    "_admission",
    "_bitmap",
    "_chunks",
    "_poison",
    "_recoveries",
    "_results",
    "_subtask_errors",
    "_node_changes",
    "_lifecycle",
    "_hints",
    "_chunk_opening",
];

/// Operations.
const OPERATIONS: &[(&str, &str)] = lua![
    "add_api_token",
    "admit",
    "advance_journal",
    "announce_node",
    "archive",
    "audit",
    "beat",
    "cancel",
    "check_held",
    "claim",
    "clock",
    "commit",
    "declare_lost",
    "delete",
    "drain",
    "fail",
    "holders",
    "isolate",
    "job",
    "map",
    "offer_speculative",
    "open",
    "pause",
    "record_action",
    "record_crash",
    "recoveries",
    "refund_attempts",
    "register_scheduler",
    "reject",
    "release",
    "restore",
    "results",
    "resume",
    "retry",
    "revoke",
    "sweep",
    "undrain",
];

/// The library as Redis loads it.
pub struct Library {
    /// For `FUNCTION LOAD`.
    pub source: String,
    /// SHA-256 of everything but the function that returns the digest, in hex.
    pub digest: String,
}

/// The library that this build brings.
pub static LIBRARY: LazyLock<Library> = LazyLock::new(assemble);

/// The full name of an operation's function.
pub fn function(operation: &str) -> String {
    format!("longshore_{operation}")
}

/// Whether the operation writes nothing, so that `FCALL_RO` may call it.
pub fn is_read_only(operation: &str) -> bool {
    OPERATIONS
        .iter()
        .find(|(name, _)| *name == operation)
        .is_some_and(|(_, text)| flags(text).contains(&"no-writes"))
}

fn assemble() -> Library {
    let mut body = transitions();
    body.push_str(&states());
    body.push_str(&job_fields::lua_tables());
    for (_, text) in PIECES {
        body.push_str(text);
        body.push('\n');
    }
    for (operation, text) in OPERATIONS {
        register(&mut body, &function(operation), &flags(text), text);
    }
    let digest: String = Sha256::digest(&body).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let version = format!("return '{digest}'\n");
    register(&mut body, VERSION_FUNCTION, &["no-writes"], &version);
    Library { source: format!("#!lua name={NAME}\n{body}"), digest }
}

fn register(body: &mut String, function: &str, flags: &[&str], text: &str) {
    let flags: Vec<String> = flags.iter().map(|flag| format!("'{flag}'")).collect();
    let _ = write!(
        body,
        "redis.register_function{{\nfunction_name = '{function}',\nflags = {{ {} }},\n\
         callback = function(KEYS, ARGV)\njobs.take_time(ARGV)\n{text}end,\n}}\n",
        flags.join(", ")
    );
}

/// The flags in the header of an operation: the words after `Flags`.
fn flags(text: &str) -> Vec<&str> {
    let header = text.split("]]").next().unwrap_or_default();
    header
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("Flags"))
        .flat_map(str::split_whitespace)
        .collect()
}

/// `NEXT[state][event]` is the state that the event leads to, `paused_from` where that is the state
/// that the job was paused in, and nil where the event is not allowed.
fn transitions() -> String {
    let mut head = String::from("local NEXT = {\n");
    for state in JobState::ALL {
        let moves: Vec<String> = JobEvent::ALL
            .into_iter()
            .filter_map(|event| Some(format!("{event} = '{}'", next(state, event)?)))
            .collect();
        let _ = writeln!(head, "  {state} = {{ {} }},", moves.join(", "));
    }
    head.push_str("}\n");
    head
}

/// A table for each predicate of [`JobState::PREDICATES`], `FEEDS[state]` and so on, which is true
/// or nil; and the words of the states that Lua writes by itself.
fn states() -> String {
    let mut head = String::new();
    for (name, holds) in JobState::PREDICATES {
        let states = JobState::ALL.into_iter().filter(|state| holds(*state));
        let entries: Vec<String> = states.map(|state| format!("{state} = true")).collect();
        let _ = writeln!(head, "local {name} = {{ {} }}", entries.join(", "));
    }
    for (name, word) in [
        ("INITIAL_STATE", JobState::INITIAL.as_str()),
        ("REJECTED_STATE", JobState::Rejected.as_str()),
        ("CHUNK_QUEUED", ChunkState::QUEUED),
        ("CHUNK_RUNNING", ChunkState::RUNNING),
    ] {
        let _ = writeln!(head, "local {name} = '{word}'");
    }
    head
}

fn next(state: JobState, event: JobEvent) -> Option<&'static str> {
    let from_running = state.on(event, JobState::Running).ok()?;
    let from_queued = state.on(event, JobState::Queued).ok()?;
    Some(if from_running == from_queued { from_running.as_str() } else { "paused_from" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_the_library() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/lua");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(|file| file.ends_with(".lua"))
            .collect();
        files.sort();
        let mut known: Vec<String> =
            PIECES.iter().chain(OPERATIONS).map(|(name, _)| format!("{name}.lua")).collect();
        known.sort();
        assert_eq!(files, known);
    }

    #[test]
    fn every_operation_opens_with_its_header() {
        for (name, text) in OPERATIONS {
            assert!(text.starts_with(&format!("--[[ {name}: ")), "{name} opens with its name");
            let header = text.split("]]").next().unwrap_or_default();
            assert!(header.contains("  KEYS[1] "), "{name} names its keys");
            assert!(header.contains("  Output  "), "{name} names its output");
            let arguments = text[header.len()..].contains("ARGV");
            assert_eq!(header.contains("  ARGV[1"), arguments, "{name} names its arguments");
        }
        for (name, text) in PIECES {
            assert!(text.starts_with(&format!("--[[ {name}: ")), "{name} opens with its name");
        }
    }

    #[test]
    fn the_table_of_transitions_is_the_protocols() {
        let table = transitions();
        let mut moves = 0;
        for state in JobState::ALL {
            let row = format!("  {state} = {{ ");
            let row = table.lines().find(|line| line.starts_with(&row)).expect("a row a state");
            let cells: Vec<&str> = row[row.find('{').unwrap_or_default() + 1..]
                .trim_end_matches([' ', '}', ','])
                .split(',')
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect();
            for event in JobEvent::ALL {
                let cell = cells.iter().find_map(|cell| cell.strip_prefix(&format!("{event} = ")));
                for paused_from in [JobState::Queued, JobState::Running, JobState::Reducing] {
                    let expected = state.on(event, paused_from).ok();
                    let found = cell.map(|to| match to.trim_matches('\'') {
                        "paused_from" => paused_from.as_str(),
                        word => word,
                    });
                    assert_eq!(found, expected.map(JobState::as_str), "{state} on {event}");
                }
                moves += usize::from(cell.is_some());
            }
        }
        assert_eq!(moves, table.matches(" = '").count());
    }

    #[test]
    fn the_predicates_of_a_state_are_the_protocols() {
        let tables = states();
        for (name, holds) in JobState::PREDICATES {
            let row = format!("local {name} = {{ ");
            let row =
                tables.lines().find_map(|line| line.strip_prefix(&row)).expect("a table each");
            let listed: Vec<&str> = row.trim_end_matches(" }").split(", ").collect();
            for state in JobState::ALL {
                let entry = format!("{state} = true");
                assert_eq!(listed.contains(&entry.as_str()), holds(state), "{name} of {state}");
            }
        }
    }

    #[test]
    fn flags_come_from_the_header() {
        assert!(is_read_only("job") && is_read_only("check_held") && is_read_only("audit"));
        assert!(!is_read_only("commit") && !is_read_only("beat"));
        assert!(LIBRARY.source.contains("function_name = 'longshore_commit'"));
        assert_eq!(LIBRARY.digest.len(), 64);
    }
}
