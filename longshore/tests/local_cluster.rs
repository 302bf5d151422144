//! An application and its cluster in one process: results, errors and controls by the public API.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore::{
    Context, Document, Error, ErrorKind, JobState, LocalCluster, Retry, Split, TaskError,
    TaskResult, Worker,
};

fn worker() -> Result<Worker, Error> {
    Worker::builder()
        .task("half", |_: Context, n: u64| async move {
            if n.is_multiple_of(2) {
                Ok(n / 2)
            } else {
                Err(TaskError::permanent(format!("{n} is odd")))
            }
        })
        .blocking_task("scale", |context: Context, n: u64| {
            TaskResult::Ok(n * context.params::<u64>()?)
        })
        .build()
}

#[tokio::test]
async fn results_are_typed_and_errors_have_their_index() -> Result<(), Error> {
    let cluster = LocalCluster::start(worker()?);
    let job = cluster.client().submit(&Document::new("half", Split::items([2, 3, 4]))).await?;
    let (end, mut results) = job.outcome::<u64>().await?;
    assert_eq!((end.state, end.done, end.failed), (JobState::Failed, 2, 1));
    let mut found = Vec::new();
    while let Some(result) = results.next().await {
        let result = result?;
        found.push((result.index, result.value));
    }
    assert_eq!(found, [(0, 1), (2, 2)]);
    let mut errors = job.errors();
    let error = errors.next().await.expect("one subtask failed")?;
    assert_eq!((error.index, error.error.as_str(), error.attempts), (1, "3 is odd", 1));
    assert!(errors.next().await.is_none());
    cluster.stop().await
}

#[tokio::test]
async fn params_reach_the_task_and_results_are_reduced_to_a_value() -> Result<(), Error> {
    let mut cluster = LocalCluster::start(worker()?);
    cluster.add_worker(worker()?);
    let document = Document::new("scale", Split::range(1..101)).params(&2).reduce("sum").fan_in(8);
    let job = cluster.client().submit(&document).await?;
    assert!(job.wait().await?.has_succeeded());
    assert_eq!(job.value::<u64>().await?, 10_100);
    cluster.stop().await
}

#[tokio::test]
async fn a_failed_attempt_is_repeated() -> Result<(), Error> {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    let flaky = |context: Context, (): ()| async move {
        ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        if context.attempt() < 3 { Err("not yet") } else { Ok(context.attempt()) }
    };
    let cluster = LocalCluster::start(Worker::builder().task("flaky", flaky).build()?);
    let retry = Retry::attempts(3).backoff(Duration::from_millis(1));
    let document = Document::new("flaky", Split::items([()])).retry(retry);
    let job = cluster.client().submit(&document).await?;
    let mut results = job.outcome::<u32>().await?.1;
    assert_eq!(results.next().await.expect("one result")?.value, 3);
    assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 3);
    cluster.stop().await
}

#[tokio::test]
async fn errors_have_a_kind_and_name_the_job() -> Result<(), Error> {
    let cluster = LocalCluster::start(worker()?);
    let client = cluster.client();
    let nowhere = client.job("01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id"));
    let error = nowhere.status().await.expect_err("no such job");
    assert_eq!((error.kind(), error.job()), (ErrorKind::NotFound, Some(nowhere.id())));

    let invalid = Document::new("half", Split::range(0..3)).priority(10);
    let error = client.submit(&invalid).await.expect_err("no such priority");
    assert_eq!(error.kind(), ErrorKind::BadInput);

    let job = client.submit(&Document::new("half", Split::items([4]))).await?;
    job.wait().await?;
    let error = job.results::<String>().next().await.expect("a result").expect_err("a number");
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    assert_eq!(job.pause().await.expect_err("it has ended").kind(), ErrorKind::IllegalState);
    cluster.stop().await
}
