//! Reads settings from `LONGSHORE_` variables, and refuses names that nearly name a setting.

use std::collections::BTreeMap;
use std::ffi::OsString;

use longshore_protocol::document::nearest;

use crate::failure::Failure;

/// The variables of the environment that begin with `LONGSHORE_` and are not empty.
pub(crate) type Environment = BTreeMap<String, String>;

/// The prefix of the variables.
const PREFIX: &str = "LONGSHORE_";

/// The settings that a variable can give: all but the tasks.
const VARIABLES: [&str; 28] = [
    "ACK_AFTER",
    "ALLOW_ROOTS",
    "AMQP_URL",
    "AMQP_URL_FILE",
    "BUILTIN_TASKS",
    "DEAD_AFTER",
    "GRACE",
    "HEARTBEAT",
    "HTTP_ALLOW_ADDRESSES",
    "HTTP_BEHIND_PROXY",
    "HTTP_LISTEN",
    "HTTP_TLS_CERT",
    "HTTP_TLS_CLIENT_CA",
    "HTTP_TLS_KEY",
    "LABELS",
    "NAMESPACE",
    "PASS_ENV",
    "QUEUES",
    "REDIS_URL",
    "REDIS_URL_FILE",
    "SERVER",
    "SLOTS",
    "TLS_CA",
    "TLS_CERT",
    "TLS_KEY",
    "TOKEN",
    "TOKEN_FILE",
    "WORK_QUEUES",
];

/// The variables with the prefix. A variable that is empty or not UTF-8 counts as unset.
pub(crate) fn environment() -> Environment {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let is_ours = |(name, value): &(String, String)| name.starts_with(PREFIX) && !value.is_empty();
    std::env::vars_os().filter_map(text).filter(is_ours).collect()
}

/// The names of the variables that give settings.
pub(crate) fn settings_in(environment: &Environment) -> impl Iterator<Item = String> {
    let is_setting = |variable: &&String| {
        variable.strip_prefix(PREFIX).is_some_and(|name| VARIABLES.contains(&name))
    };
    environment.keys().filter(is_setting).cloned()
}

/// Refuses a variable whose name is nearly that of a setting, because it would be ignored. Other
/// variables may belong to other programs.
pub(crate) fn check_variables(environment: &Environment) -> Result<(), Failure> {
    // Set by the worker for the commands of tasks, which may call this program.
    const OF_TASKS: [&str; 5] = ["ATTEMPT", "CONFIG", "INDEX", "JOB", "NODE"];
    for variable in environment.keys() {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if VARIABLES.contains(&name) || OF_TASKS.contains(&name) {
            continue;
        }
        let lower: Vec<String> = VARIABLES.iter().map(|name| name.to_ascii_lowercase()).collect();
        let known: Vec<&str> = lower.iter().map(String::as_str).collect();
        let most = |word: &str| if word.len() < 6 { 1 } else { 2 };
        if let Some(meant) = nearest(name, &known, most) {
            let meant = meant.to_ascii_uppercase();
            return Err(Failure::usage(format!(
                "{variable}: no such setting; did you mean {PREFIX}{meant}?"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_refused_and_variables_of_other_programs_are_not() {
        let check = |name: &str| {
            check_variables(&Environment::from([(name.to_owned(), "x".to_owned())]))
                .map_err(|failure| failure.to_string())
        };
        let said = "LONGSHORE_SLOT: no such setting; did you mean LONGSHORE_SLOTS?";
        assert_eq!(check("LONGSHORE_SLOT"), Err(said.to_owned()));
        for near in ["LONGSHORE_QUEUE", "LONGSHORE_AMQP_URI", "LONGSHORE_HEARTBEATS"] {
            assert!(check(near).is_err(), "{near}");
        }
        for foreign in [
            "LONGSHORE_JOB",
            "LONGSHORE_INDEX",
            "LONGSHORE_ATTEMPT",
            "LONGSHORE_NODE",
            "LONGSHORE_CONFIG",
            "LONGSHORE_SUPERVISED_NODE",
            "LONGSHORE_SERVICE_HOST",
            "LONGSHORE_REDIS_PORT",
            "LONGSHORE_AMQP_PORT",
            "LONGSHORE_PASSWORD",
            "LONGSHORE_IMAGE",
            "LONGSHORE_SERVER",
            "LONGSHORE_PORT_7700_TCP_ADDR",
            "LONGSHORE_RESOURCE_GPUS",
        ] {
            assert_eq!(check(foreign), Ok(()), "{foreign}");
        }
    }
}
