//! The beginning of a job's id, by which people name a job.

use std::fmt;
use std::str::FromStr;

use crate::JobId;

/// The fewest digits by which a job can be named, and the most that an id has.
const DIGITS: std::ops::RangeInclusive<usize> = 8..=32;

/// After how many digits an id has a hyphen.
const HYPHENS: [usize; 4] = [8, 12, 16, 20];

/// The first characters of a job's id, at least [`Self::SHORTEST`]. Read with or without hyphens,
/// in upper or lower case; written as the beginning of an id is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobIdPrefix(String);

/// A text that is not the beginning of a job's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a job's id is a UUID, as `longshore list` shows them; write the id or its first 8 characters \
     or more"
)]
pub struct InvalidIdPrefix;

impl JobIdPrefix {
    /// The fewest characters of a prefix.
    pub const SHORTEST: usize = *DIGITS.start();

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, if the prefix is a whole one.
    pub fn id(&self) -> Option<JobId> {
        self.0.parse().ok()
    }

    /// Whether the id begins with the prefix.
    pub fn is_of(&self, job: JobId) -> bool {
        job.to_string().starts_with(&self.0)
    }

    /// How many characters of an id tell it from another one; [`Self::SHORTEST`] at least.
    pub fn length_to_tell(job: JobId, other: JobId) -> usize {
        let (id, other) = (job.to_string(), other.to_string());
        let same = id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let mut length = same + 1;
        // A prefix that ends with a hyphen looks cut off, and says no more than one without.
        if id.as_bytes().get(length - 1) == Some(&b'-') {
            length += 1;
        }
        length.clamp(Self::SHORTEST, id.len())
    }
}

impl From<JobId> for JobIdPrefix {
    fn from(job: JobId) -> Self {
        Self(job.to_string())
    }
}

impl fmt::Display for JobIdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobIdPrefix {
    type Err = InvalidIdPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidIdPrefix> {
        if let Ok(id) = text.parse::<JobId>() {
            return Ok(id.into());
        }
        let text = text.to_ascii_lowercase();
        let digits: String = text.chars().filter(|char| *char != '-').collect();
        if !DIGITS.contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        {
            return Err(InvalidIdPrefix);
        }
        let mut written = String::with_capacity(36);
        for (at, digit) in digits.char_indices() {
            if HYPHENS.contains(&at) {
                written.push('-');
            }
            written.push(digit);
        }
        let is_right = text == digits || text.strip_suffix('-').unwrap_or(&text) == written;
        if is_right { Ok(Self(written)) } else { Err(InvalidIdPrefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[track_caller]
    fn reads(text: &str, written: &str) {
        let prefix: JobIdPrefix = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(prefix.as_str(), written, "{text}");
        assert!(prefix.is_of(ID.parse().unwrap()), "{text}");
        assert_eq!(prefix.id().is_some(), written == ID, "{text}");
    }

    #[test]
    fn a_prefix_is_read_with_and_without_hyphens() {
        reads("01890a5d", "01890a5d");
        reads("01890A5D-", "01890a5d");
        reads("01890a5d-ac", "01890a5d-ac");
        reads("01890a5dac", "01890a5d-ac");
        reads("01890a5d-ac96-774b-bcce-b302099a805", "01890a5d-ac96-774b-bcce-b302099a805");
        reads(ID, ID);
        reads("01890A5DAC96774BBCCEB302099A8057", ID);
    }

    #[test]
    fn what_begins_no_id_is_refused() {
        for text in [
            "",
            "01890a5",
            "01890a5-",
            "0189-0a5dac",
            "01890a5d--ac",
            "01890a5dg",
            "seven",
            "01890a5d-ac96-774b-bcce-b302099a80577",
            "ä1890a5d",
        ] {
            assert_eq!(text.parse::<JobIdPrefix>(), Err(InvalidIdPrefix), "{text}");
        }
    }

    #[test]
    fn ids_are_told_apart_by_as_few_characters_as_possible() {
        let length = |id: &str, other: &str| {
            JobIdPrefix::length_to_tell(id.parse().unwrap(), other.parse().unwrap())
        };
        assert_eq!(length(ID, "f1890a5d-ac96-774b-bcce-b302099a8057"), 8);
        assert_eq!(length(ID, "01890a5d-bc96-774b-bcce-b302099a8057"), 10);
        assert_eq!(length(ID, "01890a5d-ac96-774b-bcce-b302099a8058"), 36);
    }
}
