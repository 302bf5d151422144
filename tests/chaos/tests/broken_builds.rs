//! The checker against broken builds, on real processes: each is found, for the reason for which it is broken, and the same run
//! without the mistake finds nothing.
//!
//! | what is broken | how | found as |
//! | --- | --- | --- |
//! | a worker commits what it has not done yet | a task of the chaos worker | C2 |
//! | a scheduler acknowledges documents before it has admitted them | forged on its link to RabbitMQ | C1 |
//! | an application publishes without `mandatory` | forged on its link to RabbitMQ | C1 |
//! | the ledger compares epochs where it has to compare tokens | another library in Redis | C3 |
//! | a worker acknowledges chunks before it has committed them | forged on its link to RabbitMQ | nothing |
//!
//! The last one is no bug here: a message is a hint. Production code has no switch for any of them.

#![expect(clippy::print_stdout, reason = "what is found is for people: --nocapture shows it")]

use longshore_broker::Queue;
use longshore_chaos::checker::check_jobs;
use longshore_chaos::crew::{Crew, LONG, Role};
use longshore_chaos::forge::Forgery;
use longshore_chaos::history::Submissions;
use longshore_chaos::link::{Lane, Link, Weather};
use longshore_chaos::marks::What;
use longshore_chaos::tasks::{HASTY, MARK, NEXT};
use longshore_ledger::redis::library::LIBRARY;
use longshore_producer::{Client, JobDocument, Settings};
use longshore_test_servers::{Rabbit, Redis, wait_until};
use serde_json::json;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// What the checker finds once all is quiet.
fn found(crew: &Crew) -> Vec<String> {
    let history = crew.history();
    let found: Vec<String> =
        check_jobs(&history, &crew.told(&history)).iter().map(ToString::to_string).collect();
    println!("found: {found:#?}");
    found
}

/// That this one thing is found, of this job.
#[track_caller]
fn caught(found: &[String], check: &str, job: Uuid, words: &str) {
    assert_eq!(found, [format!("{check}: job {job}: {words}")]);
}

/// A crew of one scheduler and one worker, either of which may be broken.
fn pair(rabbit: &Rabbit, redis: &Redis, broken: Option<(Role, Forgery)>) -> Crew {
    let mut crew = Crew::on(rabbit, redis);
    crew.set("LONGSHORE_DEAD_AFTER", "1s");
    crew.set("LONGSHORE_HEARTBEAT", "250ms");
    crew.set("LONGSHORE_SLOTS", "1");
    for role in [Role::Scheduler, Role::Worker] {
        crew.break_build(broken.filter(|(of, _)| *of == role).map(|(_, forgery)| forgery));
        crew.hire(role, 1);
    }
    crew
}

/// All jobs have ended, one that was submitted last included; but for those that a broken build loses.
fn all_end(crew: &Crew, lost: Option<Uuid>) {
    crew.submit(MARK, 1, &json!({}), &json!({}));
    let jobs = crew.history().intents.into_keys().filter(|job| Some(*job) != lost);
    jobs.for_each(|job| crew.await_end(job));
}

/// An application that stays connected and takes RabbitMQ's confirm for enough, as one in any language may.
struct Application {
    client: Client,
    link: Link,
    runtime: Runtime,
}

impl Application {
    fn of(crew: &Crew, forgery: Option<Forgery>) -> Self {
        let link = Link::forging(Rabbit::shared().port(), forgery);
        let settings = Settings {
            amqp_url: format!("amqp://guest:guest@127.0.0.1:{}/%2f", link.port()),
            redis_url: Redis::shared().url(),
            namespace: crew.namespace().to_owned(),
        };
        let runtime = Runtime::new().expect("threads for a client");
        let client = runtime.block_on(Client::connect(&settings)).expect("both services are there");
        Self { client, link, runtime }
    }

    fn publish(&self, crew: &Crew, task: &str, total: u64) -> Uuid {
        let job = Uuid::now_v7();
        let document = Crew::document(job, task, total, &json!({}), &json!({}));
        let document = JobDocument::parse(document.to_string().as_bytes()).expect("it is valid");
        let told = Submissions { folder: crew.folder() };
        told.intend(job, task, total);
        self.runtime.block_on(self.client.publish(&document)).expect("RabbitMQ confirms");
        told.confirm(job);
        job
    }

    /// Documents that no scheduler has got yet.
    fn waiting(&self) -> Option<u64> {
        let depth = self.runtime.block_on(self.client.broker().depth(&Queue::Jobs));
        depth.ok().flatten().map(|depth| depth.ready)
    }
}

/// Kills the only worker in the middle of a job of this task.
fn a_worker_dies_of(task: &str) -> (Uuid, Vec<String>) {
    let mut crew = pair(Rabbit::shared(), Redis::shared(), None);
    let job = crew.submit(task, 50, &json!({"ms": 200}), &json!({"chunk": 1}));
    crew.await_done(job, 2);
    crew.members[1].kill();
    crew.members[1].start_again();
    crew.await_end(job);
    if task == HASTY {
        // What the second worker said before it was true may still come true.
        crew.members[1].kill();
    }
    (job, found(&crew))
}

#[test]
fn a_worker_that_commits_before_it_is_done_gets_caught() {
    let (job, found) = a_worker_dies_of(HASTY);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&format!("C2: job {job}: ")), "{found:?}");
    assert!(found[0].contains("subtasks count as done and never ran to an end"), "{found:?}");
    assert_eq!(a_worker_dies_of(MARK).1, [""; 0]);
}

/// Kills a scheduler that has got a document, and whose ledger does not answer.
fn a_scheduler_dies_with_a_document(forgery: Option<Forgery>) -> (Uuid, Vec<String>) {
    let broken = forgery.map(|forgery| (Role::Scheduler, forgery));
    let mut crew = pair(Rabbit::shared(), Redis::shared(), broken);
    let application = Application::of(&crew, None);
    all_end(&crew, None);
    crew.members[0].set_links(Weather::FAIR, Weather::CUT);
    let job = application.publish(&crew, MARK, 10);
    wait_until("the scheduler has the document", LONG, || application.waiting() == Some(0));
    crew.members[0].kill();
    // What it wrote never arrives.
    crew.members[0].redis.as_ref().expect("a scheduler has one").reset();
    crew.members[0].start_again();
    all_end(&crew, forgery.map(|_| job));
    (job, found(&crew))
}

#[test]
fn a_scheduler_that_acknowledges_documents_before_it_has_admitted_them_gets_caught() {
    let early = Forgery::AcknowledgedOnArrival(".jobs");
    let (job, found) = a_scheduler_dies_with_a_document(Some(early));
    caught(&found, "C1", job, "was confirmed and is unknown");
    assert_eq!(a_scheduler_dies_with_a_document(None).1, [""; 0]);
}

/// Publishes while nobody has the queue of documents any more: it is deleted, and no scheduler runs.
fn the_queue_is_gone_at_a_publish(forgery: Option<Forgery>) -> (Uuid, Vec<String>) {
    let mut crew = pair(Rabbit::shared(), Redis::shared(), None);
    let application = Application::of(&crew, forgery);
    application.publish(&crew, MARK, 10);
    all_end(&crew, None);
    crew.members[0].kill();
    Rabbit::shared().ctl(&["delete_queue", &format!("{}.jobs", crew.namespace())]);
    let job = application.publish(&crew, MARK, 10);
    assert_eq!(application.link.forged() > 0, forgery.is_some());
    crew.members[0].start_again();
    all_end(&crew, forgery.map(|_| job));
    (job, found(&crew))
}

#[test]
fn an_application_that_publishes_without_mandatory_gets_caught() {
    let (job, found) = the_queue_is_gone_at_a_publish(Some(Forgery::NotMandatory));
    caught(&found, "C1", job, "was confirmed and is unknown");
    assert_eq!(the_queue_is_gone_at_a_publish(None).1, [""; 0]);
}

/// The ledger's library, but whoever claimed at the chunk's epoch, or a later one, holds the chunk. It says of itself that it is
/// the right one, so nobody replaces it. A worker that compares epochs would send its own with each call; here the library
/// remembers at which epoch each token claimed.
fn library_that_compares_epochs() -> String {
    let replaced = |text: &str, what: &str, by: &str| {
        assert_eq!(text.matches(what).count(), 1, "{what}");
        text.replace(what, by)
    };
    let text = replaced(
        &LIBRARY.source,
        "it.token == token",
        "(tonumber(redis.call('HGET', 'claimed-at', token)) or -1) >= it.epoch",
    );
    replaced(
        &text,
        "chunk.state, chunk.token, chunk.node = 'running', token, node",
        "chunk.state, chunk.token, chunk.node = 'running', token, node
         redis.call('HSET', 'claimed-at', token, chunk.epoch)",
    )
}

/// A worker sleeps while its job is deleted and another one gets the same id. Its chunk and its epoch are there again, but
/// somebody else holds them. What it says still gets through; no hint and no answer to a heartbeat warns it.
fn a_sleeper_wakes_up_in_another_job(library: &str) -> (Uuid, Vec<String>) {
    let redis = Redis::start();
    redis.call(&["FUNCTION", "LOAD", library]);
    let mut crew = Crew::on(Rabbit::shared(), &redis);
    // Nobody is taken for dead.
    crew.set("LONGSHORE_DEAD_AFTER", "600s");
    crew.set("LONGSHORE_SLOTS", "1");
    crew.hire(Role::Scheduler, 1);
    crew.hire(Role::Worker, 1);
    let starts =
        |crew: &Crew| crew.history().marks.iter().filter(|mark| mark.what == What::Start).count();
    let job = crew.submit(MARK, 1, &json!({"ms": 1_000}), &json!({}));
    wait_until("the sleeper is at work", LONG, || starts(&crew) == 1);
    crew.members[1].freeze();
    crew.members[1].set_links(Weather::CUT, Weather { out: Lane::Flows, back: Lane::Stuck });
    crew.hire(Role::Worker, 1);
    let id = job.to_string();
    crew.longshore(&["cancel", &id]).ok();
    crew.longshore(&["delete", &id]).ok();
    // RabbitMQ has nothing more for it.
    crew.members[1].rabbit.reset();
    Submissions { folder: crew.folder() }.forget(job);
    crew.submit_as(job, NEXT, 1, &json!({"ms": 5_000}), &json!({}));
    wait_until("another one has its chunk", LONG, || starts(&crew) == 2);
    crew.members[1].thaw();
    crew.await_end(job);
    let digest = redis.call(&["FCALL_RO", "longshore_version", "0"]).text();
    assert_eq!(digest.as_ref(), Some(&LIBRARY.digest), "nobody has replaced the library");
    let listed = format!("{:?}", redis.call(&["FUNCTION", "LIST", "WITHCODE"]));
    assert_eq!(listed.contains("claimed-at"), library.contains("claimed-at"));
    (job, found(&crew))
}

#[test]
fn a_ledger_that_compares_epochs_in_place_of_tokens_gets_caught() {
    let (job, found) = a_sleeper_wakes_up_in_another_job(&library_that_compares_epochs());
    caught(&found, "C3", job, "result 0 is 0 instead of 427799");
    assert_eq!(a_sleeper_wakes_up_in_another_job(&LIBRARY.source).1, [""; 0]);
}

#[test]
fn a_worker_that_acknowledges_chunks_before_it_has_committed_them_loses_nothing() {
    let early = Forgery::AcknowledgedOnArrival(".work.default");
    let mut crew = pair(Rabbit::shared(), Redis::shared(), Some((Role::Worker, early)));
    let job = crew.submit(MARK, 50, &json!({"ms": 50}), &json!({"chunk": 1}));
    for done in [2, 10] {
        crew.await_done(job, done);
        crew.members[1].kill();
        crew.members[1].start_again();
    }
    crew.await_end(job);
    assert!(crew.members[1].rabbit.forged() > 0);
    assert_eq!(found(&crew), [""; 0]);
}
