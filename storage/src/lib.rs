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
mod folder;
mod local;
mod location;
mod object;
mod source;
mod walk;
mod window;
mod write;

use nix::errno::Errno;

pub use check::check;
pub use expand::{MAX_FILES, expand};
pub use folder::check_folder;
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
    /// There is no such file or object.
    #[error("{path}: no such file")]
    NotFound {
        /// Path or URL.
        path: String,
    },
    /// There is no such bucket.
    #[error("{path}: no such bucket; use one that exists and that this machine may list")]
    NoBucket {
        /// URL.
        path: String,
    },
    /// We are not allowed to look.
    #[error("{path}: permission denied")]
    Denied {
        /// Path or URL.
        path: String,
    },
    /// The path itself can't be followed: a link to itself, a name that is too long, a file in the
    /// place of a directory.
    #[error("{path}: {reason}; use paths that lead to files, or leave this one out")]
    Unusable {
        /// Path or URL.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Something that is no folder stands where results need one.
    #[error("{path}: {file} is no folder; name a folder that is there, or that can be made")]
    NotAFolder {
        /// Path or URL.
        path: String,
        /// What stands there.
        file: String,
    },
    /// The globs of one job look at more names, or for longer, than an expansion may.
    #[error(
        "`{glob}` reaches too far: not done after {seen} names; an expansion looks at most at {max} \
         names, for at most {longest} s",
        max = walk::MAX_SEEN, longest = walk::LONGEST.as_secs()
    )]
    TooFar {
        /// As it was given.
        glob: String,
        /// How many names were looked at.
        seen: u64,
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
            | Self::NoBucket { .. }
            | Self::Denied { .. }
            | Self::Unusable { .. }
            | Self::NotAFolder { .. }
            | Self::TooFar { .. }
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
            | Self::NoBucket { .. }
            | Self::Denied { .. }
            | Self::Unusable { .. }
            | Self::NotAFolder { .. }
            | Self::TooFar { .. }
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
            _ if is_of_the_path(error) => Self::Unusable { path, reason: said(error) },
            _ => Self::Io { path, reason: said(error) },
        }
    }

    /// The object store's word for what happened at `path`.
    fn from_store(path: &str, error: &object_store::Error) -> Self {
        let path = path.to_owned();
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound { path },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Self::Denied { path },
            object_store::Error::InvalidPath { .. }
            | object_store::Error::UnknownConfigurationKey { .. } => {
                Self::Unusable { path, reason: error.to_string() }
            }
            _ if is_refusal(&error.to_string()) => {
                Self::Unusable { path, reason: error.to_string() }
            }
            _ => Self::Store { path, reason: error.to_string() },
        }
    }
}

/// Whether a call of the system failed for what the path is, so that it fails whatever the state of
/// the machine.
fn is_of_the_path(error: &std::io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(code),
        Errno::ELOOP
            | Errno::ENAMETOOLONG
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EILSEQ
            | Errno::EINVAL
    )
}

/// The system's words without the number that Rust adds.
fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error ").next().unwrap_or_default();
    words.to_lowercase()
}

/// Whether an object store answered that the request is wrong (status 4xx), which it will say again.
/// 408 and 429 ask for patience. The client keeps the status to itself, but for its text.
fn is_refusal(text: &str) -> bool {
    const STATUS: &str = "non-2xx status code: ";
    let Some((_, status)) = text.split_once(STATUS) else { return false };
    let code: String = status.chars().take_while(char::is_ascii_digit).collect();
    code.len() == 3 && code.starts_with('4') && !["408", "429"].contains(&code.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_path_is_told_from_what_is_wrong_with_the_world() {
        let judged = |errno: Errno| {
            let error = std::io::Error::from_raw_os_error(errno as i32);
            Error::from_io("/x", &error).is_users_fault()
        };
        for errno in [
            Errno::ELOOP,
            Errno::ENAMETOOLONG,
            Errno::ENOTDIR,
            Errno::EACCES,
            Errno::EPERM,
            Errno::ENOENT,
        ] {
            assert!(judged(errno), "{errno}");
        }
        for errno in [
            Errno::EIO,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::ESTALE,
            Errno::ETIMEDOUT,
            Errno::ENOTCONN,
            Errno::EHOSTDOWN,
        ] {
            assert!(!judged(errno), "{errno}");
        }
    }

    #[test]
    fn a_store_that_refuses_is_told_from_one_that_is_away() {
        let refused =
            |status: &str| is_refusal(&format!("Server returned non-2xx status code: {status}: x"));
        for status in ["400 Bad Request", "405 Method Not Allowed"] {
            assert!(refused(status), "{status}");
        }
        for status in ["408 Request Timeout", "429 Too Many Requests", "503 Slow Down"] {
            assert!(!refused(status), "{status}");
        }
        assert!(!is_refusal("error sending request"));
    }
}
