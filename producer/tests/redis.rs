//! The client on a real Redis and the memory broker; the tests play the scheduler and the worker.

mod nodes;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{TryStreamExt, pin_mut};
use longshore_broker::memory::MemoryBroker;
use longshore_broker::{Broker, Queue};
use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Admitted, Claim, ClaimParams, Commit, CommitParams, Committed, Ledger, OpenParams,
};
use longshore_producer::{Client, JobDocument};
use longshore_protocol::state::JobState;
use longshore_protocol::{NodeId, OutcomeRun, Token};
use longshore_test_servers::{Redis, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Admits the next document as a job of one subtask, opens its chunk, and runs it.
async fn schedule_and_work(broker: &MemoryBroker, ledger: &RedisLedger) {
    let mut jobs = broker.subscribe(&Queue::Jobs, 1).await;
    let delivery = jobs.next().await.expect("the broker is open");
    let document = JobDocument::parse(&delivery.body).expect("clients publish valid documents");
    let job = document.id.expect("clients choose an id");
    let open = Some(OpenParams::new(1, 1, SOON));
    let (digest, body) = (document.digest(), document.to_json());
    let admission = Admission { digest, document: body, open, ..Admission::plain(job, 1) };
    let admitted = ledger.admit(&admission).await;
    let Ok(Admitted::Accepted { opened, .. }) = admitted else { panic!("{admitted:?}") };
    let chunk = opened.first().expect("it was to be opened");
    let (token, node) = (Token::from_bytes([7; 16]), NodeId::new("stage"));
    let claim = ledger.claim(job, &ClaimParams::of(chunk, token, node.clone())).await;
    assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    let runs = vec![OutcomeRun::Success { count: 1, results: Some("42\n".into()) }];
    let commit = Commit::new(0, runs, Duration::from_millis(1));
    let committed =
        ledger.commit(job, &CommitParams::new(chunk.chunk, token, commit.clone())).await;
    assert!(matches!(committed, Ok(Committed::Settled { .. })), "{committed:?}");
    delivery.settle.ack().await;
}

/// The number of reads of clients at this Redis.
fn reads(redis: &Redis) -> u64 {
    let stats = format!("{:?}", redis.call(&["INFO", "commandstats"]));
    let calls = |command: &str| {
        let after = stats.split_once(&format!("cmdstat_{command}:calls="))?.1;
        after.split(',').next()?.parse::<u64>().ok()
    };
    ["fcall_ro", "get"].into_iter().filter_map(calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_its_job_gets_hints_and_does_not_poll() {
    let redis = Redis::start();
    let connect = || {
        let config = Config::new(redis.url(), "asks-nothing");
        RedisLedger::connect(config).unwrap_or_else(|e| panic!("{e}"))
    };
    let (broker, ledger) = (Arc::new(MemoryBroker::new()), connect());
    ledger.load_functions().await.expect("loaded");
    let client = Client::new(broker.clone(), Arc::new(connect()));
    let document =
        JobDocument::parse(br#"{"task": "noop", "split": {"by": "range", "start": 0, "end": 1}}"#);
    let document = document.expect("it is valid");
    let run = async || {
        let submitted = async { client.submit(&document).await.expect("it is admitted") };
        let (job, ()) = tokio::join!(submitted, schedule_and_work(&broker, &ledger));
        let (summary, results) = job.outcome().await.expect("it ends");
        pin_mut!(results);
        let values: Vec<_> = results.try_collect().await.expect("they can be read");
        (summary, values)
    };
    // Until hints come, a client polls.
    run().await;
    wait_until("the client follows the hints", SOON, || {
        format!("{:?}", redis.call(&["PUBSUB", "CHANNELS"])).contains("asks-nothing:events:clients")
    });
    let mut asked = Vec::new();
    for _ in 0..100 {
        let before = reads(&redis);
        let (summary, values) = run().await;
        assert_eq!((summary.state, summary.counts.done), (JobState::Succeeded, 1));
        let [(0, value)] = values.as_slice() else { panic!("{values:?}") };
        assert_eq!(value.get(), "42");
        asked.push(reads(&redis) - before);
        // On a busy machine, on which a hint takes 20 ms, the client polls.
        if asked.ends_with(&[0]) {
            return;
        }
    }
    panic!("it was asked each time: {asked:?}");
}

#[tokio::test]
async fn workers_are_listed_drained_and_readmitted() {
    let redis = Redis::start();
    let config = Config::new(redis.url(), "nodes");
    let ledger = RedisLedger::connect(config).unwrap_or_else(|e| panic!("{e}"));
    ledger.load_functions().await.expect("loaded");
    nodes::are_listed_drained_and_readmitted(Arc::new(ledger)).await;
}
