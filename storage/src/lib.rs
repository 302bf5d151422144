//! Finds, reads and writes files and objects; here is the error, which tells whose fault it is.
//!
//! It expands globs, reads byte windows and whole files, and writes, on file systems and in S3.
//!
//! A location is an absolute path, a `file://` URL or an `s3://bucket/key` URL. URLs are literal
//! after the scheme: nothing is percent-decoded. The client of S3 is configured by the standard
//! `AWS_*` environment variables (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`,
//! `AWS_ALLOW_HTTP`, …); it is left out of builds without the feature `s3`.
//!
//! Deliberately absent: the meaning of the bytes, retries beyond those of the client of S3, and
//! caches.

mod check;
mod expand;
mod folder;
mod local;
mod location;
mod object;
mod roots;
mod setting;
mod source;
mod walk;
mod window;
mod write;

use nix::errno::Errno;

pub use check::check;
pub use expand::{MAX_FILES, expand};
pub use folder::check_folder;
pub use location::{absolute, is_absolute, named};
pub use roots::AllowedRoots;
pub use setting::read_setting;
pub use window::{MAX_OVERHANG_BYTES, read_window};
pub use write::{list, read, remove, write};

/// Why files could not be found, read or written. Each error names the location.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing matches the glob.
    #[error("no file matches `{glob}`")]
    NoMatch {
        /// The glob as it was given.
        glob: String,
    },
    /// The glob names a directory.
    #[error("`{glob}` is a directory; write `{glob}/*` for the files in it")]
    Directory {
        /// The glob as it was given.
        glob: String,
    },
    /// The glob names a pipe, a socket or a device.
    #[error("`{glob}` is no regular file")]
    NotRegular {
        /// The glob as it was given.
        glob: String,
    },
    /// The glob is not valid.
    #[error("`{glob}` is no glob: {reason}")]
    BadGlob {
        /// The glob as it was given.
        glob: String,
        /// What is wrong.
        reason: String,
    },
    /// URLs of this form are not supported.
    #[error("`{url}`: {reason}; use a path, file:///path or s3://bucket/key")]
    BadUrl {
        /// The URL as it was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The location is in S3, and this program is built without its client.
    #[error("{url}: this program is built without S3; build it with the feature `s3`")]
    NoS3 {
        /// The URL.
        url: String,
    },
    /// There is no such file or object.
    #[error("{path}: no such file")]
    NotFound {
        /// The path or URL.
        path: String,
    },
    /// There is no such bucket.
    #[error("{path}: no such bucket; use one that exists and that this machine may list")]
    NoBucket {
        /// The URL.
        path: String,
    },
    /// The location may not be read or written.
    #[error("{path}: permission denied")]
    Denied {
        /// The path or URL.
        path: String,
    },
    /// The path can't be followed: a link to itself, a name that is too long, or a file in the
    /// place of a directory.
    #[error("{path}: {reason}; use paths that lead to files, or leave this one out")]
    Unusable {
        /// The path or URL.
        path: String,
        /// The message of the system.
        reason: String,
    },
    /// The location is not below the roots that jobs may touch on this host.
    #[error(
        "`{path}` {}outside of what jobs may touch; allowed are {allowed} (setting allow_roots)",
        .leads_to.as_ref().map_or_else(|| "is ".to_owned(), |real| format!("leads to {real}, "))
    )]
    OutsideRoots {
        /// The path or URL.
        path: String,
        /// Where its links lead, if that is another place.
        leads_to: Option<String>,
        /// What is allowed.
        allowed: String,
    },
    /// Something else stands where results need a folder.
    #[error("{path}: {file} is no folder; name a folder that is there, or that can be made")]
    NotAFolder {
        /// The path or URL.
        path: String,
        /// The path of what stands there.
        file: String,
    },
    /// The expansion of the globs of one job visited too many names or took too long.
    #[error(
        "`{glob}` reaches too far: not done after {seen} names; an expansion looks at most at {max} \
         names, for at most {longest} s",
        max = walk::MAX_SEEN, longest = walk::LONGEST.as_secs()
    )]
    TooFar {
        /// The glob as it was given.
        glob: String,
        /// The number of names visited.
        seen: u64,
    },
    /// A file name is not UTF-8, so it can't be part of a manifest, which is JSON.
    #[error("{path}: the name is not UTF-8")]
    NotUtf8 {
        /// The path, with a replacement character for each bad byte.
        path: String,
    },
    /// The globs of one job match more files than a manifest may hold.
    #[error("the globs match more than {MAX_FILES} files")]
    TooManyFiles,
    /// The file is shorter now than when its windows were computed.
    #[error("{path}: has {found} bytes, but had {expected} or more when the job was admitted")]
    Shrunk {
        /// The path or URL.
        path: String,
        /// The end of the window, in bytes.
        expected: u64,
        /// The size of the file, in bytes.
        found: u64,
    },
    /// The file or object has changed since the job was admitted.
    #[error(
        "{path}: has changed since the job was admitted: it has {found}, and had {expected}; submit the job again, or let it say \
         `\"changed\": \"read\"` if its task changes its own input"
    )]
    Changed {
        /// The path or URL.
        path: String,
        /// Size and version in the manifest.
        expected: String,
        /// Size and version found.
        found: String,
    },
    /// A line reaches too far beyond its window.
    #[error("{path}: the line at byte {offset} reaches more than 64 MiB beyond its window")]
    LineTooLong {
        /// The path or URL.
        path: String,
        /// The offset of the line, in bytes.
        offset: u64,
    },
    /// Another error of the file system.
    #[error("{path}: {reason}")]
    Io {
        /// The path.
        path: String,
        /// The message of the system.
        reason: String,
    },
    /// Another error of the object store, after the retries of its client.
    #[error("{path}: {reason}")]
    Store {
        /// The URL.
        path: String,
        /// The message of the client.
        reason: String,
    },
}

impl Error {
    /// Whether the author of the job has to act, because the names are wrong, not the hosts. A
    /// scheduler rejects such a job; after any other error it tries again later.
    pub fn is_users_fault(&self) -> bool {
        match self {
            Self::NoMatch { .. }
            | Self::Directory { .. }
            | Self::NotRegular { .. }
            | Self::BadGlob { .. }
            | Self::BadUrl { .. }
            | Self::NoS3 { .. }
            | Self::NotFound { .. }
            | Self::NoBucket { .. }
            | Self::Denied { .. }
            | Self::Unusable { .. }
            | Self::OutsideRoots { .. }
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

    /// Whether the same call will fail again on every host. A missing file is not permanent,
    /// because another node may have it mounted, nor is one that another node may touch.
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
            | Self::NoS3 { .. }
            | Self::NotFound { .. }
            | Self::NoBucket { .. }
            | Self::Denied { .. }
            | Self::Unusable { .. }
            | Self::OutsideRoots { .. }
            | Self::NotAFolder { .. }
            | Self::TooFar { .. }
            | Self::Io { .. }
            | Self::Store { .. } => false,
        }
    }

    /// Converts an error of the file system.
    fn from_io(path: &str, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path },
            std::io::ErrorKind::PermissionDenied => Self::Denied { path },
            _ if is_caused_by_path(error) => Self::Unusable { path, reason: system_message(error) },
            _ => Self::Io { path, reason: system_message(error) },
        }
    }

    /// Converts an error of the object store.
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

/// Whether a system call failed because of the path itself, so that it fails in every state of the
/// host.
fn is_caused_by_path(error: &std::io::Error) -> bool {
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

/// The message of the system without the number that Rust adds.
fn system_message(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error ").next().unwrap_or_default();
    words.to_lowercase()
}

/// Whether an object store refused the request (status 4xx), so that a repetition is refused, too.
/// 408 and 429 ask to try later. The client tells the status in its message only.
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
    fn errors_caused_by_the_path_are_the_users_fault_and_others_are_not() {
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
    fn a_refused_request_is_distinguished_from_an_unavailable_store() {
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
