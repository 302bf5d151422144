//! An application and its cluster in one process: results, errors and controls by the public API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore::{
    Context, Document, Error, ErrorKind, JobCursor, JobFilter, JobState, LocalCluster, NodeId,
    NodeState, Retry, Split, TaskError, TaskResult, Worker, WorkerBuilder,
};

fn worker() -> Result<Worker, Error> {
    builder().build()
}

fn builder() -> WorkerBuilder {
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
    let mistake = error.mistake().expect("it is in the document");
    assert_eq!((mistake.place.as_str(), mistake.found.as_str()), ("priority", "`10`"));

    let job = client.submit(&Document::new("half", Split::items([4]))).await?;
    job.wait().await?;
    let error = job.results::<String>().next().await.expect("a result").expect_err("a number");
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    assert_eq!(job.pause().await.expect_err("it has ended").kind(), ErrorKind::IllegalState);
    cluster.stop().await
}

#[tokio::test]
async fn jobs_are_listed_by_filter_and_page_by_page() -> Result<(), Error> {
    let cluster = LocalCluster::start(worker()?);
    let client = cluster.client();
    let half = |n: u64| Document::new("half", Split::items([n]));
    let mut wanted = Vec::new();
    for number in 0..3 {
        let document = half(2).label("set", "a").name(format!("number {number}"));
        let job = client.submit(&document).await?;
        assert!(job.wait().await?.has_succeeded());
        wanted.push(job.id());
    }
    client.submit(&half(1).label("set", "a")).await?.wait().await?;
    client.submit(&half(2).label("set", "b")).await?.wait().await?;

    let filter = JobFilter::new().state(JobState::Succeeded).task("half").label("set", "a");
    let page = client.list(&filter, None, 2).await?;
    assert_eq!(page.jobs.len(), 2);
    let next = page.next.expect("one is left").to_string();
    let rest = client.list(&filter, Some(next.parse()?), 2).await?;
    assert_eq!(rest.next, None);
    let mut listed: Vec<_> = page.jobs.iter().chain(&rest.jobs).collect();
    assert_eq!(listed.len(), 3);
    listed.sort_by_key(|job| job.name.clone());
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), wanted);
    let job = listed[0];
    assert_eq!((job.name.as_deref(), job.labels["set"].as_str()), (Some("number 0"), "a"));
    assert_eq!((job.tenant.as_str(), job.priority, job.waiting), ("default", 5, 0));

    let everything = client.list(&JobFilter::new(), None, 10).await?;
    assert_eq!((everything.jobs.len(), everything.next), (5, None));
    assert_eq!(client.recent(10).await?.len(), 5);
    let nowhere = client.list(&JobFilter::new().queue("gpu"), None, 10).await?;
    assert_eq!(nowhere.jobs, []);
    let error = "behind the last".parse::<JobCursor>().expect_err("not a cursor");
    assert_eq!(error.kind(), ErrorKind::BadInput);
    cluster.stop().await
}

#[tokio::test]
async fn workers_are_listed_and_drained() -> Result<(), Error> {
    let labels = BTreeMap::from([("rack".to_owned(), "7".to_owned())]);
    let cluster = LocalCluster::start(builder().slots(2).labels(labels.clone()).build()?);
    let client = cluster.client();
    // A worker beats before it takes work.
    client.submit(&Document::new("half", Split::items([2]))).await?.wait().await?;
    let nodes = client.nodes().await?;
    let [node] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((node.state, node.slots), (NodeState::Active, 2));
    assert_eq!(
        (node.queues.as_slice(), &node.labels),
        (["default".to_owned()].as_slice(), &labels)
    );
    assert!(node.tasks.iter().any(|task| task == "half"), "{:?}", node.tasks);
    assert!(node.isolated.is_empty() && node.disabled.is_empty() && node.crash.is_none());
    assert_eq!(node.pid, std::process::id());
    assert!(node.silent_for < Duration::from_secs(60), "{:?}", node.silent_for);

    client.readmit(&node.id).await?;
    client.drain(&node.id).await?;
    let is = async |state: NodeState| {
        while client.nodes().await?.iter().any(|node| node.state != state) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, Error>(())
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, is(NodeState::Drained)).await.expect("it is drained")?;
    client.undrain(&node.id).await?;
    tokio::time::timeout(within, is(NodeState::Active)).await.expect("it takes work again")?;
    client.submit(&Document::new("half", Split::items([2]))).await?.wait().await?;
    let nobody = NodeId::new("nobody");
    let answers =
        [client.drain(&nobody).await, client.undrain(&nobody).await, client.readmit(&nobody).await];
    for answer in answers {
        let error = answer.expect_err("there is none");
        assert_eq!((error.kind(), error.job()), (ErrorKind::NotFound, None));
        assert_eq!(error.to_string(), "no such node: nobody");
    }
    cluster.stop().await
}
