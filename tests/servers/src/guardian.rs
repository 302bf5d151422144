//! Starts a server under a small shell that kills the server when the test process ends.
//!
//! ```text
//!   test process ──stdin pipe──▶ guardian (sh) ──starts──▶ server, in a session of its own
//! ```
//!
//! The guardian reads orders from the pipe. When the pipe ends, because the owner was dropped, the
//! test process exited or was killed with SIGKILL, the guardian kills the server's whole process
//! group and removes its folder. `PR_SET_PDEATHSIG` would not work: it follows the thread that
//! started the child, and tests start servers from threads that end early.
//!
//! Deliberately absent: knowledge of any server.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::wait::holds_within;

/// Orders are single lines: `start`, `signal NAME`, `signal-group NAME`. Each is answered by one.
///
/// `setsid` makes the server the leader of a process group, so that its children go with it. The
/// shell reaps a server only when the shell itself ends, so the process id is not reused before.
/// The folder is removed in several tries, because killed processes may still be writing to it.
const SCRIPT: &str = r#"
dir=$1; shift
pid=
# A server that has just been started may not lead its group yet.
all() { kill -s "$1" -- "-$pid" 2>/dev/null || kill -s "$1" "$pid" 2>/dev/null; }
while read -r order name; do
  case $order in
    start) setsid "$@" </dev/null >>"$dir/output" 2>&1 & pid=$!; echo "$pid" ;;
    signal) kill -s "$name" "$pid" 2>/dev/null; echo sent ;;
    signal-group) all "$name"; echo sent ;;
  esac
done
if [ -n "$pid" ]; then all KILL; fi
for try in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$dir" 2>/dev/null && exit
  sleep 0.1
done
"#;

/// How long a killed process may stay in the process table; only a stuck disk takes that long.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// A server's program, folder and process.
pub(crate) struct Guardian {
    folder: TempDir,
    shell: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pid: Option<u32>,
}

impl Guardian {
    /// Takes over `folder` and starts the guardian, but not yet the server.
    pub(crate) fn new(folder: TempDir, server: &Command) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "longshore-guardian"]).arg(folder.path());
        shell.arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        // Core and crash dumps are written to the folder, too.
        shell.current_dir(folder.path());
        // In its own process group, Ctrl-C at the terminal does not end it, so that it can clean
        // up. It holds none of the test's output pipes, which other processes may read to their
        // end.
        shell.process_group(0);
        let mut shell =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        Ok(Self { folder, shell, orders, answers, pid: None })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's process id, also when it has ended in the meantime.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Starts the server; the caller makes sure that none runs.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let answer = self.order("start")?;
        let pid = answer.parse().map_err(|_| io::Error::other(format!("no pid: {answer:?}")))?;
        self.pid = Some(pid);
        Ok(())
    }

    /// Sends a signal, named without `SIG`, to the server's own process.
    pub(crate) fn signal(&mut self, name: &str) -> io::Result<()> {
        self.order(&format!("signal {name}")).map(drop)
    }

    /// Sends a signal to the server and to every child that stayed in its group.
    pub(crate) fn signal_group(&mut self, name: &str) -> io::Result<()> {
        self.order(&format!("signal-group {name}")).map(drop)
    }

    /// Kills the server's group with SIGKILL and waits until the server is gone.
    pub(crate) fn kill9(&mut self) -> io::Result<()> {
        self.signal_group("KILL")?;
        self.await_end(LONGEST_DEATH)
    }

    /// Asks with SIGTERM, waits for `grace`, then kills.
    pub(crate) fn stop(&mut self, grace: Duration) -> io::Result<()> {
        self.signal("TERM")?;
        let _late = self.await_end(grace);
        self.kill9()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pid.is_some_and(is_running)
    }

    fn await_end(&self, longest: Duration) -> io::Result<()> {
        if holds_within(longest, || !self.is_running()) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("process {:?} still runs after {longest:?}", self.pid),
        ))
    }

    fn order(&mut self, order: &str) -> io::Result<String> {
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(orders, "{order}")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the guardian is gone"));
        }
        Ok(answer.trim().to_owned())
    }

    /// The output of the server.
    pub(crate) fn output(&self) -> String {
        let bytes = fs::read(self.folder().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of the server's output and of these log files, for the message of a failure.
    pub(crate) fn tail(&self, logs: &[PathBuf]) -> String {
        let output = self.folder().join("output");
        let mut tail = String::new();
        for file in std::iter::once(&output).chain(logs) {
            let text = end_of(file).unwrap_or_else(|e| format!("({e})"));
            tail.push_str(&format!("--- {}\n{text}\n", file.display()));
        }
        tail
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // The end of the pipe makes the guardian kill and clean up; wait until it has.
        self.orders = None;
        let _gone = self.shell.wait();
        let _ended = self.await_end(LONGEST_DEATH);
    }
}

/// Whether a process runs. A zombie has ended and waits to be reaped; but its first thread may be a
/// zombie while other threads have not ended, and hold its files and ports.
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may contain spaces and parentheses; the state follows the last one.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    match state {
        None | Some('X') => false,
        Some('Z') => {
            let threads = fs::read_dir(format!("/proc/{pid}/task"));
            threads.is_ok_and(|threads| threads.count() > 1)
        }
        Some(_) => true,
    }
}

fn end_of(file: &Path) -> io::Result<String> {
    const TAIL_BYTES: u64 = 4096;
    let mut file = fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
