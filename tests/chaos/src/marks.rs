//! The handlers' side of the history: one line for each beginning and each end of an attempt.
//!
//! ```text
//!   FOLDER/NODE.WORKER-PID.OWN-PID.marks      start JOB INDEX ATTEMPT NS
//!                                             end JOB INDEX ATTEMPT NS
//! ```
//!
//! A line is one write to a file that is opened for appending, so that it stands once the write returned, whatever happens to
//! the process a moment later. Deliberately absent: buffers.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::id as own_pid;
use std::sync::OnceLock;

use crate::clock::Moment;

/// The environment variable that names the folder of the history.
pub const FOLDER: &str = "LONGSHORE_CHAOS_HISTORY";

/// What a handler has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An attempt begins.
    Start,
    /// It has done its work.
    End,
    /// It has failed.
    Fail,
}

impl What {
    /// The first word of a line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
            Self::Fail => "fail",
        }
    }

    /// What the first word of a line means.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Start, Self::End, Self::Fail].into_iter().find(|what| what.word() == word)
    }
}

/// One process's part of the history.
#[derive(Debug)]
pub struct Marks {
    folder: PathBuf,
    /// The process that holds the claims: a served command has its parent for that.
    worker: u32,
    file: OnceLock<File>,
}

impl Marks {
    /// In the folder that the environment names. The file is made with the first mark, since only then the node is known.
    ///
    /// # Panics
    /// When the environment names none.
    pub fn from_env(worker: u32) -> Self {
        let folder = std::env::var_os(FOLDER).unwrap_or_else(|| panic!("{FOLDER} is set"));
        Self { folder: folder.into(), worker, file: OnceLock::new() }
    }

    /// Whether nobody asked this of the subtask before.
    pub fn is_first(&self, job: &dyn Display, index: u64) -> bool {
        let path = self.folder.join(format!("{job}.{index}.first"));
        OpenOptions::new().write(true).create_new(true).open(path).is_ok()
    }

    /// Writes one line.
    ///
    /// # Panics
    /// When it can't be written: a run without its history proves nothing.
    pub fn tell(
        &self,
        what: What,
        node: &dyn Display,
        job: &dyn Display,
        index: u64,
        attempt: u32,
    ) {
        let mut file = self.file.get_or_init(|| {
            let name = format!("{node}.{}.{}.marks", self.worker, own_pid());
            append_to(&self.folder.join(name))
        });
        let line = format!("{} {job} {index} {attempt} {}\n", what.word(), Moment::now().ns);
        file.write_all(line.as_bytes()).expect("the history takes a line");
    }
}

/// A file that every write is added to at the end, whoever else writes.
///
/// # Panics
/// When it can't be opened.
pub fn append_to(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
