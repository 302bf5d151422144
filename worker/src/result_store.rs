//! The names of result objects, and the trait of the store that keeps them, in files or objects.
//!
//! A worker that lost its chunk may write late. So no two claims write to the same name: each
//! object carries the token of its claim, and is a part of the job only once the ledger has taken a
//! commit that names its URL. Readers follow the URLs in the ledger; objects that no commit names
//! are removed.
//!
//! Deliberately absent: when to write and when to remove (`results`).

use async_trait::async_trait;
use longshore_protocol::{JobId, Token};
use longshore_storage::{AllowedRoots, Error};

/// Keeps result objects: in files and object stores, or in the memory of a simulation.
#[async_trait]
pub trait ResultStore: Send + Sync {
    /// Writes `prefix/name` atomically and gives its URL; replaces an object of that name.
    async fn write(&self, prefix: &str, name: &str, bytes: Vec<u8>) -> Result<String, Error>;

    /// Reads the whole object.
    async fn read(&self, url: &str) -> Result<Vec<u8>, Error>;

    /// Removes an object; a missing one counts as removed.
    async fn remove(&self, url: &str) -> Result<(), Error>;

    /// Lists the URLs of all objects in `prefix/folder`.
    async fn list(&self, prefix: &str, folder: &str) -> Result<Vec<String>, Error>;
}

/// Files and object stores, below the roots that jobs may touch. The places come from documents and
/// from the ledger.
#[derive(Default)]
pub(crate) struct Files(pub(crate) AllowedRoots);

#[async_trait]
impl ResultStore for Files {
    async fn write(&self, prefix: &str, name: &str, bytes: Vec<u8>) -> Result<String, Error> {
        self.0.check_prefix(prefix).await?;
        longshore_storage::write(prefix, name, bytes).await
    }

    async fn read(&self, url: &str) -> Result<Vec<u8>, Error> {
        self.0.check(url).await?;
        longshore_storage::read(url).await
    }

    async fn remove(&self, url: &str) -> Result<(), Error> {
        self.0.check(url).await?;
        longshore_storage::remove(url).await
    }

    async fn list(&self, prefix: &str, folder: &str) -> Result<Vec<String>, Error> {
        self.0.check_prefix(prefix).await?;
        longshore_storage::list(prefix, folder).await
    }
}

/// The name of the object with the results of the subtasks `from..to`, written by one claim.
pub(crate) fn name(job: JobId, from: u64, to: u64, token: Token) -> String {
    format!("{job}/{from:013}-{to:013}-{token}.jsonl")
}

/// Whether a URL is that of a result object, or of one whose write never ended (a hidden file with
/// a longer name). No other object is ever removed.
pub(crate) fn is_result(url: &str) -> bool {
    let name = url.rsplit('/').next().unwrap_or_default();
    let name = name.strip_prefix('.').unwrap_or(name);
    let Some((stem, _)) = name.split_once(".jsonl") else { return false };
    let parts: Vec<&str> = stem.split('-').collect();
    let is_number = |text: &str| text.len() >= 13 && text.bytes().all(|b| b.is_ascii_digit());
    let is_token = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(parts[..], [from, to, token] if is_number(from) && is_number(to) && is_token(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_never_share_a_name_and_only_such_names_are_ours() {
        let job = JobId::from_uuid(uuid::Uuid::nil());
        let of = |token: u8| name(job, 7, 256, Token::from_bytes([token; 16]));
        assert_ne!(of(1), of(2));
        let ours = of(1);
        let (folder, file) = ours.split_once('/').expect("a folder for each job");
        for url in [
            format!("file:///r/{ours}"),
            format!("s3://b/{ours}"),
            format!("file:///r/{folder}/.{file}.12-3"),
        ] {
            assert!(is_result(&url), "{url}");
        }
        for url in ["s3://b/notes.jsonl", "s3://b/0000000000007-0000000000256.jsonl", "file:///r/"]
        {
            assert!(!is_result(url), "{url}");
        }
    }
}
