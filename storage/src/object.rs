//! Object stores: which client serves a bucket, and globs over keys.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::time::Instant;

use crate::expand::Found;
use crate::{Error, check, local, walk};

/// How long the client tries again by itself. Short: whoever asked has retries of its own, and says so to people.
const RETRY_FOR: Duration = Duration::from_secs(20);

/// Clients keep connections alive, so there is one a bucket for the life of the process.
static BUCKETS: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> =
    LazyLock::new(Mutex::default);

/// The client of an S3 bucket, set up from the `AWS_*` environment.
pub(crate) fn bucket(name: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let mut buckets = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = buckets.get(name) {
        return Ok(Arc::clone(store));
    }
    let retry = RetryConfig { max_retries: 5, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_retry(retry)
        .build()
        .map_err(|error| Error::from_store(&format!("s3://{name}"), &error))?;
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    buckets.insert(name.to_owned(), Arc::clone(&store));
    Ok(store)
}

/// A key as the client wants it.
pub(crate) fn path(url: &str, key: &str) -> Result<Path, Error> {
    Path::parse(key)
        .map_err(|error| Error::BadUrl { url: url.to_owned(), reason: error.to_string() })
}

/// Adds the objects whose key matches `glob`. Lists only what shares the glob's literal directories.
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
    // As with files: whoever names an object that is there means that object. Whatever else is wrong shows in the list.
    if let Ok(key) = Path::parse(glob)
        && let Ok(object) = store.head(&key).await
    {
        return found.add(check::input_file(url.clone(), &object));
    }
    // Part by part, like the names of files: a whole key can cost the pattern time without end.
    let parts = local::parts(glob, &url)?;
    // The client lists whole directories only, so the prefix ends at the last slash before the first wildcard.
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
