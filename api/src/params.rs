//! The values of a request's path and query, read by the rules of the table of endpoints.
//!
//! A parameter that the endpoint does not have is refused, since it would be ignored otherwise, and
//! so is one that comes twice.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use longshore_protocol::{Invalid, JobId, NodeId};
use url::form_urlencoded;

use crate::endpoint::Endpoint;
use crate::refusal::Refusal;

/// The most characters of a value that an error shows.
const SHOWN: usize = 60;

/// The values of path and query.
#[derive(Debug)]
pub(crate) struct Params {
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

/// A mistake in a parameter.
pub(crate) fn wrong(name: &str, found: &str, allowed: impl Into<String>) -> Refusal {
    let mut shown: String = found.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if found.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    let found = format!("`{shown}`");
    Refusal::bad_request(&Invalid { place: name.to_owned(), found, allowed: allowed.into() })
}

impl Params {
    pub(crate) fn read(
        endpoint: &Endpoint,
        path: Vec<(String, String)>,
        query: &str,
    ) -> Result<Self, Refusal> {
        let mut read: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(known) = endpoint.query().find(|parameter| parameter.name == name) else {
                let names: Vec<&str> = endpoint.query().map(|parameter| parameter.name).collect();
                let allowed = match names.is_empty() {
                    true => "this takes no parameters".to_owned(),
                    false => format!("use {}", names.join(", ")),
                };
                return Err(wrong("query", &name, allowed));
            };
            if !known.may_repeat && read.iter().any(|(other, _)| *other == name) {
                return Err(wrong(known.name, &value, "give it once"));
            }
            // Decoding puts this in place of bytes that are not UTF-8.
            if value.contains('\u{fffd}') || value.contains('\0') {
                return Err(wrong(known.name, &value, "use UTF-8 without NUL"));
            }
            read.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { path, query: read })
    }

    fn segment(&self, name: &str) -> &str {
        let found = self.path.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The job of the path. An id that is no UUID belongs to no job.
    pub(crate) fn job(&self) -> Result<JobId, Refusal> {
        let text = self.segment("job");
        text.parse().map_err(|_| wrong("job", text, "use a job's id, a UUID"))
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.segment("node"))
    }

    pub(crate) fn token(&self) -> &str {
        self.segment("token")
    }

    pub(crate) fn letter(&self) -> &str {
        self.segment("letter")
    }

    /// The range of indices from `from` to before `to`.
    pub(crate) fn indices(&self) -> Result<Range<u64>, Refusal> {
        let from = self.whole("from", 0..=u64::MAX, 0)?;
        let to = self.whole("to", 0..=u64::MAX, u64::MAX)?;
        match to < from {
            true => Err(wrong("to", &to.to_string(), format!("use at least `from`, {from}"))),
            false => Ok(from..to),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(crate) fn parsed<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| wrong(name, text, error.to_string()))
    }

    /// A whole number within bounds.
    pub(crate) fn whole(
        &self,
        name: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_digits && bounds.contains(number));
        number.ok_or_else(|| {
            let (least, most) = (bounds.start(), bounds.end());
            wrong(name, text, format!("use a whole number from {least} to {most}"))
        })
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(wrong(name, other, "use true or false")),
        }
    }

    /// A duration like `30s`, at most `most`.
    pub(crate) fn duration(
        &self,
        name: &str,
        most: Duration,
        default: Duration,
    ) -> Result<Duration, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let duration = humantime::parse_duration(text).ok().filter(|duration| *duration <= most);
        duration.ok_or_else(|| {
            let most = humantime::format_duration(most);
            wrong(name, text, format!("write a duration like 30s, at most {most}"))
        })
    }
}
