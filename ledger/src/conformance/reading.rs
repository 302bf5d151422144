//! Results and errors come in index order, page by page.

use std::sync::Arc;

use longshore_protocol::{Counts, MapCell, OutcomeRun, RESULT_STRIDE};

use super::harness::{Harness, NEVER, again, failed, job_id, ok, ok_lines};
use crate::Ledger;
use crate::{ErrorsParams, MapParams, ResultsParams};

cases! {
    results_come_in_index_order
    long_runs_of_results_are_returned_unchanged
    results_are_paged_by_bytes
    results_are_found_from_the_middle
    discarded_results_cost_no_search
    errors_are_paged_by_index
    a_map_counts_the_states_of_each_range
}

/// (from, count) of the runs of a page, and the start of the next page.
async fn page(harness: &Harness, from: u64, to: u64, max_bytes: u64) -> (Vec<(u64, u64)>, u64) {
    let page = harness
        .ledger
        .results(harness.job, &ResultsParams::new(from..to, max_bytes))
        .await
        .unwrap();
    for run in &page.runs {
        let expected: String = (run.from..run.from + run.count).map(|i| format!("{i}\n")).collect();
        assert_eq!(run.body.text(), expected);
    }
    (page.runs.iter().map(|run| (run.from, run.count)).collect(), page.next)
}

pub(super) async fn results_come_in_index_order(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 20).await;
    let (first, second) = (harness.take(10).await, harness.take(10).await);
    harness.commit(second.chunk, 10, vec![ok_lines(10, 14)]).await;
    harness.commit(first.chunk, 0, vec![ok_lines(0, 3), failed("no"), ok_lines(4, 6)]).await;
    harness.commit(first.chunk, 6, vec![again(NEVER), ok_lines(7, 8)]).await;
    let all = vec![(0, 3), (4, 2), (7, 1), (10, 4)];
    assert_eq!(page(&harness, 0, 20, 1 << 20).await, (all.clone(), 20));
    assert_eq!(page(&harness, 0, 14, 1 << 20).await, (all, 14));
    assert_eq!(page(&harness, 14, 20, 1 << 20).await, (vec![], 20));
    assert_eq!(page(&harness, 2, 2, 1 << 20).await, (vec![], 2), "nothing asked, within a run");
    let absent = ledger.results(job_id(9), &ResultsParams::new(3..8, 99)).await.unwrap();
    assert_eq!((absent.runs, absent.next), (vec![], 8));
    harness.check().await;
}

pub(super) async fn long_runs_of_results_are_returned_unchanged(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, RESULT_STRIDE).await;
    let held = harness.take(RESULT_STRIDE).await;
    let lines = |from: u64, to: u64| -> String {
        (from..to).map(|n| format!("{{\"n\":{n},\"ö\":\"{}\"}}\n", "~ @1 ".repeat(50))).collect()
    };
    let run =
        |from, to| OutcomeRun::Success { count: to - from, results: Some(lines(from, to).into()) };
    let (first, second) = (run(0, 100), run(100, RESULT_STRIDE));
    harness.commit(held.chunk, 0, vec![first]).await;
    harness.commit(held.chunk, 100, vec![second]).await;
    let read = async |from, to, most| {
        ledger.results(harness.job, &ResultsParams::new(from..to, most)).await.unwrap()
    };
    let all = read(0, RESULT_STRIDE, 1 << 20).await;
    assert_eq!(all.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [100, 156]);
    let found: String = all.runs.into_iter().map(|run| String::from(run.body)).collect();
    assert_eq!(found, lines(0, RESULT_STRIDE));
    // A page is measured by the lines that the caller receives, however small they are when stored.
    let page = read(0, RESULT_STRIDE, lines(0, 100).len() as u64).await;
    assert_eq!((page.runs.len(), page.next), (1, 100));
    let page = read(0, RESULT_STRIDE, lines(0, 100).len() as u64 + 1).await;
    assert_eq!((page.runs.len(), page.next), (2, RESULT_STRIDE));
    harness.check().await;
}

pub(super) async fn results_are_paged_by_bytes(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 9).await;
    let held = harness.take(9).await;
    let runs = vec![ok_lines(0, 2), ok_lines(2, 5), ok_lines(5, 6), failed("no"), ok_lines(7, 9)];
    harness.commit(held.chunk, 0, runs).await;
    // Each line takes two bytes.
    assert_eq!(page(&harness, 0, 9, 0).await, (vec![(0, 2)], 2), "always at least one");
    assert_eq!(page(&harness, 0, 9, 4).await, (vec![(0, 2)], 2));
    assert_eq!(page(&harness, 0, 9, 5).await, (vec![(0, 2), (2, 3)], 5));
    assert_eq!(page(&harness, 2, 9, 8).await, (vec![(2, 3), (5, 1)], 6));
    assert_eq!(page(&harness, 6, 9, 1).await, (vec![(7, 2)], 9));
    assert_eq!(page(&harness, 0, 4, 10).await, (vec![(0, 2), (2, 3)], 4), "no further than asked");
    harness.check().await;
}

pub(super) async fn results_are_found_from_the_middle(ledger: Arc<dyn Ledger>) {
    let stride = RESULT_STRIDE;
    let harness = Harness::of(&ledger, 3 * stride).await;
    let held = harness.take(3 * stride).await;
    let runs = vec![
        ok_lines(0, stride),
        ok_lines(stride, stride + 100),
        failed("no"),
        ok_lines(stride + 101, 2 * stride),
        ok_lines(2 * stride, 3 * stride),
    ];
    harness.commit(held.chunk, 0, runs).await;
    let (second, third) = ((stride, 100), (stride + 101, stride - 101));
    assert_eq!(page(&harness, 5, 9, 99).await, (vec![(0, stride)], 9));
    assert_eq!(page(&harness, stride - 1, stride, 99).await, (vec![(0, stride)], stride));
    let from = stride + 50;
    assert_eq!(page(&harness, from, from + 60, 1 << 20).await, (vec![second, third], from + 60));
    let gap = stride + 100;
    assert_eq!(page(&harness, gap, gap + 1, 99).await, (vec![], gap + 1));
    assert_eq!(page(&harness, gap, gap + 2, 99).await, (vec![third], gap + 2));
    let last = (2 * stride, stride);
    assert_eq!(page(&harness, 3 * stride - 1, u64::MAX, 1 << 20).await, (vec![last], u64::MAX));
    // The URL of an object stands for its lines.
    let other = Harness::with(&ledger, 3, |a| a.job = job_id(2)).await;
    let held = other.take(3).await;
    let object = OutcomeRun::Success { count: 3, results: Some("@s3://bucket/object".into()) };
    other.commit(held.chunk, 0, vec![object]).await;
    let found = ledger.results(other.job, &ResultsParams::new(1..2, 99)).await.unwrap();
    assert_eq!((&*found.runs[0].body.text(), found.runs[0].count), ("@s3://bucket/object", 3));
    harness.check().await;
}

pub(super) async fn discarded_results_cost_no_search(ledger: Arc<dyn Ledger>) {
    let total = 10_000_000;
    let harness = Harness::of(&ledger, total).await;
    while let [message] = harness.open(1, 2_500_000).await[..] {
        harness.hold(&message).await;
        harness.succeed(&message).await;
    }
    let summary = harness.summary().await;
    assert_eq!((summary.counts.done, summary.counts.open()), (total, 0));
    assert_eq!(page(&harness, 0, total, 1 << 20).await, (vec![], total));
    assert_eq!(page(&harness, 4_999_999, 5_000_001, 99).await, (vec![], 5_000_001));
    harness.check().await;
}

pub(super) async fn errors_are_paged_by_index(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 30).await;
    assert_eq!(ledger.errors(harness.job, &ErrorsParams::new(0, 9)).await.unwrap(), []);
    assert_eq!(ledger.errors(job_id(9), &ErrorsParams::new(0, 9)).await.unwrap(), []);
    let (first, second) = (harness.take(15).await, harness.take(10).await);
    // In an order that is neither numeric nor lexical.
    harness.commit(second.chunk, 15, vec![failed("15"), ok(4), failed("20")]).await;
    harness
        .commit(first.chunk, 0, vec![ok(2), failed("2"), ok(6), failed("9"), failed("10")])
        .await;
    let told = async |from, limit| -> Vec<u64> {
        let errors = ledger.errors(harness.job, &ErrorsParams::new(from, limit)).await.unwrap();
        assert!(errors.iter().all(|entry| entry.error == entry.index.to_string()));
        errors.iter().map(|entry| entry.index).collect()
    };
    assert_eq!(told(0, 99).await, [2, 9, 10, 15, 20]);
    assert_eq!(told(0, 2).await, [2, 9]);
    assert_eq!(told(10, 2).await, [10, 15]);
    assert_eq!(told(16, 2).await, [20]);
    assert_eq!(told(21, 2).await, Vec::<u64>::new());
    assert_eq!(told(0, 0).await, Vec::<u64>::new());
    harness.check().await;
}

pub(super) async fn a_map_counts_the_states_of_each_range(ledger: Arc<dyn Ledger>) {
    let harness = Harness::of(&ledger, 20).await;
    let first = harness.take(5).await;
    harness.take(5).await;
    harness.open(1, 4).await;
    harness.commit(first.chunk, 0, vec![ok(3), failed("no"), again(NEVER)]).await;
    let rows = async |from: u64, to: u64, cells: u64| {
        let params = MapParams::new(from..to, cells).within(20);
        let map = ledger.map(harness.job, &params).await.unwrap().expect("it is there");
        assert_eq!((map.from, map.to), (params.indices.start, params.indices.end));
        let row = |cell: &MapCell| {
            let Counts { total, waiting, queued, running, retrying, done, failed, cancelled } =
                cell.counts;
            (cell.from, total, [waiting, queued, running, retrying, done, failed, cancelled])
        };
        map.cells.iter().map(row).collect::<Vec<_>>()
    };
    let quarters = [
        (0, 5, [0, 0, 0, 1, 3, 1, 0]),
        (5, 5, [0, 0, 5, 0, 0, 0, 0]),
        (10, 5, [1, 4, 0, 0, 0, 0, 0]),
        (15, 5, [5, 0, 0, 0, 0, 0, 0]),
    ];
    assert_eq!(rows(0, u64::MAX, 4).await, quarters);
    let [three, one] = [[0, 0, 0, 0, 3, 0, 0], [0, 0, 0, 0, 0, 1, 0]];
    assert_eq!(rows(0, 4, 99).await.len(), 4, "no range is empty");
    assert_eq!(rows(0, 3, 1).await, [(0, 3, three)]);
    assert_eq!(rows(3, 4, 1).await, [(3, 1, one)]);
    let uneven = [(3, 4, [0, 0, 2, 1, 0, 1, 0]), (7, 5, [0, 2, 3, 0, 0, 0, 0])];
    assert_eq!(rows(3, 12, 2).await, uneven);
    assert_eq!(rows(20, 30, 5).await, []);

    harness.check().await;
    ledger.cancel(harness.job).await.unwrap();
    assert_eq!(rows(0, 10, 1).await, [(0, 10, [0, 0, 0, 0, 3, 1, 6])]);
    assert_eq!(rows(10, 20, 1).await, [(10, 10, [0, 0, 0, 0, 0, 0, 10])]);
    assert_eq!(ledger.map(job_id(9), &MapParams::new(0..1, 1)).await.unwrap(), None);
    harness.check().await;
}
