//! Reads the layer of settings that environment variables give.
//!
//! Deliberately absent: which names there are, which `environment` checks.

use std::path::PathBuf;

use super::Layer;
use super::reach::token;
use super::values::{address_from, duration_from, kind_from, labels_from};
use crate::failure::Failure;
use crate::restrictions::BuiltinChoice;

/// The settings that `variable` gives by the names of environment variables.
pub(super) fn from_environment(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Layer, Failure> {
    let duration = |name: &str| variable(name).map(|text| duration_from(name, &text)).transpose();
    let path = |name: &str| variable(name).map(PathBuf::from);
    let list = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect();
    let slots = |text: String| {
        text.trim().parse().map_err(|_| {
            Failure::usage(format!("LONGSHORE_SLOTS: `{text}` is no whole number; use 1 to 4096"))
        })
    };
    let listen = |text: String| {
        let parsed = address_from(&text);
        parsed.map_err(|error| Failure::usage(format!("LONGSHORE_HTTP_LISTEN: {error}")))
    };
    let flag = |text: String| match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            Err(Failure::usage(format!("LONGSHORE_HTTP_BEHIND_PROXY: `{text}`; use true or false")))
        }
    };
    let kind = |text: String| {
        kind_from(&text).map_err(|error| Failure::usage(format!("LONGSHORE_WORK_QUEUES: {error}")))
    };
    Ok(Layer {
        amqp_url: variable("LONGSHORE_AMQP_URL"),
        amqp_url_file: path("LONGSHORE_AMQP_URL_FILE"),
        redis_url: variable("LONGSHORE_REDIS_URL"),
        redis_url_file: path("LONGSHORE_REDIS_URL_FILE"),
        tls_ca: path("LONGSHORE_TLS_CA"),
        tls_cert: path("LONGSHORE_TLS_CERT"),
        tls_key: path("LONGSHORE_TLS_KEY"),
        namespace: variable("LONGSHORE_NAMESPACE"),
        server: variable("LONGSHORE_SERVER"),
        token: variable("LONGSHORE_TOKEN").as_deref().map(token).transpose()?,
        token_file: path("LONGSHORE_TOKEN_FILE"),
        work_queues: variable("LONGSHORE_WORK_QUEUES").map(kind).transpose()?,
        dead_after: duration("LONGSHORE_DEAD_AFTER")?,
        http_listen: variable("LONGSHORE_HTTP_LISTEN").map(listen).transpose()?,
        http_behind_proxy: variable("LONGSHORE_HTTP_BEHIND_PROXY").map(flag).transpose()?,
        http_tls_cert: path("LONGSHORE_HTTP_TLS_CERT"),
        http_tls_key: path("LONGSHORE_HTTP_TLS_KEY"),
        http_tls_client_ca: path("LONGSHORE_HTTP_TLS_CLIENT_CA"),
        slots: variable("LONGSHORE_SLOTS").map(slots).transpose()?,
        queues: variable("LONGSHORE_QUEUES").map(|text| list(&text)),
        labels: variable("LONGSHORE_LABELS")
            .map(|text| labels_from("LONGSHORE_LABELS", text.split(',')))
            .transpose()?,
        heartbeat: duration("LONGSHORE_HEARTBEAT")?,
        ack_after: duration("LONGSHORE_ACK_AFTER")?,
        grace: duration("LONGSHORE_GRACE")?,
        allow_roots: variable("LONGSHORE_ALLOW_ROOTS").map(|text| list(&text)),
        builtin_tasks: variable("LONGSHORE_BUILTIN_TASKS")
            .map(|text| BuiltinChoice::from_text(&text)),
        pass_env: variable("LONGSHORE_PASS_ENV").map(|text| list(&text)),
        http_allow_addresses: variable("LONGSHORE_HTTP_ALLOW_ADDRESSES").map(|text| list(&text)),
        task: None,
    })
}
