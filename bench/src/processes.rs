//! What processes use, from `/proc`: cores, memory, and which of them listens on a port.
//!
//! Reads only; on a system without `/proc` every answer is "nothing".

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::machine::{kib_field, read};
use crate::report::{Sample, Unit, sample};

/// Ticks a second in `/proc/stat`: USER_HZ, which Linux has fixed at 100.
const TICKS: f64 = 100.0;

/// The process and all that descend from it.
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

/// The fields of `/proc/PID/stat` behind the name, which may hold spaces; the first is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Seconds of processor time that the process has used, threads that have ended included.
fn used(pid: u32) -> f64 {
    let pid = Pid::from_raw(pid.try_into().unwrap_or_default());
    let time = clock_getcpuclockid(pid).and_then(clock_gettime);
    time.map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// Seconds of processor time that the whole machine has used.
fn used_by_all() -> f64 {
    let text = read("/proc/stat");
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        first.split_ascii_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is in user and nice already.
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().take(8).sum::<f64>() - idle) / TICKS
}

/// Bytes of memory of some processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident; pages that several share count in each.
    pub(crate) resident: u64,
    /// The most that was ever resident.
    pub(crate) peak: u64,
    /// Resident; pages of files that several of them share count once.
    pub(crate) once: u64,
}

/// The memory of these processes together.
pub(crate) fn memory(pids: &[u32]) -> Memory {
    let mut sum = Memory::default();
    let (mut of_files, mut own) = (HashSet::new(), 0);
    for pid in pids {
        let status = read(&format!("/proc/{pid}/status"));
        sum.resident += kib_field(&status, "VmRSS").unwrap_or_default();
        sum.peak += kib_field(&status, "VmHWM").unwrap_or_default();
        // One that has just ended has none.
        own += pages(*pid, &mut of_files).unwrap_or_default();
    }
    sum.once = (own + of_files.len() as u64) * page_size();
    sum
}

/// Bytes of a page.
fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| size.try_into().ok()).unwrap_or(4096)
}

/// A page of a file: device, inode, and where it is in there.
type FilePage = (String, u64, u64);

/// Adds the resident pages of files of a process to `of_files`; gives how many others it has.
fn pages(pid: u32, of_files: &mut HashSet<FilePage>) -> io::Result<u64> {
    /// Bits of an entry of `/proc/PID/pagemap`, which has one for each page of the address space.
    const PRESENT: u64 = 1 << 63;
    const OF_A_FILE: u64 = 1 << 61;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let (mut own, size) = (0, page_size());
    let maps = read(&format!("/proc/{pid}/maps"));
    for (start, end, offset, device, inode) in maps.lines().filter_map(mapping) {
        let mut entries = vec![0; usize::try_from((end - start) / size * 8).unwrap_or_default()];
        // What the kernel keeps for itself (`vsyscall`) can't be read.
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

/// First and last address, where in the file it begins, device and inode of a line of `/proc/PID/maps`.
fn mapping(line: &str) -> Option<(u64, u64, u64, &str, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (offset, device) = (words.nth(1)?, words.next()?);
    let hex = |word| u64::from_str_radix(word, 16).ok();
    Some((hex(start)?, hex(end)?, hex(offset)?, device, words.next()?.parse().ok()?))
}

/// Which process of this machine listens on a TCP port, if we may know.
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

/// Who is looked at: a role, and the first process of it.
pub(crate) type Watched = Vec<(&'static str, u32)>;

/// Measures how many cores each of them keeps busy, and all the others.
pub(crate) struct Meter {
    watched: Watched,
    begun: Instant,
    before: Vec<f64>,
    all_before: f64,
}

impl Meter {
    pub(crate) fn start(watched: Watched) -> Self {
        let (before, all_before) = (Vec::new(), used_by_all());
        let mut meter = Self { watched, begun: Instant::now(), before, all_before };
        meter.before = meter.look();
        meter
    }

    fn look(&self) -> Vec<f64> {
        let own = std::process::id();
        // Our own children are roles of their own.
        let of_tree = |root| {
            if root == own { used(own) } else { tree(root).into_iter().map(used).sum() }
        };
        self.watched.iter().map(|(_, root)| of_tree(*root)).collect()
    }

    /// Cores kept busy since the start; roles with several processes are summed.
    pub(crate) fn read(&self) -> Usage {
        let elapsed = self.begun.elapsed();
        let seconds = elapsed.as_secs_f64();
        let mut roles: Vec<(&'static str, f64)> = Vec::new();
        let after = self.look();
        for (((role, _), before), after) in self.watched.iter().zip(&self.before).zip(after) {
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

/// What a [`Meter`] read.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    roles: Vec<(&'static str, f64)>,
    /// Cores that processes of others kept busy.
    pub(crate) others: f64,
}

impl Usage {
    /// Cores that a role kept busy.
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
    fn a_busy_process_is_seen_to_be_busy() {
        let own = std::process::id();
        let meter = Meter::start(vec![("test", own)]);
        burn(Duration::from_millis(200));
        let usage = meter.read();
        let seconds = usage.of("test") * usage.elapsed.as_secs_f64();
        assert!(seconds > 0.15, "{usage:?}");
        assert_eq!(usage.of("somebody"), 0.0);
    }

    #[test]
    fn shared_pages_count_once() {
        let own = std::process::id();
        let one = memory(&[own]);
        assert!(one.resident > 1 << 20);
        // Other tests run in this process at the same time, and take memory.
        let near = |a: u64, b: u64| a.abs_diff(b) < 4 << 20;
        assert!(near(one.once, one.resident), "{one:?}");
        let twice = memory(&[own, own]);
        assert!(near(twice.resident, 2 * one.resident), "{one:?} {twice:?}");
        assert!(twice.once < twice.resident - (1 << 20), "{one:?} {twice:?}");
    }

    #[test]
    fn the_listener_of_a_port_is_found_and_nobody_on_a_free_one() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        assert_eq!(listener(port), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(port), None);
    }
}
