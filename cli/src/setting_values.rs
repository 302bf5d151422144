//! Reads single values of settings from text: addresses, kinds of queues, labels.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use longshore_broker::rabbit::WorkQueueKind;
use serde::{Deserialize, Deserializer};

use crate::failure::Failure;

pub(crate) fn address_from(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on; write one like \"127.0.0.1:7700\"")
    })
}

pub(crate) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    address_from(&text).map(Some).map_err(serde::de::Error::custom)
}

pub(crate) fn kind_from(text: &str) -> Result<WorkQueueKind, String> {
    match text {
        "classic" => Ok(WorkQueueKind::Classic),
        "quorum" => Ok(WorkQueueKind::Quorum),
        _ => Err(format!("unknown kind `{text}`; use classic or quorum")),
    }
}

pub(crate) fn kind<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WorkQueueKind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    kind_from(&text).map(Some).map_err(serde::de::Error::custom)
}

pub(crate) fn labels_from<'a>(
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
