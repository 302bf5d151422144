//! Exposes the parsers of `redis_url` and of Redis's answers to fuzz tests.
//!
//! Not an API: it changes without notice.

use longshore_protocol::{JobId, Timestamp};
use redis::Value;

use crate::Error;

use super::address::Address;
use super::reply::Reply;
use super::summary::Fields;
use super::{audit, events, fleet, jobs, node_hash, reading};

/// Parses a `redis_url`; returns its text for display.
pub fn address(url: &str) -> Result<String, Error> {
    Address::parse(url).map(|address| address.to_string())
}

/// Parses bytes of the Redis protocol as each kind of answer whose content other programs can
/// write, and returns the errors. Bytes that are no answer at all, which the client library
/// refuses, are parsed as a hint only.
pub fn answers(bytes: &[u8]) -> Vec<Error> {
    let hint = events::read(bytes).map(drop);
    let Ok(value) = redis::parse_redis_value(bytes) else {
        return hint.err().into_iter().collect();
    };
    let reads = [
        hint,
        summary(value.clone()),
        fleet::fields("nodes", value.clone()).and_then(|map| {
            let fields = Fields::new("nodes", map);
            node_hash::node_info("nodes", "node".into(), &fields)
                .and_then(|info| {
                    node_hash::node_record("nodes", info, Timestamp::default(), &fields)
                })
                .map(drop)
        }),
        audited(value.clone()),
        jobs::clock_millis("now", value.clone()).map(drop),
        errors(value.clone()),
        Reply::list("results", value).and_then(reading::results_page).map(drop),
    ];
    reads.into_iter().filter_map(Result::err).collect()
}

fn job() -> JobId {
    "00000000-0000-0000-0000-000000000001".parse().expect("a UUID")
}

fn summary(value: Value) -> Result<(), Error> {
    let mut reply = Reply::list("job", value)?;
    let fields = Fields::new("job", reply.reply()?.fields()?);
    fields.summary(job(), &reply.word()?).map(drop)
}

fn audited(value: Value) -> Result<(), Error> {
    let mut reply = Reply::list("audit", value)?;
    audit::read(job(), &mut reply).map(drop)
}

fn errors(value: Value) -> Result<(), Error> {
    let words = Reply::list("errors", value)?.words()?;
    words.iter().try_for_each(|word| reading::error_entry(7, word).map(drop))
}
