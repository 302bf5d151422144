//! The tests of the journal that every broker passes: its order, its readers, and its loss.

use std::sync::Arc;

use longshore_protocol::JournalPosition;
use tokio::time::{Instant, sleep, timeout};

use super::{BETWEEN_CHECKS, DEADLINE, QUIET, publish_numbers, text};
use crate::{Broker, JournalEnd, JournalEntry, JournalReader, Queue, Reading};

async fn read(broker: &dyn Broker, after: Option<JournalPosition>) -> Box<dyn JournalReader> {
    let mut reader = broker.read_journal(after).await.expect("the broker keeps a journal");
    assert_eq!(next(&mut *reader).await, Ok(Reading::Attached), "that comes first");
    reader
}

async fn next(reader: &mut dyn JournalReader) -> Result<Reading, JournalEnd> {
    timeout(DEADLINE, reader.next()).await.expect("nothing came in time")
}

async fn entry(reader: &mut dyn JournalReader, body: impl ToString) -> JournalEntry {
    match next(reader).await {
        Ok(Reading::Entry(entry)) => {
            assert_eq!(String::from_utf8_lossy(&entry.body), body.to_string());
            entry
        }
        other => panic!("in place of {}: {other:?}", body.to_string()),
    }
}

async fn expect_nothing(reader: &mut dyn JournalReader) {
    let early = timeout(QUIET, reader.next()).await;
    assert!(early.is_err(), "nothing was to come: {early:?}");
}

pub(super) async fn a_journal_is_read_in_order_by_everyone(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &Queue::Journal, 100).await;
    let (mut one, mut other) = (read(&*broker, None).await, read(&*broker, None).await);
    let mut before: Option<JournalPosition> = None;
    for number in 0..100 {
        let here = entry(&mut *one, number).await.place;
        assert!(before.as_ref().is_none_or(|before| before.offset < here.offset), "{here:?}");
        assert!(!here.record.is_empty() && before.is_none_or(|at| at.record != here.record));
        assert_eq!(entry(&mut *other, number).await.place, here, "both see the same place");
        before = Some(here);
    }
    expect_nothing(&mut *one).await;
}

pub(super) async fn a_journal_is_read_on_from_a_place(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &Queue::Journal, 10).await;
    let mut reader = read(&*broker, None).await;
    let mut places = Vec::new();
    for number in 0..10 {
        places.push(entry(&mut *reader, number).await.place);
    }
    drop(reader);
    for from in [0, 6, 9] {
        let mut reader = read(&*broker, Some(places[from].clone())).await;
        for (number, place) in places.iter().enumerate().skip(from + 1) {
            assert_eq!(entry(&mut *reader, number).await.place, *place);
        }
        expect_nothing(&mut *reader).await;
    }
}

pub(super) async fn a_reader_waits_for_new_records(broker: Arc<dyn Broker>) {
    let mut reader = read(&*broker, None).await;
    expect_nothing(&mut *reader).await;
    broker.publish(&Queue::Journal, text("first")).await.expect("confirmed");
    let first = entry(&mut *reader, "first").await;
    drop(reader);
    let mut reader = read(&*broker, Some(first.place)).await;
    expect_nothing(&mut *reader).await;
    broker.publish(&Queue::Journal, text("second")).await.expect("confirmed");
    entry(&mut *reader, "second").await;
}

/// The new journal may need as many records as the old one had before the loss shows.
pub(super) async fn a_place_in_another_journal_is_reported(broker: Arc<dyn Broker>) {
    publish_numbers(&*broker, &Queue::Journal, 3).await;
    let mut reader = read(&*broker, None).await;
    for number in 0..3 {
        entry(&mut *reader, number).await;
    }
    broker.purge(&Queue::Journal).await.expect("deleted");
    let deadline = Instant::now() + DEADLINE;
    loop {
        // The publish fails while the queue is not declared again.
        let _ = broker.publish(&Queue::Journal, text("anew")).await;
        match timeout(BETWEEN_CHECKS, reader.next()).await {
            Ok(Err(JournalEnd::Lost)) => break,
            Ok(Ok(Reading::Attached)) | Err(_) => {}
            Ok(other) => panic!("read from another journal: {other:?}"),
        }
        assert!(Instant::now() < deadline, "the journal's loss does not show");
        sleep(BETWEEN_CHECKS).await;
    }
    // A reader without a place reads the new journal.
    let mut reader = read(&*broker, None).await;
    let first = entry(&mut *reader, "anew").await.place;
    let stranger = JournalPosition { record: "of another scheduler".into(), ..first };
    let mut reader = read(&*broker, Some(stranger)).await;
    assert_eq!(next(&mut *reader).await, Err(JournalEnd::Lost));
}

pub(super) async fn close_ends_readers_of_the_journal(broker: Arc<dyn Broker>) {
    let mut reader = read(&*broker, None).await;
    let waiting = tokio::spawn(async move { reader.next().await });
    broker.close(DEADLINE).await;
    let ended = timeout(DEADLINE, waiting).await.expect("next() ends in time").expect("no panic");
    assert_eq!(ended, Err(JournalEnd::Closed));
}
