//! Scheduler and workers as users run them: processes of the `longshore` command, with its own defaults.

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

/// How long a process may take until it is there.
const THERE_WITHIN: Duration = Duration::from_secs(30);

/// The wait between two looks whether it is there: what a start takes is known to within this.
const LOOK: Duration = Duration::from_millis(1);

/// How long a process may take to leave before it is killed.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// As much of the end of what a process said as is told when it ends before its time.
const LAST_WORDS: usize = 600;

/// What a fleet consists of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Whether there is a scheduler.
    pub(crate) scheduler: bool,
    /// The slots of each worker; `None` leaves it to the default.
    pub(crate) workers: Vec<Option<u32>>,
}

impl Layout {
    /// A scheduler and a worker, both as they come.
    pub(crate) fn usual() -> Self {
        Self { scheduler: true, workers: vec![None] }
    }
}

/// A running fleet. Dropping it kills it.
pub(crate) struct Fleet {
    config: Config,
    namespace: String,
    members: Vec<Member>,
    /// Where they run and what they say. No `longshore.toml` lies there.
    folder: TempDir,
}

struct Member {
    role: &'static str,
    child: Child,
    pid: u32,
    words: PathBuf,
}

impl Fleet {
    pub(crate) fn new(config: &Config, namespace: &str) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("longshore-bench-").tempdir()?;
        let namespace = namespace.to_owned();
        Ok(Self { config: config.clone(), namespace, members: Vec::new(), folder })
    }

    /// Starts all of the layout and waits until they are there.
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

    /// Starts a scheduler; says what that took.
    pub(crate) async fn scheduler(&mut self, services: &Services) -> Result<Duration, Error> {
        self.launch("scheduler", &["scheduler"], "schedulers", services).await
    }

    /// Starts a worker; says what that took.
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

    /// Starts a process and waits until one more is on the list in Redis.
    async fn launch(
        &mut self,
        role: &'static str,
        arguments: &[&str],
        list: &str,
        services: &Services,
    ) -> Result<Duration, Error> {
        let mut count = cmd("ZCARD");
        count.arg(format!("{}:{list}", self.namespace));
        let mut redis = services.questions.clone();
        let before: u64 = count.query_async(&mut redis).await?;
        let words = self.folder.path().join(format!("{}.log", self.members.len()));
        let mut command = self.command(arguments);
        command.stderr(File::create(&words)?);
        let begun = Instant::now();
        let failed = |error: std::io::Error| Error::Process { role, reason: error.to_string() };
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        self.members.push(Member { role, child, pid, words });
        while count.query_async::<u64>(&mut redis).await? <= before {
            self.check()?;
            if begun.elapsed() > THERE_WITHIN {
                let what = "a process of the fleet to be there";
                return Err(Error::TimedOut { what, seconds: THERE_WITHIN.as_secs() });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    /// The `longshore` command on the same services and namespace, with nothing of our own settings.
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

    /// The first processes of all members, by role.
    pub(crate) fn processes(&self) -> Vec<(&'static str, u32)> {
        self.members.iter().map(|member| (member.role, member.pid)).collect()
    }

    /// The first process of a role.
    pub(crate) fn process(&self, role: &str) -> u32 {
        let member = self.members.iter().find(|member| member.role == role);
        member.map(|member| member.pid).unwrap_or_default()
    }

    /// Fails once a member has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        for Member { role, child, words, .. } in &mut self.members {
            if let Some(status) = child.try_wait()? {
                let reason = format!("ended: {status}; {}", last_words(words));
                return Err(Error::Process { role, reason });
            }
        }
        Ok(())
    }

    /// Asks all members to leave, workers first, and waits until they have.
    pub(crate) async fn stop(&mut self) {
        while let Some(mut member) = self.members.pop() {
            let pid = i32::try_from(member.pid).unwrap_or(i32::MAX);
            // One that is gone already needs no asking; one that does not leave is killed as it is dropped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = tokio::time::timeout(LEAVE_WITHIN, member.child.wait()).await;
        }
    }
}

fn last_words(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let start = text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS));
    text[start..].trim().to_owned()
}
