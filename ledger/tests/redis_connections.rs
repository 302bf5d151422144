//! The number of connections to Redis, and which commands operations and heartbeats send.

use std::time::Duration;

use futures_util::future::join_all;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    BeatParams, Claim, ClaimParams, DeclareLostParams, Error, Ledger, LossCause, LossEvidence,
    NodeSnapshot, RecordCrashParams,
};
use longshore_protocol::{ChunkId, Epoch, JobId, NodeId, NodeInfo, Timestamp, Token};
use longshore_test_servers::{Redis, Reply};

fn start() -> (Redis, RedisLedger) {
    let redis = Redis::start();
    redis.call(&["CONFIG", "RESETSTAT"]);
    let ledger = RedisLedger::connect(Config::new(redis.url(), "longshore"));
    (redis, ledger.expect("a good address"))
}

fn text(redis: &Redis, command: &[&str]) -> String {
    match redis.call(command) {
        Reply::Text(text) => text,
        other => panic!("{command:?}: {other:?}"),
    }
}

/// The number of connections without the one that asks.
fn connections(redis: &Redis) -> usize {
    text(redis, &["CLIENT", "LIST", "TYPE", "normal"]).trim().lines().count() - 1
}

/// How often Redis has run this command.
fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = text(redis, &["INFO", "commandstats"]);
    let line =
        stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or_default()
}

fn has_pinged(redis: &Redis) -> bool {
    calls(redis, "ping") > 0
}

#[tokio::test]
async fn a_thousand_requests_share_four_connections_without_pings() {
    let (redis, ledger) = start();
    for _ in 0..3 {
        let answers = join_all((0..1_000).map(|_| ledger.now())).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    assert_eq!((connections(&redis), has_pinged(&redis)), (4, false));
}

#[tokio::test]
async fn sequential_requests_use_one_connection() {
    let (redis, ledger) = start();
    for _ in 0..100 {
        ledger.now().await.expect("an answer");
    }
    assert_eq!((connections(&redis), has_pinged(&redis)), (1, false));
}

#[tokio::test]
async fn a_closed_connection_is_replaced_without_an_error() {
    let (redis, ledger) = start();
    for _ in 0..10 {
        ledger.now().await.expect("an answer");
        redis.call(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    assert!(connections(&redis) <= 1);
}

fn info(name: &str, busy: u32) -> NodeInfo {
    NodeInfo {
        queues: vec!["default".into()],
        tasks: vec!["noop".into()],
        slots: 4,
        busy,
        started_at: Timestamp::from_millis(5),
        cpu: 0.5,
        rss: 6,
        ..NodeInfo::new(NodeId::new(name))
    }
}

#[tokio::test]
async fn only_workers_with_changes_are_read_again() {
    let (redis, ledger) = start();
    for name in ["a", "b"] {
        ledger.beat(&BeatParams::new(info(name, 0), [])).await.expect("a beat");
    }
    let read = async |known: &NodeSnapshot| ledger.nodes_since(known).await.expect("a list");
    let known = read(&NodeSnapshot::default()).await;
    redis.call(&["CONFIG", "RESETSTAT"]);
    assert_eq!(read(&known).await.nodes, known.nodes);
    assert_eq!((calls(&redis, "hgetall"), calls(&redis, "hmget")), (0, 0));
    // Times are in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;

    ledger.beat(&BeatParams::new(NodeInfo { rss: 7, ..info("a", 0) }, [])).await.expect("a beat");
    assert_eq!(
        (calls(&redis, "hset"), calls(&redis, "hmget")),
        (1, 1),
        "the beat asks for two fields"
    );
    let signs = read(&known).await;
    assert_eq!(
        (calls(&redis, "hgetall"), calls(&redis, "hmget")),
        (0, 1),
        "it lives, and that is all"
    );
    assert!(signs.nodes[0].beat_at > known.nodes[0].beat_at);
    assert_eq!((&signs.nodes[0].info, &signs.nodes[1]), (&known.nodes[0].info, &known.nodes[1]));
    let calls_before = calls(&redis, "fcall");
    tokio::time::sleep(Duration::from_millis(5)).await;
    ledger.beat(&BeatParams::new(NodeInfo { rss: 7, ..info("a", 0) }, [])).await.expect("a beat");
    assert_eq!(calls(&redis, "hset"), 1, "nothing is different");
    assert_eq!(calls(&redis, "fcall"), calls_before, "no function is needed to say so");
    let signs = read(&signs).await;
    assert!(signs.nodes[0].beat_at > known.nodes[0].beat_at.plus(Duration::from_millis(5)));

    ledger.beat(&BeatParams::new(info("b", 3), [])).await.expect("a beat");
    let listed = read(&signs).await;
    assert_eq!(
        (calls(&redis, "hgetall"), calls(&redis, "hmget")),
        (0, 4),
        "what no beat changes is known"
    );
    assert_eq!(listed.nodes[1].info.busy, 3);
    assert_eq!(ledger.nodes().await.expect("a list")[0].info.rss, 7, "who knows nothing reads all");
    assert!(
        ledger
            .record_crash(&RecordCrashParams::new(NodeId::new("b"), "killed"))
            .await
            .expect("recorded")
    );
    let recorded = read(&listed).await;
    assert_eq!(recorded.nodes[1].death.as_deref(), Some("killed"), "the record says it to others");
    ledger
        .declare_lost(&DeclareLostParams::new(
            NodeId::new("a"),
            LossEvidence::Certain,
            LossCause::Left,
        ))
        .await
        .expect("it left");
    assert_eq!(read(&recorded).await.nodes[..], recorded.nodes[1..]);
}

/// After a server lost data, changes still get higher numbers than any before, also with the clock
/// set back.
#[tokio::test]
async fn the_numbers_of_changes_only_grow() {
    let (redis, ledger) = start();
    let read = async |known: &NodeSnapshot| ledger.nodes_since(known).await.expect("a list");
    ledger.beat(&BeatParams::new(info("a", 0), [])).await.expect("a beat");
    let known = read(&NodeSnapshot::default()).await;
    redis.call(&["DEL", "longshore:{longshore:nodes}:changes"]);
    ledger.beat(&BeatParams::new(info("a", 1), [])).await.expect("a beat");
    let known = read(&known).await;
    assert_eq!(known.nodes[0].info.busy, 1, "as after a fail-over that lost the last second");
    let Reply::Int(ahead) = redis.call(&["INCRBY", "clock", "4000000000000000"]) else { panic!() };
    redis.call(&["ZADD", "longshore:{longshore:nodes}:changes", &ahead.to_string(), "a"]);
    let known = read(&known).await;
    ledger.beat(&BeatParams::new(info("a", 2), [])).await.expect("a beat");
    assert_eq!(read(&known).await.nodes[0].info.busy, 2, "as after the clock was set back");
}

#[tokio::test]
async fn a_heartbeat_writes_changed_fields_and_all_fields_after_a_loss() {
    let (redis, ledger) = start();
    let beat = async |busy| {
        ledger.beat(&BeatParams::new(info("a", busy), [])).await.expect("a beat");
        ledger.nodes().await.expect("a list")
    };
    let whole = beat(0).await;
    let Reply::Int(forgotten_in) = redis.call(&["PTTL", "longshore:node:a"]) else { panic!() };
    assert!((86_000_000..=86_400_000).contains(&forgotten_in), "in a day: {forgotten_in} ms");
    redis.call(&["HSET", "longshore:node:a", "host", "kept"]);
    let changed = beat(3).await;
    assert_eq!(changed[0].info.busy, 3);
    assert_eq!(changed[0].info.host, "kept");
    redis.call(&["FLUSHALL"]);
    assert_eq!(beat(0).await[0].info, whole[0].info);
    ledger
        .declare_lost(&DeclareLostParams::new(
            NodeId::new("a"),
            LossEvidence::Certain,
            LossCause::Left,
        ))
        .await
        .expect("forgotten");
    assert_eq!(beat(0).await[0].info, whole[0].info);
}

#[tokio::test]
async fn concurrent_claims_of_a_job_share_a_call_and_each_gets_its_answer() {
    let (redis, ledger) = start();
    let job: JobId = "0190b0a2-0000-7000-8000-000000000001".parse().expect("an id");
    let node = NodeId::new("a");
    let claim = |chunk| {
        let (ledger, node) = (&ledger, &node);
        async move {
            ledger
                .claim(
                    job,
                    &ClaimParams::new(
                        ChunkId(chunk),
                        Epoch(1),
                        Token::from_bytes([1; 16]),
                        node.clone(),
                    ),
                )
                .await
        }
    };
    claim(0).await.expect("functions that are loaded");
    redis.call(&["CONFIG", "RESETSTAT"]);
    let answers = join_all((0..129).map(claim)).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Claim::Gone))), "{answers:?}");
    // The first goes at once.
    assert_eq!(calls(&redis, "fcall"), 3);
    // Each on its own, and those of other jobs or nodes are not held up.
    let stranger = NodeId::new("not, a name");
    let params = ClaimParams::new(ChunkId(0), Epoch(1), Token::from_bytes([1; 16]), stranger);
    let refused = ledger.claim(job, &params);
    let (first, refused, third) = tokio::join!(claim(0), refused, claim(1));
    assert!(matches!(refused, Err(Error::Misuse { operation: "claim", .. })), "{refused:?}");
    assert!(matches!((first, third), (Ok(Claim::Gone), Ok(Claim::Gone))));
}
