//! Periodic operations cost hardly more for a job with many open chunks in Redis.
//!
//! Also: the list of chunks that are due is rebuilt when it is lost.

use std::time::Duration;

use longshore_ledger::keys::Keys;
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Admitted, BeatParams, ClaimParams, Held, Ledger, LossCause, OpenParams,
    RevokeParams, SweepParams,
};
use longshore_protocol::{ChunkMessage, JobId, NodeId, NodeInfo, Timestamp, Token};
use longshore_test_servers::{Redis, Reply};

const SOON: Duration = Duration::from_secs(60);
/// The open chunks of a worker with 1,000 slots, with as many queued.
const MANY: u64 = 2_000;

fn job(number: u64) -> JobId {
    let name = format!("0190b0a2-0000-7000-8000-{number:012}");
    name.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn node() -> NodeId {
    NodeId::new("box-1")
}

fn token() -> Token {
    Token::from_bytes([1; 16])
}

fn connect(redis: &Redis) -> RedisLedger {
    let config = Config::new(redis.url(), "longshore");
    RedisLedger::connect(config).unwrap_or_else(|e| panic!("{}: {e}", redis.url()))
}

/// A job with `count` open chunks of one subtask, of which the first half is held.
async fn open(ledger: &RedisLedger, id: JobId, count: u64) -> Vec<ChunkMessage> {
    let admission = Admission::plain(id, 2 * count);
    let admitted = ledger.admit(&admission).await.expect("admitted");
    assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
    let mut opened = Vec::new();
    while (opened.len() as u64) < count {
        let chunks = u32::try_from(count - opened.len() as u64).expect("few").min(1_000);
        let open = OpenParams::new(chunks, 1, SOON);
        opened.extend(ledger.open(id, &open).await.expect("chunks open"));
    }
    for message in &opened[..opened.len() / 2] {
        let claim = ledger.claim(id, &ClaimParams::of(message, token(), node())).await;
        claim.expect("an answer");
    }
    opened
}

fn info() -> NodeInfo {
    NodeInfo {
        queues: vec!["default".into()],
        tasks: vec!["noop".into()],
        slots: 1_000,
        busy: 1,
        started_at: Timestamp::from_millis(1),
        cpu: 0.25,
        rss: 1 << 20,
        ..NodeInfo::new(node())
    }
}

/// Parses all fields of all records.
const READ_ALL: &str = "
    local flat = redis.call('HGETALL', KEYS[1])
    for i = 2, #flat, 2 do
        string.match(flat[i], '^(%d+),(%d+),(%d+),([^,]+),([^,]+),(%a+),(%d+),' ..
            '(%d+),(%d+),(%d+),(%d+),(%d+),([^,]+)$')
    end";

/// The shortest time that Redis was busy with one of the commands that begin so: noise only adds to
/// it.
fn shortest_us(redis: &Redis, command: &str) -> i64 {
    let Reply::List(entries) = redis.call(&["SLOWLOG", "GET", "-1"]) else { panic!("no slow log") };
    let times = entries.iter().filter_map(|entry| {
        let Reply::List(fields) = entry else { return None };
        let Reply::List(words) = &fields[3] else { return None };
        let is_meant = words.first()?.text()?.to_ascii_uppercase().starts_with(command);
        match fields[2] {
            Reply::Int(us) if is_meant => Some(us),
            _ => None,
        }
    });
    times.min().unwrap_or_else(|| panic!("no {command}"))
}

/// How long Redis is busy with `$call`: the best of twenty.
macro_rules! cost_us {
    ($redis:expr, $call:expr) => {{
        $redis.call(&["SLOWLOG", "RESET"]);
        for _ in 0..20 {
            $call.await.expect("an answer");
        }
        shortest_us($redis, "FCALL")
    }};
}

#[tokio::test]
async fn the_cost_of_periodic_operations_hardly_grows_with_the_open_chunks() {
    let redis = Redis::start();
    redis.call(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    let ledger = connect(&redis);
    let (few, many) = (job(1), job(2));
    open(&ledger, few, 2).await;
    let opened = open(&ledger, many, MANY).await;
    let held: Vec<Held> = opened[..opened.len() / 2]
        .iter()
        .map(|message| Held { job: many, chunk: message.chunk, token: token() })
        .collect();

    // By the list of what is due: the same, however many are open. Reading the queued records took
    // eighty times as long.
    let sweep_of_two = cost_us!(&redis, ledger.sweep(few, &SweepParams::new(1_000, SOON))).max(10);
    let sweep = cost_us!(&redis, ledger.sweep(many, &SweepParams::new(1_000, SOON)));
    assert!(sweep < 10 * sweep_of_two, "{sweep} us, of two {sweep_of_two} us");

    // These look at each record. A script that finds all fields of each is the baseline.
    // In turn, since the machine is not the same from one second to the next.
    let key = Keys::new("longshore").chunks(many);
    let [mut all, mut holders, mut audit, mut asked] = [i64::MAX; 4];
    let took_us = |command| {
        let us = shortest_us(&redis, command);
        redis.call(&["SLOWLOG", "RESET"]);
        us
    };
    took_us("FCALL");
    for _ in 0..40 {
        redis.call(&["EVAL", READ_ALL, "1", &key]);
        all = all.min(took_us("EVAL").max(1));
        ledger.holders(many).await.expect("an answer");
        holders = holders.min(took_us("FCALL"));
        ledger.audit(many).await.expect("an answer");
        audit = audit.min(took_us("FCALL"));
        let beat = ledger.beat(&BeatParams::new(info(), held.clone())).await.expect("an answer");
        assert_eq!(beat.stop, [], "all of it is held");
        asked = asked.min(took_us("FCALL_RO"));
    }
    // Seen: 0.53, 0.47 and 1.7 times as long.
    let most = [("holders", holders, 0.8), ("held", asked, 0.8), ("audit", audit, 2.5)];
    for (name, us, most) in most {
        let times = us as f64 / all as f64;
        assert!(times < most, "{name}: {us} us, {times} times {all} us");
    }
}

#[tokio::test]
async fn a_lost_list_of_due_chunks_is_rebuilt() {
    let redis = Redis::start();
    let ledger = connect(&redis);
    let opened = open(&ledger, job(1), 20).await;
    let key = Keys::new("longshore").due(job(1));
    assert_eq!(redis.call(&["ZCARD", &key]), Reply::Int(10));
    let revoked =
        ledger.revoke(job(1), &RevokeParams::new(node(), LossCause::Left)).await.expect("revoked");
    assert_eq!(revoked.len(), 10);
    let audit = ledger.audit(job(1)).await.expect("an answer").expect("known");
    assert!(audit.is_clean(), "{audit:?}");

    redis.call(&["DEL", &key]);
    let audit = ledger.audit(job(1)).await.expect("an answer").expect("known");
    let found = "20 chunks are not in the list of what is due as their records say";
    assert_eq!(audit.findings, [found]);
    let swept = ledger
        .sweep(job(1), &SweepParams::new(1_000, SOON))
        .await
        .expect("an answer")
        .expect("known");
    let due: Vec<_> = swept.publish.iter().map(|message| message.chunk).collect();
    let expected: Vec<_> = opened[..10].iter().map(|message| message.chunk).collect();
    assert_eq!(due, expected, "those that were taken back; the others are due in a minute");
    let audit = ledger.audit(job(1)).await.expect("an answer").expect("known");
    assert!(audit.is_clean(), "{audit:?}");

    redis.call(&["ZADD", &key, "1", "999"]);
    let audit = ledger.audit(job(1)).await.expect("an answer").expect("known");
    assert_eq!(
        audit.findings,
        ["1 chunks are not in the list of what is due as their records say"]
    );
    ledger.cancel(job(1)).await.expect("cancelled");
    assert_eq!(redis.call(&["EXISTS", &key]), Reply::Int(0));
}
