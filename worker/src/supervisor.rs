//! A process that watches a worker from outside: it starts the program again as its child, and when
//! the child crashes it tells the ledger what the system said of it, so that its work goes on
//! elsewhere at once and a subtask that kills workers is failed with evidence; then it starts the
//! child anew.
//!
//! ```text
//!   SIGTERM, SIGHUP, Ctrl-C --> supervisor -- end of stdin: drain; SIGQUIT: stop at once --> worker
//!   ledger <-- how it ended -- supervisor <-- exit status, standard error -- worker
//! ```
//!
//! If the supervisor itself is killed, the kernel kills the worker with it. As the first process of
//! a container, or of whatever the worker started, it reaps those that nobody else does.
//! Deliberately absent: anything about subtasks.

use std::ffi::{OsStr, c_int};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use longshore_ledger::{Ledger, RecordCrashParams};
use longshore_protocol::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Machine;
use crate::shim::{self, tree};
use crate::stop::heeds_hangup;

/// Names the worker to the child, and makes it one. Not passed on to what the worker starts.
pub(crate) const VARIABLE: &str = "LONGSHORE_SUPERVISED_NODE";

/// The variable by which a program tells glibc at its start which blocks to give back as soon as
/// they are freed, and what `longshore` sets it to. Not passed on to what the worker starts.
pub const MALLOC_BOUND: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

/// As much of the end of the standard error as is evidence.
const LAST_WORDS: usize = 1_024;

/// A crash is told within this time or not at all; silence tells it later.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// What is still on its way from a worker that has ended comes within this time. Somebody whom it
/// started may hold its standard error for ever.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// What a dead worker left behind is looked for so often, and for so long.
const SWEEP_EVERY: Duration = Duration::from_millis(5);
const SWEEP_FOR: Duration = Duration::from_secs(1);

/// The first and the longest wait before a worker that crashed is started anew; one that lived so
/// long begins with the first.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);

/// What the worker in a supervised process has to know; see
/// [`Worker::watched`](crate::Worker::watched).
#[derive(Clone, Debug)]
pub struct Watched {
    /// The name under which the supervisor knows the worker.
    pub node: NodeId,
    /// Cancelled when the supervisor was asked to stop.
    pub drain: CancellationToken,
}

/// What this process has to know if a supervisor started it; `None` if it has none.
///
/// # Errors
/// When the system can't be asked to end it together with its supervisor.
pub fn watched() -> io::Result<Option<Watched>> {
    let Ok(node) = std::env::var(VARIABLE) else { return Ok(None) };
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    name_us();
    let drain = CancellationToken::new();
    let ended = drain.clone();
    // Not tokio's standard input, whose thread would hold up the end of the program.
    std::thread::Builder::new().name("longshore-supervised".into()).spawn(move || {
        // Nothing is ever written to it, so this waits for its end, or for an error that means as
        // much.
        let _ = io::stdin().read(&mut [0]);
        ended.cancel();
    })?;
    Ok(Some(Watched { node: NodeId::new(node), drain }))
}

/// A program that was started by the file of a process, after its own was replaced, is called after
/// that: `exe`. People look for it by its own name.
fn name_us() {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().and_then(|name| name.to_str());
    if let Some(name) = name.and_then(|name| std::ffi::CString::new(name).ok()) {
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Starts this program once more, as the worker, and watches it until it leaves; gives the code
/// with which the program is to exit. `connect` gives the ledger to tell of a crash. It is called
/// for each, and never before: what a process touches once stays in its memory, and a supervisor
/// lives long and does little. For the same reason it waits without a runtime.
///
/// # Errors When the program can't be started again, or signals can't be followed.
pub fn watch<C>(connect: C) -> io::Result<u8>
where
    C: Fn() -> io::Result<Arc<dyn Ledger>> + Sync,
{
    let stops = [SIGTERM, SIGINT].into_iter().chain(heeds_hangup().then_some(SIGHUP));
    let mut signals = Signals::new(stops.chain([SIGCHLD]))?;
    // What a dead worker leaves behind comes to us.
    set_child_subreaper(Some(getpid()))?;
    let (sender, signalled) = mpsc::sync_channel(1);
    std::thread::spawn(move || signals.forever().try_for_each(|signal| sender.send(signal)));
    let spared = tree::below_us();
    Supervisor { connect, signalled, spared }.run()
}

struct Supervisor<C> {
    connect: C,
    /// What we were asked, and that the child changed.
    signalled: Receiver<c_int>,
    /// What the program had started before it became a supervisor.
    spared: Vec<tree::Process>,
}

impl<C: Fn() -> io::Result<Arc<dyn Ledger>> + Sync> Supervisor<C> {
    fn run(self) -> io::Result<u8> {
        let (mut pause, machine) = (FIRST_PAUSE, Machine::default());
        loop {
            let node = machine.new_node();
            let begun = Instant::now();
            let mut child = start(&node)?;
            let words = child.stderr.take().map(Words::follow);
            let mut line = child.stdin.take();
            let status = loop {
                if self.next(None) == Some(SIGCHLD) {
                    if let Some(status) = reap(&child) {
                        break status;
                    }
                } else if line.take().is_none() {
                    at_once(&child);
                }
            };
            let stopping = line.is_none();
            self.sweep();
            let words = words.map(Words::last).unwrap_or_default();
            let crashed = !status.success() && self.tell(&node, &status, &words);
            if stopping || !crashed {
                return Ok(exit_code(status));
            }
            if begun.elapsed() >= LONG_LIFE {
                pause = FIRST_PAUSE;
            }
            let over = Instant::now() + pause;
            while let Some(signal) = self.next(Some(over)) {
                if signal != SIGCHLD {
                    return Ok(exit_code(status));
                }
                reap_all();
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The next signal; `None` if none came until then.
    fn next(&self, until: Option<Instant>) -> Option<c_int> {
        match until {
            Some(until) => self.signalled.recv_timeout(until.duration_since(Instant::now())).ok(),
            None => Some(self.signalled.recv().expect("the thread that sends them never ends")),
        }
    }

    /// Kills what the worker started and left behind: it must not run beside its second run. As the
    /// first process of a container we are everybody's parent, so there it is only reaped.
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

    /// Tells the ledger how the worker ended. False for one that the ledger does not know (it ended
    /// before it worked, or left in good order), unless a signal ended it.
    fn tell(&self, node: &NodeId, status: &ExitStatus, words: &str) -> bool {
        let death = describe(*status, words);
        // On a thread of its own: this one may belong to a runtime already.
        let connect = &self.connect;
        let certify = || certify(connect, node, &death);
        let told = std::thread::scope(|scope| scope.spawn(certify).join());
        let known = matches!(told, Ok(Ok(true)));
        let crashed = known || status.signal().is_some();
        if crashed {
            warn!(%node, death, "the worker crashed");
        }
        crashed
    }
}

/// Whether the ledger knows the worker, and knows now how it ended.
fn certify<C>(connect: &C, node: &NodeId, death: &str) -> io::Result<bool>
where
    C: Fn() -> io::Result<Arc<dyn Ledger>>,
{
    let ledger = connect()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let params = RecordCrashParams::new(node.clone(), death);
        match timeout(TELL_WITHIN, ledger.record_crash(&params)).await {
            Ok(told) => told.map_err(io::Error::other),
            Err(elapsed) => Err(elapsed.into()),
        }
    })
}

/// Reaps whoever has ended; gives the worker's end.
fn reap(child: &Child) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if u32::try_from(pid.as_raw_pid()) == Ok(child.id()) {
            ended = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    ended
}

/// Reaps whoever has ended.
fn reap_all() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// The program once more, as the worker of this name.
fn start(node: &NodeId) -> io::Result<Child> {
    let (program, own_name) = shim::program();
    let mut command = Command::new(program);
    let name: &OsStr = node.as_str().as_ref();
    command.arg0(own_name).args(std::env::args_os().skip(1)).env(VARIABLE, name);
    command.stdin(Stdio::piped());
    // At a terminal the worker speaks for itself, in colour.
    if !io::stderr().is_terminal() {
        command.stderr(Stdio::piped());
    }
    // Ctrl-C is for the supervisor, which passes it on.
    command.process_group(0);
    command.spawn()
}

fn at_once(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended in this instant, which is as good; nobody else gets its number before
        // we have seen its end.
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
    }
}

/// The standard error of a worker.
struct Words {
    end: Arc<Mutex<Vec<u8>>>,
    /// Closed when there is nothing more to read.
    read_all: Receiver<()>,
}

impl Words {
    /// Passes it on from now on, and keeps its end.
    fn follow(stderr: ChildStderr) -> Self {
        let (reading, read_all) = mpsc::sync_channel(0);
        let end: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = end.clone();
        std::thread::spawn(move || {
            pass_on(stderr, &kept);
            drop(reading);
        });
        Self { end, read_all }
    }

    /// The last of it, once the worker has ended.
    fn last(self) -> String {
        let _ = self.read_all.recv_timeout(LAST_WORDS_WITHIN);
        String::from_utf8_lossy(&self.end.lock()).trim().to_owned()
    }
}

fn pass_on(mut stderr: ChildStderr, end: &Mutex<Vec<u8>>) {
    let (mut ours, mut buffer) = (io::stderr(), vec![0; 8 << 10]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let read = &buffer[..count];
        // Whoever collected our standard error is gone: the words are evidence all the same.
        let _ = ours.write_all(read);
        let mut end = end.lock();
        end.extend_from_slice(read);
        let surplus = end.len().saturating_sub(LAST_WORDS);
        end.drain(..surplus);
    }
}

/// What the system said, and the process last.
fn describe(status: ExitStatus, words: &str) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => status.to_string(),
    };
    if words.is_empty() { how } else { format!("{how}; its last words: {words}") }
}

/// As shells count.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: i32, words: &str, expected: &str, code: u8) {
        let status = ExitStatus::from_raw(raw);
        assert_eq!((describe(status, words).as_str(), exit_code(status)), (expected, code));
    }

    #[test]
    fn an_end_is_told_in_the_words_of_the_system() {
        check(6, "", "killed by SIGABRT", 134);
        check(6 | 0x80, "", "killed by SIGABRT", 134);
        check(9, "oom", "killed by SIGKILL; its last words: oom", 137);
        check(3 << 8, "", "exited with code 3", 3);
        check(0, "", "exited with code 0", 0);
    }
}
