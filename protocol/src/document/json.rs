//! Parses JSON text into a tree that keeps everything and copies nothing.
//!
//! Each node is a part of the text, which is parsed further on demand. The id of a document that is
//! otherwise invalid is found here, too.
//!
//! Deliberately absent: the meaning of a job document (see `decode`).

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};

use super::field_path::FieldPath;
use super::{Invalid, JobDocument, MAX_DEPTH, MAX_DOCUMENT_BYTES};
use crate::JobId;
use crate::json::{self, Items, Json, TOO_DEEP};

/// A JSON value as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a>(&'a str);

/// The kind of a node's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

/// Reads a whole text; trailing whitespace is fine, anything else after the value is not.
pub(super) fn parse(bytes: &[u8]) -> Result<Node<'_>, Invalid> {
    let place = FieldPath::Root;
    if bytes.len() > MAX_DOCUMENT_BYTES {
        let found = format!("{} bytes", bytes.len());
        return Err(place.invalid(found, too_long()));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(place.invalid("starts with a byte order mark", "write UTF-8 without one"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let found = format!("not UTF-8 at line {line} column {column}");
        place.invalid(found, "write JSON in UTF-8")
    })?;
    json::check(text).map_err(|why| {
        if why.starts_with(TOO_DEEP) {
            place.invalid(why, format!("nest at most {MAX_DEPTH} levels"))
        } else {
            place.invalid(why, "write one JSON object")
        }
    })?;
    Ok(Node(text.trim_ascii()))
}

/// The advice in the error for a document that is too long.
pub(super) fn too_long() -> String {
    let mib = MAX_DOCUMENT_BYTES >> 20;
    format!("at most {mib} MiB; submit more items through an open job, or name them by files")
}

impl<'a> Node<'a> {
    pub(super) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// The node as errors show it: short, on one line.
    pub(super) fn describe(self) -> String {
        match self.kind() {
            Kind::Null | Kind::Bool | Kind::Number => quote(self.0),
            Kind::Text => quote(&json::unescaped(self.0)),
            Kind::List => "a list".into(),
            Kind::Object => "an object".into(),
        }
    }

    /// The digits of a number.
    pub(super) fn number(self) -> Option<&'a str> {
        (self.kind() == Kind::Number).then_some(self.0)
    }

    pub(super) fn text(self) -> Option<String> {
        (self.kind() == Kind::Text).then(|| json::unescaped(self.0))
    }

    pub(super) fn list(self) -> Option<Vec<Node<'a>>> {
        (self.kind() == Kind::List).then(|| json::elements(self.0).map(Node).collect())
    }

    /// The members in their order; a key that appears twice is given twice.
    pub(super) fn members(self) -> Option<Vec<(String, Node<'a>)>> {
        let members = || json::members(self.0).map(|(key, value)| (key, Node(value))).collect();
        (self.kind() == Kind::Object).then(members)
    }

    /// The application's own data: any JSON, except that a key that appears twice is refused,
    /// because one of its values would be lost.
    pub(super) fn into_json(self, place: FieldPath<'_>) -> Result<Json, Invalid> {
        Json::canonical(self.0, place)
    }

    /// The same for a list.
    pub(super) fn into_items(self, place: FieldPath<'_>) -> Option<Result<Items, Invalid>> {
        (self.kind() == Kind::List).then(|| Items::canonical(self.0, place))
    }
}

/// Text in backquotes, cut when it is long.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut quoted = String::from("`");
    for (count, char) in text.chars().enumerate() {
        if count == LONGEST {
            quoted.push('…');
            break;
        }
        if char.is_control() {
            quoted.extend(char.escape_default());
        } else {
            quoted.push(char);
        }
    }
    quoted.push('`');
    quoted
}

impl JobDocument {
    /// The id of a document that may otherwise be invalid, even cut off after the id, so that it
    /// can be shown as rejected. `None` if it has no readable id, or several.
    pub fn peek_id(json: &[u8]) -> Option<JobId> {
        let mut id = None;
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        // `parse` reports errors after the id.
        let _ = serde::Deserializer::deserialize_any(&mut deserializer, PeekId { id: &mut id });
        id.and_then(|text| super::units::parse_job_id(&text))
    }
}

struct PeekId<'a> {
    id: &'a mut Option<String>,
}

impl<'de> Visitor<'de> for PeekId<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(key) = object.next_key::<String>()? {
            if key != "id" {
                object.next_value::<serde::de::IgnoredAny>()?;
            } else if self.id.is_some() {
                *self.id = None;
                return Err(A::Error::custom("two ids"));
            } else {
                *self.id = Some(object.next_value()?);
            }
        }
        Ok(())
    }
}
