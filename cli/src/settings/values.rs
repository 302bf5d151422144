//! Reads the values of settings: durations, addresses, kinds of queues, labels.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use longshore_broker::rabbit::WorkQueueKind;
use serde::{Deserialize, Deserializer};

use crate::failure::Failure;

/// Reads a humantime string; a bare number is refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let has_unit = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    humantime::parse_duration(text).ok().filter(|_| has_unit).ok_or_else(|| {
        format!("`{text}` is no duration; write one like \"30s\", \"5m\" or \"1h 30m\"")
    })
}

pub(super) fn duration_from(place: &str, text: &str) -> Result<Duration, Failure> {
    parse_duration(text).map_err(|error| Failure::usage(format!("{place}: {error}")))
}

pub(super) fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn address_from(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on; write one like \"127.0.0.1:7700\"")
    })
}

pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    address_from(&text).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn kind_from(text: &str) -> Result<WorkQueueKind, String> {
    match text {
        "classic" => Ok(WorkQueueKind::Classic),
        "quorum" => Ok(WorkQueueKind::Quorum),
        _ => Err(format!("unknown kind `{text}`; use classic or quorum")),
    }
}

pub(super) fn kind<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WorkQueueKind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    kind_from(&text).map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn labels_from<'a>(
    place: &str,
    pairs: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(Failure::usage(format!("{place}: `{pair}` is no label; write name=value"))),
    };
    pairs.filter(|pair| !pair.trim().is_empty()).map(pair).collect()
}

/// Removes the space around names.
pub(super) fn trimmed(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| name.trim().to_owned()).collect()
}
