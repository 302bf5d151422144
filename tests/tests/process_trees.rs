//! No process of a command outlives its worker to run beside the second attempt.
//!
//! Workers and supervisors get kills, signals to whole groups and upgrades.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use longshore_test_servers::{Process, Rabbit, Redis, is_running, wait_until};
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

/// A command that leaves processes behind in every possible way. The number distinguishes them from
/// those of other tests.
const RUNAWAYS: &str = "timeout 1000 sleep $0 & (setsid sh -c 'setsid sleep $0 & exit' $0 &); \
                        env -i setsid sleep $0 & (trap '' TERM; sleep $0; sleep $0) & wait";

/// The minimum number of those processes.
const RUNAWAY: usize = 4;

struct Commands {
    fleet: Fleet,
    /// The folder of the configuration.
    folder: tempfile::TempDir,
    seconds: String,
}

impl Commands {
    /// A fleet without workers, whose workers will run this script as a task.
    fn new(script: &str) -> Self {
        let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
        fleet.add_scheduler();
        let folder = tempfile::tempdir().expect("a folder");
        let number = fleet.namespace().trim_start_matches(char::is_alphabetic);
        let seconds = format!("2000.{}0000{number}", std::process::id());
        let task = format!("[task.t]\ncommand = {:?}\n", ["sh", "-c", script, &seconds]);
        fs::write(folder.path().join("w.toml"), task).expect("room for it");
        Self { fleet, folder, seconds }
    }

    fn worker(&self, program: Option<&str>) -> Command {
        let config = self.folder.path().join("w.toml");
        let config = config.to_str().expect("a plain name");
        let plain = self.fleet.command(&["worker", "--slots", "2", "--config", config]);
        let mut command = Command::new(program.map_or(plain.get_program(), AsRef::as_ref));
        command.args(plain.get_args()).envs(self.fleet.environment());
        command
    }

    fn add_worker(&mut self) {
        let worker = Process::start(&self.worker(None));
        self.fleet.workers.push(worker);
        self.fleet.await_workers(self.fleet.workers.len());
    }

    fn submit(&self, more: &Value) -> String {
        let mut document = json!({
            "task": "t", "split": {"by": "range", "start": 0, "end": 1}, "retry": {"attempts": 1},
        });
        for (name, value) in more.as_object().expect("fields") {
            document[name] = value.clone();
        }
        self.fleet.submit(&document)
    }

    /// The running processes of commands of this fleet.
    fn running(&self) -> BTreeSet<u32> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &u32| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with("sleep\0") && words.contains(&self.seconds)
        };
        pids.filter(is_ours).collect()
    }

    #[track_caller]
    fn await_running(&self, count: usize) -> BTreeSet<u32> {
        wait_until("the command runs", LONG, || self.running().len() >= count);
        self.running()
    }

    /// The process id of the worker below the only supervisor.
    fn worker_pid(&self) -> u32 {
        let nodes = self.fleet.longshore(&["nodes", "--json"]).json();
        nodes[0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

#[track_caller]
fn are_gone(pids: &BTreeSet<u32>) {
    let left = || pids.iter().filter(|pid| is_running(**pid)).count();
    wait_until("the commands are gone", Duration::from_secs(10), || left() == 0);
}

/// Runs a command that leaves processes behind, kills its worker by `kill`, and checks that all are
/// gone.
fn killed(kill: impl Fn(&Commands)) {
    let mut commands = Commands::new(RUNAWAYS);
    commands.add_worker();
    commands.submit(&json!({}));
    let first = commands.await_running(RUNAWAY);
    kill(&commands);
    are_gone(&first);
}

#[test]
fn no_process_of_a_command_outlives_its_worker() {
    killed(|commands| signal(commands.worker_pid(), "KILL"));
}

#[test]
fn no_process_of_a_command_outlives_the_supervisor() {
    killed(|commands| signal(commands.fleet.workers[0].pid(), "KILL"));
}

#[test]
fn no_process_of_a_command_outlives_a_kill_of_worker_and_supervisor() {
    killed(|commands| {
        let (worker, supervisor) = (commands.worker_pid(), commands.fleet.workers[0].pid());
        signal(supervisor, "STOP");
        signal(worker, "KILL");
        signal(supervisor, "KILL");
    });
}

#[test]
fn a_timeout_and_a_cancel_leave_no_process_behind() {
    let mut commands = Commands::new(RUNAWAYS);
    commands.add_worker();
    let job = commands.submit(&json!({"timeout": "2s"}));
    commands.await_running(RUNAWAY);
    let status = commands.fleet.await_end(&job, LONG);
    assert_eq!(status["failed"], 1, "{status}");
    assert_eq!(commands.running(), [].into(), "a timeout counts after the processes are gone");
    let job = commands.submit(&json!({}));
    let running = commands.await_running(RUNAWAY);
    assert_eq!(commands.fleet.longshore(&["cancel", &job]).code, Some(0));
    are_gone(&running);
}

/// Like a stop of a unit by systemd: all its processes get SIGTERM at once.
#[test]
fn a_sigterm_to_all_processes_releases_running_subtasks() {
    let script = "timeout 1000 sleep $0 & wait $!";
    for order in ["commands first", "worker first"] {
        let mut commands = Commands::new(script);
        commands.add_worker();
        let job = commands.submit(&json!({}));
        let running = commands.await_running(1);
        let supervisor = commands.fleet.workers[0].pid();
        // The worker is older than its commands, so its process id is lower, except after a rare
        // wrap-around.
        let mut unit: Vec<u32> = [supervisor].into_iter().chain(below(supervisor)).collect();
        if order == "commands first" {
            unit.reverse();
        }
        // Some end before they get their signal.
        for pid in &unit {
            let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status();
        }
        wait_until("the worker leaves", LONG, || !is_running(supervisor));
        are_gone(&running);
        let status = commands.fleet.status(&job);
        assert_eq!(
            (&status["failed"], &status["lost"]),
            (&json!(0), &json!(0)),
            "{order}: {status}"
        );
        // The next worker runs the released subtask, as its first attempt.
        let ready = "[task.t]\ncommand = [\"echo\", \"5\"]\n";
        fs::write(commands.folder.path().join("w.toml"), ready).expect("room for it");
        commands.fleet.workers.clear();
        commands.add_worker();
        let status = commands.fleet.await_end(&job, LONG);
        assert_eq!((&status["state"], &status["attempts"]), (&json!("succeeded"), &json!(1)));
    }
}

#[test]
fn after_an_upgrade_the_supervisor_restarts_the_old_program() {
    let commands = Commands::new("echo 1");
    let program = commands.folder.path().join("longshore");
    let original = commands.worker(None).get_program().to_owned();
    fs::copy(&original, &program).expect("room for it");
    let supervisor = Process::start(&commands.worker(program.to_str()));
    commands.fleet.await_workers(1);
    let first = commands.worker_pid();
    // A package manager replaces files like this. The replacement here can't even start.
    let next = commands.folder.path().join("next");
    fs::write(&next, "no program").expect("room for it");
    fs::rename(&next, &program).expect("the same folder");
    signal(first, "KILL");
    wait_until("another worker takes its place", LONG, || {
        let nodes = commands.fleet.longshore(&["nodes", "--json"]).json();
        nodes.as_array().is_some_and(|nodes| nodes.len() == 1 && nodes[0]["pid"] != first)
    });
    assert!(supervisor.is_running());
    let name = fs::read_to_string(format!("/proc/{}/comm", commands.worker_pid()));
    assert_eq!(
        name.expect("it lives").trim(),
        "longshore",
        "operators look for the worker by this name"
    );
    // The shims of its commands run the old program, too.
    let job = commands.submit(&json!({}));
    assert_eq!(commands.fleet.await_end(&job, LONG)["state"], "succeeded");
}

/// Processes without a parent become children of the supervisor, as of the first process of a
/// container.
#[test]
fn a_supervisor_leaves_no_zombies() {
    let mut commands = Commands::new("setsid sleep $0 & exec sleep $0");
    commands.add_worker();
    commands.submit(&json!({}));
    let running = commands.await_running(2);
    let (runaway, command): (Vec<u32>, Vec<u32>) =
        running.iter().partition(|pid| running.contains(&parent(**pid)));
    let (supervisor, shim) = (commands.fleet.workers[0].pid(), parent(command[0]));
    // Without its shim, a process that has left the session becomes a child of the supervisor.
    signal(shim, "KILL");
    let orphans = || {
        let worker = commands.worker_pid();
        let children = below(supervisor).into_iter().filter(|pid| parent(*pid) == supervisor);
        children.filter(|pid| *pid != worker).collect::<Vec<_>>()
    };
    wait_until("it is a child of the supervisor", LONG, || orphans().contains(&runaway[0]));
    signal(runaway[0], "KILL");
    wait_until("it is reaped", LONG, || orphans().is_empty());
}

/// All descendants of a process.
fn below(root: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids: Vec<u32> = pids.collect();
    let mut found = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> =
            pids.iter().copied().filter(|pid| found.contains(&parent(*pid))).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            found.remove(&root);
            return found;
        }
    }
}

fn parent(pid: u32) -> u32 {
    stat(pid, 1).and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// A field after the name; see proc_pid_stat(5).
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(field).map(str::to_owned)
}
