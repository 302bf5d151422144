//! The cluster under test: starts and breaks its processes, and submits, awaits and reads its jobs.
//!
//! The processes are schedulers and workers, each behind its own network links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use longshore_test_servers::{
    Process, Rabbit, Redis, RedisSentinel, Reply, holds_within, wait_until,
};
use longshore_tests::{Fleet, Run, finish};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::checker::ReportedJob;
use crate::clock::Moment;
use crate::history::{History, Submissions, WorkerLoss};
use crate::link::{Link, LinkState};
use crate::marks::FOLDER;
use crate::mutant::Mutant;
use crate::process_stats::ProcessStats;

/// The time limit of all waits, which allows for a busy machine.
pub const LONG: Duration = Duration::from_secs(180);

/// The program that a member runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `longshore scheduler`.
    Scheduler,
    /// The chaos worker: tasks in Rust.
    Worker,
    /// `longshore worker` with a served command.
    Server,
    /// `longshore worker` on which each attempt at the task fails at once.
    FailsAll,
    /// `longshore worker` with a command that leaves processes behind.
    Commander,
}

/// One process of the cluster.
pub struct Member {
    /// The name in reports, such as `worker-2`.
    pub name: String,
    /// The program that it runs.
    pub role: Role,
    /// The link to RabbitMQ.
    pub rabbit: Link,
    /// The link to Redis; `None` behind sentinels.
    pub redis: Option<Link>,
    process: Process,
    should_run: bool,
    losses: Vec<WorkerLoss>,
}

/// How the cluster finds Redis.
enum Ledger {
    /// By this port, over a link for each member.
    Port(u16),
    /// By sentinels, without links, because sentinels name the addresses.
    Sentinels,
}

/// A fleet for fault injection, and its history.
pub struct Cluster {
    fleet: Fleet,
    rabbit_port: u16,
    ledger: Ledger,
    mutant: Option<Mutant>,
    /// All processes, in the order of their start.
    pub members: Vec<Member>,
    folder: Option<TempDir>,
}

impl Cluster {
    /// An empty cluster on these servers.
    pub fn on(rabbit: &Rabbit, redis: &Redis) -> Self {
        Self::at(rabbit, &redis.url(), Ledger::Port(redis.port()))
    }

    /// An empty cluster with a Redis behind sentinels.
    pub fn behind(rabbit: &Rabbit, sentinels: &RedisSentinel) -> Self {
        Self::at(rabbit, &sentinels.url(), Ledger::Sentinels)
    }

    fn at(rabbit: &Rabbit, redis_url: &str, ledger: Ledger) -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-chaos-").tempdir();
        let folder = folder.expect("a folder for the history");
        let fleet = Fleet::at(&rabbit.url(), redis_url);
        let (rabbit_port, members) = (rabbit.port(), Vec::new());
        let (mutant, folder) = (None, Some(folder));
        let mut cluster = Self { fleet, rabbit_port, ledger, mutant, members, folder };
        let history = cluster.folder().to_str().expect("a plain name").to_owned();
        cluster.set(FOLDER, &history);
        cluster
    }

    /// Sets an environment variable for all members that start from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.fleet.set(name, value);
    }

    /// Members added from now on behave as this broken build; `None` for the regular one.
    pub fn break_build(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    /// The folder of the history.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept until the end").path()
    }

    /// The namespace of all names in RabbitMQ and Redis.
    pub fn namespace(&self) -> &str {
        self.fleet.namespace()
    }

    /// Starts `count` members of a role and waits until new workers have sent a heartbeat.
    pub fn add(&mut self, role: Role, count: usize) {
        for _ in 0..count {
            let member = self.member(role);
            self.members.push(member);
        }
        let workers = self.workers().count();
        if role != Role::Scheduler {
            self.fleet.await_workers(workers);
        }
    }

    fn member(&self, role: Role) -> Member {
        let mut command = match role {
            Role::Scheduler => self.fleet.command(&["scheduler"]),
            Role::Worker => {
                let mut command = Command::new(chaos_worker());
                command.envs(self.fleet.environment());
                command
            }
            Role::Server => {
                self.fleet.command(&["worker", "--config", &self.config("serve", "serve")])
            }
            Role::FailsAll => {
                self.fleet.command(&["worker", "--config", &self.config("fail", "command")])
            }
            Role::Commander => {
                self.fleet.command(&["worker", "--config", &self.config("command", "command")])
            }
        };
        let rabbit = Link::mutating(self.rabbit_port, self.mutant);
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", rabbit.port());
        command.env("LONGSHORE_AMQP_URL", url);
        let redis = match self.ledger {
            Ledger::Port(port) => Some(Link::to(port)),
            Ledger::Sentinels => None,
        };
        if let Some(link) = &redis {
            command.env("LONGSHORE_REDIS_URL", format!("redis://127.0.0.1:{}/", link.port()));
        }
        let same_role = self.members.iter().filter(|member| member.role == role).count();
        let name = format!("{role:?}-{same_role}").to_lowercase();
        let process = Process::start(&command);
        Member { name, role, rabbit, redis, process, should_run: true, losses: Vec::new() }
    }

    /// The configuration of a worker whose task is this command, or served command, of the chaos
    /// worker.
    fn config(&self, verb: &str, kind: &str) -> String {
        let path = self.folder().join(format!("{verb}.toml"));
        let command = format!("[task.mark]\n{kind} = [{:?}, {verb:?}]\n", chaos_worker());
        std::fs::write(&path, command).expect("room for it");
        path.to_str().expect("a plain name").to_owned()
    }

    /// All members except the schedulers.
    pub fn workers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role != Role::Scheduler)
    }

    /// The losses of workers: kills, freezes and cuts.
    pub fn losses(&self) -> Vec<WorkerLoss> {
        self.workers().flat_map(|worker| worker.losses.iter().copied()).collect()
    }

    /// The history that handlers and submitters have written so far.
    pub fn history(&self) -> History {
        History::read(self.folder())
    }

    /// Submits a job of a chaos task and repeats that until Longshore confirms it, as documented
    /// for clients. `more` holds further fields of the document.
    #[track_caller]
    pub fn submit(&self, task: &str, total: u64, params: &Value, more: &Value) -> Uuid {
        let job = Uuid::now_v7();
        self.submit_as(job, task, total, params, more);
        job
    }

    /// [`Cluster::submit`] with an id that may have been used before.
    #[track_caller]
    pub fn submit_as(&self, job: Uuid, task: &str, total: u64, params: &Value, more: &Value) {
        let file = tempfile::Builder::new().suffix(".json").tempfile().expect("room for it");
        let document = Self::document(job, task, total, params, more);
        std::fs::write(file.path(), document.to_string()).expect("room for it");
        let path = file.path().to_str().expect("a plain name");
        let submissions = Submissions { folder: self.folder() };
        submissions.intend(job, task, total);
        wait_until(&format!("job {job} is accepted"), LONG, || {
            self.longshore(&["submit", path, "--json"]).code == Some(0)
        });
        submissions.confirm(job);
    }

    /// The document of a job of a chaos task. `more` holds further fields.
    pub fn document(job: Uuid, task: &str, total: u64, params: &Value, more: &Value) -> Value {
        let mut document = json!({
            "id": job,
            "task": task,
            "params": params,
            "split": {"by": "range", "start": 0, "end": total},
            "retry": {"backoff": "10ms"},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            document[name] = value.clone();
        }
        document
    }

    /// Runs a `longshore` command that connects to the servers without links.
    pub fn longshore(&self, arguments: &[&str]) -> Run {
        finish(self.fleet.command(arguments))
    }

    /// Sends a command to Redis; `None` while Redis is away, or behind sentinels.
    pub fn ask_redis(&self, command: &[&str]) -> Option<Reply> {
        match self.ledger {
            Ledger::Port(port) => Redis::ask(port, command).ok(),
            Ledger::Sentinels => None,
        }
    }

    /// A field of a job's hash in Redis, empty while there is no answer. Behind sentinels it comes
    /// from `longshore status`.
    pub fn field(&self, job: Uuid, name: &str) -> String {
        if matches!(self.ledger, Ledger::Sentinels) {
            let status = self.longshore(&["status", &job.to_string(), "--json"]);
            let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
            let field = &status[name];
            return field.as_str().map_or_else(|| field.to_string(), str::to_owned);
        }
        let key = format!("{}:{{{job}}}", self.namespace());
        let reply = self.ask_redis(&["HGET", &key, name]);
        reply.and_then(|reply| reply.text()).unwrap_or_default()
    }

    /// How many subtasks of a job are done.
    pub fn done(&self, job: Uuid) -> u64 {
        self.field(job, "done").parse().unwrap_or_default()
    }

    /// How many chunks of all jobs a second worker ran speculatively, according to the jobs'
    /// counts.
    pub fn speculative_chunks(&self, history: &History) -> u64 {
        let counts = history.intents.keys().map(|job| self.field(*job, "speculative_chunks"));
        counts.map(|count| count.parse::<u64>().unwrap_or_default()).sum()
    }

    /// Waits until `count` subtasks of a job are done.
    #[track_caller]
    pub fn await_done(&self, job: Uuid, count: u64) {
        wait_until(&format!("{count} of {job} are done"), LONG, || self.done(job) >= count);
    }

    /// Waits until a job has ended. Fails when it makes no progress.
    #[track_caller]
    pub fn await_end(&self, job: Uuid) {
        let ends = ["succeeded", "failed", "cancelled", "rejected"];
        let has_ended = || ends.contains(&self.field(job, "state").as_str());
        let progress = || (self.field(job, "done"), self.field(job, "failed"));
        loop {
            let before = progress();
            let moves = holds_within(LONG, || has_ended() || progress() != before);
            assert!(moves, "job {job} made no progress in {LONG:?}; done and failed: {before:?}");
            if has_ended() {
                return;
            }
        }
    }

    /// What Longshore reports about its jobs: all that it lists, and all that were intended.
    #[track_caller]
    pub fn reported(&self, history: &History) -> BTreeMap<Uuid, ReportedJob> {
        let listed = self.longshore(&["status", "--json"]).json();
        let listed = listed.as_array().expect("a list").iter();
        let mut jobs: Vec<Uuid> = listed
            .map(|job| job["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"))
            .collect();
        jobs.extend(history.intents.keys());
        jobs.into_iter().filter_map(|job| Some((job, self.reported_job(job)?))).collect()
    }

    fn reported_job(&self, job: Uuid) -> Option<ReportedJob> {
        let id = job.to_string();
        let status = self.longshore(&["status", &id, "--json"]);
        // Exit code 4: there is no such job.
        if status.code == Some(4) {
            return None;
        }
        let status = status.json();
        let count = |name: &str| status[name].as_u64().unwrap_or_default();
        let audit = self.longshore(&["audit", &id]);
        let results = self.longshore(&["results", &id]).stdout;
        let errors = self.longshore(&["errors", &id, "--json"]).stdout;
        Some(ReportedJob {
            state: status["state"].as_str().unwrap_or_default().to_owned(),
            total: count("total"),
            done: count("done"),
            failed: count("failed"),
            cancelled: count("cancelled"),
            unbalanced: (audit.code != Some(0)).then(|| audit.stdout + &audit.stderr),
            results: results.lines().map(str::to_owned).collect(),
            poison: poison(&errors),
            left_open: self.left_open(job),
        })
    }

    fn left_open(&self, job: Uuid) -> u64 {
        let key = |part: &str| format!("{}:{{{job}}}:{part}", self.namespace());
        let count = |command: &str, part: &str| match self.ask_redis(&[command, &key(part)]) {
            Some(Reply::Int(count)) => u64::try_from(count).unwrap_or_default(),
            _ => 0,
        };
        count("HLEN", "chunks") + count("ZCARD", "retry")
    }

    /// The queues of this cluster in RabbitMQ with their numbers of messages.
    pub fn queues(&self, rabbit: &Rabbit) -> Vec<(String, u64)> {
        let table = rabbit.ctl(&["list_queues", "--no-table-headers", "name", "messages"]);
        let rows = table.lines().filter_map(|line| line.split_once('\t'));
        let ours = rows.filter(|(name, _)| name.starts_with(self.namespace()));
        // The journal is a stream, which keeps the messages that were read.
        let queues = ours.filter(|(name, _)| !name.ends_with(".journal"));
        queues
            .map(|(name, count)| (name.to_owned(), count.trim().parse().unwrap_or_default()))
            .collect()
    }

    /// Keeps history and logs for an analysis, and returns their folder.
    fn keep(&mut self) -> Option<PathBuf> {
        for member in &self.members {
            let path = self.folder().join(format!("{}.log", member.name));
            std::fs::write(path, member.process.output()).ok()?;
        }
        Some(self.folder.take()?.keep())
    }
}

impl Drop for Cluster {
    #[expect(clippy::print_stderr, reason = "a failing test says where its history is")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(kept) = self.keep()
        {
            eprintln!("history and logs are kept in {}", kept.display());
        }
    }
}

impl Member {
    /// The id of the started process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The id of the process that claims chunks, by which marks name the worker. For `longshore
    /// worker`, which is a supervisor, it is the child.
    pub fn worker_pid(&self) -> u32 {
        match self.role {
            Role::Scheduler | Role::Worker => self.pid(),
            Role::Server | Role::FailsAll | Role::Commander => {
                child(self.pid()).unwrap_or_default()
            }
        }
    }

    /// Whether the process runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Whether it runs, or the test has stopped it.
    pub fn is_as_expected(&self) -> bool {
        !self.should_run || self.process.is_running()
    }

    /// The resources that it uses; zero while it does not run.
    pub fn stats(&self) -> ProcessStats {
        ProcessStats::of(self.pid()).unwrap_or_default()
    }

    /// Everything that it has printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The last lines that it has printed.
    pub fn tail(&self) -> String {
        self.process.tail()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> WorkerLoss {
        self.should_run = false;
        let loss = self.lost(true);
        self.process.kill9();
        loss
    }

    /// Asks it to stop with SIGTERM; does not wait.
    pub fn terminate(&mut self) {
        self.should_run = false;
        self.process.signal("TERM");
    }

    /// Starts it again, as a new incarnation, with open links. Kills it if it still runs.
    pub fn restart(&mut self) {
        self.process.restart();
        self.should_run = true;
        self.open_links();
    }

    /// Freezes it with SIGSTOP.
    pub fn freeze(&mut self) -> WorkerLoss {
        let loss = self.lost(false);
        self.process.signal("STOP");
        loss
    }

    /// Continues it with SIGCONT.
    pub fn thaw(&mut self) {
        self.process.signal("CONT");
    }

    /// Cuts it off from both servers.
    pub fn cut_off(&mut self) -> WorkerLoss {
        let loss = self.lost(false);
        self.set_links(LinkState::CUT, LinkState::CUT);
        loss
    }

    /// Opens its links.
    pub fn open_links(&self) {
        self.set_links(LinkState::OPEN, LinkState::OPEN);
    }

    /// Sets the state of its links to RabbitMQ and Redis.
    pub fn set_links(&self, rabbit: LinkState, redis: LinkState) {
        self.rabbit.set(rabbit);
        if let Some(link) = &self.redis {
            link.set(redis);
        }
    }

    fn lost(&mut self, for_good: bool) -> WorkerLoss {
        let loss = WorkerLoss { worker: self.worker_pid(), at: Moment::now(), for_good };
        self.losses.push(loss);
        loss
    }
}

/// The subtasks that failed because workers died of them, from the output of `longshore errors
/// --json`.
fn poison(errors: &str) -> BTreeSet<u64> {
    let entries = errors.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let poison = entries.filter(|entry| entry.get("deaths").is_some());
    poison.map(|entry| entry["index"].as_u64().expect("an index")).collect()
}

/// The first child of a process, if it has one.
fn child(pid: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("children")));
    let mut firsts = children.filter_map(|pids| pids.split(' ').next()?.parse().ok());
    firsts.next()
}

/// The path of the chaos worker, which cargo builds for the tests of this crate.
fn chaos_worker() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // target/PROFILE/deps/TEST-HASH -> target/PROFILE/longshore-chaos-worker
    test.ancestors()
        .nth(2)
        .expect("deps lies in the profile's folder")
        .join("longshore-chaos-worker")
}
