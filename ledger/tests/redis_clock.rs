//! The ledger's time goes on when the clock of Redis jumps an hour, either way.

use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Claim, ClaimParams, Commit, CommitParams, Committed, Ledger, OpenParams,
    RegisterSchedulerParams,
};
use longshore_protocol::{ChunkMessage, JobId, NodeId, OutcomeRun, SchedulerId, Token};
use longshore_test_servers::{Redis, RedisOptions, SettableClock};
use tokio::time::{Instant, sleep};

/// Longer than any operation here takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);

const HOUR: i64 = 3_600;
const DELAY: Duration = Duration::from_millis(500);

fn connect(redis: &Redis) -> RedisLedger {
    let config = Config::new(redis.url(), "clock");
    RedisLedger::connect(config).expect("the address is right")
}

fn start(clock: &SettableClock) -> Redis {
    Redis::start_with(&RedisOptions { environment: clock.environment(), ..RedisOptions::default() })
}

async fn open(ledger: &RedisLedger, job: JobId) -> Vec<ChunkMessage> {
    let open = OpenParams::new(1, 1, DELAY);
    ledger.open(job, &open).await.expect("Redis is there")
}

/// Runs a chunk; the attempt fails and is due again after [`DELAY`].
async fn fail(ledger: &RedisLedger, message: ChunkMessage, token: u8) {
    let ChunkMessage { job, chunk, epoch, from, .. } = message;
    let (token, node) = (Token::from_bytes([token; 16]), NodeId::new("n"));
    let claim = ledger
        .claim(job, &ClaimParams::new(chunk, epoch, token, node.clone()))
        .await
        .expect("Redis is there");
    assert!(matches!(claim, Claim::Granted(_)), "{claim:?}");
    let runs = vec![OutcomeRun::Retry { error: "not yet".into(), delay: DELAY }];
    let commit = Commit::new(from, runs, DELAY);
    let committed = ledger
        .commit(job, &CommitParams::new(chunk, token, commit.clone()))
        .await
        .expect("Redis is there");
    assert!(matches!(committed, Committed::Settled { .. }), "{committed:?}");
}

/// The error of the ledger's time, given that it was `then` at `since`.
async fn is_off(ledger: &RedisLedger, then: u64, since: Instant) -> Duration {
    let now = ledger.now().await.expect("Redis is there").as_millis();
    let expected = then + u64::try_from(since.elapsed().as_millis()).expect("a short time");
    Duration::from_millis(now.abs_diff(expected))
}

/// The server's own clock, seconds.
fn server_time(redis: &Redis) -> u64 {
    let reply = redis.call(&["EVAL", "return redis.call('TIME')[1]", "0"]);
    reply.text().expect("a number as text").parse().expect("a number")
}

async fn check_jump(seconds: i64) {
    let clock = SettableClock::new();
    let redis = start(&clock);
    let (scheduler, worker) = (connect(&redis), connect(&redis));
    let me = SchedulerId::new("s");
    scheduler
        .register_scheduler(&RegisterSchedulerParams::new(me.clone(), LONG))
        .await
        .expect("Redis is there");
    let (then, since) =
        (scheduler.now().await.expect("Redis is there").as_millis(), Instant::now());
    let job: JobId = "00000000-0000-4000-8000-000000000001".parse().expect("a UUID");
    scheduler.admit(&Admission::plain(job, 2)).await.expect("Redis is there");
    let messages = [open(&scheduler, job).await, open(&scheduler, job).await].concat();
    fail(&worker, messages[0], 1).await;

    let before = server_time(&redis);
    clock.shift(seconds);
    let jumped = server_time(&redis).abs_diff(before);
    assert!(jumped.abs_diff(seconds.unsigned_abs()) < LONG.as_secs(), "by {jumped} s");
    // What was due before the jump is due when it was, and so is what is due because of a call that
    // comes right after it, before anybody has corrected anything.
    fail(&worker, messages[1], 2).await;
    let due = Instant::now() + DELAY;
    let mut opened = 0;
    while opened < 2 && due.elapsed() < LONG {
        opened += open(&scheduler, job).await.len();
        if opened == 2 {
            assert!(Instant::now() >= due, "it is due too early");
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(opened, 2, "a retry of {DELAY:?} took longer than {LONG:?}");
    // The deadline of a job, and what a worker that comes now takes for the time.
    assert!(is_off(&scheduler, then, since).await < LONG);
    let newcomer = connect(&redis);
    assert!(is_off(&newcomer, then, since).await < LONG, "a newcomer has the server's time");
    // A scheduler that is killed right now is off the list in time.
    newcomer
        .register_scheduler(&RegisterSchedulerParams::new(SchedulerId::new("new"), LONG))
        .await
        .expect("Redis is there");
    sleep(Duration::from_millis(50)).await;
    let there = scheduler
        .register_scheduler(&RegisterSchedulerParams::new(me.clone(), Duration::from_millis(20)))
        .await
        .expect("Redis is there");
    assert_eq!(there.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["s"]);
}

#[tokio::test]
async fn the_ledgers_time_goes_on_when_the_servers_clock_jumps_back() {
    check_jump(-HOUR).await;
}

#[tokio::test]
async fn the_ledgers_time_goes_on_when_the_servers_clock_jumps_ahead() {
    check_jump(HOUR).await;
}

#[tokio::test]
async fn a_server_that_restarts_empty_with_another_clock_is_corrected() {
    let clock = SettableClock::new();
    let redis = start(&clock);
    let scheduler = connect(&redis);
    scheduler
        .register_scheduler(&RegisterSchedulerParams::new(SchedulerId::new("s"), LONG))
        .await
        .expect("Redis is there");
    let (then, since) =
        (scheduler.now().await.expect("Redis is there").as_millis(), Instant::now());
    for seconds in [HOUR, -HOUR, 0] {
        clock.shift(seconds);
        redis.call(&["FLUSHALL"]);
        assert!(is_off(&scheduler, then, since).await < LONG);
        assert!(is_off(&connect(&redis), then, since).await < LONG, "{seconds}");
    }
}
