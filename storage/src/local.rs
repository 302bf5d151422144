//! Globs over a file system: the walk, and the patterns, which serve for object keys, too.
//!
//! `glob::Pattern` decides which names match. `glob::glob` is not used, because it silently skips
//! names that are not UTF-8, follows links into loops, and can't both hide dot files from `*` and
//! find them by `.*`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use longshore_protocol::InputFile;

use crate::expand::Found;
use crate::roots::FollowedRoots;
use crate::walk::Progress;
use crate::{Error, check};

/// As in a shell: wildcards stop at slashes and don't match a leading dot.
pub(crate) const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One part of a glob between slashes.
pub(crate) enum Part {
    /// A literal name; the directory needn't be readable.
    Name(String),
    /// A pattern that is matched against each name in the directory.
    Pattern(Pattern),
    /// `**`: this directory and all directories below, except hidden ones and links, so that the
    /// walk ends.
    Recursive,
}

/// Adds the files that match the absolute `glob`. Blocks.
pub(crate) fn expand(
    glob: &str,
    roots: FollowedRoots,
    found: &mut Found,
    progress: &Progress,
) -> Result<(), Error> {
    let parts = parts(glob, glob)?;
    roots.check(&literal_start(&parts), glob)?;
    let names: Option<PathBuf> = parts
        .iter()
        .map(|part| if let Part::Name(name) = part { Some(name) } else { None })
        .collect();
    // A directory or device is refused if it is named, and skipped if a wildcard matches it.
    if let Some(metadata) = names.and_then(|names| fs::metadata(Path::new("/").join(names)).ok()) {
        let glob = glob.to_owned();
        if metadata.is_dir() {
            return Err(Error::Directory { glob });
        }
        if !metadata.is_file() {
            return Err(Error::NotRegular { glob });
        }
    }
    let is_deep = matches!(
        &parts[..],
        [.., Part::Recursive, Part::Pattern(last)] if last.as_str() == "*"
    );
    Walk { glob, progress, roots, found, is_deep, seen: HashSet::new() }
        .walk(Path::new("/"), &parts)
}

/// The path before the first wildcard: nothing outside of it can match.
fn literal_start(parts: &[Part]) -> PathBuf {
    let names = parts.iter().map_while(|part| match part {
        Part::Name(name) => Some(name.as_str()),
        Part::Pattern(_) | Part::Recursive => None,
    });
    std::iter::once("/").chain(names).collect()
}

/// Splits a glob into its parts; errors call the glob `name`.
pub(crate) fn parts(glob: &str, name: &str) -> Result<Vec<Part>, Error> {
    let refuse = |reason: &str| Error::BadGlob { glob: name.to_owned(), reason: reason.to_owned() };
    let bad = |error: glob::PatternError| refuse(error.msg);
    // The whole glob is checked, too: `**` next to other letters is an error only as a whole.
    Pattern::new(glob).map_err(bad)?;
    let mut parts = Vec::new();
    for part in glob.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let part = match (part, literal(part)) {
            ("**", _) => Part::Recursive,
            // A second `**` would visit every directory once for each other directory.
            ("..", _) if parts.iter().any(|part| !matches!(part, Part::Name(_))) => {
                return Err(refuse("`..` behind a wildcard"));
            }
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

/// The name that the part matches, if it is the only one. `[x]` is how `Pattern::escape` writes a
/// special `x`.
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

/// Whether the names of a path match the parts.
pub(crate) fn matches(parts: &[Part], names: &[&str]) -> bool {
    // The numbers of names that the parts so far can have consumed.
    let mut used = vec![false; names.len() + 1];
    used[0] = true;
    for part in parts {
        let mut next = vec![false; names.len() + 1];
        for (at, name) in names.iter().enumerate() {
            match part {
                Part::Name(wanted) => next[at + 1] = used[at] && name == wanted,
                Part::Pattern(pattern) => {
                    next[at + 1] = used[at] && pattern.matches_with(name, OPTIONS);
                }
                Part::Recursive => {
                    next[at] |= used[at];
                    next[at + 1] = next[at] && !name.starts_with('.');
                }
            }
        }
        if matches!(part, Part::Recursive) {
            next[names.len()] |= used[names.len()];
        }
        used = next;
    }
    used[names.len()]
}

struct Walk<'a> {
    glob: &'a str,
    progress: &'a Progress,
    roots: FollowedRoots,
    found: &'a mut Found,
    /// Whether the glob ends in `**`, so that directories need not be reported as skipped.
    is_deep: bool,
    /// The directories where a `**` has begun, with the number of parts left, because several `**`
    /// reach the same directories repeatedly.
    seen: HashSet<(PathBuf, usize)>,
}

impl Walk<'_> {
    fn walk(&mut self, directory: &Path, parts: &[Part]) -> Result<(), Error> {
        let Some((part, rest)) = parts.split_first() else {
            return Ok(());
        };
        match part {
            Part::Name(name) => self.visit(directory.join(name), rest),
            Part::Pattern(pattern) => {
                for name in self.names(directory)? {
                    if pattern.matches_with(&name.text, OPTIONS) {
                        self.visit(name.checked(directory)?, rest)?;
                    }
                }
                Ok(())
            }
            Part::Recursive => {
                if !self.seen.insert((directory.to_owned(), parts.len())) {
                    return Ok(());
                }
                self.walk(directory, rest)?;
                for name in self.names(directory)? {
                    if name.is_directory && !name.text.starts_with('.') {
                        self.walk(&name.checked(directory)?, parts)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Adds the path as a file if the glob ends here; otherwise continues below it.
    fn visit(&mut self, path: PathBuf, rest: &[Part]) -> Result<(), Error> {
        self.progress.step(self.glob)?;
        if !rest.is_empty() {
            return self.walk(&path, rest);
        }
        if let Some(folder) = path.parent() {
            self.roots.check_folder(folder)?;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                self.roots.check_file(&path)?;
                let path = path
                    .into_os_string()
                    .into_string()
                    .map_err(|path| Error::NotUtf8 { path: path.to_string_lossy().into_owned() })?;
                let version = Some(check::changed_at(&metadata));
                self.found.add(InputFile { path, size: metadata.len(), version })
            }
            // Skipped: directories, pipes and devices, files that vanished, and broken links.
            Ok(metadata) => {
                if !(metadata.is_dir() && self.is_deep) {
                    self.found.leave_out(&path);
                }
                Ok(())
            }
            Err(error) if is_absent(&error) => {
                if path.symlink_metadata().is_ok() {
                    self.found.leave_out(&path);
                }
                Ok(())
            }
            Err(error) => Err(Error::from_io(&path.to_string_lossy(), &error)),
        }
    }

    /// The entries of a directory; none if the path is no directory.
    fn names(&mut self, directory: &Path) -> Result<Vec<Name>, Error> {
        self.roots.check_folder(directory)?;
        let failed = |error: &io::Error| Error::from_io(&directory.to_string_lossy(), error);
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed(&error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            self.progress.step(self.glob)?;
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
}

struct Name {
    /// The path, with replacement characters where it is not UTF-8.
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

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Not for a `**` at the end, which in this project matches files at any depth.
        #[test]
        fn part_by_part_the_same_matches_as_in_one_go(
            glob in "((\\*\\*|[ab*?]{1,3}|\\.[a*]|\\[ab\\])/){0,4}([ab*?]{1,2}|\\.a)",
            key in "(\\.?[abc]{1,3}/){0,4}\\.?[abc]{1,2}",
        ) {
            let Ok(whole) = Pattern::new(&glob) else { return Ok(()) };
            prop_assume!(!glob.ends_with("**"));
            let parts = parts(&glob, &glob).expect("the whole is a glob");
            let names: Vec<&str> = key.split('/').collect();
            prop_assert_eq!(matches(&parts, &names), whole.matches_with(&key, OPTIONS));
        }
    }
}
