//! Reading large results costs in proportion to their size, and no call blocks Redis for long.

use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Claim, ClaimParams, Commit, CommitParams, Committed, Ledger, OpenParams,
    ResultsParams,
};
use longshore_protocol::{JobId, NodeId, OutcomeRun, Token};
use longshore_test_servers::{Redis, Reply};

/// The length of one result, which is noise that does not compress.
const BYTES: usize = 256 << 10;

/// The number of bytes of one page.
const PAGE: u64 = 1 << 20;

/// No call may block Redis for longer than 10 ms on a quiet machine; this is ten times as much, for
/// busy ones. Reading everything before a page took 100 to 260 ms on a quiet one.
const LONGEST_US: i64 = 100_000;

fn job(number: u64) -> JobId {
    let name = format!("0190b0a2-0000-7000-8000-{number:012}");
    name.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Digits without any pattern that zlib could compress.
fn noise(state: &mut u64) -> String {
    let mut text = String::with_capacity(BYTES + 16);
    text.push('"');
    while text.len() < BYTES {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(b'#' + u8::try_from(*state >> 58).expect("six bits")));
    }
    text.replace('\\', "!") + "\"\n"
}

/// A job with this many results, each committed by itself, as workers do.
async fn fill(ledger: &RedisLedger, job: JobId, results: u64) {
    ledger.admit(&Admission::plain(job, results)).await.expect("admitted");
    let open = OpenParams::new(1, results, Duration::from_secs(60));
    let message = ledger.open(job, &open).await.expect("opened")[0];
    let (node, token) = (NodeId::new("n"), Token::from_bytes([1; 16]));
    let claim = ledger.claim(job, &ClaimParams::of(&message, token, node.clone())).await;
    assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    let mut state = results;
    for from in 0..results {
        let runs = vec![OutcomeRun::Success { count: 1, results: Some(noise(&mut state).into()) }];
        let commit = Commit::new(from, runs, Duration::ZERO);
        let committed =
            ledger.commit(job, &CommitParams::new(message.chunk, token, commit.clone())).await;
        assert!(matches!(committed, Ok(Committed::Settled { .. })), "{committed:?}");
    }
}

/// The number of hash reads and of bytes sent while a job's results were read.
async fn cost(redis: &Redis, ledger: &RedisLedger, job: JobId, results: u64) -> (u64, u64) {
    redis.call(&["CONFIG", "RESETSTAT"]);
    let (mut next, mut read) = (0, 0);
    while next < results {
        let page =
            ledger.results(job, &ResultsParams::new(next..results, PAGE)).await.expect("results");
        read += page.runs.iter().map(|run| run.count).sum::<u64>();
        next = page.next;
    }
    assert_eq!(read, results, "each of them came once");
    let number = |section: &str, before: &str| {
        let text = redis.call(&["INFO", section]).text().expect("text");
        let rest =
            text.lines().find_map(|line| line.strip_prefix(before)).expect("it is told").to_owned();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().expect("a number")
    };
    (number("commandstats", "cmdstat_hget:calls="), number("stats", "total_net_output_bytes:"))
}

fn longest_us(redis: &Redis) -> i64 {
    let Reply::List(entries) = redis.call(&["SLOWLOG", "GET", "-1"]) else { panic!("no slow log") };
    let times = entries.iter().filter_map(|entry| match entry {
        Reply::List(fields) => match fields[2] {
            Reply::Int(us) => Some(us),
            _ => None,
        },
        _ => None,
    });
    times.max().unwrap_or_default()
}

#[tokio::test]
async fn the_cost_of_reading_results_is_proportional_and_no_call_blocks_redis_for_long() {
    let redis = Redis::start();
    redis.call(&["CONFIG", "SET", "appendfsync", "no"]);
    redis.call(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    let ledger = RedisLedger::connect(Config::new(redis.url(), "longshore")).expect("a good URL");
    let (few, many) = (20, 80);
    fill(&ledger, job(1), few).await;
    fill(&ledger, job(2), many).await;
    let (values, bytes) = cost(&redis, &ledger, job(1), few).await;
    let (more_values, more_bytes) = cost(&redis, &ledger, job(2), many).await;
    // Four times as many results; a walk from the beginning of each stride would read ten times as
    // many values.
    assert!(2 * more_values <= 9 * values, "{more_values} values read, of a quarter {values}");
    assert!(2 * more_bytes <= 9 * bytes, "{more_bytes} bytes sent, of a quarter {bytes}");
    assert!(values <= 2 * few && bytes <= 2 * few * BYTES as u64, "{values} values, {bytes} bytes");
    let longest = longest_us(&redis);
    assert!(longest < LONGEST_US, "a call held Redis for {longest} us");
}
