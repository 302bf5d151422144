//! Readers that take values out of the parsed tree, and name path and nearest field in each error.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::field_path::FieldPath;
use super::json::{Kind, Node, quote};
use super::rules::{real_numbers, whole_numbers};
use super::{Invalid, units};
use crate::json::{Items, Json};

const DURATIONS: &str = r#"write one like "30s", "5m" or "1h 30m""#;
const SIZES: &str = r#"write a whole number with B, KiB, MiB, GiB or TiB, like "1MiB""#;

/// A value and its path.
pub(super) struct Reader<'a> {
    place: FieldPath<'a>,
    node: Node<'a>,
}

/// The members of an object, taken out one by one.
pub(super) struct Object<'a> {
    place: &'a FieldPath<'a>,
    members: Vec<(String, Node<'a>)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(place: FieldPath<'a>, node: Node<'a>) -> Self {
        Self { place, node }
    }

    /// The path of the value.
    pub(super) fn place(&self) -> FieldPath<'a> {
        self.place
    }

    /// The error for a value that is not allowed here.
    pub(super) fn refuse(&self, allowed: impl Into<String>) -> Invalid {
        self.place.invalid(self.node.describe(), allowed)
    }

    /// `None` for `null`.
    pub(super) fn unless_null(self) -> Option<Self> {
        if self.node.kind() == Kind::Null { None } else { Some(self) }
    }

    /// The string, if it is one.
    pub(super) fn as_text(&self) -> Option<String> {
        self.node.text()
    }

    pub(super) fn is_list(&self) -> bool {
        self.node.kind() == Kind::List
    }

    pub(super) fn is_object(&self) -> bool {
        self.node.kind() == Kind::Object
    }

    pub(super) fn text(self, allowed: &str) -> Result<String, Invalid> {
        self.node.text().ok_or_else(|| self.refuse(allowed))
    }

    pub(super) fn list(self, allowed: &str) -> Result<Vec<Node<'a>>, Invalid> {
        self.node.list().ok_or_else(|| self.refuse(allowed))
    }

    pub(super) fn members(self, allowed: &str) -> Result<Vec<(String, Node<'a>)>, Invalid> {
        self.node.members().ok_or_else(|| self.refuse(allowed))
    }

    /// The application's own data.
    pub(super) fn json(self) -> Result<Json, Invalid> {
        self.node.into_json(self.place)
    }

    /// A list of the application's own data.
    pub(super) fn items(self, allowed: &str) -> Result<Items, Invalid> {
        self.node.into_items(self.place).unwrap_or_else(|| Err(self.refuse(allowed)))
    }

    /// A whole number within bounds.
    pub(super) fn whole<T: TryFrom<u64>>(self, bounds: &RangeInclusive<u64>) -> Result<T, Invalid> {
        let number = self.node.number().and_then(|number| number.parse::<u64>().ok());
        number
            .filter(|number| bounds.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.refuse(whole_numbers(bounds)))
    }

    /// A whole number of 64 bits with a sign.
    pub(super) fn integer(self) -> Result<i64, Invalid> {
        let number = self.node.number().and_then(|number| number.parse().ok());
        number.ok_or_else(|| {
            self.refuse(format!("use a whole number from {} to {}", i64::MIN, i64::MAX))
        })
    }

    /// A number within bounds.
    pub(super) fn real(self, bounds: &RangeInclusive<f64>) -> Result<f64, Invalid> {
        let number = self.node.number().and_then(|number| number.parse::<f64>().ok());
        number
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| self.refuse(real_numbers(bounds)))
    }

    pub(super) fn duration(self) -> Result<Duration, Invalid> {
        if let Some(text) = self.node.text() {
            return units::parse_duration(&text).ok_or_else(|| {
                self.place.invalid(format!("{} is no duration", quote(&text)), DURATIONS)
            });
        }
        Err(self.without_unit(DURATIONS, |seconds| format!("{seconds}s")))
    }

    pub(super) fn size(self) -> Result<u64, Invalid> {
        if let Some(text) = self.node.text() {
            return units::parse_size(&text)
                .ok_or_else(|| self.place.invalid(format!("{} is no size", quote(&text)), SIZES));
        }
        Err(self.without_unit(SIZES, units::format_size))
    }

    /// A number where a text with a unit should stand, or something else.
    fn without_unit(&self, allowed: &str, with_unit: fn(u64) -> String) -> Invalid {
        let Some(number) = self.node.number() else { return self.refuse(allowed) };
        let hint = match number.parse() {
            Ok(number) => format!(r#"write "{}""#, with_unit(number)),
            Err(_) => allowed.to_owned(),
        };
        self.place.invalid(format!("{} has no unit", quote(number)), hint)
    }
}

impl<'a> Object<'a> {
    /// `place` is the reader's path, which the caller keeps alive so that members can refer to it.
    pub(super) fn new(
        reader: Reader<'a>,
        place: &'a FieldPath<'a>,
        allowed: &str,
    ) -> Result<Self, Invalid> {
        Ok(Self { place, members: reader.members(allowed)? })
    }

    /// The member's text, without taking the member out; it decides which other members are
    /// allowed.
    pub(super) fn peek_text(&self, name: &'a str, allowed: &str) -> Result<String, Invalid> {
        match self.members.iter().find(|(key, _)| key == name) {
            Some((_, node)) => {
                node.text().ok_or_else(|| self.place.field(name).invalid(node.describe(), allowed))
            }
            None => Err(self.missing(name, allowed)),
        }
    }

    /// Refuses members that are unknown or appear twice.
    pub(super) fn only(&self, fields: &[&str]) -> Result<(), Invalid> {
        for (index, (key, _)) in self.members.iter().enumerate() {
            if !fields.contains(&key.as_str()) {
                let found = format!("unknown field {}", quote(key));
                return Err(self.place.invalid(found, suggestion(key, fields)));
            }
            // Only known fields get here, so the scan is short.
            if self.members[..index].iter().any(|(earlier, _)| earlier == key) {
                return Err(self.place.twice("field", key));
            }
        }
        Ok(())
    }

    /// Takes a member out, if it is there.
    pub(super) fn take(&mut self, name: &'a str) -> Option<Reader<'a>> {
        let index = self.members.iter().position(|(key, _)| key == name)?;
        let (_, node) = self.members.swap_remove(index);
        Some(Reader::new(self.place.field(name), node))
    }

    /// Takes out a required member; `allowed` says what it is for.
    pub(super) fn required(&mut self, name: &'a str, allowed: &str) -> Result<Reader<'a>, Invalid> {
        self.take(name).ok_or_else(|| self.missing(name, allowed))
    }

    fn missing(&self, name: &str, allowed: &str) -> Invalid {
        self.place.field(name).invalid("missing", allowed)
    }
}

/// The field that was probably meant, or all known fields.
fn suggestion(found: &str, fields: &[&str]) -> String {
    match nearest(found, fields, |field| (field.len() / 3).max(1)) {
        Some(field) => format!("did you mean `{field}`?"),
        None => format!("use {}", one_of(fields)),
    }
}

/// The word that was probably meant: the nearest one, if it is at most `most` of its length edits
/// away.
pub fn nearest<'a>(
    found: &str,
    words: &[&'a str],
    most: impl Fn(&str) -> usize,
) -> Option<&'a str> {
    let (edits, word) = words.iter().map(|word| (edits(found, word), *word)).min()?;
    (edits <= most(word)).then_some(word)
}

/// `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The Levenshtein distance without regard to letter case and to `-` for `_`. A key that is far
/// longer than any field is not compared.
fn edits(found: &str, field: &str) -> usize {
    if found.len() > 2 * field.len() + 2 {
        return found.len();
    }
    let found = found.to_ascii_lowercase().replace('-', "_");
    let mut row: Vec<usize> = (0..=field.len()).collect();
    for (i, a) in found.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in field.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[field.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_gets_the_nearest_one() {
        let fields = ["max_parallel", "priority", "queue"];
        assert_eq!(suggestion("maxparallel", &fields), "did you mean `max_parallel`?");
        assert_eq!(suggestion("Max-Parallel", &fields), "did you mean `max_parallel`?");
        assert_eq!(suggestion("quue", &fields), "did you mean `queue`?");
        assert_eq!(suggestion("colour", &fields), "use max_parallel, priority or queue");
        assert_eq!(
            suggestion(&"q".repeat(1 << 20), &fields),
            "use max_parallel, priority or queue"
        );
    }
}
