//! Checks that a file or object has the size and version of the manifest of a job.
//!
//! Deliberately absent: the content. A change that keeps the size, within one tick of the file
//! system's clock, is not noticed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use longshore_protocol::InputFile;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::location::Location;
use crate::{Error, object};

/// Fails unless size and version are those of the manifest. Follows links, as readers do.
pub async fn check(file: &InputFile) -> Result<(), Error> {
    let found = match Location::parse(&file.path)? {
        Location::Local(path) => {
            let metadata = tokio::fs::metadata(path).await;
            let metadata = metadata.map_err(|error| Error::from_io(&file.path, &error))?;
            let (size, version) = (metadata.len(), Some(changed_at(&metadata)));
            InputFile { path: file.path.clone(), size, version }
        }
        Location::S3 { bucket, key } => {
            let key = object::path(&file.path, key)?;
            look(&object::bucket(bucket)?, &file.path, &key).await?
        }
    };
    compare(file, &found)
}

async fn look(store: &Arc<dyn ObjectStore>, url: &str, key: &Path) -> Result<InputFile, Error> {
    let object = store.head(key).await.map_err(|error| Error::from_store(url, &error))?;
    Ok(input_file(url.to_owned(), &object))
}

fn compare(expected: &InputFile, found: &InputFile) -> Result<(), Error> {
    // An old manifest, or a store without versions.
    let is_same = expected.version == found.version || expected.version.is_none();
    if expected.size == found.size && is_same {
        return Ok(());
    }
    let path = expected.path.clone();
    Err(Error::Changed { path, expected: describe(expected), found: describe(found) })
}

fn describe(file: &InputFile) -> String {
    match &file.version {
        Some(version) => format!("{} bytes of {version}", file.size),
        None => format!("{} bytes", file.size),
    }
}

/// The version of a file: its modification time in nanoseconds, `mtime 1764479666.000000001`.
pub(crate) fn changed_at(metadata: &Metadata) -> String {
    format!("mtime {}.{:09}", metadata.mtime(), metadata.mtime_nsec())
}

/// The entry of a manifest for an object.
pub(crate) fn input_file(path: String, object: &ObjectMeta) -> InputFile {
    let version = object.e_tag.as_ref().map(|tag| format!("ETag {tag}"));
    InputFile { path, size: object.size, version }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use object_store::memory::InMemory;

    use super::*;
    use crate::expand::tests::{block_on, everywhere};

    /// The error for a file of three bytes after `change`.
    #[track_caller]
    fn said(change: impl FnOnce(&std::path::Path)) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.txt");
        fs::write(&path, "abc").unwrap();
        let file = fs::File::open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(7, 8)).unwrap();
        let manifest = block_on(everywhere(&[path.to_str().unwrap().to_owned()])).unwrap();
        change(&path);
        let error = block_on(check(&manifest.files[0])).err()?;
        Some(error.to_string().replace(path.to_str().unwrap(), "a.txt"))
    }

    #[track_caller]
    fn is_refused(change: impl FnOnce(&std::path::Path)) {
        let said = said(change).expect("it has changed");
        assert!(
            said.starts_with("a.txt: has changed since the job was admitted: it has "),
            "{said}"
        );
        assert!(said.contains(", and had 3 bytes of mtime 7.000000008; "), "{said}");
    }

    #[test]
    fn a_file_that_was_touched_extended_truncated_or_replaced_has_changed() {
        assert_eq!(said(|_| ()), None);
        assert_eq!(said(|path| drop(fs::read(path).unwrap())), None, "reading changes nothing");
        is_refused(|path| fs::write(path, "abcd").unwrap());
        is_refused(|path| fs::write(path, "ab").unwrap());
        is_refused(|path| fs::write(path, "xyz").unwrap());
        is_refused(|path| {
            let other = path.with_extension("new");
            fs::write(&other, "xyz").unwrap();
            fs::rename(other, path).unwrap();
        });
        let gone = said(|path| fs::remove_file(path).unwrap());
        assert_eq!(gone.as_deref(), Some("a.txt: no such file"));
    }

    #[test]
    fn an_object_is_identified_by_its_etag() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (key, url) = (Path::from("in/a.txt"), "s3://bkt/in/a.txt");
        block_on(async {
            store.put(&key, "abc".into()).await.unwrap();
            let admitted = look(&store, url, &key).await.unwrap();
            assert!(admitted.version.is_some(), "{admitted:?}");
            compare(&admitted, &look(&store, url, &key).await.unwrap()).expect("the same object");
            store.put(&key, "xyz".into()).await.unwrap();
            let found = look(&store, url, &key).await.unwrap();
            let error = compare(&admitted, &found).expect_err("it was replaced");
            assert!(error.is_permanent() && error.is_users_fault(), "{error}");
        });
    }
}
