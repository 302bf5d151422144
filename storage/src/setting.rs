//! Reads a setting from a file of its own, as containers are given passwords.
//!
//! Deliberately absent: the name of the setting, which the caller puts before an error.

use std::io;
use std::path::Path;

/// Reads a value that is alone in a file; the space and the line break around it are left out.
///
/// # Errors
/// A fragment with the path and what is wrong with the file; no part of its contents.
pub fn read_setting(path: &Path) -> Result<String, String> {
    let wrong = |reason: &str| Err(format!("{}: {reason}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(text) => match text.trim() {
            "" => wrong("is empty; write the value in it"),
            value if value.contains(['\n', '\r']) => {
                wrong("has several lines; write the value alone in it")
            }
            value => Ok(value.to_owned()),
        },
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => wrong("no such file"),
            io::ErrorKind::PermissionDenied => wrong("permission denied"),
            io::ErrorKind::IsADirectory => wrong("is a directory; name a file"),
            io::ErrorKind::InvalidData => wrong("is not UTF-8 text"),
            _ => wrong(&error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_without_the_space_around_it_and_mistakes_don_t_show_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("url");
        let read = |contents: &[u8]| {
            std::fs::write(&path, contents).expect("written");
            read_setting(&path)
        };
        assert_eq!(read(b"redis://u:secret@r\n"), Ok("redis://u:secret@r".into()));
        assert_eq!(read(b" redis://r\r\n\n"), Ok("redis://r".into()));
        let refused = |found: Result<String, String>, reason: &str| {
            let text = found.expect_err("it is refused");
            assert_eq!(text, format!("{}: {reason}", path.display()));
        };
        refused(read(b" \n"), "is empty; write the value in it");
        refused(read(b"u:secret\nx"), "has several lines; write the value alone in it");
        refused(read(b"\xff"), "is not UTF-8 text");
        std::fs::remove_file(&path).expect("removed");
        refused(read_setting(&path), "no such file");
        let text = read_setting(folder.path()).expect_err("it is a folder");
        assert!(text.ends_with("is a directory; name a file"), "{text}");
    }
}
