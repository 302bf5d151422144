//! A finding about a service, for people: a line of `longshore doctor`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but an operator should know.
    Warning,
    /// Does not work.
    Error,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the check: `rabbitmq.reachable`, `redis.version`, …
    pub check: String,
    /// What was seen.
    pub found: String,
    /// What to do about it; empty when all is well.
    pub remedy: String,
}
