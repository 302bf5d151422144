//! Parses locations (paths, `file://` and `s3://` URLs), and makes relative globs absolute.

use std::path::Path;

use crate::Error;

/// A location or a glob of locations, borrowed from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location<'a> {
    /// A path on a file system, relative to the current directory unless it begins with `/`.
    Local(&'a str),
    /// A key in an object store.
    S3 {
        /// The bucket.
        bucket: &'a str,
        /// The key.
        key: &'a str,
    },
}

impl<'a> Location<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Error> {
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Self::Local(text));
        };
        let bad = |reason: &str| Error::BadUrl { url: text.to_owned(), reason: reason.to_owned() };
        match scheme {
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if path.starts_with('/') {
                    Ok(Self::Local(path))
                } else {
                    Err(bad("a file URL has three slashes and an absolute path"))
                }
            }
            "s3" => match rest.split_once('/') {
                Some(("", _)) => Err(bad("the bucket is missing")),
                Some((bucket, key)) if !key.is_empty() => Ok(Self::S3 { bucket, key }),
                _ => Err(bad("the key is missing")),
            },
            _ => Err(bad(&format!("unknown scheme `{scheme}`"))),
        }
    }
}

/// Splits `scheme://rest`; `None` for a path, even with a colon.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(letters);
    is_scheme.then_some((scheme, rest))
}

/// Whether a glob is independent of the current directory: a URL, or a path from the root.
pub fn is_absolute(glob: &str) -> bool {
    glob.starts_with('/') || split_scheme(glob).is_some()
}

/// The path with its special characters escaped, if a file of exactly this name exists on this
/// host; `None` for other patterns, for URLs, and for names without special characters.
pub fn named(path: &str) -> Option<String> {
    let is_plain = !path.contains(['*', '?', '[']);
    if is_plain || split_scheme(path).is_some() || Path::new(path).symlink_metadata().is_err() {
        return None;
    }
    Some(glob::Pattern::escape(path))
}

/// Makes a glob independent of the current directory: a relative glob is joined to that directory,
/// whose special characters are escaped. URLs and absolute paths stay unchanged.
pub fn absolute(glob: &str) -> Result<String, Error> {
    if is_absolute(glob) {
        return Ok(glob.to_owned());
    }
    let directory = std::env::current_dir().map_err(|error| Error::from_io(".", &error))?;
    join(&directory, glob)
}

fn join(directory: &Path, glob: &str) -> Result<String, Error> {
    let Some(directory) = directory.to_str() else {
        return Err(Error::NotUtf8 { path: directory.to_string_lossy().into_owned() });
    };
    let mut relative = glob;
    while let Some(rest) = relative.strip_prefix("./") {
        relative = rest.trim_start_matches('/');
    }
    let directory = glob::Pattern::escape(directory.trim_end_matches('/'));
    Ok(format!("{directory}/{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parses(text: &str, expected: Location<'_>) {
        assert_eq!(Location::parse(text).unwrap(), expected);
    }

    #[track_caller]
    fn refused(text: &str, message: &str) {
        assert_eq!(Location::parse(text).unwrap_err().to_string(), message);
    }

    #[test]
    fn paths_and_two_kinds_of_url_are_locations() {
        parses("/data/a b%20.txt", Location::Local("/data/a b%20.txt"));
        parses("data/*.txt", Location::Local("data/*.txt"));
        parses("file:///data/a", Location::Local("/data/a"));
        parses("file://localhost/data/a", Location::Local("/data/a"));
        parses("s3://bucket/a/b*", Location::S3 { bucket: "bucket", key: "a/b*" });
        parses("12:30://notes", Location::Local("12:30://notes"));
    }

    #[test]
    fn other_urls_are_refused_with_what_is_allowed() {
        let allowed = "use a path, file:///path or s3://bucket/key";
        refused("gs://b/k", &format!("`gs://b/k`: unknown scheme `gs`; {allowed}"));
        refused("s3://bucket", &format!("`s3://bucket`: the key is missing; {allowed}"));
        refused("s3://bucket/", &format!("`s3://bucket/`: the key is missing; {allowed}"));
        refused("s3:///key", &format!("`s3:///key`: the bucket is missing; {allowed}"));
        refused(
            "file://data/a",
            &format!(
                "`file://data/a`: a file URL has three slashes and an absolute path; {allowed}"
            ),
        );
    }

    #[test]
    fn relative_globs_are_joined_to_an_escaped_directory() {
        let joined = join(Path::new("/odd[name]*"), "././sub/*.txt").unwrap();
        assert_eq!(joined, "/odd[[]name[]][*]/sub/*.txt");
        assert_eq!(join(Path::new("/"), "x").unwrap(), "/x");
        assert_eq!(absolute("/x/*").unwrap(), "/x/*");
        assert_eq!(absolute("s3://b/x*").unwrap(), "s3://b/x*");
        assert!(!is_absolute("x") && is_absolute("/x") && is_absolute("file:///x"));
    }
}
