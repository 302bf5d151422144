//! Finding jobs by the beginning of their ids.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{JobId, JobIdPrefix};

use super::harness::{NEVER, admission, await_that};
use crate::Ledger;
use crate::op::{Admission, Admitted};

cases! {
    ids_are_found_by_their_beginning
    an_id_is_as_short_as_the_other_jobs_allow
    an_id_that_is_gone_is_not_found
}

const IDS: [&str; 5] = [
    "01890a5d-ac96-774b-bcce-000000000001",
    "01890a5d-ac96-774b-bcce-000000000002",
    "01890a5d-bc96-774b-bcce-000000000003",
    "11890a5d-ac96-474b-bcce-000000000004",
    "fffffff0-ffff-4fff-bfff-ffffffffffff",
];

fn id(text: &str) -> JobId {
    text.parse().expect("an id")
}

async fn admit(ledger: &Arc<dyn Ledger>, text: &str, keep_for: Duration) {
    let job = Admission { job: id(text), keep_for, ..admission(1, 2) };
    let admitted = ledger.admit(&job).await.unwrap();
    assert!(matches!(admitted, Admitted::Accepted { .. }), "{admitted:?}");
}

async fn found(ledger: &Arc<dyn Ledger>, prefix: &str, limit: usize) -> Vec<JobId> {
    let prefix: JobIdPrefix = prefix.parse().expect("a prefix");
    ledger.find_ids(&prefix, limit).await.unwrap()
}

pub(super) async fn ids_are_found_by_their_beginning(ledger: Arc<dyn Ledger>) {
    for text in IDS.into_iter().rev() {
        admit(&ledger, text, NEVER).await;
    }
    let rejected = "01890a5d-ac96-774b-bccf-000000000006";
    ledger.reject(id(rejected), "split: empty").await.unwrap();
    let three = [IDS[0], IDS[1], rejected].map(id);
    assert_eq!(found(&ledger, "01890a5d-ac96", 9).await, three, "the smallest first");
    assert_eq!(found(&ledger, "01890a5d-ac96", 2).await, three[..2], "no more than the limit");
    assert_eq!(found(&ledger, "01890a5d", 9).await.len(), 4);
    for text in IDS {
        assert_eq!(found(&ledger, text, 9).await, [id(text)], "a whole id");
    }
    assert_eq!(found(&ledger, "ffffffff", 9).await, [], "no job");
    assert_eq!(found(&ledger, "fffffff0", 9).await, [id(IDS[4])], "the last id");
}

pub(super) async fn an_id_is_as_short_as_the_other_jobs_allow(ledger: Arc<dyn Ledger>) {
    admit(&ledger, IDS[0], NEVER).await;
    assert_eq!(ledger.unique_prefixes(&[id(IDS[0])]).await.unwrap(), [JobIdPrefix::SHORTEST]);
    for text in &IDS[1..] {
        admit(&ledger, text, NEVER).await;
    }
    let lengths = ledger.unique_prefixes(&IDS.map(id)).await.unwrap();
    assert_eq!(lengths, [36, 36, 10, 8, 8]);
    for (text, length) in IDS.iter().zip(lengths) {
        assert_eq!(found(&ledger, &text[..length], 9).await, [id(text)], "it names one job");
    }
    assert_eq!(ledger.unique_prefixes(&[]).await.unwrap(), [0; 0]);
}

pub(super) async fn an_id_that_is_gone_is_not_found(ledger: Arc<dyn Ledger>) {
    let [expiring, deleted, kept] = [IDS[0], IDS[1], IDS[2]];
    admit(&ledger, expiring, Duration::ZERO).await;
    admit(&ledger, deleted, NEVER).await;
    admit(&ledger, kept, NEVER).await;
    for job in [expiring, deleted] {
        ledger.cancel(id(job)).await.unwrap();
    }
    let gone = id(expiring);
    await_that("the job expires", async || ledger.job(gone).await.unwrap().is_none()).await;
    assert_eq!(found(&ledger, "01890a5d", 9).await, [deleted, kept].map(id));
    ledger.archive(gone).await.unwrap();
    ledger.delete(id(deleted)).await.unwrap();
    assert_eq!(found(&ledger, "01890a5d", 9).await, [id(kept)]);
    let lengths = ledger.unique_prefixes(&[id(kept)]).await.unwrap();
    assert_eq!(lengths, [JobIdPrefix::SHORTEST], "what is gone needs no room");
}
