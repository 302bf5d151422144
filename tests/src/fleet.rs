//! A fleet of real processes on RabbitMQ and Redis, and `longshore` commands against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore_test_servers::{Process, Rabbit, Redis, wait_until};
use serde_json::Value;

/// The repository's top folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The `longshore` binary of this build, built if it is missing or out of date.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(repository()).args([
            "build",
            "--quiet",
            "-p",
            "longshore-cli",
            "--features",
            "bench",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the binary does not build");
        let test = std::env::current_exe().expect("a test has a path");
        // target/PROFILE/deps/TEST-HASH -> target/PROFILE/longshore
        test.ancestors().nth(2).expect("deps lies in the profile's folder").join("longshore")
    })
}

/// The outcome of a finished command.
#[derive(Debug)]
pub struct Run {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Run {
    /// The output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The output of a command that succeeded, as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }
}

/// The processes of a fleet, in their own namespace on a RabbitMQ and a Redis.
pub struct Fleet {
    environment: Vec<(&'static str, String)>,
    /// The schedulers that were started, in order.
    pub schedulers: Vec<Process>,
    /// The workers that were started, in order.
    pub workers: Vec<Process>,
}

impl Fleet {
    /// Starts a fleet on the servers that the tests of this process share.
    pub fn start(schedulers: usize, workers: usize) -> Self {
        let mut fleet = Self::on(Rabbit::shared(), Redis::shared());
        for _ in 0..schedulers {
            fleet.add_scheduler();
        }
        for _ in 0..workers {
            fleet.add_worker(&["--slots", "2"]);
        }
        fleet.await_workers(workers);
        fleet
    }

    /// An empty fleet on these servers.
    pub fn on(rabbit: &Rabbit, redis: &Redis) -> Self {
        Self::at(&rabbit.url(), &redis.url())
    }

    /// An empty fleet on the servers at these addresses.
    pub fn at(amqp_url: &str, redis_url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            environment: vec![
                ("LONGSHORE_AMQP_URL", amqp_url.to_owned()),
                ("LONGSHORE_REDIS_URL", redis_url.to_owned()),
                ("LONGSHORE_NAMESPACE", format!("fleet{number}")),
            ],
            schedulers: Vec::new(),
            workers: Vec::new(),
        }
    }

    /// Sets an environment variable for every process that is started from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// The namespace of all names in RabbitMQ and Redis.
    pub fn namespace(&self) -> &str {
        self.setting("LONGSHORE_NAMESPACE")
    }

    /// The value of one of the fleet's settings.
    pub fn setting(&self, name: &str) -> &str {
        let found = self.environment.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    }

    /// The environment variables with which any program finds the fleet's services.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// `longshore` with these arguments and the fleet's services, not started yet, in the
    /// repository's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).envs(self.environment()).current_dir(repository());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a `longshore` command to its end.
    #[track_caller]
    pub fn longshore(&self, arguments: &[&str]) -> Run {
        finish(self.command(arguments))
    }

    /// Starts one more scheduler.
    pub fn add_scheduler(&mut self) -> &mut Process {
        self.schedulers.push(Process::start(&self.command(&["scheduler"])));
        self.schedulers.last_mut().expect("just pushed")
    }

    /// Starts one more worker.
    pub fn add_worker(&mut self, arguments: &[&str]) -> &mut Process {
        let arguments: Vec<&str> = ["worker"].iter().chain(arguments).copied().collect();
        self.workers.push(Process::start(&self.command(&arguments)));
        self.workers.last_mut().expect("just pushed")
    }

    /// Waits until `count` workers have sent heartbeats.
    #[track_caller]
    pub fn await_workers(&self, count: usize) {
        wait_until(&format!("{count} workers beat"), Duration::from_secs(30), || {
            let run = self.longshore(&["nodes", "--json"]);
            let nodes: Option<Vec<Value>> = serde_json::from_str(&run.stdout).ok();
            nodes.is_some_and(|nodes| nodes.len() == count)
        });
    }

    /// Submits a document and returns the job's id.
    #[track_caller]
    pub fn submit(&self, document: &Value) -> String {
        let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a folder for it");
        std::fs::write(file.path(), document.to_string()).expect("room for it");
        let path = file.path().to_str().expect("a plain name");
        let submitted = self.longshore(&["submit", path, "--json"]).json();
        submitted["id"].as_str().unwrap_or_else(|| panic!("an id in {submitted}")).to_owned()
    }

    /// The job's status from `longshore status JOB --json`.
    #[track_caller]
    pub fn status(&self, job: &str) -> Value {
        self.longshore(&["status", job, "--json"]).json()
    }

    /// Waits until the job has ended and returns its last status.
    #[track_caller]
    pub fn await_end(&self, job: &str, deadline: Duration) -> Value {
        let mut status = Value::Null;
        wait_until(&format!("job {job} ends"), deadline, || {
            status = self.status(job);
            let state = status["state"].as_str().unwrap_or_default();
            ["succeeded", "failed", "cancelled", "rejected"].contains(&state)
        });
        status
    }

    /// Checks with `longshore audit` that the counts balance.
    #[track_caller]
    pub fn audit(&self, job: &str) {
        let run = self.longshore(&["audit", job]);
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    }
}

/// Runs a prepared command to its end.
#[track_caller]
pub fn finish(mut command: Command) -> Run {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
