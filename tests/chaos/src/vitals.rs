//! What a process uses, by Linux's account.

use std::fs;
use std::time::Duration;

/// Clock ticks a second in /proc; Linux shows 100 to programs on every architecture of today.
const TICKS: u64 = 100;

/// What a process uses now, or has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// CPU time since its start, in user and kernel mode.
    pub cpu: Duration,
    /// Threads.
    pub threads: usize,
    /// Open files, sockets included.
    pub files: usize,
}

impl Vitals {
    /// Those of a process; `None` if it does not run.
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
        let vitals = Vitals::of(std::process::id()).expect("it runs");
        assert!(vitals.threads >= 2 && vitals.files >= 3, "{vitals:?}");
        assert_eq!(Vitals::of(u32::MAX), None);
    }
}
