//! The Redis Function library `longshore_v1`, put together from `lua/`: a head with the protocol's
//! table of transitions, the shared pieces (`_*.lua`), and every operation as one function
//! `longshore_<operation>`.
//!
//! Deliberately absent: any decision about states in Lua; the head is generated from
//! `JobState::on`.

use std::fmt::Write as _;
use std::sync::LazyLock;

use longshore_protocol::state::{JobEvent, JobState};
use sha2::{Digest as _, Sha256};

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
    "_job",
    "_admission",
    "_bits",
    "_chunks",
    "_poison",
    "_recoveries",
    "_results",
    "_errors",
    "_fleet",
    "_settle",
    "_hints",
    "_opening",
];

/// Operations.
const OPERATIONS: &[(&str, &str)] = lua![
    "admit",
    "advance",
    "archive",
    "register_scheduler",
    "audit",
    "beat",
    "cancel",
    "record_crash",
    "claim",
    "clock",
    "commit",
    "copy",
    "delete",
    "drain",
    "isolate",
    "refund_attempts",
    "fail",
    "held",
    "holders",
    "job",
    "lose",
    "news",
    "open",
    "pause",
    "recoveries",
    "reject",
    "release",
    "restore",
    "results",
    "resume",
    "retry",
    "revoke",
    "sweep",
];

/// The library as it is loaded.
pub struct Library {
    /// For `FUNCTION LOAD`.
    pub source: String,
    /// SHA-256 of everything but the function that tells it, in hex.
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
         callback = function(KEYS, ARGV)\njob.take_time(ARGV)\n{text}end,\n}}\n",
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
/// that the job was paused in, and nil where the event is not allowed. `ENDED[state]` is true at
/// the end.
fn transitions() -> String {
    let mut head = String::from("local NEXT = {\n");
    for state in JobState::ALL {
        let moves: Vec<String> = JobEvent::ALL
            .into_iter()
            .filter_map(|event| Some(format!("{event} = '{}'", next(state, event)?)))
            .collect();
        let _ = writeln!(head, "  {state} = {{ {} }},", moves.join(", "));
    }
    head.push_str("}\nlocal ENDED = {\n");
    for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
        let _ = writeln!(head, "  {state} = true,");
    }
    head.push_str("}\n");
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
        assert_eq!(moves, table.split("ENDED").next().map_or(0, |t| t.matches(" = '").count()));
    }

    #[test]
    fn flags_come_from_the_header() {
        assert!(is_read_only("job") && is_read_only("held") && is_read_only("audit"));
        assert!(!is_read_only("commit") && !is_read_only("beat"));
        assert!(LIBRARY.source.contains("function_name = 'longshore_commit'"));
        assert_eq!(LIBRARY.digest.len(), 64);
    }
}
