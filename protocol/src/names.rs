//! The rules for names of tasks, queues, tenants, labels, namespaces and machines.
//!
//! Names become parts of queue names in RabbitMQ, of keys in Redis and of metrics. One rule holds
//! for all of them, so that every name that a worker may have can be named by a job.

use crate::Invalid;
use crate::document::quote;

/// Longest name of a task, queue or tenant, in characters: with prefix and namespace a queue's name
/// stays well under AMQP's 255 bytes.
pub const MAX_NAME: usize = 100;

/// Longest namespace, in characters.
pub const MAX_NAMESPACE: usize = 64;

/// Longest value of a label, in characters.
pub const MAX_LABEL_VALUE: usize = 1_000;

/// The parts that separate the namespace from the rest in `<namespace>.work.<queue>` and
/// `<namespace>.node.<node>`.
const SEPARATORS: [&str; 2] = ["work", "node"];

fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

/// Checks the name of a task, queue or tenant: 1 to 100 characters out of `A-Z a-z 0-9 . _ -`.
pub fn check_name(place: &str, name: &str) -> Result<(), Invalid> {
    check_plain(place, name, MAX_NAME)
}

/// Checks a namespace: 1 to 64 of the same characters. No part after a dot may be `work` or `node`:
/// the queues of a namespace `a.work` could have the names of queues of `a`.
pub fn check_namespace(place: &str, namespace: &str) -> Result<(), Invalid> {
    check_plain(place, namespace, MAX_NAMESPACE)?;
    match namespace.split('.').skip(1).find(|part| SEPARATORS.contains(part)) {
        None => Ok(()),
        Some(part) => Err(Invalid {
            place: place.to_owned(),
            found: format!("{} with the part `.{part}`", quote(namespace)),
            allowed:
                "use one without the parts `.work` and `.node`, which begin the names of queues"
                    .to_owned(),
        }),
    }
}

/// Checks a label: a name of 1 to 100 printable characters and a value of at most 1,000.
pub fn check_label(place: &str, name: &str, value: &str) -> Result<(), Invalid> {
    let wrong =
        |found: String, allowed: String| Err(Invalid { place: place.to_owned(), found, allowed });
    let length = name.chars().count();
    if !(1..=MAX_NAME).contains(&length) || name.contains(char::is_control) {
        let found = format!("the name {}", quote(name));
        return wrong(found, format!("use 1 to {MAX_NAME} printable characters"));
    }
    if value.chars().count() > MAX_LABEL_VALUE || value.contains(char::is_control) {
        let found = format!("the value of {}", quote(name));
        return wrong(found, format!("use at most {MAX_LABEL_VALUE} printable characters"));
    }
    Ok(())
}

/// A machine's name as a part of the id of a node or scheduler: characters that no name may have
/// are replaced by `_`.
pub fn machine_name(host: &str) -> String {
    const LONGEST: usize = 64;
    let name: String = host
        .trim()
        .chars()
        .take(LONGEST)
        .map(|char| if is_plain(char) { char } else { '_' })
        .collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

fn check_plain(place: &str, name: &str, most: usize) -> Result<(), Invalid> {
    if (1..=most).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let found = match name.chars().find(|char| !is_plain(*char)) {
        _ if name.is_empty() => "an empty name".into(),
        Some(char) => format!("{} with the character `{}`", quote(name), char.escape_debug()),
        None => format!("a name of {} characters", name.len()),
    };
    let allowed = format!("use 1 to {most} characters out of A-Z a-z 0-9 . _ -");
    Err(Invalid { place: place.to_owned(), found, allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_namespace_holds_the_queues_of_another() {
        for good in ["longshore", "a.b", "work", "node.a", "a.working", "x-1_y"] {
            assert_eq!(check_namespace("namespace", good), Ok(()), "{good}");
        }
        // `a.work.jobs` would be the jobs of `a.work` and the queue `jobs` of `a`.
        for bad in ["a.work", "a.node", "a.b.work", "a.work.b", "", "a b", "a:b", "a/b"] {
            let error = check_namespace("namespace", bad).expect_err(bad);
            assert_eq!(error.place, "namespace");
        }
    }

    #[test]
    fn a_machine_s_name_becomes_one_that_names_may_have() {
        assert_eq!(machine_name("quay-7.example"), "quay-7.example");
        assert_eq!(machine_name(" my host\u{1b}[1m\n"), "my_host__1m");
        assert_eq!(machine_name(""), "localhost");
        assert_eq!(machine_name(&"x".repeat(300)).len(), 64);
    }
}
