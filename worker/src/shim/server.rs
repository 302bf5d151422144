//! The shim process: one thread that starts commands, reaps processes, and kills them.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use longshore_protocol::Backoff;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, set_child_subreaper, setsid, wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::client::TERM_GRACE;
use super::wire::{
    EMPTY, END, EXITED, FAILED, KILL, READY, Request, START, STARTED, Stdio, read_body, receive,
    reply,
};
use super::{NAME, tree};

/// The pauses between two looks at killed processes, until they are gone.
const KILL_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(2), Duration::from_millis(200));

/// The state of the command and of the processes that it started.
#[derive(Clone, Copy)]
enum Phase {
    /// There is no process.
    Idle,
    /// The command runs.
    Running,
    /// The processes were asked to end, and are killed at this time.
    Ending(Instant),
    /// The processes are being killed, again after each pause of this backoff until they are gone.
    Killing(Backoff),
}

struct Server {
    control: UnixStream,
    /// Readable once a child has ended.
    ended: UnixStream,
    /// Whether the worker is connected.
    is_connected: bool,
    phase: Phase,
    leader: Option<Pid>,
    replies: Vec<u8>,
}

/// Serves the worker at the other end of standard input, until it is gone and no process is left.
pub(super) fn run() -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(false)?;
    // A session without a terminal: a command that asks for a password fails at once. In the
    // background of a terminal it would be stopped for ever.
    let _ = setsid();
    let name = std::ffi::CString::new(NAME).expect("no zero");
    let _ = nix::sys::prctl::set_name(&name);
    set_child_subreaper(Some(rustix::process::getpid()))?;
    // The worker reacts to signals that stop a whole unit or terminal; they must not end its shims.
    // Commands start with the default signal handlers.
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let (ended, on_end) = UnixStream::pair()?;
    ended.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, on_end)?;
    let replies = reply(READY, 0).to_vec();
    let (is_connected, phase, leader) = (true, Phase::Idle, None);
    Server { control, ended, is_connected, phase, leader, replies }.serve()
}

impl Server {
    fn serve(mut self) -> io::Result<()> {
        loop {
            self.look_after();
            self.answer();
            if !self.is_connected && matches!(self.phase, Phase::Idle) {
                return Ok(());
            }
            if self.is_asked()? {
                match receive(&self.control) {
                    Ok(Some(request)) => self.perform(request),
                    Ok(None) | Err(_) => self.leave(),
                }
            }
        }
    }
    /// Waits for a request, the end of a child, or the time to look again; tells if there is a
    /// request.
    fn is_asked(&self) -> io::Result<bool> {
        let pause = match self.phase {
            Phase::Idle | Phase::Running => None,
            Phase::Ending(until) => Some(until.saturating_duration_since(Instant::now())),
            Phase::Killing(mut backoff) => Some(backoff.next_pause()),
        };
        let pause = pause.map(|pause| Timespec::try_from(pause).expect("a short time"));
        let mut polled = vec![PollFd::new(&self.ended, PollFlags::IN)];
        if self.is_connected {
            polled.push(PollFd::new(&self.control, PollFlags::IN));
        }
        match poll(&mut polled, pause.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_asked = polled.get(1).is_some_and(|control| !control.revents().is_empty());
        // Read before children are looked for, so that none that ends meanwhile is missed.
        while io::Read::read(&mut &self.ended, &mut [0; 64]).is_ok_and(|read| read > 0) {}
        Ok(is_asked)
    }

    fn perform(&mut self, (letter, pipes): (u8, Option<Stdio>)) {
        match (letter, pipes, self.phase) {
            (START, Some(pipes), Phase::Idle) => match read_body(&self.control) {
                Ok(request) => self.start(&request, pipes),
                Err(_) => self.leave(),
            },
            // The command has ended in the meantime, and the reply was sent.
            (END | KILL, _, Phase::Idle) => {}
            (END, _, Phase::Running) => {
                for process in tree::below_us() {
                    process.signal(Signal::TERM);
                    // A stopped process could not react.
                    process.signal(Signal::CONT);
                }
                self.phase = Phase::Ending(Instant::now() + TERM_GRACE);
            }
            (END, _, _) => {}
            (KILL, ..) => self.phase = Phase::Killing(KILL_BACKOFF),
            _ => self.leave(),
        }
    }

    fn start(&mut self, request: &Request, [stdin, stdout, stderr]: Stdio) {
        let mut command = Command::new(&request.argv[0]);
        command
            .args(&request.argv[1..])
            .envs(request.env.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        if let Some(cwd) = &request.cwd {
            command.current_dir(cwd);
        }
        match command.spawn() {
            Ok(child) => {
                self.leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                self.phase = Phase::Running;
                self.replies.extend(reply(STARTED, 0));
            }
            Err(error) => {
                // Only a program name with a zero byte fails without an error of the system.
                let number = error.raw_os_error().unwrap_or(nix::errno::Errno::EINVAL as i32);
                self.replies.extend(reply(FAILED, number));
            }
        }
    }

    /// Reaps processes that have ended, and goes on killing those that have to go.
    fn look_after(&mut self) {
        let is_empty = !self.reap();
        match self.phase {
            Phase::Idle => {}
            _ if is_empty => {
                self.phase = Phase::Idle;
                self.replies.extend(reply(EMPTY, 0));
            }
            Phase::Running => {}
            Phase::Ending(until) if Instant::now() < until => {}
            Phase::Ending(_) => self.kill(KILL_BACKOFF),
            Phase::Killing(backoff) => self.kill(backoff),
        }
    }

    /// Kills all living processes. The children of each become children of the shim, so none
    /// escapes for long.
    fn kill(&mut self, mut backoff: Backoff) {
        for process in tree::below_us() {
            process.signal(Signal::KILL);
        }
        if let Some(leader) = self.leader {
            // Without a `/proc` of the shim's own process namespace nothing more can be done. The
            // process id is the leader's until it is reaped.
            let _ = kill_process_group(leader, Signal::KILL);
        }
        // The next pause is the one after this.
        backoff.next_pause();
        self.phase = Phase::Killing(backoff);
    }

    /// Reaps children; tells whether any is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.leader => {
                    self.leader = None;
                    self.replies.extend(reply(EXITED, status.as_raw()));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn answer(&mut self) {
        if self.is_connected && (&self.control).write_all(&self.replies).is_err() {
            self.leave();
        }
        self.replies.clear();
    }

    /// The worker is gone: processes that still run are killed.
    fn leave(&mut self) {
        self.is_connected = false;
        if !matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Killing(KILL_BACKOFF);
        }
    }
}
