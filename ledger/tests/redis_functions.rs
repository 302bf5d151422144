//! Properties of the Redis ledger alone: its functions, keys, user rights and memory.

use std::time::Duration;

use longshore_ledger::keys::Keys;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Admitted, BeatParams, Claim, ClaimParams, Commit, CommitParams, Committed, Error,
    ErrorsParams, Event, Held, Ledger, LossCause, MapParams, OpenParams, RegisterSchedulerParams,
    ResultsParams, RetryParams, RevokeParams, SweepParams, Topic,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkMessage, Finding, Hint, JobFilter, JobId, JobSummary, NodeId, NodeInfo, OutcomeRun,
    SchedulerId, Severity, Timestamp, Token, split_results,
};
use longshore_test_servers::{Redis, RedisCluster, RedisSentinel, Reply, wait_until};

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
    Admission::plain(job, total)
}

fn connect(url: &str) -> RedisLedger {
    let config = Config::new(url, "longshore");
    RedisLedger::connect(config).unwrap_or_else(|e| panic!("{url}: {e}"))
}

async fn open(ledger: &RedisLedger, job: JobId, chunks: u32, size: u64) -> Vec<ChunkMessage> {
    let open = OpenParams::new(chunks, size, SOON);
    ledger.open(job, &open).await.expect("chunks open")
}

async fn run_whole_chunk(
    ledger: &RedisLedger,
    message: &ChunkMessage,
    with: &Token,
    runs: Vec<OutcomeRun>,
) -> JobState {
    let claim = ledger.claim(message.job, &ClaimParams::of(message, *with, node())).await;
    assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    let commit = Commit::new(message.from, runs, Duration::from_millis(5));
    match ledger.commit(message.job, &CommitParams::new(message.chunk, *with, commit.clone())).await
    {
        Ok(Committed::Settled { state }) => state,
        other => panic!("{other:?}"),
    }
}

fn successes(from: u64, to: u64, with_results: bool) -> Vec<OutcomeRun> {
    let lines = with_results.then(|| (from..to).map(|i| format!("{i}\n")).collect::<String>());
    split_results(
        from,
        vec![OutcomeRun::Success { count: to - from, results: lines.map(Into::into) }],
    )
}

/// One job from its submission to its end, with a retry, a failure, results and a reduce.
async fn run_job(ledger: &RedisLedger, id: JobId) -> JobSummary {
    let admission = Admission { fan_in: Some(4), ..admission(id, 10) };
    let admitted = ledger.admit(&admission).await.expect("admitted");
    assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
    assert_eq!(ledger.admit(&admission).await.expect("admitted"), Admitted::Known);
    assert_eq!(ledger.active_jobs().await.expect("a list"), [id]);
    let chunks = open(ledger, id, 10, 10).await;
    assert_eq!(chunks.len(), 1);
    let mut runs = successes(0, 3, true);
    runs.push(OutcomeRun::Retry { error: "flaky".into(), delay: Duration::ZERO });
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
    let page = ledger.results(id, &ResultsParams::new(0..14, 1 << 20)).await.expect("results");
    let lines: String = page.runs.iter().map(|run| run.body.text()).collect();
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
async fn a_job_runs_from_admission_to_end_on_one_server() {
    let redis = Redis::start();
    let summary = run_job(&connect(&redis.url()), job(1)).await;
    assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 10));
    assert_eq!((summary.reduce.done, summary.attempts), (4, 15));
}

/// Not `Unavailable`: a caller that waits for the ledger would wait for ever.
#[tokio::test]
async fn a_key_of_another_program_is_not_mistaken_for_an_outage() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    redis.call(&["SET", &Keys::new("longshore").job(job(1)), "mine"]);
    let admitted = ledger.admit(&admission(job(1), 10)).await;
    assert!(matches!(admitted, Err(Error::Corrupt { .. })), "{admitted:?}");
    let read = ledger.job(job(1)).await;
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    assert!(ledger.active_jobs().await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_job_runs_from_admission_to_end_on_a_cluster() {
    let cluster = RedisCluster::start(3);
    let ledger = connect(&cluster.url());
    ledger.load_functions().await.expect("loaded on every master");
    let summary = run_job(&ledger, job(1)).await;
    assert_eq!((summary.state, summary.reduce.done), (JobState::Succeeded, 4));
}

#[tokio::test]
async fn a_job_behind_sentinels_survives_a_fail_over() {
    let mut sentinel = RedisSentinel::start();
    let ledger = connect(&sentinel.url());
    run_job(&ledger, job(1)).await;
    // Sentinel keeps what the replica has, not what the master had acknowledged.
    let master = sentinel.master();
    wait_until("the replica has it all", Duration::from_secs(30), || {
        let info = master.call(&["INFO", "replication"]).text().unwrap_or_default();
        let number = |name: &str| {
            let rest = info.split_once(name)?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        number(",offset=").is_some() && number(",offset=") >= number("master_repl_offset:")
    });
    master.kill9();
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
async fn a_lost_library_is_loaded_again_by_the_next_operation() {
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
async fn doctor_finds_a_healthy_redis_healthy() {
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

fn used_memory(redis: &Redis, keys: &[String]) -> u64 {
    keys.iter()
        .map(|key| match redis.call(&["MEMORY", "USAGE", key, "SAMPLES", "0"]) {
            Reply::Int(bytes) => u64::try_from(bytes).expect("a size"),
            _ => 0,
        })
        .sum()
}

#[tokio::test]
async fn a_job_of_ten_million_takes_two_bits_a_subtask() {
    const TOTAL: u64 = 10_000_000;
    const CHUNK: u64 = 100_000;
    // The hash, a few open chunks, and what the allocator rounds up.
    const REST: u64 = 64 * 1024;
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let keys = Keys::new("longshore").all_of_job(job(1));
    ledger.admit(&admission(job(1), TOTAL)).await.expect("admitted");
    // Failures at the far end make the second bitmap as long as it gets.
    let last = TOTAL / CHUNK;
    for chunk in 1..=last {
        let message = open(&ledger, job(1), 1, CHUNK).await[0];
        let runs = if chunk == last {
            let mut runs = successes(message.from, message.to - 1, false);
            runs.push(OutcomeRun::Failed { error: "no".into() });
            runs
        } else {
            successes(message.from, message.to, false)
        };
        if chunk == last {
            // Before the end, while everything is there.
            let claim = ledger.claim(job(1), &ClaimParams::of(&message, token(1), node())).await;
            assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
            let claimed = used_memory(&redis, &keys);
            assert!(claimed <= TOTAL / 8 + 1024 * 1024 + REST, "{claimed} bytes");
        }
        let state = run_whole_chunk(&ledger, &message, &token(1), runs).await;
        assert_eq!(state == JobState::Failed, chunk == last);
    }
    let used = used_memory(&redis, &keys);
    // While it grows, a string is given up to 1 MiB more than it needs.
    assert!(used <= TOTAL / 4 + 2 * 1024 * 1024 + REST, "{used} bytes for {TOTAL} subtasks");
    let summary = ledger.job(job(1)).await.expect("a job").expect("is there");
    assert_eq!((summary.counts.done, summary.counts.failed), (TOTAL - 1, 1));
    assert!(ledger.audit(job(1)).await.expect("an audit").expect("of the job").is_clean());
}

#[tokio::test]
async fn ten_thousand_successes_are_settled_in_a_handful_of_commands() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    ledger.admit(&admission(job(1), 20_000)).await.expect("admitted");
    // An odd beginning, so that neither edge is at a whole byte.
    let first = open(&ledger, job(1), 1, 3).await[0];
    run_whole_chunk(&ledger, &first, &token(1), successes(0, 3, false)).await;
    let message = open(&ledger, job(1), 1, 10_000).await[0];
    let claim = ledger.claim(job(1), &ClaimParams::of(&message, token(2), node())).await;
    assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    assert_eq!(redis.call(&["CONFIG", "RESETSTAT"]), ok());
    let runs = successes(3, 10_003, false);
    let commit = Commit::new(3, runs, Duration::from_millis(5));
    let committed =
        ledger.commit(job(1), &CommitParams::new(message.chunk, token(2), commit.clone())).await;
    assert!(matches!(committed, Ok(Committed::Settled { .. })), "{committed:?}");
    let stats = redis.call(&["INFO", "commandstats"]).text().expect("text");
    let calls: u64 = stats
        .lines()
        .filter_map(|line| line.split_once("calls="))
        .filter_map(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok())
        .sum();
    assert!(calls <= 24, "{calls} commands:\n{stats}");
}

#[tokio::test]
async fn a_map_of_a_hundred_million_subtasks_is_quick() {
    const TOTAL: u64 = 100_000_000;
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    ledger.load_functions().await.expect("loaded");
    ledger.admit(&admission(job(1), TOTAL)).await.expect("admitted");
    let keys = Keys::new("longshore");
    for key in [keys.done(job(1)), keys.failed(job(1))] {
        redis.call(&["SETBIT", &key, &(TOTAL - 1).to_string(), "1"]);
    }
    let half = (TOTAL / 2).to_string();
    redis.call(&["HSET", &keys.job(job(1)), "cursor", &half, "done", "1", "failed", "1"]);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        let map = ledger.map(job(1), &MapParams::new(0..TOTAL, 2_000)).await.expect("a map");
        best = best.min(begun.elapsed());
        assert_eq!(map.expect("the job is there").cells.len(), 2_000);
    }
    // 10 ms on an idle machine.
    assert!(best < Duration::from_millis(250), "{best:?}");
}

/// The rights that docs/redis.md grants to workers and applications.
const LEAST: &str = "resetkeys ~longshore:* resetchannels &longshore:events* -@all +fcall +fcall_ro \
    +ping +time +exists +del +unlink +get +set +strlen +getbit +setbit +bitcount +bitpos \
    +bitfield \
    +setrange +hexists +hget +hmget +hgetall +hset +hdel +hkeys +zadd +zrem +zrange +zrevrange \
    +zintercard +zrangebyscore +zrevrangebyscore +zrangebylex +zrevrangebylex \
    +zremrangebyscore +zscore +zcard \
    +zpopmin +pexpire +persist +publish +subscribe \
    +client|info +info";

#[tokio::test]
async fn the_documented_minimal_rights_are_sufficient() {
    let redis = Redis::start();
    let mut rights = vec!["ACL", "SETUSER", "app", "on", ">pw"];
    rights.extend(LEAST.split_whitespace());
    assert_eq!(redis.call(&rights), ok());
    let ledger = connect(&format!("redis://app:pw@127.0.0.1:{}", redis.port()));
    let missing = ledger.admit(&admission(job(9), 1)).await.expect_err("no functions yet");
    assert!(missing.to_string().contains("may not load it"), "{missing}");
    assert!(!missing.kind().is_refusal(), "a program that starts waits for a scheduler");
    // A ledger of an administrator, as the scheduler has.
    connect(&redis.url()).load_functions().await.expect("loaded");
    // The refused job stands on the active list until a sweep finds that it is not there.
    ledger.archive(job(9)).await.expect("off the list");
    run_job(&ledger, job(1)).await;
    ledger.delete(job(1)).await.expect("deleted");
    ledger.admit(&admission(job(2), 5)).await.expect("admitted");
    let message = open(&ledger, job(2), 1, 5).await[0];
    let runs = (0..5).map(|_| OutcomeRun::Failed { error: "no".into() }).collect();
    assert_eq!(run_whole_chunk(&ledger, &message, &token(1), runs).await, JobState::Failed);
    assert_eq!(ledger.errors(job(2), &ErrorsParams::new(0, 9)).await.expect("errors").len(), 5);
    ledger.retry(job(2), &RetryParams::only([3])).await.expect("retried");
    ledger.sweep(job(2), &SweepParams::new(9, SOON)).await.expect("swept");
    let again = open(&ledger, job(2), 1, 1).await[0];
    ledger.claim(job(2), &ClaimParams::of(&again, token(1), node())).await.expect("an answer");
    assert_eq!(
        ledger
            .revoke(job(2), &RevokeParams::new(node(), LossCause::Vanished))
            .await
            .expect("revoked")
            .len(),
        1
    );
    assert_eq!(ledger.recoveries(job(2), 9).await.expect("recoveries").len(), 1);
    ledger.map(job(2), &MapParams::new(0..5, 2)).await.expect("a map");
    let filter = JobFilter { task: Some("noop".into()), ..JobFilter::default() };
    ledger.count_jobs(&filter).await.expect("counts");
    ledger.open_queues().await.expect("queues");
    ledger.pause(job(2)).await.expect("paused");
    ledger.resume(job(2)).await.expect("resumed");
    ledger.cancel(job(2)).await.expect("cancelled");
    ledger.document(job(2)).await.expect("a document");
    ledger.now().await.expect("a time");
    let mut events = ledger.events(Topic::Clients).await.expect("subscribed");
    let scheduler = SchedulerId::new("s");
    let signed_in = ledger
        .register_scheduler(&RegisterSchedulerParams::new(scheduler.clone(), SOON))
        .await
        .expect("signed in");
    assert!(
        signed_in[0].connections.as_deref().is_some_and(|connections| connections.contains(' ')),
        "and its server"
    );
    ledger.deregister_scheduler(&scheduler).await.expect("signed out");
    ledger.reject(job(3), "no such task").await.expect("rejected");
    let heard = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    assert_eq!(heard, Ok(Event::Hint(Hint::Job { job: job(3), state: JobState::Rejected })));
    // From Redis 7.2 on the client library tells its name with CLIENT SETINFO, and does without if
    // it may not.
    let refused: Vec<String> =
        refusals(&redis).into_iter().filter(|command| command != "client|setinfo").collect();
    assert_eq!(refused, ["function|load"], "what this user may not do and tried");
}

/// The commands in Redis's log of refusals, newest first.
fn refusals(redis: &Redis) -> Vec<String> {
    let Reply::List(entries) = redis.call(&["ACL", "LOG"]) else { panic!("the log is a list") };
    let command = |entry: &Reply| {
        let Reply::List(fields) = entry else { panic!("an entry is a list: {entry:?}") };
        let at = fields.iter().position(|field| field.text().as_deref() == Some("object"));
        at.and_then(|at| fields.get(at + 1)?.text()).expect("an entry names its command")
    };
    entries.iter().map(command).collect()
}

fn info() -> NodeInfo {
    NodeInfo {
        queues: vec!["default".into()],
        tasks: vec!["noop".into()],
        slots: 4,
        busy: 1,
        started_at: Timestamp::from_millis(1),
        cpu: 0.25,
        rss: 1 << 20,
        ..NodeInfo::new(node())
    }
}

#[tokio::test]
async fn a_heartbeat_takes_two_round_trips_however_many_chunks_are_held() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    let mut held = Vec::new();
    for number in 1..=3 {
        ledger.admit(&admission(job(number), 10)).await.expect("admitted");
        for message in open(&ledger, job(number), 10, 1).await {
            let (job, chunk) = (message.job, message.chunk);
            ledger
                .claim(job, &ClaimParams::new(chunk, message.epoch, token(1), node()))
                .await
                .expect("an answer");
            held.push(Held { job, chunk, token: token(1) });
        }
    }
    ledger.cancel(job(2)).await.expect("cancelled");
    assert_eq!(redis.call(&["CONFIG", "RESETSTAT"]), ok());
    let beat = ledger.beat(&BeatParams::new(info(), held.clone())).await.expect("an answer");
    assert_eq!(beat.stop.len(), 10);
    assert!(beat.stop.iter().all(|stop| stop.held.job == job(2)), "{beat:?}");
    let stats = redis.call(&["INFO", "commandstats"]).text().expect("text");
    let calls = |command: &str| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
        line.and_then(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok())
    };
    assert_eq!((calls("fcall"), calls("fcall_ro")), (Some(1), Some(3)), "{stats}");
}

#[tokio::test]
async fn the_hash_of_a_job_is_readable() {
    let redis = Redis::start();
    let ledger = connect(&redis.url());
    ledger.admit(&admission(job(1), 10)).await.expect("admitted");
    let key = Keys::new("longshore").job(job(1));
    let Reply::List(flat) = redis.call(&["HGETALL", &key]) else { panic!("{key} is a hash") };
    let words: Vec<String> = flat.iter().filter_map(Reply::text).collect();
    let mut fields: Vec<&str> = words.chunks_exact(2).map(|pair| pair[0].as_str()).collect();
    fields.sort_unstable();
    let expected = "attempts cancelled cursor digest done failed generation keep_for_ms level_to lost next_chunk \
        priority queue queued rate retrying running state submitted_at task tenant total waiting";
    assert_eq!(fields, expected.split_whitespace().collect::<Vec<_>>());
    let value = |field: &str| words.chunks_exact(2).find(|p| p[0] == field).map(|p| &*p[1]);
    assert_eq!((value("state"), value("waiting")), (Some("queued"), Some("10")));
}

/// The fields that no job lacks.
const FIELDS: [(&str, &str); 7] = [
    ("task", "noop"),
    ("queue", "default"),
    ("tenant", "default"),
    ("priority", "5"),
    ("total", "10"),
    ("keep_for_ms", "60000"),
    ("digest", "d"),
];

#[tokio::test]
async fn a_job_with_an_unknown_missing_or_malformed_field_is_refused_and_not_written() {
    let redis = Redis::start();
    connect(&redis.url()).load_functions().await.expect("loaded");
    let (keys, id) = (Keys::new("longshore"), job(1));
    let own =
        [keys.job(id), keys.document(id), keys.manifest(id), keys.deleted(id), keys.cancel(id)];
    let fcall = |operation: &str, first: &[&str], fields: &[(&str, &str)]| {
        let name = id.to_string();
        let mut command = vec!["FCALL", operation, "5"];
        command.extend(own.iter().map(String::as_str));
        command.extend(["longshore:events", &name, "{}", ""]);
        command.extend(first);
        command.extend(fields.iter().flat_map(|(field, value)| [*field, *value]));
        redis.call(&command)
    };
    let admit = |fields: &[(&str, &str)]| fcall("longshore_admit", &["", "", ""], fields);
    let restore = |fields: &[(&str, &str)]| fcall("longshore_restore", &[], fields);
    let with = |more: (&'static str, &'static str)| [FIELDS.as_slice(), &[more]].concat();
    let refusals = [
        (admit(&with(("colour", "red"))), "no field `colour`"),
        (admit(&with(("state", "succeeded"))), "no field `state`"),
        (admit(&with(("task", "noop"))), "`task` comes twice"),
        (admit(&with(("max_parallel", "many"))), "`max_parallel` is `many`, not a number"),
        (admit(&with(("max_parallel", "-1"))), "`max_parallel` is `-1`, not a number"),
        (admit(&FIELDS[1..]), "`task` is missing"),
        (restore(&with(("state", "asleep"))), "`state` is `asleep`, not a state"),
        (restore(&FIELDS), "`state` and `submitted_at`"),
    ];
    for (reply, complaint) in refusals {
        let Reply::Error(text) = reply else { panic!("not refused for {complaint}: {reply}") };
        assert!(text.contains("MISUSE") && text.contains(complaint), "{text}");
    }
    assert_eq!(redis.call(&["DBSIZE"]), Reply::Int(0));
    let Reply::List(admitted) = admit(&FIELDS) else { panic!("good fields are refused") };
    assert_eq!(admitted[0], Reply::Text("accepted".into()));
}

#[tokio::test]
async fn a_subscriber_receives_a_gap_and_goes_on() {
    let mut redis = Redis::start();
    let ledger = connect(&redis.url());
    ledger.load_functions().await.expect("loaded");
    let mut events = ledger.events(Topic::Schedulers).await.expect("subscribed");
    redis.kill9();
    redis.restart();
    let heard = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    assert_eq!(heard, Ok(Event::Gap));
    ledger.admit(&admission(job(1), 1)).await.expect("admitted");
    let heard = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    assert_eq!(heard, Ok(Event::Hint(Hint::Job { job: job(1), state: JobState::Queued })));
}

#[tokio::test]
async fn a_frozen_redis_costs_a_bounded_wait_and_breaks_no_connection() {
    let mut redis = Redis::start();
    let config = Config {
        response_timeout: Duration::from_millis(200),
        connect_timeout: Duration::from_millis(200),
        ..Config::new(redis.url(), "longshore")
    };
    let ledger = RedisLedger::connect(config).unwrap_or_else(|e| panic!("{e}"));
    ledger.admit(&admission(job(1), 1)).await.expect("admitted");
    redis.freeze();
    let started = std::time::Instant::now();
    let frozen = ledger.job(job(1)).await.expect_err("nobody answers");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(frozen.to_string().contains("127.0.0.1"), "{frozen}");
    redis.thaw();
    assert!(ledger.job(job(1)).await.expect("an answer").is_some());
}
