//! Every verb with services that are away, hang or refuse: it ends in time and says what to do.
//!
//! It has the right exit code and one sentence that names the service, its address and a remedy.
//! Nothing panics.

#[path = "cli/given.rs"]
#[expect(dead_code, reason = "other tests give standard input, too")]
mod given;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

use given::{Given, Left, finish};
use longshore_test_servers::{Process, Rabbit, Redis, free_port, wait_until};
use serde_json::Value;

const JOB: &str = "01900000-0000-7000-8000-000000000000";

/// The time limit of a verb on a busy machine.
const IN_TIME: Duration = Duration::from_secs(60);

/// Every verb that uses Redis.
const VERBS: [&[&str]; 17] = [
    &["status"],
    &["status", JOB],
    &["status", JOB, "--json"],
    &["results", JOB],
    &["errors", JOB],
    &["audit", JOB],
    &["pause", JOB],
    &["resume", JOB],
    &["cancel", JOB],
    &["delete", JOB],
    &["delete", JOB, "--force"],
    &["retry", JOB],
    &["nodes"],
    &["drain", "node"],
    &["readmit", "node"],
    &["submit", "--task", "noop", "--items", "1"],
    &["bench", "single"],
];

/// The behaviour of a broken service.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Does not listen.
    Absent,
    /// Accepts and closes.
    HangsUp,
    /// Accepts and sends nothing.
    Silent,
    /// Sends the beginning of an answer, then nothing.
    HalfOpen,
}

const BEHAVIOURS: [Behaviour; 4] =
    [Behaviour::Absent, Behaviour::HangsUp, Behaviour::Silent, Behaviour::HalfOpen];

/// Starts a broken service and returns its port; `beginning` is the beginning of an answer.
fn service(behaviour: Behaviour, beginning: &'static [u8]) -> u16 {
    if matches!(behaviour, Behaviour::Absent) {
        return free_port().expect("a port");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match behaviour {
                Behaviour::Absent | Behaviour::HangsUp => {}
                Behaviour::Silent => kept.push(stream),
                Behaviour::HalfOpen => {
                    let _ = stream.write_all(beginning);
                    kept.push(stream);
                }
            }
        }
    });
    port
}

fn given(amqp_port: u16, redis_port: u16) -> Given {
    Given::nothing()
        .variable("LONGSHORE_AMQP_URL", &format!("amqp://guest:guest@127.0.0.1:{amqp_port}/%2f"))
        .variable("LONGSHORE_REDIS_URL", &format!("redis://127.0.0.1:{redis_port}"))
        .variable("LONGSHORE_NAMESPACE", "outages")
        .variable("RUST_BACKTRACE", "1")
}

/// Runs these verbs at the same time.
fn run<'a>(given: &Given, verbs: &[&'a [&'a str]]) -> Vec<(&'a [&'a str], Left)> {
    let begun = Instant::now();
    let children: Vec<(&[&str], Child)> =
        verbs.iter().map(|verb| (*verb, given.start(verb))).collect();
    let left = children.into_iter().map(|(verb, child)| (verb, finish(child))).collect();
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    left
}

#[track_caller]
fn is_calm(verb: &[&str], left: &Left) {
    for word in ["panicked", "backtrace", "BACKTRACE"] {
        assert!(!left.stderr.contains(word), "{verb:?}: {left:?}");
    }
}

/// Checks that the error is one sentence with the service, its address, the cause and a remedy.
#[track_caller]
fn names(verb: &[&str], left: &Left, service: &str, port: u16) {
    is_calm(verb, left);
    assert_eq!(left.code, Some(3), "{verb:?}: {left:?}");
    let last = left.stderr.lines().last().unwrap_or_default();
    let error = if verb.contains(&"--json") {
        let problem: Value = serde_json::from_str(last).expect("JSON");
        problem["detail"].as_str().expect("a text").to_owned()
    } else {
        last.strip_prefix("error: ").unwrap_or_else(|| panic!("{verb:?}: {left:?}")).to_owned()
    };
    let place = format!("{service} at 127.0.0.1:{port}: ");
    assert!(error.contains(&place), "{verb:?}: {left:?}");
    let (_, message) = error.split_once(&place).expect("it was looked for");
    assert!(message.contains("; "), "{verb:?} says what to do: {left:?}");
}

#[test]
fn every_verb_names_a_redis_that_is_away() {
    for behaviour in BEHAVIOURS {
        let port = service(behaviour, b"+O");
        let given = given(Rabbit::shared().port(), port);
        for (verb, left) in run(&given, &VERBS) {
            names(verb, &left, "Redis", port);
        }
        let doctor = given.longshore(&["doctor"]);
        is_calm(&["doctor"], &doctor);
        assert_eq!(doctor.code, Some(3), "{behaviour:?}: {doctor:?}");
        let message = format!("error    redis.reachable: 127.0.0.1:{port}: ");
        assert!(doctor.stdout.contains(&message), "{behaviour:?}: {doctor:?}");
    }
}

#[test]
fn every_verb_names_a_rabbitmq_that_is_away() {
    let submit: &[&str] = &["submit", "--task", "noop", "--items", "1"];
    for behaviour in BEHAVIOURS {
        let port = service(behaviour, b"\x01\0\0\0\0");
        let given = given(port, Redis::shared().port());
        for (verb, left) in run(&given, &[submit, &["bench", "single"]]) {
            names(verb, &left, "RabbitMQ", port);
        }
        // The other verbs don't use it.
        for (verb, left) in run(&given, &[&["nodes"], &["status"]]) {
            is_calm(verb, &left);
            assert_eq!(left.code, Some(0), "{verb:?}: {left:?}");
        }
        let doctor = given.longshore(&["doctor"]);
        is_calm(&["doctor"], &doctor);
        assert_eq!(doctor.code, Some(3), "{behaviour:?}: {doctor:?}");
        assert!(doctor.stdout.contains("error    rabbitmq."), "{behaviour:?}: {doctor:?}");
        assert!(doctor.stdout.contains(&format!("127.0.0.1:{port}: ")), "{doctor:?}");
    }
}

#[test]
fn the_doctor_does_not_panic_when_rabbitmq_refuses_connections() {
    let port = service(Behaviour::Absent, b"");
    let given = given(port, Redis::shared().port());
    for _ in 0..10 {
        for (verb, left) in run(&given, &[&["doctor"], &["doctor"], &["doctor"], &["doctor"]]) {
            is_calm(verb, &left);
            assert_eq!(left.code, Some(3), "{left:?}");
        }
    }
}

#[test]
fn a_scheduler_and_a_worker_wait_and_stop_when_asked() {
    for behaviour in BEHAVIOURS {
        let (redis, amqp) = (service(behaviour, b"+O"), service(behaviour, b"\x01\0\0\0\0"));
        for (amqp, redis) in [(Rabbit::shared().port(), redis), (amqp, Redis::shared().port())] {
            let given = given(amqp, redis);
            for verb in ["scheduler", "worker"] {
                let mut process = Process::start(&given.command(&[verb]));
                let place = format!(
                    "127.0.0.1:{}",
                    if amqp == Rabbit::shared().port() { redis } else { amqp }
                );
                wait_until("it names the service", IN_TIME, || process.tail().contains(&place));
                process.signal("TERM");
                wait_until("it stops", IN_TIME, || !process.is_running());
                assert!(!process.tail().contains("panicked"), "{}", process.tail());
            }
        }
    }
}

/// A Redis that refuses writes, and the words of all programs for it.
#[test]
fn a_redis_that_refuses_writes_is_named_by_submit_the_doctor_and_the_scheduler() {
    let redis = Redis::start();
    let given = given(Rabbit::shared().port(), redis.port())
        .variable("LONGSHORE_NAMESPACE", "refuses-writes");
    let scheduler = Process::start(&given.command(&["scheduler"]));
    wait_until("the scheduler takes jobs", IN_TIME, || {
        given.longshore(&["submit", "--task", "noop", "--items", "1", "--within", "1s"]).code
            == Some(0)
    });
    type Call<'a> = &'a [&'a str];
    let cases: [(Call<'_>, Call<'_>, &str); 3] = [
        (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
            "this Redis is a replica: name the master in redis_url",
        ),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "start Redis's replicas, or lower min-replicas-to-write",
        ),
        (
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
            "raise maxmemory, or delete old jobs",
        ),
    ];
    for (break_it, mend_it, advice) in cases {
        redis.call(break_it);
        let submit = ["submit", "--task", "noop", "--items", "1", "--within", "1s"];
        let left = given.longshore(&submit);
        names(&submit, &left, "Redis", redis.port());
        assert!(left.stderr.contains(advice), "{left:?}");
        let doctor = given.longshore(&["doctor"]);
        assert_eq!(doctor.code, Some(3), "{doctor:?}");
        let message = format!("error    redis.writes: 127.0.0.1:{}: ", redis.port());
        assert!(doctor.stdout.contains(&message) && doctor.stdout.contains(advice), "{doctor:?}");
        wait_until("the scheduler reports it", IN_TIME, || scheduler.output().contains(advice));
        redis.call(mend_it);
        let message = scheduler.output().matches(advice).count();
        assert_eq!(message, 1, "one line: {}", scheduler.output());
        wait_until("it takes jobs again", IN_TIME, || given.longshore(&submit).code == Some(0));
    }
}

#[test]
fn a_redis_that_has_too_many_clients_is_named() {
    let redis = Redis::start();
    let _taken = TcpStream::connect(("127.0.0.1", redis.port())).expect("the only one");
    redis.call(&["CONFIG", "SET", "maxclients", "1"]);
    let given = given(Rabbit::shared().port(), redis.port());
    for (verb, left) in run(&given, &[&["status"], &["doctor"]]) {
        is_calm(verb, &left);
        assert_eq!(left.code, Some(3), "{verb:?}: {left:?}");
        let message = left.stdout.clone() + &left.stderr;
        assert!(message.contains("max number of clients reached"), "{verb:?}: {left:?}");
        assert!(message.contains("raise maxclients in redis.conf"), "{verb:?}: {left:?}");
    }
}

#[test]
fn an_alarm_of_rabbitmq_is_named_by_submit_the_doctor_and_the_scheduler() {
    let rabbit = Rabbit::start();
    let given =
        given(rabbit.port(), Redis::shared().port()).variable("LONGSHORE_NAMESPACE", "alarmed");
    let scheduler = Process::start(&given.command(&["scheduler"]));
    let submit = ["submit", "--task", "noop", "--items", "1", "--within", "2s"];
    wait_until("the scheduler takes jobs", IN_TIME, || given.longshore(&submit).code == Some(0));
    // A job that gives the scheduler chunks to publish all the time.
    let long = r#"{"task": "sleep", "split": {"by": "range", "start": 0, "end": 10000},
        "params": {"ms": 50}, "chunk": 1}"#;
    let given = given.file("long.json", long);
    let _worker = Process::start(&given.command(&["worker", "--slots", "1"]));
    let long = given.longshore(&["submit", "long.json"]);
    assert_eq!(long.code, Some(0), "{long:?}");
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let mut left = given.longshore(&submit);
    wait_until("the alarm is there", IN_TIME, || {
        left = given.longshore(&submit);
        left.code != Some(0)
    });
    assert_eq!(left.code, Some(3), "{left:?}");
    assert!(left.stderr.contains("RabbitMQ accepts no messages: low on memory"), "{left:?}");
    assert!(left.stderr.contains("submit again with `--id "), "{left:?}");
    let doctor = given.longshore(&["doctor"]);
    assert_eq!(doctor.code, Some(3), "{doctor:?}");
    assert!(doctor.stdout.contains("accepts no messages: low on memory"), "{doctor:?}");
    assert!(doctor.stdout.contains("rabbitmq-diagnostics alarms"), "{doctor:?}");
    wait_until("the scheduler reports it", IN_TIME, || {
        scheduler.output().contains("low on memory")
    });
    let output = scheduler.output();
    let message = output.lines().filter(|line| line.contains("low on memory")).count();
    assert_eq!(message, 1, "{output}");
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    wait_until("it takes messages again", IN_TIME, || given.longshore(&submit).code == Some(0));
}

#[test]
fn a_frozen_scheduler_does_not_count_as_running() {
    let given = given(Rabbit::shared().port(), Redis::shared().port())
        .variable("LONGSHORE_NAMESPACE", "frozen");
    let mut scheduler = Process::start(&given.command(&["scheduler"]));
    let submit = ["submit", "--task", "noop", "--items", "1", "--within", "1s"];
    wait_until("the scheduler takes jobs", IN_TIME, || given.longshore(&submit).code == Some(0));
    scheduler.signal("STOP");
    wait_until("the doctor names it", IN_TIME, || {
        let doctor = given.longshore(&["doctor"]);
        doctor.code == Some(1) && doctor.stdout.contains("but only 0 have signed in")
    });
    let left = given.longshore(&submit);
    scheduler.signal("CONT");
    assert_eq!(left.code, Some(3), "{left:?}");
    assert!(left.stderr.contains("it is frozen, disconnected or gone; restart it"), "{left:?}");
    assert!(left.stderr.contains("RabbitMQ keeps the job until then"), "{left:?}");
    wait_until("what was submitted runs", IN_TIME, || given.longshore(&submit).code == Some(0));
}
