//! Reads the lines that start in a byte window of a file or object.

use longshore_protocol::LineWindow;
use memchr::{memchr, memrchr};

use crate::Error;
use crate::source::Source;

/// How many bytes a line may extend beyond its window. Bounds the memory that a subtask takes
/// beyond the window that its author chose.
pub const MAX_OVERHANG_BYTES: u64 = 64 << 20;

/// The sizes of a read inside and beyond the window: small enough for memory, large enough for the
/// round trip to an object store.
const STEPS: Steps = Steps { within: 4 << 20, beyond: 64 << 10 };

/// The sizes of reads, in bytes.
#[derive(Clone, Copy)]
struct Steps {
    within: usize,
    beyond: usize,
}

/// Exactly the lines whose first byte lies in the window, each with its line ending; the last line
/// of the file may have none. A line starts at byte 0 and after each `\n`. Empty if no line starts
/// in the window. Over windows that cover a file without gaps, the concatenation is the file.
pub async fn read_window(window: &LineWindow) -> Result<Vec<u8>, Error> {
    let source = Source::open(&window.file).await?;
    read(&source, window.start, window.end, STEPS).await
}

async fn read(source: &Source, start: u64, end: u64, steps: Steps) -> Result<Vec<u8>, Error> {
    if start >= end {
        return Ok(Vec::new());
    }
    let Some(first) = first_line(source, start, end, steps).await? else {
        return Ok(Vec::new());
    };
    let mut lines = Vec::new();
    let mut offset = first;
    while offset < end {
        let bytes = source.read_at(offset, step(steps.within, end - offset)).await?;
        if bytes.is_empty() {
            return Err(shrunk(source, end, offset));
        }
        lines.extend_from_slice(&bytes);
        offset += bytes.len() as u64;
    }
    finish_line(source, first, &mut lines, steps.beyond).await?;
    Ok(lines)
}

/// The offset of the first line that starts in the window, if there is one.
async fn first_line(
    source: &Source,
    start: u64,
    end: u64,
    steps: Steps,
) -> Result<Option<u64>, Error> {
    if start == 0 {
        return Ok(Some(0));
    }
    // A line starts in start..end if a newline stands one byte before: in start - 1..end - 1.
    let mut offset = start - 1;
    while offset < end - 1 {
        let bytes = source.read_at(offset, step(steps.within, end - 1 - offset)).await?;
        if bytes.is_empty() {
            return Err(shrunk(source, end, offset));
        }
        if let Some(newline) = memchr(b'\n', &bytes) {
            return Ok(Some(offset + newline as u64 + 1));
        }
        offset += bytes.len() as u64;
    }
    Ok(None)
}

/// Reads on to the end of the last line. `lines` starts at `first` and is not empty.
async fn finish_line(
    source: &Source,
    first: u64,
    lines: &mut Vec<u8>,
    step: usize,
) -> Result<(), Error> {
    let window = lines.len() as u64;
    while !lines.ends_with(b"\n") {
        if lines.len() as u64 - window > MAX_OVERHANG_BYTES {
            let line = memrchr(b'\n', lines).map_or(0, |newline| newline + 1);
            let offset = first + line as u64;
            return Err(Error::LineTooLong { path: source.name().to_owned(), offset });
        }
        let bytes = source.read_at(first + lines.len() as u64, step).await?;
        if bytes.is_empty() {
            break;
        }
        let wanted = memchr(b'\n', &bytes).map_or(bytes.len(), |newline| newline + 1);
        lines.extend_from_slice(&bytes[..wanted]);
    }
    Ok(())
}

fn step(most: usize, left: u64) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

fn shrunk(source: &Source, expected: u64, found: u64) -> Error {
    Error::Shrunk { path: source.name().to_owned(), expected, found }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
    use proptest::prelude::*;

    use super::*;
    use crate::expand::tests::block_on;

    const TINY: Steps = Steps { within: 3, beyond: 2 };

    async fn object(text: &[u8]) -> Source {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("text");
        store.put(&path, text.to_vec().into()).await.unwrap();
        Source::object(store, path)
    }

    /// The definition: every line belongs to the window that holds its first byte.
    fn by_definition(text: &[u8], size: u64) -> Vec<Vec<u8>> {
        let count = (text.len() as u64).div_ceil(size);
        let mut windows = vec![Vec::new(); usize::try_from(count).unwrap()];
        let mut start = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            windows[start / usize::try_from(size).unwrap()].extend_from_slice(line);
            start += line.len();
        }
        windows
    }

    async fn read_all(source: &Source, len: u64, size: u64, steps: Steps) -> Vec<Vec<u8>> {
        let mut windows = Vec::new();
        for start in (0..len).step_by(usize::try_from(size).unwrap()) {
            windows.push(read(source, start, (start + size).min(len), steps).await.unwrap());
        }
        windows
    }

    #[track_caller]
    fn splits(text: &[u8], size: u64, expected: &[&str]) {
        let windows =
            block_on(async { read_all(&object(text).await, text.len() as u64, size, TINY).await });
        let windows: Vec<_> = windows.iter().map(|lines| String::from_utf8_lossy(lines)).collect();
        assert_eq!(windows, expected);
    }

    #[test]
    fn a_line_belongs_to_the_window_that_holds_its_first_byte() {
        splits(b"ab\ncd\nef\n", 3, &["ab\n", "cd\n", "ef\n"]);
        splits(b"ab\ncd\nef\n", 4, &["ab\ncd\n", "ef\n", ""]);
        splits(b"ab\ncd\nef", 2, &["ab\n", "cd\n", "", "ef"]);
        splits(b"", 4, &[]);
        splits(b"\n\n\n", 1, &["\n", "\n", "\n"]);
        splits(b"no newline at all", 5, &["no newline at all", "", "", ""]);
    }

    #[test]
    fn windows_cut_through_line_endings_and_characters() {
        splits(b"a\r\nb\r\nc", 2, &["a\r\n", "b\r\n", "", "c"]);
        splits("é\nüö\n".as_bytes(), 1, &["é\n", "", "", "üö\n", "", "", "", ""]);
    }

    #[test]
    fn a_window_over_a_file_that_shrank_is_an_error() {
        let error = block_on(async { read(&object(b"ab\n").await, 0, 9, TINY).await.unwrap_err() });
        assert!(matches!(error, Error::Shrunk { expected: 9, found: 3, .. }), "{error}");
        assert!(error.is_permanent());
    }

    #[test]
    fn a_line_without_an_end_is_an_error_with_its_offset() {
        let mut text = b"short\n".to_vec();
        text.resize(usize::try_from(MAX_OVERHANG_BYTES).unwrap() + (1 << 20), b'x');
        let error = block_on(async { read(&object(&text).await, 0, 8, STEPS).await.unwrap_err() });
        assert!(matches!(error, Error::LineTooLong { offset: 6, .. }), "{error}");
    }

    #[test]
    fn files_are_read_like_objects() {
        let text: String = (0..40_000).map(|i| format!("line {i} é\r\n")).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let name = file.path().to_str().unwrap();
        let len = text.len() as u64;
        let windows = block_on(async {
            let mut windows = Vec::new();
            for start in (0..len).step_by(9_973) {
                let window =
                    LineWindow { file: name.to_owned(), start, end: (start + 9_973).min(len) };
                windows.push(read_window(&window).await.unwrap());
            }
            windows
        });
        assert_eq!(windows, by_definition(text.as_bytes(), 9_973));
        assert_eq!(windows.concat(), text.as_bytes());
    }

    #[test]
    fn a_missing_file_is_named() {
        let window = LineWindow { file: "/no/such/file".into(), start: 0, end: 1 };
        let error = block_on(read_window(&window)).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/file: no such file");
        assert!(error.is_users_fault() && !error.is_permanent());
    }

    proptest! {
        #[test]
        fn every_line_is_in_exactly_its_window(
            lines in prop::collection::vec("[aé\u{1F6A2}\r]{0,6}", 0..20),
            ends_with_newline: bool,
            size in 1u64..20,
            within in 1usize..9,
            beyond in 1usize..9,
        ) {
            let mut text = lines.join("\n");
            if ends_with_newline {
                text.push('\n');
            }
            let text = text.as_bytes();
            let steps = Steps { within, beyond };
            let windows = block_on(async {
                read_all(&object(text).await, text.len() as u64, size, steps).await
            });
            prop_assert_eq!(&windows, &by_definition(text, size));
            prop_assert_eq!(windows.concat(), text);
        }
    }
}
