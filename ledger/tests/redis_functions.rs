//! What only the Redis ledger has: its functions, its keys, its users, its memory.

use std::time::Duration;

use longshore_ledger::keys::Keys;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Admitted, Claim, Commit, Committed, Error, Event, Finding, Ledger, Open, Severity,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkMessage, Digest, JobId, JobSummary, NodeId, NodeInfo, NodeState, Run, Timestamp, Token,
    split_results,
};
use longshore_test_servers::{Redis, RedisCluster, RedisOptions, RedisSentinel, Reply, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn job(number: u64) -> JobId {
    let name = format!("0190b0a2-0000-7000-8000-{number:012}");
    name.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn node() -> NodeId {
    NodeId::new("box-1")
}

fn token(number: u8) -> Token {
    Token::from_bytes([number; 16])
}

fn admission(job: JobId, total: u64) -> Admission {
    Admission {
        job,
        digest: Digest::new("d1"),
        document: "{}".into(),
        manifest: None,
        total,
        task: "noop".into(),
        queue: "default".into(),
        tenant: "default".into(),
        priority: 5,
        fan_in: None,
        max_parallel: None,
        stop_after_failures: None,
        deadline: None,
        keep_for: Duration::from_secs(3600),
    }
}

fn connect(url: &str) -> RedisLedger {
    let config = Config::new(url, "longshore");
    RedisLedger::connect(config).unwrap_or_else(|e| panic!("{url}: {e}"))
}

async fn open(ledger: &RedisLedger, job: JobId, chunks: u32, size: u64) -> Vec<ChunkMessage> {
    let open = Open { chunks, size, publish_within: SOON };
    ledger.open(job, &open).await.expect("chunks open")
}

async fn run_whole_chunk(
    ledger: &RedisLedger,
    message: &ChunkMessage,
    with: &Token,
    runs: Vec<Run>,
) -> JobState {
    let claim = ledger.claim(message.job, message.chunk, message.epoch, *with, &node()).await;
    assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    let commit = Commit { from: message.from, runs, busy: Duration::from_millis(5) };
    match ledger.commit(message.job, message.chunk, *with, &commit).await {
        Ok(Committed::Settled { state }) => state,
        other => panic!("{other:?}"),
    }
}

fn successes(from: u64, to: u64, with_results: bool) -> Vec<Run> {
    let lines = with_results.then(|| (from..to).map(|i| format!("{i}\n")).collect::<String>());
    split_results(from, vec![Run::Success { count: to - from, results: lines }])
}

/// One job from its submission to its end, with a retry, a failure, results and a reduce.
async fn live_through(ledger: &RedisLedger, id: JobId) -> JobSummary {
    let admission = Admission { fan_in: Some(4), ..admission(id, 10) };
    assert_eq!(ledger.admit(&admission).await.expect("admitted"), Admitted::Accepted);
    assert_eq!(ledger.admit(&admission).await.expect("admitted"), Admitted::Known);
    assert_eq!(ledger.active_jobs().await.expect("a list"), [id]);
    let chunks = open(ledger, id, 10, 10).await;
    assert_eq!(chunks.len(), 1);
    let mut runs = successes(0, 3, true);
    runs.push(Run::Retry { error: "flaky".into(), delay: Duration::ZERO });
    runs.extend(successes(4, 10, true));
    assert_eq!(run_whole_chunk(ledger, &chunks[0], &token(1), runs).await, JobState::Running);
    let again = open(ledger, id, 10, 10).await;
    assert_eq!((again[0].from, again[0].to), (3, 4));
    let state = run_whole_chunk(ledger, &again[0], &token(2), successes(3, 4, true)).await;
    assert_eq!(state, JobState::Reducing);
    for (level, expected) in [(10..13, JobState::Reducing), (13..14, JobState::Succeeded)] {
        let chunks = open(ledger, id, 1, 10).await;
        assert_eq!((chunks[0].from, chunks[0].to), (level.start, level.end));
        let runs = successes(level.start, level.end, true);
        assert_eq!(run_whole_chunk(ledger, &chunks[0], &token(3), runs).await, expected);
    }
    let audit = ledger.audit(id).await.expect("an audit").expect("of the job");
    assert!(audit.is_clean(), "{audit:?}");
    let page = ledger.results(id, 0, 14, 1 << 20).await.expect("results");
    let lines: String = page.runs.iter().map(|run| run.lines.as_str()).collect();
    assert_eq!(lines, (0..14).map(|i| format!("{i}\n")).collect::<String>());
    ledger.archive(id).await.expect("archived");
    assert!(ledger.active_jobs().await.expect("a list").is_empty());
    assert_eq!(ledger.finished_jobs(5).await.expect("a list"), [id]);
    ledger.job(id).await.expect("a job").expect("is there")
}

fn ok() -> Reply {
    Reply::Text("OK".into())
}

#[tokio::test]
async fn a_job_lives_its_life_on_one_server() {
    let redis = Redis::start();
    let summary = live_through(&connect(&redis.url()), job(1)).await;
    assert_eq!((summary.state, summary.books.done), (JobState::Succeeded, 10));
    assert_eq!((summary.reduce.done, summary.attempts), (4, 15));
}

#[tokio::test]
async fn a_job_lives_its_life_on_a_cluster() {
    let cluster = RedisCluster::start(3);
    let ledger = connect(&cluster.url());
    ledger.load_functions().await.expect("loaded on every master");
    let summary = live_through(&ledger, job(1)).await;
    assert_eq!((summary.state, summary.reduce.done), (JobState::Succeeded, 4));
}

#[tokio::test]
async fn a_job_lives_its_life_behind_sentinels_and_outlives_a_fail_over() {
    let mut sentinel = RedisSentinel::start();
    let ledger = connect(&sentinel.url());
    live_through(&ledger, job(1)).await;
    sentinel.master().kill9();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let summary = loop {
        match ledger.job(job(1)).await {
            Ok(found) => break found,
            Err(error) => {
                let now = tokio::time::Instant::now();
                assert!(now < deadline, "waited in vain for the new master: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let summary = summary.expect("the replica had it all");
    assert_eq!(summary.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_lost_library_is_loaded_again_by_whoever_needs_it() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    ledger.load_functions().await.expect("loaded");
    ledger.admit(&admission(job(1), 5)).await.expect("admitted");
    assert_eq!(redis.call(&["FUNCTION", "FLUSH"]), ok());
    assert_eq!(open(&ledger, job(1), 1, 5).await.len(), 1);
}

#[tokio::test]
async fn another_version_of_the_library_is_replaced() {
    let redis = Redis::start();
    let old = "#!lua name=longshore_v1\nredis.register_function{function_name='longshore_version', \
               callback=function() return 'old' end, flags={'no-writes'}}";
    assert_eq!(redis.call(&["FUNCTION", "LOAD", old]), Reply::Text("longshore_v1".into()));
    let ledger = connect(&redis.url());
    check(&ledger.examine().await, "redis.functions", Severity::Warning, "this build brings");
    ledger.load_functions().await.expect("loaded");
    check(&ledger.examine().await, "redis.functions", Severity::Ok, "longshore_v1");
}

#[track_caller]
fn check(findings: &[Finding], check: &str, severity: Severity, wanted: &str) {
    let found = findings.iter().find(|finding| finding.check == check);
    let found = found.unwrap_or_else(|| panic!("{check} is not among {findings:#?}"));
    assert_eq!(found.severity, severity, "{found:?}");
    assert!(found.found.contains(wanted), "{found:?}");
    assert_eq!(found.remedy.is_empty(), severity == Severity::Ok, "{found:?}");
}

#[tokio::test]
async fn doctor_sees_a_healthy_redis_as_healthy() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    check(&ledger.examine().await, "redis.functions", Severity::Error, "missing");
    ledger.load_functions().await.expect("loaded");
    let findings = ledger.examine().await;
    check(&findings, "redis.reachable", Severity::Ok, "127.0.0.1");
    check(&findings, "redis.version", Severity::Ok, ".");
    check(&findings, "redis.functions", Severity::Ok, "longshore_v1");
    check(&findings, "redis.persistence", Severity::Ok, "always");
    check(&findings, "redis.eviction", Severity::Ok, "noeviction");
    check(&findings, "redis.clock", Severity::Ok, "0.0 s");
    check(&findings, "redis.memory", Severity::Ok, "used");
}

#[tokio::test]
async fn doctor_names_what_is_wrong_with_redis() {
    let redis = Redis::start();
    let off = redis.call(&["CONFIG", "SET", "appendonly", "no", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(off, ok());
    let findings = connect(&redis.url()).examine().await;
    check(&findings, "redis.persistence", Severity::Warning, "append-only");
    check(&findings, "redis.eviction", Severity::Error, "allkeys-lru");

    assert_eq!(redis.call(&["CONFIG", "SET", "requirepass", "secret"]), ok());
    let wrong = format!("redis://:wrong-secret@127.0.0.1:{}", redis.port());
    let findings = connect(&wrong).examine().await;
    check(&findings, "redis.auth", Severity::Error, "127.0.0.1");
    let none = connect(&redis.url()).examine().await;
    check(&none, "redis.auth", Severity::Error, "127.0.0.1");

    let nobody = longshore_test_servers::free_port().expect("a free port");
    let findings = connect(&format!("redis://127.0.0.1:{nobody}")).examine().await;
    check(&findings, "redis.reachable", Severity::Error, "refused");
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_printed() {
    let redis = Redis::start();
    assert_eq!(redis.call(&["CONFIG", "SET", "requirepass", "right-secret"]), ok());
    let url = format!("redis://:wrong-secret@127.0.0.1:{}", redis.port());
    let error = connect(&url).job(job(1)).await.expect_err("must be refused");
    let text = format!("{error} {error:?}");
    assert!(text.contains(&format!("127.0.0.1:{}", redis.port())), "{text}");
    assert!(text.to_lowercase().contains("password"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}
