//! Reads from `/proc` the cores and memory that processes use, and who listens on a port.
//!
//! On a system without `/proc` every answer is zero or empty.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::host::{kib_field, read};
use crate::report::{Sample, Unit, sample};

/// Ticks per second in `/proc/stat`: USER_HZ, which Linux has fixed at 100.
const TICKS: f64 = 100.0;

/// The process and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&one) = tree.get(at) {
        tree.extend(all.iter().filter(|(_, parent)| *parent == one).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

fn processes() -> impl Iterator<Item = u32> {
    let folder = fs::read_dir("/proc").into_iter().flatten();
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat` after the name of the process, which may hold spaces. The first
/// field is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The processor time that the process has used, in seconds, including threads that have ended.
fn used(pid: u32) -> f64 {
    let pid = Pid::from_raw(pid.try_into().unwrap_or_default());
    let time = clock_getcpuclockid(pid).and_then(clock_gettime);
    time.map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// The processor time that the whole host has used, in seconds.
fn used_by_all() -> f64 {
    let text = read("/proc/stat");
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        first.split_ascii_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // The fields are user, nice, system, idle, iowait, irq, softirq and steal. The fields after
    // them are contained in user and nice.
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().take(8).sum::<f64>() - idle) / TICKS
}

/// The memory of some processes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident memory; a shared page counts once for each process.
    pub(crate) resident: u64,
    /// The sum of the peaks of the resident memory.
    pub(crate) peak: u64,
    /// Resident memory; a shared page of a file counts once.
    pub(crate) shared_once: u64,
}

/// The memory of these processes together.
pub(crate) fn memory(pids: &[u32]) -> Memory {
    let mut sum = Memory::default();
    let (mut of_files, mut own) = (HashSet::new(), 0);
    for pid in pids {
        let status = read(&format!("/proc/{pid}/status"));
        sum.resident += kib_field(&status, "VmRSS").unwrap_or_default();
        sum.peak += kib_field(&status, "VmHWM").unwrap_or_default();
        // A process that has just ended has no pages.
        own += pages(*pid, &mut of_files).unwrap_or_default();
    }
    sum.shared_once = (own + of_files.len() as u64) * page_size();
    sum
}

/// The size of a page, in bytes.
fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| size.try_into().ok()).unwrap_or(4096)
}

/// A page of a file: device, inode and page number in the file.
type FilePage = (String, u64, u64);

/// Adds the resident file pages of a process to `of_files`, and returns the number of its other
/// resident pages.
fn pages(pid: u32, of_files: &mut HashSet<FilePage>) -> io::Result<u64> {
    /// Bits of an entry of `/proc/PID/pagemap`, which has an entry for each page of the address
    /// space.
    const PRESENT: u64 = 1 << 63;
    const OF_A_FILE: u64 = 1 << 61;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let (mut own, size) = (0, page_size());
    let maps = read(&format!("/proc/{pid}/maps"));
    for (start, end, offset, device, inode) in maps.lines().filter_map(mapping) {
        let mut entries = vec![0; usize::try_from((end - start) / size * 8).unwrap_or_default()];
        // Mappings of the kernel (`vsyscall`) can't be read.
        if pagemap.read_exact_at(&mut entries, start / size * 8).is_err() {
            continue;
        }
        for (at, entry) in entries.as_chunks().0.iter().enumerate() {
            let entry = u64::from_ne_bytes(*entry);
            if entry & PRESENT == 0 {
                continue;
            }
            if entry & OF_A_FILE == 0 || inode == 0 {
                own += 1;
            } else {
                of_files.insert((device.to_owned(), inode, offset / size + at as u64));
            }
        }
    }
    Ok(own)
}

/// Parses a line of `/proc/PID/maps`: first address, end, offset in the file, device and inode.
fn mapping(line: &str) -> Option<(u64, u64, u64, &str, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (offset, device) = (words.nth(1)?, words.next()?);
    let hex = |word| u64::from_str_radix(word, 16).ok();
    Some((hex(start)?, hex(end)?, hex(offset)?, device, words.next()?.parse().ok()?))
}

/// The process of this host that listens on a TCP port, if this process may see it.
pub(crate) fn listener(port: u16) -> Option<u32> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    let sockets = ["/proc/net/tcp", "/proc/net/tcp6"].map(read);
    let inodes: BTreeSet<String> = sockets
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
            listens.then(|| format!("socket:[{}]", fields[9]))
        })
        .collect();
    processes().find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| inodes.contains(link)))
    })
}

/// The processes to measure: a role and the root of a process tree each.
pub(crate) type MeasuredProcesses = Vec<(&'static str, u32)>;

/// Measures how many cores each role keeps busy, and how many all other processes do.
pub(crate) struct Meter {
    measured_processes: MeasuredProcesses,
    begun: Instant,
    before: Vec<f64>,
    all_before: f64,
}

impl Meter {
    pub(crate) fn start(measured_processes: MeasuredProcesses) -> Self {
        let (before, all_before) = (Vec::new(), used_by_all());
        let mut meter = Self { measured_processes, begun: Instant::now(), before, all_before };
        meter.before = meter.read_times();
        meter
    }

    fn read_times(&self) -> Vec<f64> {
        let own = std::process::id();
        // The children of this process are measured as roles of their own.
        let of_tree = |root| {
            if root == own { used(own) } else { tree(root).into_iter().map(used).sum() }
        };
        self.measured_processes.iter().map(|(_, root)| of_tree(*root)).collect()
    }

    /// The cores kept busy since the start; several processes of one role are summed.
    pub(crate) fn read(&self) -> Usage {
        let elapsed = self.begun.elapsed();
        let seconds = elapsed.as_secs_f64();
        let mut roles: Vec<(&'static str, f64)> = Vec::new();
        let after = self.read_times();
        for (((role, _), before), after) in
            self.measured_processes.iter().zip(&self.before).zip(after)
        {
            let cores = (after - before).max(0.0) / seconds;
            match roles.iter_mut().find(|(name, _)| name == role) {
                Some((_, sum)) => *sum += cores,
                None => roles.push((role, cores)),
            }
        }
        let ours: f64 = roles.iter().map(|(_, cores)| cores).sum();
        let others = ((used_by_all() - self.all_before) / seconds - ours).max(0.0);
        Usage { elapsed, roles, others }
    }
}

/// The result of a [`Meter`].
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    roles: Vec<(&'static str, f64)>,
    /// The number of cores that all other processes kept busy.
    pub(crate) others: f64,
}

impl Usage {
    /// The number of cores that a role kept busy.
    pub(crate) fn of(&self, role: &str) -> f64 {
        self.roles.iter().filter(|(name, _)| *name == role).map(|(_, cores)| cores).sum()
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        let roles = self.roles.iter().copied().chain([("others", self.others)]);
        roles.map(|(role, cores)| sample(role, Unit::Cores, cores)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spin::burn;

    #[test]
    fn the_meter_reads_the_processor_time_of_a_busy_process() {
        let own = std::process::id();
        let meter = Meter::start(vec![("test", own)]);
        burn(Duration::from_millis(200));
        let usage = meter.read();
        let seconds = usage.of("test") * usage.elapsed.as_secs_f64();
        assert!(seconds > 0.15, "{usage:?}");
        assert_eq!(usage.of("another"), 0.0);
    }

    #[test]
    fn shared_pages_count_once_in_shared_once() {
        let own = std::process::id();
        let one = memory(&[own]);
        assert!(one.resident > 1 << 20);
        // Other tests run in this process at the same time and allocate memory.
        let near = |a: u64, b: u64| a.abs_diff(b) < 4 << 20;
        assert!(near(one.shared_once, one.resident), "{one:?}");
        let twice = memory(&[own, own]);
        assert!(near(twice.resident, 2 * one.resident), "{one:?} {twice:?}");
        assert!(twice.shared_once < twice.resident - (1 << 20), "{one:?} {twice:?}");
    }

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        assert_eq!(listener(port), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(port), None);
    }
}
