//! Where in a document something stands, as a chain on the stack: a million items cost no million
//! strings.

use std::fmt;

use super::Invalid;
use super::json::quote;

/// Deep inside the application's own data a path grows long, and with it every log that quotes it.
const LONGEST: usize = 400;

/// A path like `split.axes.lr[2]`; `document` for the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    /// The member of this object.
    pub(crate) fn field(&'a self, name: &'a str) -> Place<'a> {
        Place::Field(self, name)
    }

    /// The element of this list.
    pub(crate) fn index(&'a self, index: usize) -> Place<'a> {
        Place::Index(self, index)
    }

    /// What is wrong here.
    pub(crate) fn invalid(&self, found: impl Into<String>, allowed: impl Into<String>) -> Invalid {
        let mut place = self.to_string();
        if place.len() > LONGEST {
            place.truncate(place.floor_char_boundary(LONGEST));
            place.push('…');
        }
        Invalid { place, found: found.into(), allowed: allowed.into() }
    }

    /// Two members of this object have the same name.
    pub(crate) fn twice(&self, what: &str, name: &str) -> Invalid {
        self.invalid(format!("the {what} {} stands twice", quote(name)), "write it once")
    }
}

impl fmt::Display for Place<'_> {
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

/// Names that would make the path ambiguous or long stand in brackets, cut where they are long.
fn write_name(f: &mut fmt::Formatter<'_>, dot: &str, name: &str) -> fmt::Result {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !name.is_empty() && name.len() <= 60 && name.bytes().all(plain) {
        write!(f, "{dot}{name}")
    } else {
        write!(f, "[{}]", quote(name))
    }
}
