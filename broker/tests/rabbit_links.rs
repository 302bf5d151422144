//! Publishing, consuming and reading the journal survive broken connections to RabbitMQ.
//!
//! No confirmed message is lost. The tests also cover a login that is refused, a queue of another
//! kind, and the documented permissions.
#![expect(clippy::print_stderr, reason = "a failing run shows how far it came")]

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use longshore_broker::rabbit::{Config, Rabbit, Timeouts, WorkQueueKind};
use longshore_broker::{
    Broker, Delivery, Error, JournalEnd, JournalReader, Link, Outgoing, PublishError, Queue,
    Reading, Subscription,
};
use longshore_protocol::{ErrorKind, NodeId, Severity};
use longshore_test_servers::{Rabbit as Server, free_port};
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A restart of RabbitMQ takes some ten seconds, more on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// The number of confirmed messages that shows that publishing works.
const ENOUGH: usize = 100;
/// The wait between two attempts at something that is expected to work again soon.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

fn config(server: &Server, namespace: &str) -> Config {
    Config { namespace: namespace.to_owned(), ..Config::new(server.url(), "links") }
}

async fn start(server: &Server, namespace: &str) -> Arc<Rabbit> {
    let rabbit = Rabbit::start(config(server, namespace)).expect("the URL is good");
    rabbit.connected(DEADLINE).await.expect("connected");
    Arc::new(rabbit)
}

fn work() -> Queue {
    Queue::Work("pool".to_owned())
}

fn text(body: &(impl ToString + ?Sized)) -> Outgoing {
    Outgoing { body: Bytes::from(body.to_string()), ..Outgoing::default() }
}

fn number(delivery: &Delivery) -> u64 {
    String::from_utf8_lossy(&delivery.body).parse().expect("a number")
}

async fn next(subscription: &mut dyn Subscription, what: &str) -> Delivery {
    let delivery = timeout(DEADLINE, subscription.next()).await;
    delivery.unwrap_or_else(|_| panic!("waited in vain for {what}")).expect("a delivery")
}

/// The progress of publishing.
#[derive(Clone, Copy, Default)]
struct Progress {
    confirmed: usize,
    /// The last message that was confirmed.
    last: u64,
}

/// Publishes numbers until `stop`; gives those that were confirmed, and how many were not.
fn publish_until(
    stop: CancellationToken,
    rabbit: Arc<Rabbit>,
    progress: watch::Sender<Progress>,
) -> JoinHandle<(HashSet<u64>, u64)> {
    tokio::spawn(async move {
        let (mut confirmed, mut unknown, mut next) = (HashSet::new(), 0, 0);
        while !stop.is_cancelled() {
            match rabbit.publish(&work(), text(&next)).await {
                Ok(()) => {
                    confirmed.insert(next);
                    progress.send_replace(Progress { confirmed: confirmed.len(), last: next });
                }
                Err(PublishError::Unknown { .. }) => unknown += 1,
                Err(error) => panic!("message {next}: {error}"),
            }
            next += 1;
        }
        (confirmed, unknown)
    })
}

/// Asks for the depth of the queue until `stop`: callers do not notice a connection that is
/// replaced.
fn ask_until(stop: CancellationToken, rabbit: Arc<Rabbit>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            rabbit.depth(&work()).await.expect("answered").expect("the queue exists");
        }
    })
}

/// Consumes and acknowledges until every number that `wanted` gives has arrived, except those up to
/// `lost`.
async fn consume_all(
    mut subscription: Box<dyn Subscription>,
    wanted: JoinHandle<(HashSet<u64>, u64)>,
    lost: Arc<OnceLock<u64>>,
) -> (HashSet<u64>, u64) {
    let mut seen = HashSet::new();
    while !wanted.is_finished() {
        // Pauses in the stream are expected.
        if let Ok(delivery) = timeout(BETWEEN_TRIES, subscription.next()).await {
            let delivery = delivery.expect("the subscription lives on");
            seen.insert(number(&delivery));
            delivery.settle.ack().await;
        }
    }
    let (mut confirmed, unknown) = wanted.await.expect("no panic");
    confirmed.retain(|number| lost.get().is_none_or(|lost| number > lost));
    while !confirmed.is_subset(&seen) {
        let missing = confirmed.difference(&seen).count();
        let delivery = next(&mut *subscription, &format!("{missing} confirmed messages")).await;
        seen.insert(number(&delivery));
        delivery.settle.ack().await;
    }
    (confirmed, unknown)
}

/// The messages that may be lost while the connections are broken.
#[derive(PartialEq)]
enum Losses {
    /// No confirmed message.
    Nothing,
    /// Messages that were published before.
    Earlier,
}

/// Publishes and consumes while `disturb` breaks the connections. Only `losses` may be lost, and
/// both have to go on.
async fn survives(rabbit: Arc<Rabbit>, losses: Losses, disturb: impl FnOnce() + Send) {
    let stop = CancellationToken::new();
    let (progress, mut confirmed) = watch::channel(Progress::default());
    let lost = Arc::new(OnceLock::new());
    let publishing = publish_until(stop.clone(), rabbit.clone(), progress);
    let subscription = rabbit.subscribe(&work(), 20).await;
    let consuming = tokio::spawn(consume_all(subscription, publishing, lost.clone()));
    let before = reaches(&mut confirmed, ENOUGH, "publishing begins").await;
    let mut link = rabbit.link();
    block_in_place(disturb);
    let up = timeout(DEADLINE, link.wait_for(|link| *link == Link::Up)).await;
    assert_eq!(*up.expect("the link comes back in time").expect("the broker lives"), Link::Up);
    let then = *confirmed.borrow();
    if losses == Losses::Earlier {
        lost.set(then.last).expect("set once");
    }
    let at_least = then.confirmed + ENOUGH;
    let after = reaches(&mut confirmed, at_least, "publishing goes on").await;
    stop.cancel();
    let done = timeout(DEADLINE, consuming).await.expect("consuming goes on").expect("no panic");
    let (confirmed, unknown) = done;
    eprintln!("{before} before, {after} after, {} confirmed, {unknown} unknown", confirmed.len());
    rabbit.close(Duration::from_secs(5)).await;
}

async fn reaches(progress: &mut watch::Receiver<Progress>, count: usize, what: &str) -> usize {
    let reached = timeout(DEADLINE, progress.wait_for(|now| now.confirmed >= count)).await;
    let now =
        *reached.unwrap_or_else(|_| panic!("waited in vain until {what}")).expect("publishes");
    now.confirmed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_broker_is_used_again_after_a_kill() {
    let mut server = block_in_place(Server::start);
    let rabbit = start(&server, "killed").await;
    survives(rabbit, Losses::Earlier, || {
        server.kill9();
        server.restart();
    })
    .await;
}

/// Restarted, not killed: RabbitMQ 3.10 loses a quorum queue if it is killed soon after the
/// declaration (decision record 0004).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_nothing_that_was_confirmed_in_a_quorum_queue() {
    let mut server = block_in_place(Server::start);
    let config = Config { work_queue_kind: WorkQueueKind::Quorum, ..config(&server, "restart") };
    let rabbit = Arc::new(Rabbit::start(config).expect("the URL is good"));
    rabbit.connected(DEADLINE).await.expect("connected");
    survives(rabbit, Losses::Nothing, || server.restart()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_connections_come_back() {
    let server = block_in_place(Server::start);
    let rabbit = start(&server, "closed").await;
    rabbit.publish(&work(), text(&0)).await.expect("confirmed");
    let stop = CancellationToken::new();
    let asking = ask_until(stop.clone(), rabbit.clone());
    survives(rabbit, Losses::Nothing, || {
        for _ in 0..3 {
            server.ctl(&["close_all_connections", "test"]);
        }
        stop.cancel();
    })
    .await;
    asking.await.expect("each question is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_its_consumer_is_declared_and_consumed_again() {
    let server = block_in_place(Server::shared);
    let rabbit = start(server, "deleted").await;
    let mut subscription = rabbit.subscribe(&work(), 5).await;
    rabbit.publish(&work(), text(&1)).await.expect("confirmed");
    next(&mut *subscription, "the first message").await.settle.ack().await;
    block_in_place(|| server.ctl(&["delete_queue", "deleted.work.pool"]));
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = rabbit.publish(&work(), text(&2)).await {
        assert!(Instant::now() < deadline, "the queue does not come back: {error}");
        sleep(BETWEEN_TRIES).await;
    }
    let delivery = next(&mut *subscription, "a message after the queue was deleted").await;
    assert_eq!(number(&delivery), 2);
    delivery.settle.ack().await;
    assert_eq!(*rabbit.link().borrow(), Link::Up, "the connections had no reason to break");
    rabbit.close(Duration::from_secs(5)).await;
}

#[track_caller]
fn names(found: Result<(), Error>, kind: ErrorKind, parts: &[&str]) {
    let error = found.expect_err("there is nothing to connect to");
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
    assert!(!text.contains("sesame"), "{text} shows the password");
}

async fn connect(url: &str) -> (Result<(), Error>, Vec<String>) {
    let rabbit = Rabbit::start(Config::new(url, "links")).expect("the URL is good");
    let connected = rabbit.connected(Duration::from_secs(8)).await;
    let findings = rabbit.examine(&[]).await;
    let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
    let checks = errors.map(|finding| {
        assert!(!finding.remedy.is_empty(), "{finding:?}");
        finding.check
    });
    (connected, checks.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_to_connect_are_named_and_have_their_kind() {
    let server = block_in_place(Server::shared);
    let port = server.port();
    let (found, checks) = connect(&format!("amqp://guest:sesame@127.0.0.1:{port}/%2f")).await;
    names(
        found,
        ErrorKind::LoginRefused,
        &[&format!("127.0.0.1:{port}"), "login refused for user `guest`"],
    );
    assert_eq!(checks, ["rabbitmq.login"]);

    let (found, checks) = connect(&format!("amqp://guest:guest@127.0.0.1:{port}/nowhere")).await;
    names(found, ErrorKind::Forbidden, &["virtual host `nowhere` refused"]);
    assert_eq!(checks, ["rabbitmq.vhost"]);

    let free = free_port().expect("a free port");
    let (found, checks) = connect(&format!("amqp://guest:sesame@127.0.0.1:{free}")).await;
    names(found, ErrorKind::Unreachable, &[&format!("127.0.0.1:{free}"), "onnection refused"]);
    assert_eq!(checks, ["rabbitmq.reachable"]);

    // A listener that never answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mute = mute.local_addr().map(|at| (mute, at.port())).expect("its port");
    let (found, checks) = connect(&format!("amqp://guest:sesame@127.0.0.1:{}", mute.1)).await;
    names(found, ErrorKind::Timeout, &["no answer within 5s"]);
    assert_eq!(checks, ["rabbitmq.handshake"]);

    let (found, checks) = connect(&server.url()).await;
    found.expect("this one is right");
    assert_eq!(checks, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_waits_for_a_server_and_gives_up_when_the_login_is_refused() {
    let server = block_in_place(Server::shared);
    let url = format!("amqp://guest:sesame@127.0.0.1:{}/%2f", server.port());
    let refused = Rabbit::start(Config::new(url, "links")).expect("the URL is good");
    let outcome = timeout(DEADLINE, refused.ready()).await.expect("it gives up");
    assert_eq!(outcome.expect_err("the login is refused").kind(), ErrorKind::LoginRefused);

    let free = free_port().expect("a free port");
    let config = Config::new(format!("amqp://127.0.0.1:{free}"), "links");
    let away = Rabbit::start(config).expect("the URL is good");
    assert!(timeout(Duration::from_secs(2), away.ready()).await.is_err(), "it waits");
    away.close(Duration::ZERO).await;
    let outcome = timeout(DEADLINE, away.ready()).await.expect("it ends with the broker");
    outcome.expect_err("the broker is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_broker_stops_publishes_but_not_acknowledgements() {
    let server = block_in_place(Server::start);
    let limit = Duration::from_secs(2);
    let timeouts = Timeouts { publish: limit, ..Timeouts::default() };
    let config = Config { timeouts, ..config(&server, "blocked") };
    let rabbit = Rabbit::start(config).expect("the URL is good");
    rabbit.connected(DEADLINE).await.expect("connected");
    for body in 0..20 {
        rabbit.publish(&work(), text(&body)).await.expect("confirmed");
    }
    let mut subscription = rabbit.subscribe(&work(), 2).await;
    let first = next(&mut *subscription, "the first message").await;
    block_in_place(|| server.ctl(&["set_vm_memory_high_watermark", "0.0001"]));
    for _ in 0..2 {
        let begun = Instant::now();
        let refused = rabbit.publish(&work(), text("stuck")).await;
        assert!(
            matches!(&refused, Err(PublishError::Blocked(why)) if why.contains("memory")),
            "{refused:?}"
        );
        assert!(begun.elapsed() < limit * 2, "it took {:?}", begun.elapsed());
    }
    // With a prefetch of 2, each further message needs an acknowledgement that has reached
    // RabbitMQ.
    first.settle.ack().await;
    for body in 1..20 {
        let delivery = next(&mut *subscription, "a message during the alarm").await;
        assert_eq!(number(&delivery), body);
        delivery.settle.ack().await;
    }
    block_in_place(|| server.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]));
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = rabbit.publish(&work(), text(&21)).await {
        assert!(Instant::now() < deadline, "publishing does not go on: {error}");
    }
    rabbit.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_disconnected_and_connected_again() {
    let mut server = block_in_place(Server::start);
    let short = Duration::from_secs(2);
    let timeouts = Timeouts { connect: short, publish: short, call: short };
    let url = format!("{}?heartbeat=2", server.url());
    let config = Config { url, timeouts, ..config(&server, "frozen") };
    let rabbit = Arc::new(Rabbit::start(config).expect("the URL is good"));
    rabbit.connected(DEADLINE).await.expect("connected");
    rabbit.publish(&work(), text(&0)).await.expect("confirmed");
    let mut link = rabbit.link();
    let watcher = rabbit.clone();
    let runtime = tokio::runtime::Handle::current();
    survives(rabbit, Losses::Nothing, || {
        server.freeze();
        let down = link.wait_for(|link| *link == Link::Down);
        let down = runtime.block_on(timeout(DEADLINE, down));
        down.expect("a frozen broker is noticed").expect("the broker lives");
        let refused = runtime.block_on(watcher.publish(&work(), text(&0)));
        assert!(matches!(refused, Err(PublishError::Unknown { .. })), "{refused:?}");
        server.thaw();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_queue_of_another_kind_is_used_as_it_is() {
    let server = block_in_place(Server::shared);
    let as_kind = |kind| Config { work_queue_kind: kind, ..config(server, "kinds") };
    let classic = Rabbit::start(as_kind(WorkQueueKind::Classic)).expect("the URL is good");
    let quorum = Rabbit::start(as_kind(WorkQueueKind::Quorum)).expect("the URL is good");
    classic.publish(&work(), text(&1)).await.expect("confirmed");
    quorum.publish(&work(), text(&2)).await.expect("confirmed");
    let mut subscription = quorum.subscribe(&work(), 5).await;
    for expected in 1..=2 {
        let delivery = next(&mut *subscription, "a message of the other kind's queue").await;
        assert_eq!(number(&delivery), expected);
        delivery.settle.ack().await;
    }
    let findings = quorum.examine(&["pool".to_owned()]).await;
    let odd = findings.iter().find(|finding| finding.found.contains("kinds.work.pool"));
    assert_eq!(odd.map(|finding| finding.severity), Some(Severity::Warning), "{findings:?}");
    classic.close(Duration::from_secs(5)).await;
    quorum.close(Duration::from_secs(5)).await;
}

/// The permissions are those of docs/rabbitmq.md, with another namespace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_suffice() {
    let server = block_in_place(Server::shared);
    let user = |name: &str, configure: &str, write: &str, read: &str| {
        server.ctl(&["add_user", name, "sesame"]);
        server.ctl(&["set_permissions", "-p", "/", name, configure, write, read]);
        let url = server.url().replace("guest:guest", &format!("{name}:sesame"));
        let config = Config { namespace: "rights".to_owned(), ..Config::new(url, name) };
        Rabbit::start(config).expect("the URL is good")
    };
    let scheduler = block_in_place(|| {
        let names = r"^rights($|\.)";
        user("scheduler", names, r"^(rights($|\.)|amq\.default$)", names)
    });
    let own = r"^rights\.(work|node)\.";
    let worker = block_in_place(|| user("worker", own, "^$", own));
    let app = block_in_place(|| user("app", "^$", "^rights$", "^$"));
    let mut jobs = scheduler.subscribe(&Queue::Jobs, 1).await;
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = app.publish(&Queue::Jobs, text("job")).await {
        assert!(Instant::now() < deadline, "an application can't publish: {error}");
        sleep(BETWEEN_TRIES).await;
    }
    next(&mut *jobs, "the job").await.settle.ack().await;
    scheduler.publish(&Queue::Dead, text("dead")).await.expect("confirmed");
    scheduler.publish(&work(), text(&1)).await.expect("confirmed");
    let mut chunks = worker.subscribe(&work(), 1).await;
    next(&mut *chunks, "the chunk").await.settle.ack().await;
    let node = Queue::Node(NodeId::new("quay"));
    let mut placed = worker.subscribe(&node, 1).await;
    while let Err(error) = scheduler.publish(&node, text(&2)).await {
        assert!(Instant::now() < deadline, "nothing can be placed: {error}");
        sleep(BETWEEN_TRIES).await;
    }
    next(&mut *placed, "the placed chunk").await.settle.ack().await;
    let refused = app.publish(&work(), text(&3)).await;
    assert!(
        matches!(refused, Err(PublishError::Unknown { .. })),
        "an application may publish jobs only"
    );
}

/// Reads `count` records of the journal, each once and in order.
async fn read_numbers(reader: &mut dyn JournalReader, from: u64, count: u64) {
    let mut next = from;
    while next < from + count {
        let read = timeout(DEADLINE, reader.next()).await;
        match read.unwrap_or_else(|_| panic!("waited in vain for record {next}")) {
            Ok(Reading::Entry(entry)) => {
                let number: u64 = String::from_utf8_lossy(&entry.body).parse().expect("a number");
                // A record whose confirm was lost was published twice.
                assert!(number == next || number + 1 == next, "{number} in place of {next}");
                next = number + 1;
            }
            Ok(Reading::Attached) => {}
            Err(end) => panic!("record {next}: {end}"),
        }
    }
}

async fn publish_to_journal(rabbit: &Rabbit, numbers: std::ops::Range<u64>) {
    let deadline = Instant::now() + DEADLINE;
    for number in numbers {
        while let Err(error) = rabbit.publish(&Queue::Journal, text(&number)).await {
            assert!(Instant::now() < deadline, "the journal can't be written: {error}");
            sleep(BETWEEN_TRIES).await;
        }
    }
}

/// Restarted, not killed: RabbitMQ 3.10 loses a stream if it is killed soon after the declaration
/// (decision record 0013).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_survives_a_restart_and_is_read_on() {
    let mut server = block_in_place(Server::start);
    let rabbit = start(&server, "journal").await;
    publish_to_journal(&rabbit, 0..50).await;
    let mut reader = rabbit.read_journal(None).await.expect("RabbitMQ has streams");
    read_numbers(&mut *reader, 0, 30).await;
    let mut link = rabbit.link();
    block_in_place(|| server.restart());
    let up = timeout(DEADLINE, link.wait_for(|link| *link == Link::Up)).await;
    assert_eq!(*up.expect("the link comes back in time").expect("the broker lives"), Link::Up);
    publish_to_journal(&rabbit, 50..60).await;
    read_numbers(&mut *reader, 30, 30).await;
    block_in_place(|| server.ctl(&["close_all_connections", "test"]));
    let mut anew = rabbit.read_journal(None).await.expect("RabbitMQ has streams");
    read_numbers(&mut *anew, 0, 60).await;
    rabbit.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_streams_is_reported_and_goes_on_working() {
    let server = block_in_place(Server::start_without_streams);
    let features = block_in_place(|| server.ctl(&["list_feature_flags", "name", "state"]));
    if features.lines().any(|line| line.starts_with("stream_queue") && line.contains("enabled")) {
        return eprintln!("this RabbitMQ can't be without streams");
    }
    let rabbit = start(&server, "streamless").await;
    let mut reader = rabbit.read_journal(None).await.expect("it has yet to be seen");
    match timeout(DEADLINE, reader.next()).await.expect("it is told in time") {
        Err(JournalEnd::Unsupported(reason)) => assert!(reason.contains("stream"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let mut link = rabbit.link();
    let up = timeout(DEADLINE, link.wait_for(|link| *link == Link::Up)).await;
    assert_eq!(*up.expect("the link comes back in time").expect("the broker lives"), Link::Up);
    rabbit.publish(&work(), text(&1)).await.expect("confirmed");
    rabbit.close(Duration::from_secs(5)).await;
}

/// An administrator has declared a queue of the journal's name that is not a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_not_a_stream_is_not_read() {
    let server = block_in_place(Server::shared);
    // Declared as a classic queue.
    let declare = r#"rabbit_amqqueue:declare({resource, <<"/">>, queue, <<"odd.journal">>}, true,
        false, [], none, <<"guest">>)."#;
    block_in_place(|| server.ctl(&["eval", declare]));
    let rabbit = start(server, "odd").await;
    let mut reader = rabbit.read_journal(None).await.expect("RabbitMQ has streams");
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "it is not told of");
        match timeout(DEADLINE, reader.next()).await.expect("it is told in time") {
            Ok(Reading::Attached) => {}
            Err(JournalEnd::Unsupported(reason)) => {
                break assert!(reason.contains("stream"), "{reason}");
            }
            read => panic!("{read:?}"),
        }
    }
    rabbit.close(Duration::from_secs(5)).await;
}

/// RabbitMQ 3.10 answers some of the declarations with an internal error and ends their
/// connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_that_declare_the_journal_at_once_all_read_it() {
    let server = block_in_place(Server::shared);
    for round in 0..5 {
        let namespace = format!("crowd{round}");
        let mut crowd = Vec::new();
        for _ in 0..6 {
            crowd.push(start(server, &namespace).await);
        }
        let reading = crowd.iter().map(|rabbit| async {
            let mut reader = rabbit.read_journal(None).await.expect("RabbitMQ has streams");
            let first = timeout(DEADLINE, reader.next()).await.expect("it is read in time");
            assert_eq!(first, Ok(Reading::Attached));
            reader
        });
        let mut readers = join_all(reading).await;
        publish_to_journal(&crowd[0], 0..1).await;
        for reader in &mut readers {
            read_numbers(&mut **reader, 0, 1).await;
        }
        for rabbit in crowd {
            rabbit.close(Duration::from_secs(5)).await;
        }
    }
}
