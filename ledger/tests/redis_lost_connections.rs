//! Which lost connections are reported as the death of a process, and which are not.
//!
//! The cases run on a single server, in a cluster, and behind sentinels.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    BeatParams, ConnectionWatch, DeclareLostParams, Event, Events, Ledger, LossCause, LossEvidence,
    Process, ProcessConnections, RegisterSchedulerParams, Topic,
};
use longshore_protocol::{NodeId, NodeInfo, SchedulerId, Timestamp};
use longshore_test_servers::{Redis, RedisCluster, RedisSentinel};

/// Longer than any operation here takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn connect(url: &str) -> Arc<dyn Ledger> {
    let ledger = RedisLedger::connect(Config::new(url, "longshore"));
    Arc::new(ledger.unwrap_or_else(|e| panic!("{url}: {e}")))
}

/// The part of a worker that sends heartbeats and follows the hints.
struct Worker {
    ledger: Arc<dyn Ledger>,
    info: NodeInfo,
    events: Box<dyn Events>,
}

impl Worker {
    async fn start(ledger: &Arc<dyn Ledger>, name: &str) -> Self {
        let ledger = ledger.separate();
        let info = NodeInfo {
            host: "host".into(),
            queues: vec!["default".into()],
            tasks: vec!["noop".into()],
            started_at: Timestamp::from_millis(1),
            ..NodeInfo::new(NodeId::new(name))
        };
        let events = ledger.events(Topic::Workers).await.expect("hints can be followed");
        let mut worker = Self { ledger, info, events };
        worker.beat().await;
        worker
    }

    async fn beat(&mut self) {
        self.ledger
            .beat(&BeatParams::new(self.info.clone(), []))
            .await
            .expect("a beat gets through");
    }

    /// Does what a worker does when its connection broke.
    async fn replace_connection(&mut self) {
        let gap = async { while self.events.next().await != Event::Gap {} };
        tokio::time::timeout(LONG, gap).await.expect("the break is noticed");
        self.beat().await;
    }
}

/// The registered connections of all workers.
async fn workers(ledger: &Arc<dyn Ledger>) -> Vec<ProcessConnections> {
    let nodes = ledger.nodes().await.expect("the list of nodes");
    nodes.iter().map(ProcessConnections::from).collect()
}

/// A scheduler's connection watch.
struct Watch {
    ledger: Arc<dyn Ledger>,
    watch: Box<dyn ConnectionWatch>,
}

impl Watch {
    fn start(ledger: &Arc<dyn Ledger>) -> Self {
        Self { ledger: ledger.clone(), watch: ledger.connection_watch() }
    }

    async fn disconnected(&mut self) -> Vec<String> {
        let workers = workers(&self.ledger).await;
        self.disconnected_of(&workers).await
    }

    async fn disconnected_of(&mut self, registered: &[ProcessConnections]) -> Vec<String> {
        let disconnected = self.watch.disconnected(registered).await.expect("an answer");
        let name = |process: Process| match process {
            Process::Worker(node) => node.to_string(),
            Process::Scheduler(scheduler) => scheduler.to_string(),
        };
        disconnected.into_iter().map(name).collect()
    }

    /// Redis notices the end of a connection soon, but not at once.
    async fn until_disconnected(&mut self, expected: &[&str]) {
        let wait = async {
            while self.disconnected().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, wait).await;
        waited.unwrap_or_else(|_| panic!("{expected:?} disconnected within {LONG:?}"));
    }
}

/// Two workers; one dies, the other does not.
async fn a_death_is_seen(url: &str) {
    let ledger = connect(url);
    let mut watch = Watch::start(&ledger);
    assert_eq!(watch.disconnected().await, [""; 0], "nobody is there yet");
    let dying = Worker::start(&ledger, "dying").await;
    let mut living = Worker::start(&ledger, "living").await;
    assert_eq!(watch.disconnected().await, [""; 0]);
    drop(dying);
    watch.until_disconnected(&["dying"]).await;
    living.beat().await;
    assert_eq!(watch.disconnected().await, ["dying"], "it is told for as long as it stays so");
    ledger
        .declare_lost(&DeclareLostParams::new(
            NodeId::new("dying"),
            LossEvidence::Certain,
            LossCause::Left,
        ))
        .await
        .expect("forgotten");
    assert_eq!(watch.disconnected().await, [""; 0]);
}

#[tokio::test]
async fn a_death_is_seen_on_one_server() {
    a_death_is_seen(&Redis::start().url()).await;
}

#[tokio::test]
async fn a_death_is_seen_in_a_cluster() {
    let cluster = RedisCluster::start(3);
    a_death_is_seen(&cluster.url()).await;
}

#[tokio::test]
async fn a_death_is_seen_behind_sentinels() {
    let sentinel = RedisSentinel::start();
    a_death_is_seen(&sentinel.url()).await;
}

/// As after an outage of the network: the server ran on, and every connection to it is gone.
#[tokio::test]
async fn the_end_of_all_connections_to_a_running_server_is_no_death() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let mut worker = Worker::start(&ledger, "worker").await;
    let mut watch = Watch::start(&ledger);
    let before = workers(&ledger).await;
    assert_eq!(watch.disconnected_of(&before).await, [""; 0]);
    for kind in ["pubsub", "normal"] {
        redis.call(&["CLIENT", "KILL", "TYPE", kind]);
    }
    let broken = watch.watch.disconnected(&before).await;
    assert!(broken.is_err(), "its own connection is gone as well: {broken:?}");
    for _ in 0..3 {
        assert_eq!(
            watch.disconnected_of(&before).await,
            [""; 0],
            "the worker is about to replace it"
        );
    }
    worker.replace_connection().await;
    assert_eq!(watch.disconnected().await, [""; 0]);
    drop(worker);
    watch.until_disconnected(&["worker"]).await;
}

#[tokio::test]
async fn the_death_of_a_scheduler_is_seen_like_that_of_a_worker() {
    let redis = Redis::start();
    let watching = connect(&redis.url());
    let mut watch = Watch::start(&watching);
    let [me, other] = ["me", "other"].map(SchedulerId::new);
    let dying = watching.separate();
    let register = async || -> Vec<ProcessConnections> {
        let present = watching
            .register_scheduler(&RegisterSchedulerParams::new(me.clone(), LONG))
            .await
            .expect("a sign of life gets through");
        present.iter().map(ProcessConnections::from).collect()
    };
    let follows = dying.events(Topic::Workers).await.expect("hints can be followed");
    dying
        .register_scheduler(&RegisterSchedulerParams::new(other.clone(), LONG))
        .await
        .expect("a sign of life gets through");
    let _worker = Worker::start(&watching, "worker").await;
    let all = [register().await, workers(&watching).await].concat();
    assert_eq!(all.len(), 3);
    assert_eq!(watch.disconnected_of(&all).await, [""; 0]);
    drop((follows, dying));
    let wait = async {
        while watch.disconnected_of(&all).await != ["other"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("its death is seen");
    watching.deregister_scheduler(&other).await.expect("it is said to be gone");
    assert_eq!(watch.disconnected_of(&all).await, [""; 0], "nothing is registered any more");
    assert_eq!(register().await.len(), 1);
}

/// Cuts all connections that a process registered.
fn cut(redis: &Redis, process: &ProcessConnections) {
    let registered = process.connections.as_deref().expect("connections are registered");
    let names = registered.split(' ').next().expect("a word").split(',');
    for id in names.filter_map(|name| name.split('@').next()) {
        redis.call(&["CLIENT", "KILL", "ID", id]);
    }
}

#[tokio::test]
async fn one_lost_connection_is_no_death() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let (mut watch, mut worker) = (Watch::start(&ledger), Worker::start(&ledger, "n").await);
    assert_eq!(watch.disconnected().await, [""; 0]);
    redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    for _ in 0..20 {
        assert_eq!(watch.disconnected().await, [""; 0], "it beats on another connection");
    }
    worker.replace_connection().await;
    let all = workers(&ledger).await;
    let name = all[0].connections.clone().expect("connections are registered");
    // The other one, on which it beats; it learns of that with the next beat.
    let beating = name.split([',', ' ']).nth(1).expect("two connections");
    redis.call(&["CLIENT", "KILL", "ID", beating.split('@').next().expect("a number")]);
    for _ in 0..20 {
        assert_eq!(watch.disconnected().await, [""; 0], "it follows the hints");
    }
    worker.beat().await;
    worker.beat().await;
    assert_ne!(workers(&ledger).await[0].connections.as_deref(), Some(name.as_str()));
    drop(worker);
    watch.until_disconnected(&["n"]).await;
}

#[tokio::test]
async fn replaced_connections_are_no_death() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let (mut watch, mut worker) = (Watch::start(&ledger), Worker::start(&ledger, "n").await);
    assert_eq!(watch.disconnected().await, [""; 0]);
    cut(&redis, &workers(&ledger).await[0]);
    watch.until_disconnected(&["n"]).await;
    worker.replace_connection().await;
    assert_eq!(watch.disconnected().await, [""; 0]);
    drop(worker);
    watch.until_disconnected(&["n"]).await;
}

#[tokio::test]
async fn a_worker_with_a_new_connection_writes_all_fields() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let mut worker = Worker::start(&ledger, "n").await;
    worker.beat().await;
    // As a fail-over might.
    redis.call(&["HSET", "longshore:node:n", "host", "lost"]);
    worker.beat().await;
    let host = async || ledger.nodes().await.expect("the list of nodes")[0].info.host.clone();
    assert_eq!(host().await, "lost", "nothing says that it has to be told again");
    redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    worker.replace_connection().await;
    assert_eq!(host().await, "host");
}

#[tokio::test]
async fn a_watch_with_an_old_list_reads_again_before_it_reports_a_death() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let (mut watch, mut worker) = (Watch::start(&ledger), Worker::start(&ledger, "n").await);
    let before = workers(&ledger).await;
    assert_eq!(watch.watch.disconnected(&before).await.expect("an answer"), []);
    cut(&redis, &before[0]);
    worker.replace_connection().await;
    assert_eq!(watch.watch.disconnected(&before).await.expect("an answer"), []);
}

/// As after all processes were killed together, and a scheduler is the first that starts again.
#[tokio::test]
async fn a_death_before_the_first_look_is_known_by_the_run_id_of_the_server() {
    let mut redis = Redis::start();
    let ledger = connect(&redis.url());
    drop(Worker::start(&ledger, "early").await);
    let mut watch = Watch::start(&ledger);
    watch.until_disconnected(&["early"]).await;
    redis.kill9();
    redis.restart();
    // To another server nobody has said anything yet.
    let mut watch = Watch::start(&ledger);
    let is_back = async { while ledger.nodes().await.is_err() {} };
    tokio::time::timeout(LONG, is_back).await.expect("Redis is back");
    assert_eq!(workers(&ledger).await.len(), 1, "it is still on the list");
    for _ in 0..5 {
        assert_eq!(watch.disconnected().await, [""; 0]);
    }
}

#[tokio::test]
async fn without_the_run_id_a_connection_that_was_never_seen_is_no_death() {
    let redis = Redis::start();
    redis.call(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info"]);
    let ledger = connect(&format!("redis://app:pw@127.0.0.1:{}", redis.port()));
    drop(Worker::start(&ledger, "early").await);
    let mut watch = Watch::start(&ledger);
    for _ in 0..5 {
        assert_eq!(watch.disconnected().await, [""; 0]);
    }
}

#[tokio::test]
async fn a_worker_that_dies_between_two_looks_is_reported() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let mut watch = Watch::start(&ledger);
    assert_eq!(watch.disconnected().await, [""; 0]);
    // The beat has to come a millisecond after the connection, which is what the clock can tell.
    let connected_by = ledger.now().await.expect("a time");
    let later = async { while ledger.now().await.expect("a time") <= connected_by {} };
    tokio::time::timeout(LONG, later).await.expect("the ledger's clock goes on");
    drop(Worker::start(&ledger, "early").await);
    watch.until_disconnected(&["early"]).await;
}

#[tokio::test]
async fn a_restart_of_redis_is_no_death() {
    let mut redis = Redis::start();
    let ledger = connect(&redis.url());
    let (mut watch, mut worker) = (Watch::start(&ledger), Worker::start(&ledger, "n").await);
    assert_eq!(watch.disconnected().await, [""; 0]);
    let registered = workers(&ledger).await;
    redis.kill9();
    assert!(watch.watch.disconnected(&registered).await.is_err(), "nothing is known");
    redis.restart();
    // The worker has not come back yet, but what is known of it was learnt before the restart.
    let answered = async {
        loop {
            if let Ok(disconnected) = watch.watch.disconnected(&registered).await {
                return disconnected;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, answered).await.expect("Redis is back"), []);
    worker.replace_connection().await;
    assert_eq!(watch.disconnected().await, [""; 0]);
    drop(worker);
    watch.until_disconnected(&["n"]).await;
}

#[tokio::test]
async fn without_the_right_to_list_connections_everything_else_works() {
    let redis = Redis::start();
    let all_but = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-client|list"];
    redis.call(&all_but);
    let ledger = connect(&format!("redis://app:pw@127.0.0.1:{}", redis.port()));
    let worker = Worker::start(&ledger, "n").await;
    let registered = workers(&ledger).await;
    assert!(registered[0].connections.is_some(), "this it may ask");
    let error =
        ledger.connection_watch().disconnected(&registered).await.expect_err("this it may not");
    assert!(error.to_string().contains("client|list"), "{error}");
    redis.call(&["ACL", "SETUSER", "app", "-client|info"]);
    drop(worker);
    let _worker = Worker::start(&ledger, "n").await;
    assert_eq!(workers(&ledger).await[0].connections, None);
}
