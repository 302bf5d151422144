//! Reads bytes of one file or object at any offset.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::location::Location;
use crate::{Error, object};

/// An open file, or an object.
pub(crate) struct Source {
    /// The path or URL, for errors.
    name: String,
    kind: Kind,
}

enum Kind {
    File(Arc<File>),
    Object(Arc<dyn ObjectStore>, Path),
}

impl Source {
    /// Opens a path or URL.
    pub(crate) async fn open(name: &str) -> Result<Self, Error> {
        let kind = match Location::parse(name)? {
            Location::Local(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| Error::from_io(name, &error))?;
                Kind::File(Arc::new(file.into_std().await))
            }
            Location::S3 { bucket, key } => {
                Kind::Object(object::bucket(bucket)?, object::path(name, key)?)
            }
        };
        Ok(Self { name: name.to_owned(), kind })
    }

    /// The path or URL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads `len` > 0 bytes from `offset`; fewer only at the end of the file, none beyond it.
    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Error> {
        match &self.kind {
            Kind::File(file) => {
                let file = Arc::clone(file);
                let read = tokio::task::spawn_blocking(move || read_file(&file, offset, len));
                let read = read.await.expect("reading does not panic");
                read.map(Bytes::from).map_err(|error| Error::from_io(&self.name, &error))
            }
            Kind::Object(store, path) => self.read_object(store, path, offset, len).await,
        }
    }

    async fn read_object(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, Error> {
        let failed = |error: object_store::Error| Error::from_store(&self.name, &error);
        let range = GetRange::Bounded(offset..offset + len as u64);
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        match store.get_opts(path, options).await {
            Ok(found) => found.bytes().await.map_err(failed),
            // A range at or beyond the end is an error that each store words differently; the size
            // decides.
            Err(error) => match store.head(path).await {
                Ok(object) if object.size <= offset => Ok(Bytes::new()),
                Ok(_) => Err(failed(error)),
                Err(missing) => Err(failed(missing)),
            },
        }
    }
}

fn read_file(file: &File, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
impl Source {
    /// An object of a given store.
    pub(crate) fn object(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { name: path.to_string(), kind: Kind::Object(store, path) }
    }
}
