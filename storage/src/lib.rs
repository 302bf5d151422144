//! Bytes elsewhere: expanding globs, reading byte windows, reading and writing whole objects, on file systems and
//! object stores.
//!
//! A place is an absolute path, a `file://` URL or an `s3://bucket/key` URL. Both kinds of URL are taken literally
//! after the scheme: nothing is percent-decoded, so what was written is what is read. S3 takes its settings from the
//! standard `AWS_*` environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP`, …).
//!
//! Deliberately absent: what the bytes mean, retries beyond those of the object store's client, and caches.

mod check;
mod expand;
mod left_out;
mod local;
mod location;
mod object;
mod source;
mod window;
mod write;

pub use check::check;
pub use expand::{MAX_FILES, expand};
pub use left_out::left_out;
pub use location::{absolute, is_absolute, named};
pub use window::{MAX_OVERHANG_BYTES, read_window};
pub use write::{list, read, remove, write};

/// Why bytes could not be found, read or written. Each names the place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing matches the glob.
    #[error("no file matches `{glob}`")]
    NoMatch {
        /// As it was given.
        glob: String,
    },
    /// What is named is a directory.
    #[error("`{glob}` is a directory; write `{glob}/*` for the files in it")]
    Directory {
        /// As it was given.
        glob: String,
    },
    /// What is named is a pipe, a socket or a device.
    #[error("`{glob}` is no regular file")]
    NotRegular {
        /// As it was given.
        glob: String,
    },
    /// The glob is not one.
    #[error("`{glob}` is no glob: {reason}")]
    BadGlob {
        /// As it was given.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL is not one that we read.
    #[error("`{url}`: {reason}; use a path, file:///path or s3://bucket/key")]
    BadUrl {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such file, object or bucket.
    #[error("{path}: no such file")]
    NotFound {
        /// Path or URL.
        path: String,
    },
    /// We are not allowed to look.
    #[error("{path}: permission denied")]
    Denied {
        /// Path or URL.
        path: String,
    },
    /// The name can't stand in a manifest, which is JSON.
    #[error("{path}: the name is not UTF-8")]
    NotUtf8 {
        /// With a replacement character for each byte that is none.
        path: String,
    },
    /// The globs of one job match more files than a manifest may hold.
    #[error("the globs match more than {MAX_FILES} files")]
    TooManyFiles,
    /// The file is shorter now than when its windows were computed.
    #[error("{path}: has {found} bytes, but had {expected} or more when the job was admitted")]
    Shrunk {
        /// Path or URL.
        path: String,
        /// Where the window ends.
        expected: u64,
        /// Where the file ends.
        found: u64,
    },
    /// The file or object is not the one that was there when the job was admitted.
    #[error(
        "{path}: has changed since the job was admitted: it has {found}, and had {expected}; submit the job again, or let it say \
         `\"changed\": \"read\"` if its task changes its own input"
    )]
    Changed {
        /// Path or URL.
        path: String,
        /// What the manifest says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A line reaches too far beyond its window.
    #[error("{path}: the line at byte {offset} reaches more than 64 MiB beyond its window")]
    LineTooLong {
        /// Path or URL.
        path: String,
        /// The line's first byte.
        offset: u64,
    },
    /// The file system failed otherwise.
    #[error("{path}: {reason}")]
    Io {
        /// Path.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The object store failed otherwise, after its client's own retries.
    #[error("{path}: {reason}")]
    Store {
        /// URL.
        path: String,
        /// What the client said.
        reason: String,
    },
}

impl Error {
    /// Whether the job's author has to act: the names are wrong, not the machines. A scheduler rejects such a job, and
    /// tries again later after any other error.
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::NoMatch { .. }
            | Self::Directory { .. }
            | Self::NotRegular { .. }
            | Self::BadGlob { .. }
            | Self::BadUrl { .. }
            | Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::NotUtf8 { .. }
            | Self::TooManyFiles
            | Self::Shrunk { .. }
            | Self::Changed { .. }
            | Self::LineTooLong { .. } => true,
            Self::Io { .. } | Self::Store { .. } => false,
        }
    }

    /// Whether the same call must fail again, here and elsewhere. A missing file is not permanent: another node may
    /// have it mounted.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::BadGlob { .. }
            | Self::BadUrl { .. }
            | Self::NotUtf8 { .. }
            | Self::TooManyFiles
            | Self::Shrunk { .. }
            | Self::Changed { .. }
            | Self::LineTooLong { .. } => true,
            Self::NoMatch { .. }
            | Self::Directory { .. }
            | Self::NotRegular { .. }
            | Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::Io { .. }
            | Self::Store { .. } => false,
        }
    }

    /// The file system's word for what happened at `path`.
    fn from_io(path: &str, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path },
            std::io::ErrorKind::PermissionDenied => Self::Denied { path },
            _ => Self::Io { path, reason: error.to_string() },
        }
    }

    /// The object store's word for what happened at `path`.
    fn from_store(path: &str, error: &object_store::Error) -> Self {
        let path = path.to_owned();
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound { path },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Self::Denied { path },
            _ => Self::Store { path, reason: error.to_string() },
        }
    }
}
