//! The stored form of a run of results: lines as they are, or compressed if that saves a quarter.
//!
//! `~COUNT BYTES TEXT`: COUNT lines; TEXT is base64 of BYTES bytes compressed with zlib, so that
//! every language can read it, and it is text where a reader expects text. `~COUNT#k BYTES TEXT`:
//! COUNT of these lines, from line k on (from 0), where another commit had settled the others. No
//! line of JSON begins with `~`.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// Shorter runs are stored as they are, readable; so are the runs of `noop` subtasks, 256 times
/// `null`.
const WORTH_IT: usize = 2_048;

/// A run is stored compressed if that takes at most this part of its length: three quarters.
const SAVES: (usize, usize) = (3, 4);

/// More bytes than any run has: a stride of results of the largest size, with a wide margin.
const MOST_BYTES: u64 = 8 << 30;

/// The stored form of a run of `count` lines.
pub(super) fn pack(count: u64, lines: &str) -> Cow<'_, str> {
    if lines.len() < WORTH_IT || lines.starts_with('@') {
        return Cow::Borrowed(lines);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let compressed = encoder.write_all(lines.as_bytes()).and_then(|()| encoder.finish());
    let text = STANDARD.encode(compressed.expect("a vector takes whatever comes"));
    let packed = format!("~{count} {} {text}", lines.len());
    if packed.len() * SAVES.1 > lines.len() * SAVES.0 {
        return Cow::Borrowed(lines);
    }
    Cow::Owned(packed)
}

/// The lines of a stored run; the error says why it is invalid.
pub(super) fn unpack(kept: String) -> Result<String, String> {
    let Some(packed) = kept.strip_prefix('~') else { return Ok(kept) };
    let mut words = packed.splitn(3, ' ');
    let mut word = || words.next().ok_or("a compressed run has three parts");
    let (place, bytes, text) = (word()?, word()?, word()?);
    let (count, skip) = place.split_once('#').unwrap_or((place, "0"));
    let number = |word: &str| word.parse::<u64>().map_err(|error| format!("`{word}`: {error}"));
    let (count, skip, bytes) = (number(count)?, number(skip)?, number(bytes)?);
    if bytes > MOST_BYTES {
        return Err(format!("a run of {bytes} bytes"));
    }
    let compressed = STANDARD.decode(text).map_err(|error| error.to_string())?;
    let mut lines = String::new();
    // One byte more than declared shows that the declared length is wrong.
    let mut reader = ZlibDecoder::new(&*compressed).take(bytes + 1);
    reader.read_to_string(&mut lines).map_err(|error| error.to_string())?;
    if lines.len() as u64 != bytes {
        return Err(format!("{} bytes in place of {bytes}", lines.len()));
    }
    let all = lines.split_inclusive('\n').count() as u64;
    if skip.checked_add(count).is_none_or(|end| end > all) {
        return Err(format!("{count} lines from {skip} on of {all}"));
    }
    if count == all {
        return Ok(lines);
    }
    let places = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(lines.split_inclusive('\n').skip(places(skip)).take(places(count)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(range: std::ops::Range<u64>) -> String {
        range.map(|n| format!("{{\"number\":{n}}}\n")).collect()
    }

    #[test]
    fn long_runs_are_compressed_and_short_ones_and_urls_are_not() {
        let long = lines(0..256);
        let packed = pack(256, &long);
        assert!(packed.starts_with("~256 "), "{packed}");
        assert!(packed.len() * 4 < long.len(), "{} of {} bytes", packed.len(), long.len());
        assert_eq!(unpack(packed.into_owned()), Ok(long));
        let short = lines(0..40);
        assert_eq!(pack(40, &short), short);
        let url = format!("@s3://bucket/{}", "long".repeat(1_000));
        assert_eq!(pack(256, &url), url);
    }

    #[test]
    fn what_does_not_shrink_stays_as_it_is() {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("\"{}\"\n", STANDARD.encode((state ^ (state >> 29)).to_be_bytes()))
        };
        let lines: String = (0..256).map(|_| noise()).collect();
        assert_eq!(pack(256, &lines), lines);
    }

    #[test]
    fn a_part_of_a_run_is_found_in_it() {
        let packed = pack(256, &lines(0..256)).into_owned();
        let part = |place: &str| unpack(packed.replacen("~256", place, 1));
        assert_eq!(part("~6#250"), Ok(lines(250..256)));
        assert_eq!(part("~3"), Ok(lines(0..3)));
        assert_eq!(part("~3#254"), Err("3 lines from 254 on of 256".into()));
    }

    #[test]
    fn a_run_that_lies_is_refused() {
        let packed = pack(256, &lines(0..256)).into_owned();
        let bytes = lines(0..256).len();
        let lie = |claim: usize| unpack(packed.replacen(&bytes.to_string(), &claim.to_string(), 1));
        assert_eq!(lie(bytes), Ok(lines(0..256)));
        assert_eq!(lie(bytes - 1), Err(format!("{bytes} bytes in place of {}", bytes - 1)));
        assert_eq!(lie(bytes + 1), Err(format!("{bytes} bytes in place of {}", bytes + 1)));
        for nonsense in ["~", "~1", "~1 2", "~x 2 eJw=", "~1 2 ?", "~1 2 AAAA", "~1#x 2 eJw="] {
            assert!(unpack(nonsense.into()).is_err(), "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn every_run_comes_back(words in prop::collection::vec("[a-z]{0,40}", 1..256)) {
            let lines: String = words.iter().map(|word| format!("\"{word}\"\n")).collect();
            let packed = pack(words.len() as u64, &lines).into_owned();
            prop_assert_eq!(unpack(packed), Ok(lines));
        }
    }
}
