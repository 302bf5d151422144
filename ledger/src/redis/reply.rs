//! Parses the answers of functions item by item, and words the error of an invalid one.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::str::FromStr;

use redis::Value;

use crate::Error;

/// The items of one answer, parsed from the front.
pub(super) struct Reply {
    operation: &'static str,
    items: VecDeque<Value>,
}

impl Reply {
    /// Parses an answer that is a list.
    pub(super) fn list(operation: &'static str, value: Value) -> Result<Self, Error> {
        match value {
            Value::Array(items) => Ok(Self { operation, items: items.into() }),
            Value::Nil => Ok(Self { operation, items: VecDeque::new() }),
            other => Err(corrupt(operation, format!("expected a list, got {other:?}"))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The first item, if it is text.
    pub(super) fn first(&self) -> Option<&[u8]> {
        match self.items.front() {
            Some(Value::BulkString(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn next(&mut self) -> Result<Value, Error> {
        self.items.pop_front().ok_or_else(|| corrupt(self.operation, "an item is missing"))
    }

    pub(super) fn word(&mut self) -> Result<String, Error> {
        let value = self.next()?;
        word(self.operation, value)
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self) -> Result<T, Error> {
        let word = self.word()?;
        parse(self.operation, &word)
    }

    pub(super) fn reply(&mut self) -> Result<Self, Error> {
        let value = self.next()?;
        Self::list(self.operation, value)
    }

    /// The rest as texts.
    pub(super) fn words(self) -> Result<Vec<String>, Error> {
        self.items.into_iter().map(|value| word(self.operation, value)).collect()
    }

    /// An error about an item that was parsed but is invalid.
    pub(super) fn unexpected(&self, what: &str) -> Error {
        corrupt(self.operation, what)
    }

    /// The rest as fields and values.
    pub(super) fn fields(self) -> Result<HashMap<String, String>, Error> {
        let words = self.words()?;
        Ok(words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }
}

/// Text, or a number as text. `None` for nil.
pub(super) fn optional_word(
    operation: &'static str,
    value: Value,
) -> Result<Option<String>, Error> {
    match value {
        Value::Nil => Ok(None),
        other => word(operation, other).map(Some),
    }
}

pub(super) fn word(operation: &'static str, value: Value) -> Result<String, Error> {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|_| corrupt(operation, "text that is not UTF-8"))
        }
        Value::SimpleString(text) => Ok(text),
        Value::Okay => Ok("OK".to_owned()),
        Value::Int(number) => Ok(number.to_string()),
        Value::Double(number) => Ok(number.to_string()),
        Value::VerbatimString { text, .. } => Ok(text),
        other => Err(corrupt(operation, format!("expected a word, got {other:?}"))),
    }
}

pub(super) fn parse<T: FromStr<Err: Display>>(
    operation: &'static str,
    word: &str,
) -> Result<T, Error> {
    word.parse().map_err(|e| corrupt(operation, format!("`{word}`: {e}")))
}

/// An answer that can't be parsed. Other programs may have written a part of `detail`: it is put on
/// one line and cut.
pub(super) fn corrupt(operation: &'static str, detail: impl AsRef<str>) -> Error {
    const LONGEST: usize = 500;
    let mut shown = detail.as_ref().replace(char::is_control, " ");
    if shown.len() > LONGEST {
        shown.truncate(shown.floor_char_boundary(LONGEST));
        shown.push('…');
    }
    Error::Corrupt { operation, detail: shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_shown_on_one_line_and_not_at_length() {
        let error = word("job", Value::Array(vec![Value::SimpleString("a\nb".repeat(1_000))]));
        let text = error.expect_err("a list is no word").to_string();
        assert!(!text.contains('\n') && text.len() < 700, "{text}");
        let error = parse::<u64>("job", "1\r\n2").expect_err("no number").to_string();
        assert!(error.contains("`1  2`"), "{error}");
    }
}
