//! Starts processes that escape from the command that started them, and finds them again.
//!
//! Each has the folder of the run and the process id of the command in its environment.
//! Deliberately absent: the methods by which Longshore itself finds them.

use std::process::{Command, Stdio};
use std::{fs, io};

/// The environment variable with the folder of the run.
const RUN: &str = "LONGSHORE_CHAOS_RUN";
/// The environment variable with the process id of the command.
const COMMAND: &str = "LONGSHORE_CHAOS_COMMAND";

/// Escapes from the process group by `timeout`, from the session by `setsid`, and from the parent.
const SCRIPT: &str = "timeout 900 sleep 900 & (setsid sh -c 'sleep 900 & exit' &)";

/// A process that outlives its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runaway {
    /// The process id.
    pub pid: u32,
    /// The process id of the command that started it.
    pub command: u32,
}

/// Starts processes that escape from this command.
///
/// # Errors
/// When there is no shell.
pub fn start(folder: &str, command: u32) -> io::Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT]).env(RUN, folder).env(COMMAND, command.to_string());
    // A process that holds the output of the command would delay its end; other tests cover that.
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().map(drop)
}

/// The processes of a run whose command has ended.
///
/// # Panics
/// Without `/proc`.
pub fn left(folder: &str) -> Vec<Runaway> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runaways = pids.filter_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = |name: &str| {
            let mut variables = environment.split(|byte| *byte == 0);
            variables.find_map(|variable| variable.strip_prefix(format!("{name}=").as_bytes()))
        };
        let command = std::str::from_utf8(value(COMMAND)?).ok()?.parse().ok()?;
        (value(RUN)? == folder.as_bytes()).then_some(Runaway { pid, command })
    });
    runaways.filter(|runaway| !lives(runaway.command)).collect()
}

fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_processes_are_found_once_their_command_has_ended() {
        let folder = format!("/no/such/run/{}", std::process::id());
        let mut command = Command::new("sleep").arg("900").spawn().expect("sleep");
        start(&folder, command.id()).expect("a shell");
        assert_eq!(left(&folder), [], "its command runs");
        command.kill().expect("it runs");
        command.wait().expect("our child");
        longshore_test_servers::wait_until("both are found", crate::cluster::LONG, || {
            left(&folder).iter().filter(|runaway| runaway.command == command.id()).count() >= 2
        });
        for runaway in left(&folder) {
            let _ = Command::new("kill").args(["-KILL", &runaway.pid.to_string()]).status();
        }
    }
}
