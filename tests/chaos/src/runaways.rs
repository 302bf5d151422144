//! Processes that run away from the command that started them, and how they are found.
//!
//! Each carries in its environment the folder of the run and the command's process. Deliberately
//! absent: any way that Longshore uses itself to find them.

use std::process::{Command, Stdio};
use std::{fs, io};

/// Names the folder of the run.
const RUN: &str = "LONGSHORE_CHAOS_RUN";
/// Names the process of the command.
const COMMAND: &str = "LONGSHORE_CHAOS_COMMAND";

/// Out of the process group by `timeout`, out of the session by `setsid`, and away from the parent.
const SCRIPT: &str = "timeout 900 sleep 900 & (setsid sh -c 'sleep 900 & exit' &)";

/// One that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runaway {
    /// Its process.
    pub pid: u32,
    /// The process of the command that started it.
    pub command: u32,
}

/// Starts some, as the command of a run with this folder would.
///
/// # Errors
/// When there is no shell.
pub fn start(folder: &str, command: u32) -> io::Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT]).env(RUN, folder).env(COMMAND, command.to_string());
    // Whatever holds the output must not hold up the command; that it may, others have tested.
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().map(drop)
}

/// Those of a run whose command has ended.
///
/// # Panics
/// Where there is no `/proc`.
pub fn left(folder: &str) -> Vec<Runaway> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runaways = pids.filter_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = |name: &str| {
            let mut variables = environment.split(|byte| *byte == 0);
            variables.find_map(|it| it.strip_prefix(format!("{name}=").as_bytes()))
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
    fn what_nobody_holds_is_found_once_its_command_has_ended() {
        let folder = format!("/no/such/run/{}", std::process::id());
        let mut command = Command::new("sleep").arg("900").spawn().expect("sleep");
        start(&folder, command.id()).expect("a shell");
        assert_eq!(left(&folder), [], "its command runs");
        command.kill().expect("it runs");
        command.wait().expect("our child");
        longshore_test_servers::wait_until("both are found", crate::crew::LONG, || {
            left(&folder).iter().filter(|runaway| runaway.command == command.id()).count() >= 2
        });
        for runaway in left(&folder) {
            let _ = Command::new("kill").args(["-KILL", &runaway.pid.to_string()]).status();
        }
    }
}
