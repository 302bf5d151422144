//! Parses and formats the durations, sizes and ids of a document.

use std::time::Duration;

use uuid::Uuid;

use crate::JobId;

/// Parses a duration such as `30s`, `1h 30m` or `1day`. `None` if the text is no duration or has no
/// unit.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    // humantime accepts a bare `0`; here every number needs a unit.
    let has_unit = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if has_unit { humantime::parse_duration(text).ok() } else { None }
}

/// The shortest exact spelling with one unit: `24h`, `5m`, `90s`, `1500ms`. Written here, so that
/// no release of a library can change the digest of a document.
pub(super) fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    if nanos == 0 {
        return "0s".into();
    }
    match units.into_iter().find(|(size, _)| nanos.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", nanos / size),
        None => format!("{nanos}ns"),
    }
}

const SIZES: [(u64, &str); 5] =
    [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];

/// Parses a size such as `1MiB` or `512KiB`: a whole number and its unit with nothing between them.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|char: char| !char.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (size, _) = SIZES.into_iter().find(|(_, name)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(size)
}

/// The shortest exact spelling with one unit: `1MiB`, `1000B`.
pub(super) fn format_size(bytes: u64) -> String {
    let (size, unit) = SIZES
        .into_iter()
        .find(|(size, _)| bytes != 0 && bytes.is_multiple_of(*size))
        .unwrap_or((1, "B"));
    format!("{}{unit}", bytes / size)
}

/// Parses a UUID with hyphens. Refuses the nil UUID: an id that was never set is nil, and all such
/// jobs would be the same job.
pub(super) fn parse_job_id(text: &str) -> Option<JobId> {
    if text.len() != 36 {
        return None;
    }
    let uuid = Uuid::parse_str(text).ok()?;
    (!uuid.is_nil()).then(|| JobId::from_uuid(uuid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn duration(text: &str, expected: Option<Duration>) {
        assert_eq!(parse_duration(text), expected, "{text}");
    }

    #[track_caller]
    fn size(text: &str, expected: Option<u64>) {
        assert_eq!(parse_size(text), expected, "{text}");
    }

    #[test]
    fn durations_are_humantime_strings_with_units() {
        duration("30s", Some(Duration::from_secs(30)));
        duration("1h 30m", Some(Duration::from_secs(5400)));
        duration("1day", Some(Duration::from_secs(86_400)));
        duration("1.5s", Some(Duration::from_millis(1500)));
        duration("0s", Some(Duration::ZERO));
        for bad in ["", "0", "30", "s", "-1s", "5 parsecs", "99999999999999999999s", "1s,"] {
            duration(bad, None);
        }
    }

    #[test]
    fn durations_are_written_with_the_largest_unit_that_is_exact() {
        let spellings = [
            (Duration::from_secs(86_400), "24h"),
            (Duration::from_secs(300), "5m"),
            (Duration::from_secs(90), "90s"),
            (Duration::from_millis(1500), "1500ms"),
            (Duration::from_micros(7), "7us"),
            (Duration::from_nanos(7), "7ns"),
            (Duration::ZERO, "0s"),
        ];
        for (value, text) in spellings {
            assert_eq!(format_duration(value), text);
        }
    }

    #[test]
    fn sizes_are_whole_numbers_with_binary_units() {
        size("1MiB", Some(1 << 20));
        size("512KiB", Some(512 << 10));
        size("7B", Some(7));
        size("1TiB", Some(1 << 40));
        for bad in ["", "1", "MiB", "1MB", "1 MiB", "1.5MiB", "-1B", "1mib", "99999999999TiB"] {
            size(bad, None);
        }
    }

    #[test]
    fn sizes_are_written_with_the_largest_unit_that_is_exact() {
        for (value, text) in [(1 << 20, "1MiB"), (1000, "1000B"), (1 << 41, "2TiB"), (0, "0B")] {
            assert_eq!(format_size(value), text);
        }
    }

    proptest! {
        #[test]
        fn a_duration_survives_the_way_there_and_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn a_size_survives_the_way_there_and_back(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
    }
}
