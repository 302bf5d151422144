//! Globs over a file system.
//!
//! `glob::Pattern` decides what a name matches; the walk is our own, because `glob::glob` skips names that are not
//! UTF-8 without a word, follows links into loops, and can't both hide dot files from `*` and find them by `.*`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use longshore_protocol::InputFile;

use crate::Error;
use crate::expand::Found;

/// As in a shell: wildcards stop at slashes and don't match a leading dot.
pub(crate) const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One part of a glob between slashes.
enum Part {
    /// Stands for itself; the directory needn't be readable.
    Name(String),
    /// Matched against each name in the directory.
    Pattern(Pattern),
    /// `**`: this directory and all below it; hidden ones and links are left out, so that the walk ends.
    Recursive,
}

/// Adds the files that match the absolute `glob`. Blocks.
pub(crate) fn expand(glob: &str, found: &mut Found) -> Result<(), Error> {
    let parts = parts(glob)?;
    walk(Path::new("/"), &parts, found)
}

fn parts(glob: &str) -> Result<Vec<Part>, Error> {
    let bad = |error: glob::PatternError| Error::BadGlob {
        glob: glob.to_owned(),
        reason: error.msg.to_owned(),
    };
    // The whole is checked too: `**` beside other letters is an error only in sight of its neighbours.
    Pattern::new(glob).map_err(bad)?;
    let mut parts = Vec::new();
    for part in glob.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let part = match (part, literal(part)) {
            ("**", _) => Part::Recursive,
            (_, Some(name)) => Part::Name(name),
            (pattern, None) => Part::Pattern(Pattern::new(pattern).map_err(bad)?),
        };
        parts.push(part);
    }
    if matches!(parts.last(), Some(Part::Recursive)) {
        parts.push(Part::Pattern(Pattern::new("*").map_err(bad)?));
    }
    Ok(parts)
}

/// The one name that the part matches, if it is but one; `[x]` is how `Pattern::escape` writes a special `x`.
fn literal(part: &str) -> Option<String> {
    let mut name = String::with_capacity(part.len());
    let mut rest = part.chars();
    while let Some(char) = rest.next() {
        match char {
            '*' | '?' => return None,
            '[' => {
                let escaped = rest.next()?;
                if escaped == '!' || rest.next()? != ']' {
                    return None;
                }
                name.push(escaped);
            }
            other => name.push(other),
        }
    }
    Some(name)
}

fn walk(directory: &Path, parts: &[Part], found: &mut Found) -> Result<(), Error> {
    let Some((part, rest)) = parts.split_first() else {
        return Ok(());
    };
    match part {
        Part::Name(name) => visit(directory.join(name), rest, found),
        Part::Pattern(pattern) => {
            for name in names(directory)? {
                if pattern.matches_with(&name.text, OPTIONS) {
                    visit(name.checked(directory)?, rest, found)?;
                }
            }
            Ok(())
        }
        Part::Recursive => {
            walk(directory, rest, found)?;
            for name in names(directory)? {
                if name.is_directory && !name.text.starts_with('.') {
                    walk(&name.checked(directory)?, parts, found)?;
                }
            }
            Ok(())
        }
    }
}

/// Takes the path as a file if the glob ends here, else goes on below it.
fn visit(path: PathBuf, rest: &[Part], found: &mut Found) -> Result<(), Error> {
    if !rest.is_empty() {
        return walk(&path, rest, found);
    }
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => {
            let path = path
                .into_os_string()
                .into_string()
                .map_err(|path| Error::NotUtf8 { path: path.to_string_lossy().into_owned() })?;
            found.add(InputFile { path, size: metadata.len() })
        }
        // Directories, pipes and devices are no files; neither is what is gone or a link to nothing.
        Ok(_) => Ok(()),
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(Error::from_io(&path.to_string_lossy(), &error)),
    }
}

struct Name {
    /// With replacement characters where it is not UTF-8.
    text: String,
    is_utf8: bool,
    is_directory: bool,
}

impl Name {
    fn checked(&self, directory: &Path) -> Result<PathBuf, Error> {
        let path = directory.join(&self.text);
        if self.is_utf8 {
            Ok(path)
        } else {
            Err(Error::NotUtf8 { path: path.to_string_lossy().into_owned() })
        }
    }
}

/// What is in a directory; nothing if it is none.
fn names(directory: &Path) -> Result<Vec<Name>, Error> {
    let failed = |error: &io::Error| Error::from_io(&directory.to_string_lossy(), error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(&error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name();
        names.push(Name {
            is_utf8: name.to_str().is_some(),
            text: name.to_string_lossy().into_owned(),
            is_directory: entry.file_type().is_ok_and(|kind| kind.is_dir()),
        });
    }
    Ok(names)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
