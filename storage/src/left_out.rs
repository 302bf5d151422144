//! What a glob matches and a job leaves out, so that whoever submits it can be told.
//!
//! Deliberately absent: globs with wildcards in the names of folders, whose count would take a walk of its own, and
//! objects, which are never anything else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::local::{OPTIONS, Part, parts};
use crate::location::{Location, absolute, named};

/// How many names in one folder a glob matches that are no regular files: directories, pipes, sockets, devices, and
/// links to nothing. 0 where that can't be told.
pub fn left_out(glob: &str) -> u64 {
    let Ok(Location::Local(path)) = Location::parse(glob) else { return 0 };
    if named(path).is_some() {
        return 0;
    }
    let Ok(path) = absolute(path) else { return 0 };
    let Ok(parts) = parts(&path, &path) else { return 0 };
    let Some((Part::Pattern(pattern), folders)) = parts.split_last() else { return 0 };
    let literal = |part: &Part| if let Part::Name(name) = part { Some(name.clone()) } else { None };
    let Some(folders) = folders.iter().map(literal).collect::<Option<PathBuf>>() else { return 0 };
    let Ok(entries) = fs::read_dir(Path::new("/").join(folders)) else { return 0 };
    let is_left_out = |entry: &fs::DirEntry| {
        pattern.matches_with(&entry.file_name().to_string_lossy(), OPTIONS)
            && !fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file())
    };
    entries.flatten().filter(is_left_out).count() as u64
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_counted() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["a", "b.txt", ".hidden"] {
            fs::create_dir(root.path().join(folder)).expect("made");
        }
        for file in ["c.txt", "d"] {
            fs::write(root.path().join(file), "x").expect("written");
        }
        symlink("nowhere", root.path().join("e.txt")).expect("linked");
        symlink("d", root.path().join("f.txt")).expect("linked");
        let count = |glob: &str| left_out(&format!("{}/{glob}", root.path().display()));
        assert_eq!(count("*"), 3, "a, b.txt and e.txt");
        assert_eq!(count("*.txt"), 2);
        assert_eq!(count("c.txt"), 0);
        assert_eq!(count("**"), 0, "files at any depth are meant and nothing else");
        assert_eq!(count("nowhere/*"), 0);
        assert_eq!(left_out("s3://bucket/*"), 0);
    }
}
