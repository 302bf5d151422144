//! A worker that is cut off from Redis stops commands with `on_disconnect = "stop"` in time.
//!
//! The attempts of such a command must never overlap: it stops before the worker may be declared
//! lost. The worker's other commands continue.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use longshore_test_servers::{Process, Rabbit, Redis, is_running, wait_until};
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
const DEAD_AFTER: Duration = Duration::from_secs(6);

/// Each attempt writes its process id to a file of its task; `steady` ends when the file `go`
/// exists.
const TASKS: &str = r#"
[task.exclusive]
command = ["sh", "-c", "echo $$ >> HERE/exclusive; exec sleep 600"]
on_disconnect = "stop"

[task.steady]
command = ["sh", "-c", "echo $$ >> HERE/steady; until [ -e HERE/go ]; do sleep 0.1; done; echo 1"]
"#;

/// A connection to Redis that can be cut: bytes on the way wait, and neither end is notified.
struct Line {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Line {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) =
                        (from.try_clone().expect("kept"), to.try_clone().expect("kept"));
                    let cut = cut.clone();
                    thread::spawn(move || carry(from, to, &cut));
                }
            }
        });
        Self { port: own, is_cut }
    }

    fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while cut.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// The process ids of all attempts so far.
fn attempts(folder: &Path, task: &str) -> Vec<u32> {
    let lines = fs::read_to_string(folder.join(task)).unwrap_or_default();
    lines.lines().filter_map(|line| line.parse().ok()).collect()
}

fn document(task: &str) -> Value {
    json!({"task": task, "split": {"by": "range", "start": 0, "end": 1}, "retry": {"attempts": 1}})
}

#[test]
fn an_exclusive_command_stops_before_its_worker_is_declared_lost_and_others_continue() {
    let redis = Redis::shared();
    let line = Line::to(redis.port());
    let folder = tempfile::tempdir().expect("a folder");
    let here: PathBuf = folder.path().to_owned();
    let config = here.join("longshore.toml");
    let tasks = TASKS.replace("HERE", here.to_str().expect("a plain name"));
    fs::write(&config, tasks).expect("room for it");
    let mut fleet = Fleet::on(Rabbit::shared(), redis);
    fleet.set("LONGSHORE_DEAD_AFTER", &format!("{}s", DEAD_AFTER.as_secs()));
    fleet.add_scheduler();
    let config = config.to_str().expect("a plain name");
    let mut worker = fleet.command(&["worker", "--slots", "2", "--config", config]);
    worker.env(
        "LONGSHORE_REDIS_URL",
        redis.url().replace(&redis.port().to_string(), &line.port.to_string()),
    );
    fleet.workers.push(Process::start(&worker));
    fleet.await_workers(1);

    let [exclusive, steady] = ["exclusive", "steady"].map(|task| fleet.submit(&document(task)));
    let begun = || ["exclusive", "steady"].map(|task| attempts(&here, task).len());
    wait_until("both run", LONG, || begun() == [1, 1]);
    let [stops, continues] = ["exclusive", "steady"].map(|task| attempts(&here, task)[0]);

    line.cut(true);
    let cut = Instant::now();
    wait_until("the exclusive command is stopped", DEAD_AFTER, || !is_running(stops));
    assert!(cut.elapsed() < DEAD_AFTER, "after {:?}", cut.elapsed());
    assert!(is_running(continues), "only the exclusive command stops");
    assert_eq!(begun(), [1, 1], "no attempt begins again while the worker lives");

    line.cut(false);
    wait_until("the exclusive command runs again", LONG, || begun()[0] == 2);
    let status = fleet.status(&exclusive);
    assert_eq!((&status["failed"], &status["state"]), (&json!(0), &json!("running")), "{status}");
    fs::write(here.join("go"), "").expect("room for it");
    let status = fleet.await_end(&steady, LONG);
    assert_eq!((&status["state"], &status["done"]), (&json!("succeeded"), &json!(1)), "{status}");
    fleet.longshore(&["cancel", &exclusive]).ok();
    let last = attempts(&here, "exclusive")[1];
    wait_until("the cancelled command is stopped", LONG, || !is_running(last));
    for job in [&exclusive, &steady] {
        fleet.audit(job);
    }
}
