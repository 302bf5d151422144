//! Finds the descendants of a process and the processes of a session in `/proc`, and signals them.
//!
//! A process is identified by its id and the time of its start: an id alone may belong to another
//! process by the time that it is used.

use std::collections::HashMap;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal,
};

/// A living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    parent: i32,
    session: i32,
    /// When the process started, in ticks since the host started.
    begun: u64,
}

/// All descendants of this process that are alive, parents before their children.
pub(crate) fn below_us() -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = children.remove(&getpid().as_raw_nonzero().get()).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(&process.pid.as_raw_nonzero().get()).unwrap_or_default());
        next += 1;
    }
    found
}

/// All living processes of a session.
pub(crate) fn of_session(session: i32) -> Vec<Process> {
    all().into_iter().filter(|process| process.session == session).collect()
}

impl Process {
    /// Sends a signal to exactly this process. It may be gone, or not permitted to be signalled.
    pub(crate) fn signal(&self, signal: Signal) {
        let is_same = || read(self.pid).is_some_and(|now| now.begun == self.begun);
        match pidfd_open(self.pid, PidfdFlags::empty()) {
            // The descriptor is for the process that had the id when it was opened.
            Ok(process) if is_same() => drop(pidfd_send_signal(process, signal)),
            // A kernel older than 5.3.
            Err(Errno::NOSYS) if is_same() => drop(kill_process(self.pid, signal)),
            _ => {}
        }
    }
}

/// Whether `/proc` is that of this process namespace. With ids of another one, wrong processes
/// would be killed.
fn is_ours() -> bool {
    let ours = getpid().as_raw_nonzero().to_string();
    std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == ours.as_str())
}

fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").ok().filter(|_| is_ours());
    let numbers = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(number)
    });
    numbers.filter_map(read).collect()
}

/// Reads a living process; `None` for one that only waits to be reaped.
fn read(pid: Pid) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse(pid, &stat)
}

/// Parses `/proc/PID/stat`, see proc_pid_stat(5). The name of a program may hold any characters,
/// brackets and spaces included.
fn parse(pid: Pid, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
    let begun = fields.get(19)?.parse().ok()?;
    let is_dead = matches!(*fields.first()?, "Z" | "X");
    (!is_dead).then_some(Process { pid, parent: number(1)?, session: number(3)?, begun })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).expect("not 0")
    }

    #[test]
    fn a_stat_line_is_parsed_whatever_the_program_is_called() {
        let rest =
            " 7 42 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 5551212 1000 1 18446744073709551615";
        let line = format!("42 (a) S) b) S{rest}");
        let expected = Process { pid: pid(42), parent: 7, session: 40, begun: 5_551_212 };
        assert_eq!(parse(pid(42), &line), Some(expected));
        assert_eq!(parse(pid(42), &format!("42 (a) Z{rest}")), None, "a zombie is dead");
    }

    #[test]
    fn a_process_id_that_now_belongs_to_another_process_gets_no_signal() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let number = i32::try_from(child.id()).expect("a pid");
        let found = below_us().into_iter().find(|process| process.pid == pid(number));
        let found = found.expect("our child");
        Process { begun: found.begun - 1, ..found }.signal(Signal::KILL);
        assert!(read(found.pid).is_some(), "the id was another process's");
        found.signal(Signal::KILL);
        let status = child.wait().expect("our child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
