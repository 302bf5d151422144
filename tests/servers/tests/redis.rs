//! Private Redis servers restart with their data, leave nothing behind, form clusters, fail over.

use std::process::{Command, Stdio};
use std::time::Duration;

use longshore_test_servers::{
    Process, Redis, RedisCluster, RedisOptions, RedisSentinel, Reply, free_port, is_running,
    wait_until,
};

const SOON: Duration = Duration::from_secs(30);
const OK: &str = "OK";

#[track_caller]
fn check(redis: &Redis, command: &[&str], expected: &str) {
    assert_eq!(redis.call(command).to_string(), expected, "{command:?}");
}

#[test]
fn a_killed_redis_comes_back_with_its_data_on_its_port() {
    let mut redis = Redis::start();
    check(&redis, &["SET", "ship", "unloaded"], OK);
    let (url, pid) = (redis.url(), redis.pid());
    redis.kill9();
    assert!(!is_running(pid), "kill9 returned while {pid} runs");
    redis.restart();
    assert_eq!(redis.url(), url);
    assert_ne!(redis.pid(), pid);
    check(&redis, &["GET", "ship"], "unloaded");
}

#[test]
fn a_stopped_redis_comes_back_with_its_data() {
    let mut redis = Redis::start_with(&RedisOptions {
        appendfsync: "everysec",
        lines: vec!["maxmemory 100mb".into()],
        port: Some(free_port().expect("a free port")),
        ..RedisOptions::default()
    });
    check(&redis, &["SET", "ship", "unloaded"], OK);
    redis.stop();
    redis.restart();
    check(&redis, &["GET", "ship"], "unloaded");
    let limit = redis.call(&["CONFIG", "GET", "maxmemory"]);
    let expected = [Reply::Text("maxmemory".into()), Reply::Text((100 << 20).to_string())];
    assert_eq!(limit, Reply::List(expected.into()));
}

#[test]
fn a_thawed_redis_answers() {
    let mut redis = Redis::start();
    redis.freeze();
    assert!(is_running(redis.pid()));
    redis.thaw();
    check(&redis, &["PING"], "PONG");
}

#[test]
fn nothing_is_left_of_a_dropped_redis() {
    let redis = Redis::start();
    let pid = redis.pid();
    let folder = folder_of(&redis);
    assert!(is_running(pid) && folder.exists());
    drop(redis);
    assert!(!is_running(pid), "{pid} still runs");
    assert!(!folder.exists(), "{folder:?} still exists");
}

fn folder_of(redis: &Redis) -> std::path::PathBuf {
    let Reply::List(dir) = redis.call(&["CONFIG", "GET", "dir"]) else { panic!("no dir") };
    dir.last().and_then(Reply::text).expect("a folder").into()
}

/// The child process of the next test: holds a server until it is killed.
#[test]
#[ignore = "started by a_killed_test_process_leaves_nothing"]
fn hold_a_redis() {
    let redis = Redis::start();
    let place = std::env::var("LONGSHORE_TEST_HOLD").expect("LONGSHORE_TEST_HOLD is set");
    let text = format!("{}\n{}\n", redis.pid(), folder_of(&redis).display());
    std::fs::write(&place, text).expect("the parent can read it");
    wait_until("the parent kills this process", Duration::from_secs(300), || false);
}

#[test]
fn a_killed_test_process_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("child");
    let mut holder = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "hold_a_redis", "--ignored"])
        .env("LONGSHORE_TEST_HOLD", &place)
        .stdout(Stdio::null())
        .spawn()
        .expect("start this test again");
    let text = || std::fs::read_to_string(&place).unwrap_or_default();
    wait_until("the other process holds a server", SOON, || text().lines().count() == 2);
    let text = text();
    let (pid, data) = text.trim().split_once('\n').expect("two lines");
    let pid: u32 = pid.parse().expect("a pid");
    assert!(is_running(pid));
    holder.kill().expect("SIGKILL");
    holder.wait().expect("reap");
    wait_until("its server is gone", SOON, || !is_running(pid));
    wait_until("its folder is gone", SOON, || !std::path::Path::new(data).exists());
}

#[test]
fn a_cluster_serves_every_slot() {
    let cluster = RedisCluster::start(3);
    assert_eq!(cluster.url().matches("127.0.0.1:").count(), 3, "{}", cluster.url());
    for (key, served_by) in [("bar", 0), ("hello", 0), ("foo", 2)] {
        for (number, node) in cluster.nodes().iter().enumerate() {
            let reply = node.call(&["SET", key, "x"]).to_string();
            let expected = if number == served_by { OK } else { "MOVED" };
            assert!(reply.starts_with(expected), "{key} on node {number}: {reply}");
        }
    }
}

#[test]
fn a_sentinel_promotes_the_replica() {
    let mut all = RedisSentinel::start();
    assert!(all.url().ends_with("/mymaster"), "{}", all.url());
    let first = all.master_port();
    check(all.master(), &["SET", "ship", "unloaded"], OK);
    // `WAIT` covers only writes of its own connection, and each command here has a new one.
    let known = all.master().call(&["INFO", "replication"]).to_string();
    let port = known.split_once("slave0:").and_then(|(_, of)| of.split_once(",port="));
    let port = port.and_then(|(_, of)| of.split(',').next()?.parse().ok()).expect("a replica");
    wait_until("the replica has it", SOON, || {
        Redis::ask(port, &["GET", "ship"]).is_ok_and(|reply| reply.to_string() == "unloaded")
    });
    all.master().kill9();
    wait_until("another master is named", SOON, || all.master_port() != first);
    wait_until("it takes writes", SOON, || {
        all.master().call(&["SET", "port", "home"]).to_string() == OK
    });
    check(all.master(), &["GET", "ship"], "unloaded");
}

#[test]
fn a_process_that_is_killed_the_moment_it_starts_is_gone() {
    let mut sleeper = Command::new("sleep");
    let mut process = Process::start(sleeper.arg("600"));
    for _ in 0..50 {
        process.kill9();
        process.restart();
    }
    process.kill9();
    assert!(!process.is_running());
}
