//! Broken builds on real processes: the checker finds each bug, by the right check and no other.
//!
//! | bug | made by | found by |
//! | --- | --- | --- |
//! | a worker commits subtasks before they are done | a task of the chaos worker | C2 |
//! | a scheduler acknowledges documents before it has admitted them | changed frames on its link | C1 |
//! | an application publishes without `mandatory` | changed frames on its link | C1 |
//! | the ledger compares epochs instead of tokens | a changed library in Redis | C3 |
//! | a worker acknowledges chunks before it has committed them | changed frames on its link | nothing |
//!
//! The last one is not a bug, because a message is only a hint. Production code has no switch for
//! any of them.

#![expect(clippy::print_stdout, reason = "the findings are for people: --nocapture shows them")]

use longshore_broker::Queue;
use longshore_chaos::checker::check_jobs;
use longshore_chaos::cluster::{Cluster, LONG, Role};
use longshore_chaos::history::Submissions;
use longshore_chaos::link::{Direction, Link, LinkState};
use longshore_chaos::marks::What;
use longshore_chaos::mutant::Mutant;
use longshore_chaos::tasks::{COMMITS_EARLY, MARK, NEXT};
use longshore_ledger::redis::library::LIBRARY;
use longshore_producer::{Client, JobDocument, Settings};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// The findings of the checker once all jobs have ended.
fn found(cluster: &Cluster) -> Vec<String> {
    let history = cluster.history();
    let found: Vec<String> =
        check_jobs(&history, &cluster.reported(&history)).iter().map(ToString::to_string).collect();
    println!("found: {found:#?}");
    found
}

/// Checks that this is the only finding.
#[track_caller]
fn caught(found: &[String], check: &str, job: Uuid, words: &str) {
    assert_eq!(found, [format!("{check}: job {job}: {words}")]);
}

/// A cluster of one scheduler and one worker, one of which may be a broken build.
fn pair(rabbit: &Rabbit, redis: &Redis, broken: Option<(Role, Mutant)>) -> Cluster {
    let mut cluster = Cluster::on(rabbit, redis);
    cluster.set("LONGSHORE_DEAD_AFTER", "1s");
    cluster.set("LONGSHORE_HEARTBEAT", "250ms");
    cluster.set("LONGSHORE_SLOTS", "1");
    for role in [Role::Scheduler, Role::Worker] {
        cluster.break_build(broken.filter(|(of, _)| *of == role).map(|(_, mutant)| mutant));
        cluster.add(role, 1);
    }
    cluster
}

/// Submits one more job and waits until all jobs have ended, except the one that a broken build
/// loses.
fn await_all(cluster: &Cluster, lost: Option<Uuid>) {
    cluster.submit(MARK, 1, &json!({}), &json!({}));
    let jobs = cluster.history().intents.into_keys().filter(|job| Some(*job) != lost);
    jobs.for_each(|job| cluster.await_end(job));
}

/// An application that stays connected and relies on RabbitMQ's confirms, like one in any language
/// may.
struct Application {
    client: Client,
    link: Link,
    runtime: Runtime,
}

impl Application {
    fn of(cluster: &Cluster, mutant: Option<Mutant>) -> Self {
        let link = Link::mutating(Rabbit::shared().port(), mutant);
        let settings = Settings {
            amqp_url: format!("amqp://guest:guest@127.0.0.1:{}/%2f", link.port()),
            redis_url: Redis::shared().url(),
            namespace: cluster.namespace().to_owned(),
            ..Settings::default()
        };
        let runtime = Runtime::new().expect("threads for a client");
        let client = runtime.block_on(Client::connect(&settings)).expect("both services are there");
        Self { client, link, runtime }
    }

    fn publish(&self, cluster: &Cluster, task: &str, total: u64) -> Uuid {
        let job = Uuid::now_v7();
        let document = Cluster::document(job, task, total, &json!({}), &json!({}));
        let document = JobDocument::parse(document.to_string().as_bytes()).expect("it is valid");
        let submissions = Submissions { folder: cluster.folder() };
        submissions.intend(job, task, total);
        self.runtime.block_on(self.client.publish(&document)).expect("RabbitMQ confirms");
        submissions.confirm(job);
        job
    }

    /// The number of documents that no scheduler has received yet.
    fn waiting(&self) -> Option<u64> {
        let broker = self.client.broker().expect("a client of RabbitMQ");
        let depth = self.runtime.block_on(broker.depth(&Queue::Jobs));
        depth.ok().flatten().map(|depth| depth.ready)
    }
}

/// Kills the only worker during a job of this task.
fn kill_worker_during(task: &str) -> (Uuid, Vec<String>) {
    let mut cluster = pair(Rabbit::shared(), Redis::shared(), None);
    let job = cluster.submit(task, 50, &json!({"ms": 200}), &json!({"chunk": 1}));
    cluster.await_done(job, 2);
    cluster.members[1].kill();
    cluster.members[1].restart();
    cluster.await_end(job);
    if task == COMMITS_EARLY {
        // Subtasks that the second worker committed too early must not end now.
        cluster.members[1].kill();
    }
    (job, found(&cluster))
}

#[test]
fn a_worker_that_commits_before_subtasks_are_done_is_caught() {
    let (job, found) = kill_worker_during(COMMITS_EARLY);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&format!("C2: job {job}: ")), "{found:?}");
    assert!(found[0].contains("subtasks count as done and never ran to an end"), "{found:?}");
    assert_eq!(kill_worker_during(MARK).1, [""; 0]);
}

/// Kills a scheduler that has received a document while its ledger does not answer.
fn kill_scheduler_with_a_document(mutant: Option<Mutant>) -> (Uuid, Vec<String>) {
    let broken = mutant.map(|mutant| (Role::Scheduler, mutant));
    let mut cluster = pair(Rabbit::shared(), Redis::shared(), broken);
    let application = Application::of(&cluster, None);
    await_all(&cluster, None);
    cluster.members[0].set_links(LinkState::OPEN, LinkState::CUT);
    let job = application.publish(&cluster, MARK, 10);
    wait_until("the scheduler has the document", LONG, || application.waiting() == Some(0));
    cluster.members[0].kill();
    // Its writes never arrive.
    cluster.members[0].redis.as_ref().expect("a scheduler has one").reset();
    cluster.members[0].restart();
    await_all(&cluster, mutant.map(|_| job));
    (job, found(&cluster))
}

#[test]
fn a_scheduler_that_acknowledges_documents_before_admission_is_caught() {
    let early = Mutant::AcknowledgedOnArrival(".jobs");
    let (job, found) = kill_scheduler_with_a_document(Some(early));
    caught(&found, "C1", job, "was confirmed and is unknown");
    assert_eq!(kill_scheduler_with_a_document(None).1, [""; 0]);
}

/// Publishes a document while its queue is deleted and no scheduler runs.
fn publish_without_a_queue(mutant: Option<Mutant>) -> (Uuid, Vec<String>) {
    let mut cluster = pair(Rabbit::shared(), Redis::shared(), None);
    let application = Application::of(&cluster, mutant);
    application.publish(&cluster, MARK, 10);
    await_all(&cluster, None);
    cluster.members[0].kill();
    Rabbit::shared().ctl(&["delete_queue", &format!("{}.jobs", cluster.namespace())]);
    let job = application.publish(&cluster, MARK, 10);
    assert_eq!(application.link.mutated() > 0, mutant.is_some());
    cluster.members[0].restart();
    await_all(&cluster, mutant.map(|_| job));
    (job, found(&cluster))
}

#[test]
fn an_application_that_publishes_without_mandatory_is_caught() {
    let (job, found) = publish_without_a_queue(Some(Mutant::NotMandatory));
    caught(&found, "C1", job, "was confirmed and is unknown");
    assert_eq!(publish_without_a_queue(None).1, [""; 0]);
}

/// The ledger's library with a bug: every claimant at the chunk's epoch, or a later one, holds the
/// chunk. It reports the digest of the right library, so no process replaces it. A worker that
/// compares epochs would send its own with each call; here the library remembers the epoch at which
/// each token claimed.
fn library_that_compares_epochs() -> String {
    let replaced = |text: &str, what: &str, by: &str| {
        assert_eq!(text.matches(what).count(), 1, "{what}");
        text.replace(what, by)
    };
    let text = replaced(
        &LIBRARY.source,
        "chunk.token == token",
        "(tonumber(redis.call('HGET', 'claimed-at', token)) or -1) >= chunk.epoch",
    );
    replaced(
        &text,
        "chunk.state, chunk.token, chunk.node = CHUNK_RUNNING, token, node",
        "chunk.state, chunk.token, chunk.node = CHUNK_RUNNING, token, node
         redis.call('HSET', 'claimed-at', token, chunk.epoch)",
    )
}

/// Freezes a worker while its job is deleted and another job gets the same id. The same chunk and
/// epoch exist again, with another holder. The worker's calls still get through, but no hint and no
/// answer to a heartbeat warns it.
fn thaw_worker_in_another_job(library: &str) -> (Uuid, Vec<String>) {
    let redis = Redis::start();
    redis.call(&["FUNCTION", "LOAD", library]);
    let mut cluster = Cluster::on(Rabbit::shared(), &redis);
    // No worker is declared lost.
    cluster.set("LONGSHORE_DEAD_AFTER", "600s");
    cluster.set("LONGSHORE_SLOTS", "1");
    cluster.add(Role::Scheduler, 1);
    cluster.add(Role::Worker, 1);
    let starts = |cluster: &Cluster| {
        cluster.history().marks.iter().filter(|mark| mark.what == What::Start).count()
    };
    let job = cluster.submit(MARK, 1, &json!({"ms": 1_000}), &json!({}));
    wait_until("the first worker is at work", LONG, || starts(&cluster) == 1);
    cluster.members[1].freeze();
    cluster.members[1].set_links(
        LinkState::CUT,
        LinkState { to_server: Direction::Flows, to_process: Direction::Stuck },
    );
    cluster.add(Role::Worker, 1);
    let id = job.to_string();
    cluster.longshore(&["cancel", &id]).ok();
    cluster.longshore(&["delete", &id]).ok();
    // RabbitMQ delivers nothing more to it.
    cluster.members[1].rabbit.reset();
    Submissions { folder: cluster.folder() }.forget(job);
    cluster.submit_as(job, NEXT, 1, &json!({"ms": 5_000}), &json!({}));
    wait_until("another worker has its chunk", LONG, || starts(&cluster) == 2);
    cluster.members[1].thaw();
    cluster.await_end(job);
    let digest = redis.call(&["FCALL_RO", "longshore_version", "0"]).text();
    assert_eq!(digest.as_ref(), Some(&LIBRARY.digest), "no process has replaced the library");
    let listed = format!("{:?}", redis.call(&["FUNCTION", "LIST", "WITHCODE"]));
    assert_eq!(listed.contains("claimed-at"), library.contains("claimed-at"));
    (job, found(&cluster))
}

#[test]
fn a_ledger_that_compares_epochs_instead_of_tokens_is_caught() {
    let (job, found) = thaw_worker_in_another_job(&library_that_compares_epochs());
    caught(&found, "C3", job, "result 0 is 0 instead of 427799");
    assert_eq!(thaw_worker_in_another_job(&LIBRARY.source).1, [""; 0]);
}

#[test]
fn a_worker_that_acknowledges_chunks_before_commits_loses_nothing() {
    let early = Mutant::AcknowledgedOnArrival(".work.default");
    let mut cluster = pair(Rabbit::shared(), Redis::shared(), Some((Role::Worker, early)));
    let job = cluster.submit(MARK, 50, &json!({"ms": 50}), &json!({"chunk": 1}));
    for done in [2, 10] {
        cluster.await_done(job, done);
        cluster.members[1].kill();
        cluster.members[1].restart();
    }
    cluster.await_end(job);
    assert!(cluster.members[1].rabbit.mutated() > 0);
    assert_eq!(found(&cluster), [""; 0]);
}
