//! The hint of a job's end contains what a client would read: the summary and the first results.

use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{
    Admission, Claim, ClaimParams, Commit, CommitParams, Committed, Ended, Event, Events, Ledger,
    OpenParams, ResultsParams, Topic,
};
use longshore_protocol::{JobId, NodeId, OutcomeRun, ResultsPage, Token};
use longshore_test_servers::Redis;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// The most results that the hint of an end contains.
const FEW: u64 = 16;

struct Stage {
    ledger: RedisLedger,
    events: Box<dyn Events>,
    jobs: u64,
}

impl Stage {
    async fn new(namespace: &str) -> Self {
        let config = Config::new(Redis::shared().url(), namespace);
        let ledger = RedisLedger::connect(config).unwrap_or_else(|e| panic!("{e}"));
        let events = ledger.events(Topic::Clients).await.expect("subscribed");
        Self { ledger, events, jobs: 0 }
    }

    /// Admits a job and settles all its subtasks in chunks of `size`, each with the outcomes of
    /// `runs`; returns the hint of its end.
    async fn play(
        &mut self,
        total: u64,
        size: u64,
        runs: impl Fn(u64, u64) -> Vec<OutcomeRun>,
    ) -> Arc<Ended> {
        self.jobs += 1;
        let name = format!("0190b0a2-0000-7000-8000-{:012}", self.jobs);
        let job: JobId = name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        self.ledger.admit(&Admission::plain(job, total)).await.expect("admitted");
        let open = OpenParams::new(1_000, size, DEADLINE);
        for chunk in self.ledger.open(job, &open).await.expect("opened") {
            let (token, node) = (Token::from_bytes([7; 16]), NodeId::new("n"));
            let claim = self.ledger.claim(job, &ClaimParams::of(&chunk, token, node.clone())).await;
            assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
            let runs = runs(chunk.from, chunk.to);
            let commit = Commit::new(chunk.from, runs, Duration::from_millis(1));
            let committed = self
                .ledger
                .commit(job, &CommitParams::new(chunk.chunk, token, commit.clone()))
                .await;
            assert!(matches!(committed, Ok(Committed::Settled { .. })), "{committed:?}");
        }
        let told = async {
            loop {
                if let Event::Ended(end) = self.events.next().await
                    && end.summary.id == job
                {
                    return end;
                }
            }
        };
        let end = timeout(DEADLINE, told).await.expect("it is told");
        assert_eq!(Some(&end.summary), self.ledger.job(job).await.expect("read").as_ref());
        end
    }

    async fn page(&self, job: JobId, max_bytes: u64) -> Option<ResultsPage> {
        Some(
            self.ledger
                .results(job, &ResultsParams::new(0..u64::MAX, max_bytes))
                .await
                .expect("read"),
        )
    }
}

/// A line of results for each subtask.
fn lines(from: u64, to: u64, line: impl Fn(u64) -> String) -> Vec<OutcomeRun> {
    let lines: String = (from..to).map(|index| line(index) + "\n").collect();
    vec![OutcomeRun::Success { count: to - from, results: Some(lines.into()) }]
}

#[tokio::test]
async fn the_hint_of_an_end_contains_few_results() {
    let mut stage = Stage::new("ends-few").await;
    let odd = |index| format!(r#"{{"index":{index},"text":"ein \"ä\"\\ \u0000"}}"#);
    for (total, size) in [(1, 1), (FEW, 1), (FEW, 5)] {
        let end = stage.play(total, size, |from, to| lines(from, to, odd)).await;
        assert!(end.results.is_some());
        assert_eq!(end.results, stage.page(end.summary.id, 1 << 20).await);
    }
}

#[tokio::test]
async fn the_hint_of_an_end_contains_a_page_of_long_results() {
    let mut stage = Stage::new("ends-long").await;
    let long = |index| format!("\"{index}{}\"", "x".repeat(3_000));
    let end = stage.play(FEW, 1, |from, to| lines(from, to, long)).await;
    let told = end.results.clone().expect("they are few");
    assert!((1..FEW).contains(&told.next), "{}", told.next);
    assert_eq!(Some(told), stage.page(end.summary.id, 4_096).await);
}

#[tokio::test]
async fn the_hint_of_an_end_omits_many_results() {
    let mut stage = Stage::new("ends-many").await;
    let end = stage.play(FEW + 1, 4, |from, to| lines(from, to, |index| index.to_string())).await;
    assert_eq!(end.results, None);
}

#[tokio::test]
async fn failed_subtasks_have_no_results_in_the_hint() {
    let mut stage = Stage::new("ends-failed").await;
    let end = stage
        .play(3, 1, |from, to| match from {
            1 => vec![OutcomeRun::Failed { error: "no \"luck\"".into() }],
            _ => lines(from, to, |index| index.to_string()),
        })
        .await;
    assert_eq!(end.summary.counts.failed, 1);
    assert_eq!(end.results, stage.page(end.summary.id, 1 << 20).await);
}
