//! Reads, writes, lists and removes whole files and objects.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::location::Location;
use crate::{Error, object};

/// Numbers the unfinished files of this process; their names also hold the process id.
static UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// Reads a whole file or object.
pub async fn read(place: &str) -> Result<Vec<u8>, Error> {
    match Location::parse(place)? {
        Location::Local(path) => {
            tokio::fs::read(path).await.map_err(|error| Error::from_io(place, &error))
        }
        Location::S3 { bucket, key } => {
            let failed = |error: object_store::Error| Error::from_store(place, &error);
            let store = object::bucket(bucket)?;
            let found = store.get(&object::path(place, key)?).await.map_err(failed)?;
            Ok(found.bytes().await.map_err(failed)?.to_vec())
        }
    }
}

/// Writes `prefix/name` and returns its URL. Readers see the old content or the whole new one.
/// Directories are created as needed. `name` may hold slashes.
pub async fn write(prefix: &str, name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    let place = format!("{}/{name}", prefix.trim_end_matches('/'));
    match Location::parse(&place)? {
        Location::Local(path) => {
            let path = std::path::absolute(path).map_err(|error| Error::from_io(path, &error))?;
            let url = format!("file://{}", path.display());
            let write = tokio::task::spawn_blocking(move || {
                replace(&path, &bytes)
                    .map_err(|error| Error::from_io(&path.to_string_lossy(), &error))
            });
            write.await.expect("writing does not panic")?;
            Ok(url)
        }
        Location::S3 { bucket, key } => {
            let store = object::bucket(bucket)?;
            let put = store.put(&object::path(&place, key)?, bytes.into()).await;
            put.map_err(|error| Error::from_store(&place, &error))?;
            Ok(place)
        }
    }
}

/// Removes a file or object. A missing one is no error.
pub async fn remove(place: &str) -> Result<(), Error> {
    let removed = match Location::parse(place)? {
        Location::Local(path) => {
            tokio::fs::remove_file(path).await.map_err(|error| Error::from_io(place, &error))
        }
        Location::S3 { bucket, key } => {
            let store = object::bucket(bucket)?;
            let deleted = store.delete(&object::path(place, key)?).await;
            deleted.map_err(|error| Error::from_store(place, &error))
        }
    };
    match removed {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// Lists the URLs of the files or objects in `prefix/folder`, including files whose write did not
/// end. Empty if there is no such folder.
pub async fn list(prefix: &str, folder: &str) -> Result<Vec<String>, Error> {
    let place = format!("{}/{folder}", prefix.trim_end_matches('/'));
    match Location::parse(&place)? {
        Location::Local(path) => {
            let path = std::path::absolute(path).map_err(|error| Error::from_io(path, &error))?;
            let list = tokio::task::spawn_blocking(move || {
                names(&path).map_err(|error| Error::from_io(&path.to_string_lossy(), &error))
            });
            match list.await.expect("listing does not panic") {
                Err(Error::NotFound { .. }) => Ok(Vec::new()),
                other => other,
            }
        }
        Location::S3 { bucket, key } => {
            let store = object::bucket(bucket)?;
            let objects = store.list(Some(&object::path(&place, key)?));
            let urls = objects.map_ok(|object| format!("s3://{bucket}/{}", object.location));
            urls.try_collect().await.map_err(|error| Error::from_store(&place, &error))
        }
    }
}

/// Lists the URLs of the entries of a directory, except names that are not UTF-8, which `write`
/// never creates.
fn names(directory: &std::path::Path) -> std::io::Result<Vec<String>> {
    let mut urls = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        if let Some(path) = entry?.path().to_str() {
            urls.push(format!("file://{path}"));
        }
    }
    Ok(urls)
}

/// Writes a temporary file in the same directory and renames it, which is atomic.
fn replace(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let number = UNFINISHED.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.{}-{number}", std::process::id()));
    let written = std::fs::File::create(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    });
    if written.is_err() {
        // The first error matters; a leftover file is hidden and harmless.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expand::tests::block_on;

    #[test]
    fn written_bytes_are_read_back_under_their_url() {
        let root = tempfile::tempdir().unwrap();
        for prefix in
            [format!("file://{}/out/", root.path().display()), root.path().display().to_string()]
        {
            let url = block_on(write(&prefix, "job/7.jsonl", b"{}\n".to_vec())).unwrap();
            assert!(url.starts_with("file:///") && url.ends_with("/job/7.jsonl"), "{url}");
            block_on(write(&prefix, "job/7.jsonl", b"[]\n".to_vec())).unwrap();
            assert_eq!(block_on(read(&url)).unwrap(), b"[]\n");
        }
        let left = std::fs::read_dir(root.path().join("out/job")).unwrap().count();
        assert_eq!(left, 1, "no unfinished file stays behind");
    }

    #[test]
    fn written_files_are_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let prefix = format!("file://{}/out/", root.path().display());
        assert_eq!(block_on(list(&prefix, "job")).unwrap(), Vec::<String>::new());
        let url = block_on(write(&prefix, "job/7.jsonl", b"{}\n".to_vec())).unwrap();
        assert_eq!(block_on(list(&prefix, "job")).unwrap(), std::slice::from_ref(&url));
        block_on(remove(&url)).unwrap();
        assert_eq!(block_on(list(&prefix, "job")).unwrap(), Vec::<String>::new());
        block_on(remove(&url)).expect("it is gone, which is what was asked for");
    }

    #[test]
    fn a_location_that_can_not_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let prefix = file.path().to_str().unwrap();
        let error = block_on(write(prefix, "x", Vec::new())).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{prefix}/x: ")), "{error}");
        assert_eq!(block_on(read("/no/such")).unwrap_err().to_string(), "/no/such: no such file");
    }
}
