//! The client of an S3 bucket, and globs over its keys; an error in builds without S3.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use crate::expand::Found;
use crate::{Error, check, local, walk};

#[cfg(feature = "s3")]
pub(crate) use with_s3::bucket;

#[cfg(feature = "s3")]
mod with_s3 {
    use std::collections::HashMap;
    use std::sync::{Arc, LazyLock, Mutex, PoisonError};
    use std::time::Duration;

    use object_store::aws::AmazonS3Builder;
    use object_store::{ObjectStore, RetryConfig};

    use crate::Error;

    /// How long the client repeats a request by itself. Short, because the callers repeat it, too,
    /// and report that they do.
    const RETRY_FOR: Duration = Duration::from_secs(20);

    /// One client for each bucket, for the life of the process, because clients keep their
    /// connections open.
    static BUCKETS: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> =
        LazyLock::new(Mutex::default);

    /// The client of an S3 bucket, configured by the `AWS_*` environment variables.
    pub(crate) fn bucket(name: &str) -> Result<Arc<dyn ObjectStore>, Error> {
        let mut buckets = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = buckets.get(name) {
            return Ok(Arc::clone(store));
        }
        longshore_tls::install_crypto_provider();
        let retry =
            RetryConfig { max_retries: 5, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(name)
            .with_retry(retry)
            .build()
            .map_err(|error| Error::from_store(&format!("s3://{name}"), &error))?;
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        buckets.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// Refuses every bucket, because this build has no client for S3.
#[cfg(not(feature = "s3"))]
pub(crate) fn bucket(name: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    Err(Error::NoS3 { url: format!("s3://{name}") })
}

/// Converts a key to a path of the client.
pub(crate) fn path(url: &str, key: &str) -> Result<Path, Error> {
    Path::parse(key)
        .map_err(|error| Error::BadUrl { url: url.to_owned(), reason: error.to_string() })
}

/// Adds the objects whose key matches `glob`. Lists only the keys below the literal directories of
/// the glob.
pub(crate) async fn expand(
    store: &Arc<dyn ObjectStore>,
    bucket: &str,
    glob: &str,
    found: &mut Found,
    deadline: Instant,
) -> Result<(), Error> {
    let url = format!("s3://{bucket}/{glob}");
    let failed = |error: object_store::Error| Error::from_store(&url, &error);
    let Some(special) = glob.find(['*', '?', '[']) else {
        return match store.head(&path(&url, glob)?).await {
            Ok(object) => found.add(check::input_file(url.clone(), &object)),
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        };
    };
    // As with files, the name of an existing object means that object. Other errors show in the
    // list.
    if let Ok(key) = Path::parse(glob)
        && let Ok(object) = store.head(&key).await
    {
        return found.add(check::input_file(url.clone(), &object));
    }
    // Matched part by part, like file names: matching a whole key can take exponential time.
    let parts = local::parts(glob, &url)?;
    // The client lists whole directories only, so the prefix ends at the last slash before a
    // wildcard.
    let directory = glob[..special].rfind('/').map_or("", |slash| &glob[..slash]);
    let directory = path(&url, directory)?;
    let mut objects = store.list(Some(&directory));
    let mut seen = 0;
    loop {
        let next = tokio::time::timeout(walk::STALL, objects.try_next()).await;
        let listed = next.map_err(|_| walk::stalled(&url))?.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Error::NoBucket { path: url.clone() },
            error => failed(error),
        })?;
        let Some(object) = listed else { return Ok(()) };
        seen += 1;
        if seen > walk::MAX_SEEN || Instant::now() >= deadline {
            return Err(Error::TooFar { glob: url, seen });
        }
        let key = object.location.as_ref();
        if local::matches(&parts, &key.split('/').collect::<Vec<_>>()) {
            found.add(check::input_file(format!("s3://{bucket}/{key}"), &object))?;
        }
    }
}
