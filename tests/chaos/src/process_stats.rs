//! Reads from `/proc` how many threads and files, and how much CPU time, a process uses.

use std::fs;
use std::time::Duration;

/// Clock ticks per second in `/proc`: 100 on every current architecture.
const TICKS: u64 = 100;

/// The resources that a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// CPU time since its start, in user and kernel mode.
    pub cpu: Duration,
    /// The number of threads.
    pub threads: usize,
    /// The number of open files, including sockets.
    pub files: usize,
}

impl ProcessStats {
    /// The resources of a process; `None` if it does not run.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the fields after it are numbers.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // proc(5): utime and stime are fields 14 and 15, num_threads is 20; the name is field 2.
        let ticks = number(11)? + number(12)?;
        let threads = usize::try_from(number(17)?).ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Self { cpu: Duration::from_millis(ticks * 1000 / TICKS), threads, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_and_files() {
        let stats = ProcessStats::of(std::process::id()).expect("it runs");
        assert!(stats.threads >= 2 && stats.files >= 3, "{stats:?}");
        assert_eq!(ProcessStats::of(u32::MAX), None);
    }
}
