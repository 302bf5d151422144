//! The results of a run of subtasks: lines, or the object that holds them; and their text form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The results of consecutive subtasks. The ledger keeps them in their text form ([`Self::text`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ResultBody {
    /// One line of compact JSON a subtask, in order, each ended by `\n`.
    Lines(String),
    /// An object outside of the ledger that holds the lines.
    Object {
        /// Where the object is: a `file://` or `s3://` URL.
        url: String,
        /// The line of the object that is the first subtask's, from 0.
        first_line: u64,
    },
}

impl ResultBody {
    /// All lines of an object.
    pub fn object(url: impl Into<String>) -> Self {
        Self::Object { url: url.into(), first_line: 0 }
    }

    /// The text form: the lines, or `@URL`, or `@URL#k` for an object from its line k on. No line
    /// of JSON begins with `@`.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Lines(lines) => Cow::Borrowed(lines),
            Self::Object { url, first_line: 0 } => Cow::Owned(format!("@{url}")),
            Self::Object { url, first_line } => Cow::Owned(format!("@{url}#{first_line}")),
        }
    }

    /// How many bytes the body takes up, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Object { url, .. } => url.len(),
        }
    }

    /// The URL of the object that holds the lines; `None` if they are here.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Lines(_) => None,
            Self::Object { url, .. } => Some(url),
        }
    }

    /// The results of `count` subtasks after the first `skip`.
    pub fn part(&self, skip: u64, count: u64) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        match self {
            Self::Lines(lines) => {
                let lines = lines.split_inclusive('\n').skip(number(skip)).take(number(count));
                Self::Lines(lines.collect())
            }
            Self::Object { url, first_line } => {
                Self::Object { url: url.clone(), first_line: first_line.saturating_add(skip) }
            }
        }
    }
}

/// Reads the text form.
impl From<String> for ResultBody {
    fn from(text: String) -> Self {
        let Some(place) = text.strip_prefix('@') else { return Self::Lines(text) };
        let place = place.trim_end();
        let (url, first_line) = match place.rsplit_once('#') {
            Some((url, line)) if !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) => {
                (url, line.parse().unwrap_or(u64::MAX))
            }
            _ => (place, 0),
        };
        Self::Object { url: url.to_owned(), first_line }
    }
}

/// Reads the text form.
impl From<&str> for ResultBody {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// Writes the text form.
impl From<ResultBody> for String {
    fn from(body: ResultBody) -> Self {
        match body {
            ResultBody::Lines(lines) => lines,
            object @ ResultBody::Object { .. } => object.text().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &ResultBody) {
        let body = ResultBody::from(text);
        assert_eq!((&body, body.text().as_ref()), (expected, text));
    }

    fn object(first_line: u64) -> ResultBody {
        ResultBody::Object { url: "s3://b/o".into(), first_line }
    }

    #[test]
    fn the_text_form_is_lines_or_the_place_of_an_object() {
        check("", &ResultBody::Lines(String::new()));
        check("1\n\"@\"\n", &ResultBody::Lines("1\n\"@\"\n".into()));
        check("@s3://b/o", &object(0));
        check("@s3://b/o#7", &object(7));
        check("@s3://b/o#x", &ResultBody::object("s3://b/o#x"));
        assert_eq!(ResultBody::from("@s3://b/o\n"), object(0));
    }

    #[test]
    fn a_part_keeps_its_own_lines() {
        let lines = ResultBody::from("0\n1\n2\n3\n");
        assert_eq!(lines.part(0, 4), lines);
        assert_eq!(lines.part(1, 2), "1\n2\n".into());
        assert_eq!(lines.part(3, 1), "3\n".into());
        assert_eq!((object(0).part(0, 2), object(0).part(7, 2)), (object(0), object(7)));
        assert_eq!(object(7).part(2, 1), object(9));
    }
}
