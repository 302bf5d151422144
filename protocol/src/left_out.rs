//! The names that a job's globs match and that are no regular files, which the job leaves out.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names that globs match and that are no regular files: directories, pipes, sockets, devices, and
/// links to nothing. A name counts once for each glob that matches it. Hidden names are not among
/// them, since wildcards don't match those, and neither are directories where files at any depth
/// are meant (`**`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// The number of such names.
    pub count: u64,
    /// The first names that were found, at most [`LeftOut::SAMPLE`].
    pub sample: Vec<String>,
}

impl LeftOut {
    /// The number of names that are kept.
    pub const SAMPLE: usize = 5;

    /// Most bytes of a name that are kept.
    const LONGEST: usize = 256;

    /// Counts one more name.
    pub fn add(&mut self, path: &str) {
        self.count += 1;
        if self.sample.len() < Self::SAMPLE {
            let end = path.floor_char_boundary(Self::LONGEST);
            self.sample.push(path[..end].to_owned());
        }
    }

    /// Whether no name was left out.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, are, files) =
            if self.count == 1 { ("name", "is", "file") } else { ("names", "are", "files") };
        let sample = self.sample.join(", ");
        let more = if self.count > self.sample.len() as u64 { ", …" } else { "" };
        let count = self.count;
        write!(f, "{count} {names} that the globs match {are} no regular {files}: {sample}{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_are_kept_and_all_counted() {
        let mut left_out = LeftOut::default();
        assert!(left_out.is_empty());
        left_out.add("/a");
        let said = "1 name that the globs match is no regular files: /a";
        assert_eq!(left_out.to_string(), said.replace("files", "file"));
        for name in ["/b", "/c", "/d", "/e", "/f", "/g"] {
            left_out.add(name);
        }
        let said = "7 names that the globs match are no regular files: /a, /b, /c, /d, /e, …";
        assert_eq!(left_out.to_string(), said);
        let mut long = LeftOut::default();
        long.add(&"é".repeat(500));
        assert_eq!(long.sample[0].len(), 256);
    }
}
