//! The path of a value in a document, with which errors name the place of a mistake.
//!
//! It is a linked list on the stack, so that a million items don't cost a million strings.

use std::fmt;

use super::Invalid;
use super::json::quote;

/// Longest path in characters: deep inside the application's own data a path would make every log
/// line that quotes it long.
const LONGEST: usize = 400;

/// A path like `split.axes.lr[2]`; `document` for the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldPath<'a> {
    Root,
    Field(&'a FieldPath<'a>, &'a str),
    Index(&'a FieldPath<'a>, usize),
}

impl<'a> FieldPath<'a> {
    /// The path of a member of this object.
    pub(crate) fn field(&'a self, name: &'a str) -> FieldPath<'a> {
        FieldPath::Field(self, name)
    }

    /// The path of an element of this list.
    pub(crate) fn index(&'a self, index: usize) -> FieldPath<'a> {
        FieldPath::Index(self, index)
    }

    /// The error for a wrong value at this path.
    pub(crate) fn invalid(&self, found: impl Into<String>, allowed: impl Into<String>) -> Invalid {
        let mut place = self.to_string();
        if place.len() > LONGEST {
            place.truncate(place.floor_char_boundary(LONGEST));
            place.push('…');
        }
        Invalid { place, found: found.into(), allowed: allowed.into() }
    }

    /// The error for an object with two members of the same name.
    pub(crate) fn twice(&self, what: &str, name: &str) -> Invalid {
        self.invalid(format!("the {what} {} stands twice", quote(name)), "write it once")
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("document"),
            Self::Field(Self::Root, name) => write_name(f, "", name),
            Self::Field(parent, name) => {
                parent.fmt(f)?;
                write_name(f, ".", name)
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Writes a name; names that would make the path ambiguous or long are put in brackets, and cut if
/// long.
fn write_name(f: &mut fmt::Formatter<'_>, dot: &str, name: &str) -> fmt::Result {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.len() <= 60 && name.bytes().all(plain) {
        write!(f, "{dot}{name}")
    } else {
        write!(f, "[{}]", quote(name))
    }
}
