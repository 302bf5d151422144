//! The worker's end of shims: a pool of them, and how a command's processes are ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::wire::{
    EMPTY, END, EXITED, FAILED, KILL, READY, REPLY, Request, STARTED, body, send_pipes,
};
use super::{ARGUMENTS, NAME, PassEnv, program, tree};
use crate::supervisor;

/// The time from SIGTERM to SIGKILL.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(2);

/// Killed processes are gone within this time, unless the kernel is stuck with them. They are left
/// to the shim then, which goes on until they are gone.
const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// How long this program may take to become a shim.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// The shims of a worker: as many as commands have run at the same time.
#[derive(Default)]
pub(crate) struct Shims {
    pass_env: PassEnv,
    idle: Mutex<Vec<Shim>>,
}

struct Shim {
    control: UnixStream,
    process: Child,
    /// The bytes of the next reply that were read so far.
    read: Vec<u8>,
}

/// A running command and all processes that it started. Dropped before it is empty, the shim kills
/// them.
pub(crate) struct Group {
    /// `None` once the shim is lost.
    shim: Option<Shim>,
    pool: Arc<Shims>,
    status: Option<ExitStatus>,
    is_empty: bool,
}

/// The worker's ends of a command's pipes.
pub(crate) struct Pipes {
    pub(crate) stdin: Sender,
    pub(crate) stdout: Receiver,
    pub(crate) stderr: Receiver,
}

impl Shims {
    /// No shims yet; commands will get these of the worker's variables.
    pub(crate) fn new(pass_env: PassEnv) -> Self {
        Self { pass_env, idle: Mutex::default() }
    }

    /// Starts a command.
    ///
    /// # Errors
    /// Those of the system, as if the worker had started the command itself.
    pub(crate) async fn start(self: &Arc<Self>, request: &Request) -> io::Result<(Group, Pipes)> {
        let ((stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr)) =
            (io::pipe()?, io::pipe()?, io::pipe()?);
        let pipes = Pipes {
            stdin: Sender::from_owned_fd(our_stdin.into())?,
            stdout: Receiver::from_owned_fd(our_stdout.into())?,
            stderr: Receiver::from_owned_fd(our_stderr.into())?,
        };
        let shim = match self.take() {
            Some(shim) => shim,
            None => Shim::new(&self.pass_env).await?,
        };
        let (pool, status) = (self.clone(), None);
        // From here on the command may have started: dropping the group kills it.
        let mut group = Group { shim: Some(shim), pool, status, is_empty: false };
        let theirs = [stdin.into(), stdout.into(), stderr.into()];
        match group.shim().ask(request, theirs).await {
            Ok((STARTED, _)) => Ok((group, pipes)),
            Ok((FAILED, number)) => {
                group.is_empty = true;
                Err(io::Error::from_raw_os_error(number))
            }
            Ok(_) => Err(garbled()),
            Err(error) => {
                group.lose();
                Err(error)
            }
        }
    }

    /// A shim that is idle.
    fn take(&self) -> Option<Shim> {
        loop {
            let shim = self.idle.lock().pop()?;
            // A usable shim has sent nothing, not even the end of its socket.
            if shim.is_quiet() {
                return Some(shim);
            }
        }
    }
}

impl Shim {
    async fn new(pass_env: &PassEnv) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program().0);
        command
            .arg0(NAME)
            .args(ARGUMENTS.get().into_iter().flatten())
            // Commands inherit the environment of the shim.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| pass_env.passes(name)))
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // The variable is meant for this program, unless the operator set it.
        let (bound, set_by_us) = supervisor::MALLOC_BOUND;
        if std::env::var(bound).as_deref() == Ok(set_by_us) {
            command.env_remove(bound);
        }
        let process = command.spawn()?;
        // Closes the shim's end of the pair in this process.
        drop(command);
        let mut shim = Self { control: UnixStream::from_std(ours)?, process, read: Vec::new() };
        match timeout(READY_WITHIN, shim.reply()).await {
            Ok(Ok((READY, _))) => Ok(shim),
            Ok(Ok(_)) => Err(garbled()),
            Ok(Err(error)) => Err(error),
            Err(elapsed) => {
                let _ = shim.process.start_kill();
                Err(elapsed.into())
            }
        }
    }

    /// Asks the shim to start a command; gives the reply.
    async fn ask(&mut self, request: &Request, pipes: [OwnedFd; 3]) -> io::Result<(u8, i32)> {
        let control = &self.control;
        let send = || send_pipes(control.as_fd(), &pipes);
        control.async_io(Interest::WRITABLE, send).await?;
        drop(pipes);
        self.control.write_all(&body(request)).await?;
        self.reply().await
    }

    /// Reads the next reply. Dropping the future loses nothing.
    async fn reply(&mut self) -> io::Result<(u8, i32)> {
        loop {
            if let Some(reply) = self.ready() {
                return Ok(reply);
            }
            if self.control.read_buf(&mut self.read).await? == 0 {
                let text = "the process that holds the command was killed";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
    }

    /// The next reply, if it has arrived.
    fn ready(&mut self) -> Option<(u8, i32)> {
        if self.read.len() < REPLY {
            let _ = self.control.try_read_buf(&mut self.read);
        }
        let &[letter, a, b, c, d] = self.read.first_chunk::<REPLY>()?;
        self.read.drain(..REPLY);
        Some((letter, i32::from_le_bytes([a, b, c, d])))
    }

    /// Whether the shim lives and has sent nothing.
    fn is_quiet(&self) -> bool {
        let read = self.control.try_read(&mut [0; 1]);
        self.read.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Group {
    /// Waits for the program itself; processes that it started may go on.
    ///
    /// # Errors
    /// When the shim was killed. Its processes are killed too, as far as they can be found.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            self.read_reply().await?;
        }
    }

    /// Whether the program still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        while let Some(reply) = self.shim.as_mut().and_then(Shim::ready) {
            self.note(reply);
        }
        self.status.is_none() && self.shim.is_some()
    }

    /// How the program ended; `None` as long as that is unknown.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Asks all processes to end, and kills them after [`TERM_GRACE`].
    pub(crate) async fn end(&mut self) {
        self.until_empty(END, TERM_GRACE + KILLED_WITHIN).await;
    }

    /// Kills all processes.
    pub(crate) async fn kill(&mut self) {
        self.until_empty(KILL, KILLED_WITHIN).await;
    }

    async fn until_empty(&mut self, letter: u8, within: Duration) {
        // Replies that have arrived may make the request unnecessary.
        self.is_running();
        let empty = async {
            if self.is_empty || self.shim.is_none() {
                return;
            }
            if self.shim().control.write_all(&[letter]).await.is_err() {
                return self.lose();
            }
            while !self.is_empty && self.read_reply().await.is_ok() {}
        };
        let _ = timeout(within, empty).await;
    }

    async fn read_reply(&mut self) -> io::Result<()> {
        let Some(shim) = &mut self.shim else { return Err(garbled()) };
        match shim.reply().await {
            Ok(reply) => self.note(reply),
            Err(error) => {
                self.lose();
                return Err(error);
            }
        }
        Ok(())
    }

    fn note(&mut self, (letter, number): (u8, i32)) {
        match letter {
            EXITED => self.status = Some(ExitStatus::from_raw(number)),
            EMPTY => self.is_empty = true,
            _ => {}
        }
    }

    /// The shim was killed. Processes that have not left its session can still be found.
    fn lose(&mut self) {
        let id = self.shim.take().and_then(|shim| shim.process.id());
        if let Some(session) = id.and_then(|id| i32::try_from(id).ok()) {
            for process in tree::of_session(session) {
                process.signal(Signal::KILL);
            }
        }
    }

    fn shim(&mut self) -> &mut Shim {
        self.shim.as_mut().expect("it is only taken when it is lost")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(shim) = self.shim.take_if(|_| self.is_empty) {
            self.pool.idle.lock().push(shim);
        }
        // Otherwise the socket is closed, and the shim kills its processes.
    }
}

fn garbled() -> io::Error {
    io::Error::other("the process that holds the command does not answer as it should")
}
