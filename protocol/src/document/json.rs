//! JSON text to a tree that forgets nothing: keys keep their order, and a key that stands twice
//! stands twice. `serde_json::Value` would keep the last of them in silence.
//!
//! Deliberately absent: what a job document means (see `decode`).

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::place::Place;
use super::{Invalid, JobDocument, MAX_DEPTH, MAX_DOCUMENT_BYTES};
use crate::JobId;

/// A JSON value as it was written.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Reads a whole text; trailing whitespace is fine, anything else after the value is not.
pub(super) fn parse(json: &[u8]) -> Result<Node, Invalid> {
    let place = Place::Root;
    if json.len() > MAX_DOCUMENT_BYTES {
        let found = format!("{} bytes", json.len());
        return Err(place.invalid(found, too_long()));
    }
    if json.starts_with(b"\xef\xbb\xbf") {
        return Err(place.invalid("starts with a byte order mark", "write UTF-8 without one"));
    }
    if let Err(error) = std::str::from_utf8(json) {
        let before = &json[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let found = format!("not UTF-8 at line {line} column {column}");
        return Err(place.invalid(found, "write JSON in UTF-8"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let node = NodeSeed { depth: 0 }.deserialize(&mut deserializer);
    node.and_then(|node| deserializer.end().map(|()| node)).map_err(|error| {
        let text = error.to_string();
        if text.starts_with(TOO_DEEP) {
            place.invalid(text, format!("nest at most {MAX_DEPTH} levels"))
        } else {
            place.invalid(format!("not JSON: {text}"), "write one JSON object")
        }
    })
}

/// What is allowed where a document is too long.
pub(super) fn too_long() -> String {
    let mib = MAX_DOCUMENT_BYTES >> 20;
    format!("at most {mib} MiB; submit more items through an open job, or name them by files")
}

const TOO_DEEP: &str = "nested too deep";

impl Node {
    /// The node as it may stand in an error: short, on one line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "`null`".into(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Number(number) => format!("`{number}`"),
            Self::Text(text) => quote(text),
            Self::List(_) => "a list".into(),
            Self::Object(_) => "an object".into(),
        }
    }

    /// The application's own data: any JSON, but a key that stands twice is refused, because one of
    /// its values would be lost.
    pub(super) fn into_value(self, place: Place<'_>) -> Result<Value, Invalid> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(number) => Value::Number(number),
            Self::Text(text) => Value::String(text),
            Self::List(nodes) => {
                let values = nodes.into_iter().enumerate();
                Value::Array(
                    values
                        .map(|(index, node)| node.into_value(place.index(index)))
                        .collect::<Result<_, _>>()?,
                )
            }
            Self::Object(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    if map.contains_key(&key) {
                        return Err(place.twice("key", &key));
                    }
                    let value = node.into_value(place.field(&key))?;
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        })
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

#[derive(Clone, Copy)]
struct NodeSeed {
    depth: usize,
}

impl NodeSeed {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        // Bounded before the recursion, so that no document can use up the stack.
        if self.depth == MAX_DEPTH {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed {
    type Value = Node;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(seed)? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut entries = Vec::new();
        while let Some(key) = object.next_key::<String>()? {
            entries.push((key, object.next_value_seed(seed)?));
        }
        Ok(Node::Object(entries))
    }
}

impl JobDocument {
    /// The id of a document that may otherwise be invalid, even cut off after the id, so that it
    /// can be shown as rejected. `None` if it has no readable id, or several.
    pub fn peek_id(json: &[u8]) -> Option<JobId> {
        let mut id = None;
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        // Whatever is wrong behind the id is for `parse` to say.
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
