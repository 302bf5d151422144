//! Groups the errors of a job by what their messages have in common.
//!
//! Messages are the same but for numbers, ids, paths and quoted parts: these are replaced by `…`,
//! and the rest is the fingerprint. Memory follows the number of groups, not of errors.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures_util::{TryStreamExt, pin_mut};
use longshore_protocol::wire::{ErrorGroup, ErrorGroups};
use uuid::Uuid;

use crate::{Error, Job};

/// The most groups that are listed.
const MAX_GROUPS: usize = 200;

/// The most bytes of a fingerprint.
const LONGEST: usize = 500;

/// What stands for a part that differs.
const PLACEHOLDER: char = '…';

impl Job {
    /// The errors that are kept, in groups, the largest first.
    pub async fn error_groups(&self) -> Result<ErrorGroups, Error> {
        let failed = self.summary().await?.counts.failed;
        let errors = self.errors();
        pin_mut!(errors);
        let (mut groups, mut kept) = (HashMap::<String, ErrorGroup>::new(), 0);
        while let Some(error) = errors.try_next().await? {
            kept += 1;
            match groups.entry(fingerprint(&error.error)) {
                Entry::Occupied(mut group) => group.get_mut().count += 1,
                Entry::Vacant(place) => {
                    let fingerprint = place.key().clone();
                    let first = error.index;
                    place.insert(ErrorGroup { fingerprint, count: 1, first, example: error });
                }
            }
        }
        let mut groups: Vec<ErrorGroup> = groups.into_values().collect();
        groups.sort_by(|a, b| (b.count, a.first).cmp(&(a.count, b.first)));
        let others = groups.split_off(groups.len().min(MAX_GROUPS));
        let in_other_groups = others.iter().map(|group| group.count).sum();
        // Reduce nodes fail too, and more subtasks may have failed since the job was read.
        Ok(ErrorGroups { failed: failed.max(kept), kept, groups, in_other_groups })
    }
}

/// The message without the parts that differ from subtask to subtask.
fn fingerprint(message: &str) -> String {
    let (mut found, mut rest) = (String::new(), message.trim());
    while let Some(first) = rest.chars().next() {
        let length = varying(&found, rest);
        if length == 0 {
            found.push(if first.is_whitespace() { ' ' } else { first });
            rest = &rest[first.len_utf8()..];
            continue;
        }
        if !found.ends_with(PLACEHOLDER) {
            found.push(PLACEHOLDER);
        }
        rest = &rest[length..];
    }
    found.truncate(found.floor_char_boundary(LONGEST));
    found
}

/// The bytes at the beginning of `rest` that differ from subtask to subtask; `before` is what
/// stands in front.
fn varying(before: &str, rest: &str) -> usize {
    let is_in_word = before.ends_with(char::is_alphanumeric);
    let first = rest.chars().next().unwrap_or_default();
    if let '"' | '`' | '\'' = first
        && !is_in_word
    {
        // An apostrophe that opens nothing has no partner before the end of the line.
        let inner = &rest[1..];
        let line = inner.split('\n').next().unwrap_or_default();
        return line.find(first).map_or(0, |end| end + 2);
    }
    if is_in_word {
        return digits(rest);
    }
    if rest.get(..36).is_some_and(|text| Uuid::try_parse(text).is_ok()) {
        return 36;
    }
    let is_space = |char: char| char.is_whitespace() || "\"'`,;()[]".contains(char);
    let word = &rest[..rest.find(is_space).unwrap_or(rest.len())];
    if word.contains("://") || word.starts_with('/') && word.len() > 1 {
        return word.trim_end_matches([':', '.']).len();
    }
    let hex = word.len() - word.trim_start_matches(|char: char| char.is_ascii_hexdigit()).len();
    let ends = !word[hex..].starts_with(char::is_alphanumeric);
    let has_digit = word[..hex].bytes().any(|byte| byte.is_ascii_digit());
    if hex >= 6 && ends && has_digit { hex } else { digits(rest) }
}

/// The bytes of the number at the beginning.
fn digits(text: &str) -> usize {
    let is_part = |char: char| char.is_ascii_digit();
    text.len() - text.trim_start_matches(is_part).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: &str) {
        assert_eq!(fingerprint(message), expected);
    }

    #[test]
    fn parts_that_differ_are_left_out_of_a_fingerprint() {
        check("no", "no");
        check("exit code 7", "exit code …");
        check("row 12 has 3.5 columns, not 4", "row … has ….… columns, not …");
        check("no such file: /data/in/a.txt", "no such file: …");
        check("can't open `x 1.jpg`: denied", "can't open …: denied");
        check("key 'a' of \"b\" isn't there", "key … of … isn't there");
        check("GET https://example.org/a?b=1: 503", "GET …: …");
        check("job 0190b0a2-0000-7000-8000-00000000000a is gone", "job … is gone");
        check("commit 9fceb02d0ae5 broke node12", "commit … broke node…");
        check("the café is closed\n  line 7", "the café is closed   line …");
        check("'", "'");
        check("", "");
        check("a decade", "a decade");
    }

    #[test]
    fn a_fingerprint_of_a_long_message_is_short() {
        assert!(fingerprint(&"é ".repeat(10_000)).len() <= LONGEST);
    }
}
