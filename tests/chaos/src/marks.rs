//! Writes the history of attempts: task handlers append a line for each begin and each end.
//!
//! ```text
//!   FOLDER/NODE.WORKER-PID.OWN-PID.marks      start JOB INDEX ATTEMPT NS
//!                                             end JOB INDEX ATTEMPT NS
//! ```
//!
//! A line is one write to a file in append mode, so it is kept once the write has returned, even if
//! the process dies a moment later. Deliberately absent: buffers.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::id as own_pid;
use std::sync::OnceLock;

use crate::clock::Moment;

/// The environment variable that names the folder of the history.
pub const FOLDER: &str = "CHAOS_HISTORY";

/// The event that a mark records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An attempt begins.
    Start,
    /// An attempt has succeeded.
    End,
    /// An attempt has failed.
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

    /// Parses the first word of a line.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Start, Self::End, Self::Fail].into_iter().find(|what| what.word() == word)
    }
}

/// The part of the history that one process writes.
#[derive(Debug)]
pub struct Marks {
    folder: PathBuf,
    /// The process that claims chunks: for a served command, its worker.
    worker: u32,
    file: OnceLock<File>,
}

impl Marks {
    /// Marks in the folder that the environment names. The file is created with the first mark,
    /// when the node is known.
    ///
    /// # Panics
    /// When the environment names no folder.
    pub fn from_env(worker: u32) -> Self {
        let folder = std::env::var_os(FOLDER).unwrap_or_else(|| panic!("{FOLDER} is set"));
        Self { folder: folder.into(), worker, file: OnceLock::new() }
    }

    /// Whether this is the first call for the subtask in the whole run.
    pub fn is_first(&self, job: &dyn Display, index: u64) -> bool {
        let path = self.folder.join(format!("{job}.{index}.first"));
        OpenOptions::new().write(true).create_new(true).open(path).is_ok()
    }

    /// Writes one line.
    ///
    /// # Panics
    /// When the write fails: a run without its history proves nothing.
    pub fn record(
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
        file.write_all(line.as_bytes()).expect("a line of the history is written");
    }
}

/// Opens a file in append mode. Several processes may write to it.
///
/// # Panics
/// When the file can't be opened.
pub fn append_to(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
