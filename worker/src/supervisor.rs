//! Supervises a worker from a process of its own, records its crashes, and starts it again.
//!
//! The worker is the same program, started as a child. When it crashes, the supervisor records in
//! the ledger how it ended, so that its chunks run on other workers at once and a subtask that
//! kills workers fails with evidence.
//!
//! ```text
//!   SIGTERM, SIGHUP, Ctrl-C --> supervisor -- end of stdin: drain; SIGQUIT: stop now --> worker
//!   ledger <-- how it ended -- supervisor <-- exit status, standard error -- worker
//! ```
//!
//! If the supervisor itself is killed, the kernel kills the worker with it. The supervisor reaps
//! the orphans of processes that the worker started, and all orphans if it is the first process of
//! a container. Deliberately absent: anything about subtasks.

use std::ffi::{OsStr, c_int};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use longshore_ledger::{Ledger, RecordCrashParams};
use longshore_protocol::{Backoff, NodeId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Environment;
use crate::shim::{self, tree};
use crate::stop::stops_on_hangup;

/// The variable with the worker's node id; makes the child a worker. Removed from the environment
/// of the programs that the worker starts.
pub(crate) const VARIABLE: &str = "LONGSHORE_SUPERVISED_NODE";

/// The variable that tells glibc at the start of a program which memory blocks to return to the
/// system as soon as they are freed, and the value that `longshore` sets. Removed from the
/// environment of the programs that the worker starts.
pub const MALLOC_BOUND: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

/// How many bytes of the end of the worker's standard error are kept as evidence.
const STDERR_TAIL: usize = 1_024;

/// A crash is recorded within this time or not at all; missing heartbeats show it later.
const RECORD_WITHIN: Duration = Duration::from_secs(5);

/// How long the supervisor reads the standard error of a worker that has ended. A process that the
/// worker started may hold it open for ever.
const STDERR_WITHIN: Duration = Duration::from_millis(500);

/// How often and for how long the supervisor looks for processes that a dead worker left behind.
const SWEEP_EVERY: Duration = Duration::from_millis(5);
const SWEEP_FOR: Duration = Duration::from_secs(1);

/// The first and the longest pause before a worker that crashed is started again. After a worker
/// that lived for [`LONG_LIFE`] the pause is the first one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);

/// What a supervised worker has to know; see [`Worker::supervised`](crate::Worker::supervised).
#[derive(Clone, Debug)]
pub struct Supervised {
    /// The node id that the supervisor gave the worker.
    pub node: NodeId,
    /// Cancelled when the supervisor was asked to stop.
    pub drain: CancellationToken,
}

/// What this process has to know if a supervisor started it; `None` if it has none.
///
/// # Errors
/// When the system refuses to end this process together with its supervisor.
pub fn supervised() -> io::Result<Option<Supervised>> {
    let Ok(node) = std::env::var(VARIABLE) else { return Ok(None) };
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    restore_process_name();
    let drain = CancellationToken::new();
    let ended = drain.clone();
    // Not tokio's standard input, whose thread would delay the end of the program.
    std::thread::Builder::new().name("longshore-supervised".into()).spawn(move || {
        // Nothing is ever written to it, so this waits for its end or for an error, which means the
        // same.
        let _ = io::stdin().read(&mut [0]);
        ended.cancel();
    })?;
    Ok(Some(Supervised { node: NodeId::new(node), drain }))
}

/// Gives the process its own name again. The system calls a program `exe` that was started by
/// `/proc/self/exe`, which works after its file was replaced; people look for its own name.
fn restore_process_name() {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().and_then(|name| name.to_str());
    if let Some(name) = name.and_then(|name| std::ffi::CString::new(name).ok()) {
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Starts this program once more, as the worker, and supervises it until it leaves; gives the exit
/// code for the program. `connect` connects to the ledger that records crashes. It is called after
/// each crash and never before: memory that a process touches once stays with it, and a supervisor
/// lives long and does little. For the same reason it waits without a runtime.
///
/// # Errors
/// When the program can't be started again, or signals can't be followed.
pub fn supervise<C>(connect: C) -> io::Result<u8>
where
    C: Fn() -> io::Result<Arc<dyn Ledger>> + Sync,
{
    let stops = [SIGTERM, SIGINT].into_iter().chain(stops_on_hangup().then_some(SIGHUP));
    let mut signals = Signals::new(stops.chain([SIGCHLD]))?;
    // Orphans of a dead worker become children of this process.
    set_child_subreaper(Some(getpid()))?;
    let (sender, signalled) = mpsc::sync_channel(1);
    std::thread::spawn(move || signals.forever().try_for_each(|signal| sender.send(signal)));
    let spared = tree::below_us();
    Supervisor { connect, signalled, spared }.run()
}

struct Supervisor<C> {
    connect: C,
    /// The signals that this process got: requests to stop, and SIGCHLD.
    signalled: Receiver<c_int>,
    /// Processes that the program had started before it became a supervisor.
    spared: Vec<tree::Process>,
}

impl<C: Fn() -> io::Result<Arc<dyn Ledger>> + Sync> Supervisor<C> {
    fn run(self) -> io::Result<u8> {
        let environment = Environment::default();
        let mut backoff = Backoff::doubling(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let node = environment.new_node();
            let begun = Instant::now();
            let mut child = start(&node)?;
            let stderr = child.stderr.take().map(StderrTail::follow);
            let mut stdin = child.stdin.take();
            let status = loop {
                if self.next(None) == Some(SIGCHLD) {
                    if let Some(status) = reap(&child) {
                        break status;
                    }
                } else if stdin.take().is_none() {
                    stop_at_once(&child);
                }
            };
            let stopping = stdin.is_none();
            self.sweep();
            let stderr = stderr.map(StderrTail::text).unwrap_or_default();
            let crashed = !status.success() && self.report_crash(&node, &status, &stderr);
            if stopping || !crashed {
                return Ok(exit_code(status));
            }
            if begun.elapsed() >= LONG_LIFE {
                backoff.reset();
            }
            let over = Instant::now() + backoff.next_pause();
            while let Some(signal) = self.next(Some(over)) {
                if signal != SIGCHLD {
                    return Ok(exit_code(status));
                }
                reap_all();
            }
        }
    }

    /// The next signal; `None` if none came in time.
    fn next(&self, until: Option<Instant>) -> Option<c_int> {
        match until {
            Some(until) => self.signalled.recv_timeout(until.duration_since(Instant::now())).ok(),
            None => Some(self.signalled.recv().expect("the thread that sends them never ends")),
        }
    }

    /// Kills the processes that the worker left behind: they must not run beside those of the next
    /// worker. The first process of a container is the parent of all processes, so there they are
    /// only reaped.
    fn sweep(&self) {
        let until = Instant::now() + SWEEP_FOR;
        loop {
            reap_all();
            let mut left = tree::below_us();
            left.retain(|process| !self.spared.contains(process));
            if left.is_empty() || std::process::id() == 1 || Instant::now() >= until {
                return;
            }
            for process in left {
                process.signal(rustix::process::Signal::KILL);
            }
            std::thread::sleep(SWEEP_EVERY);
        }
    }

    /// Records in the ledger how the worker ended. False for a worker that the ledger does not know
    /// (it ended before its first heartbeat, or left), unless a signal ended it.
    fn report_crash(&self, node: &NodeId, status: &ExitStatus, stderr: &str) -> bool {
        let death = describe(*status, stderr);
        // On a thread of its own: this one may belong to a runtime already.
        let connect = &self.connect;
        let record = || record_crash(connect, node, &death);
        let recorded = std::thread::scope(|scope| scope.spawn(record).join());
        let known = matches!(recorded, Ok(Ok(true)));
        let crashed = known || status.signal().is_some();
        if crashed {
            warn!(%node, death, "the worker crashed");
        }
        crashed
    }
}

/// Records how a worker ended; false if the ledger does not know the worker.
fn record_crash<C>(connect: &C, node: &NodeId, death: &str) -> io::Result<bool>
where
    C: Fn() -> io::Result<Arc<dyn Ledger>>,
{
    let ledger = connect()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let params = RecordCrashParams::new(node.clone(), death.to_owned());
    runtime.block_on(async {
        match timeout(RECORD_WITHIN, ledger.record_crash(&params)).await {
            Ok(recorded) => recorded.map_err(io::Error::other),
            Err(elapsed) => Err(elapsed.into()),
        }
    })
}

/// Reaps all children that have ended; gives the worker's exit status if it is one of them.
fn reap(child: &Child) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if u32::try_from(pid.as_raw_pid()) == Ok(child.id()) {
            ended = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    ended
}

/// Reaps all children that have ended.
fn reap_all() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Starts the program once more, as the worker with this node id.
fn start(node: &NodeId) -> io::Result<Child> {
    let (program, own_name) = shim::program();
    let mut command = Command::new(program);
    let name: &OsStr = node.as_str().as_ref();
    command.arg0(own_name).args(std::env::args_os().skip(1)).env(VARIABLE, name);
    command.stdin(Stdio::piped());
    // At a terminal the worker writes to it directly, in colour.
    if !io::stderr().is_terminal() {
        command.stderr(Stdio::piped());
    }
    // Ctrl-C is for the supervisor, which passes it on.
    command.process_group(0);
    command.spawn()
}

fn stop_at_once(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // The worker may have ended in this instant, which is fine: its process id is not reused
        // before it is reaped.
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
    }
}

/// Passes on the standard error of a worker, and keeps its end.
struct StderrTail {
    tail: Arc<Mutex<Vec<u8>>>,
    /// Closed at the end of the standard error.
    read_all: Receiver<()>,
}

impl StderrTail {
    /// Passes the standard error on from now on.
    fn follow(stderr: ChildStderr) -> Self {
        let (reading, read_all) = mpsc::sync_channel(0);
        let tail: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = tail.clone();
        std::thread::spawn(move || {
            pass_on(stderr, &kept);
            drop(reading);
        });
        Self { tail, read_all }
    }

    /// The end of the standard error, once the worker has ended.
    fn text(self) -> String {
        let _ = self.read_all.recv_timeout(STDERR_WITHIN);
        String::from_utf8_lossy(&self.tail.lock()).trim().to_owned()
    }
}

fn pass_on(mut stderr: ChildStderr, tail: &Mutex<Vec<u8>>) {
    let (mut ours, mut buffer) = (io::stderr(), vec![0; 8 << 10]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let read = &buffer[..count];
        // The text is evidence even where the supervisor's own standard error is closed.
        let _ = ours.write_all(read);
        let mut tail = tail.lock();
        tail.extend_from_slice(read);
        let surplus = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..surplus);
    }
}

/// How a process ended, with the end of its standard error.
fn describe(status: ExitStatus, stderr: &str) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => status.to_string(),
    };
    if stderr.is_empty() { how } else { format!("{how}; its last words: {stderr}") }
}

/// The exit code by which shells show this status.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: i32, stderr: &str, expected: &str, code: u8) {
        let status = ExitStatus::from_raw(raw);
        assert_eq!((describe(status, stderr).as_str(), exit_code(status)), (expected, code));
    }

    #[test]
    fn a_crash_is_described_by_its_signal_or_exit_code() {
        check(6, "", "killed by SIGABRT", 134);
        check(6 | 0x80, "", "killed by SIGABRT", 134);
        check(9, "oom", "killed by SIGKILL; its last words: oom", 137);
        check(3 << 8, "", "exited with code 3", 3);
        check(0, "", "exited with code 0", 0);
    }
}
