//! Starts and stops the processes of a benchmark: a scheduler and workers, with default settings.
//!
//! They are processes of the `longshore` command. The time from a start to the registration is
//! measured here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::cmd;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::services::Services;
use crate::{Config, Error};

/// The longest wait until a started process has registered.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval of the checks whether a process has registered, and so the accuracy of a start
/// time.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The longest wait for a process to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes of the end of a log an error shows when a process ends unexpectedly.
const LOG_TAIL_BYTES: usize = 600;

/// The processes of a fleet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Whether there is a scheduler.
    pub(crate) scheduler: bool,
    /// The slots of each worker; `None` is the default of the worker.
    pub(crate) workers: Vec<Option<u32>>,
}

impl Layout {
    /// A scheduler and a worker with default settings.
    pub(crate) fn usual() -> Self {
        Self { scheduler: true, workers: vec![None] }
    }
}

/// A running fleet. Dropping it kills its processes.
pub(crate) struct Fleet {
    config: Config,
    namespace: String,
    members: Vec<Member>,
    /// The working directory of the processes, which holds their logs and no `longshore.toml`.
    folder: TempDir,
}

struct Member {
    role: &'static str,
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Fleet {
    pub(crate) fn new(config: &Config, namespace: &str) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("longshore-bench-").tempdir()?;
        let namespace = namespace.to_owned();
        Ok(Self { config: config.clone(), namespace, members: Vec::new(), folder })
    }

    /// Starts the processes of the layout and waits until they have registered.
    pub(crate) async fn start(
        &mut self,
        layout: &Layout,
        services: &Services,
    ) -> Result<(), Error> {
        if layout.scheduler {
            self.scheduler(services).await?;
        }
        for slots in &layout.workers {
            self.worker(*slots, services).await?;
        }
        Ok(())
    }

    /// Starts a scheduler; returns how long that took.
    pub(crate) async fn scheduler(&mut self, services: &Services) -> Result<Duration, Error> {
        self.launch("scheduler", &["scheduler"], "schedulers", services).await
    }

    /// Starts a worker; returns how long that took.
    pub(crate) async fn worker(
        &mut self,
        slots: Option<u32>,
        services: &Services,
    ) -> Result<Duration, Error> {
        let slots = slots.map(|slots| slots.to_string());
        let mut arguments = vec!["worker", "--bench"];
        if let Some(slots) = &slots {
            arguments.extend(["--slots", slots]);
        }
        self.launch("worker", &arguments, "nodes", services).await
    }

    /// Starts a server of the HTTP API; returns its URL.
    pub(crate) async fn api(&mut self) -> Result<String, Error> {
        // The port is free again until the server has it, which no one else asks for meanwhile.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = self.command(&["api"]);
        command.env("LONGSHORE_HTTP_LISTEN", address.to_string());
        self.spawn("api", command)?;
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            self.check()?;
            if begun.elapsed() > START_TIMEOUT {
                let what = "the start of the HTTP API";
                return Err(Error::TimedOut { what, seconds: START_TIMEOUT.as_secs() });
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Ok(format!("http://{address}"))
    }

    /// Starts a process and waits until the list in Redis has one more entry.
    async fn launch(
        &mut self,
        role: &'static str,
        arguments: &[&str],
        list: &str,
        services: &Services,
    ) -> Result<Duration, Error> {
        let mut count = cmd("ZCARD");
        count.arg(format!("{}:{list}", self.namespace));
        let mut redis = services.queries.clone();
        let before: u64 = count.query_async(&mut redis).await?;
        let begun = Instant::now();
        self.spawn(role, self.command(arguments))?;
        while count.query_async::<u64>(&mut redis).await? <= before {
            self.check()?;
            if begun.elapsed() > START_TIMEOUT {
                let what = "the registration of a process";
                return Err(Error::TimedOut { what, seconds: START_TIMEOUT.as_secs() });
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Ok(begun.elapsed())
    }

    fn spawn(&mut self, role: &'static str, mut command: Command) -> Result<(), Error> {
        let log = self.folder.path().join(format!("{}.log", self.members.len()));
        command.stderr(File::create(&log)?);
        let failed = |error: std::io::Error| Error::Process { role, reason: error.to_string() };
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        self.members.push(Member { role, child, pid, log });
        Ok(())
    }

    /// A `longshore` command with the same services and namespace, without the settings of this
    /// process.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.config.program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("LONGSHORE_")) {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .env("LONGSHORE_AMQP_URL", &self.config.amqp_url)
            .env("LONGSHORE_REDIS_URL", &self.config.redis_url)
            .env("LONGSHORE_NAMESPACE", &self.namespace)
            .env("LONGSHORE_WORK_QUEUES", &self.config.work_queues)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The roles and process ids of all members.
    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        self.members.iter().map(|member| (member.role, member.pid)).collect()
    }

    /// The process id of the first member of a role; 0 without one.
    pub(crate) fn process(&self, role: &str) -> u32 {
        let member = self.members.iter().find(|member| member.role == role);
        member.map(|member| member.pid).unwrap_or_default()
    }

    /// Fails once a member has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        for Member { role, child, log, .. } in &mut self.members {
            if let Some(status) = child.try_wait()? {
                let reason = format!("ended: {status}; {}", log_tail(log));
                return Err(Error::Process { role, reason });
            }
        }
        Ok(())
    }

    /// Stops all members, workers first, and waits for their end.
    pub(crate) async fn stop(&mut self) {
        while let Some(mut member) = self.members.pop() {
            let pid = i32::try_from(member.pid).unwrap_or(i32::MAX);
            // Errors are ignored: the process has ended already, or is killed when it is dropped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = tokio::time::timeout(STOP_TIMEOUT, member.child.wait()).await;
        }
    }
}

fn log_tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let start = text.ceil_char_boundary(text.len().saturating_sub(LOG_TAIL_BYTES));
    text[start..].trim().to_owned()
}
