//! Makes a document ready to be submitted: it gets an id, and absolute globs.

use bytes::Bytes;
use longshore_protocol::document::{JobDocument, MAX_DOCUMENT_BYTES, Split};
use longshore_protocol::{Digest, Invalid, JobId};
use uuid::Uuid;

use crate::SubmitError;

/// A document that is ready to be published.
pub(crate) struct Submission {
    pub(crate) job: JobId,
    pub(crate) digest: Digest,
    pub(crate) body: Bytes,
}

impl Submission {
    /// Gives the document an id if it has none, and makes its globs absolute.
    pub(crate) fn new(document: &JobDocument) -> Result<Self, SubmitError> {
        let mut document = document.clone();
        let job = *document.id.get_or_insert_with(|| JobId::from_uuid(Uuid::now_v7()));
        if let Split::Lines { files, .. } | Split::Files { files } = &mut document.split {
            for glob in files {
                *glob = longshore_storage::absolute(glob)?;
            }
        }
        let body = document.to_json();
        if body.len() > MAX_DOCUMENT_BYTES {
            return Err(SubmitError::Invalid(Invalid {
                place: "document".into(),
                found: format!("{} bytes", body.len()),
                allowed: format!("use at most {MAX_DOCUMENT_BYTES}"),
            }));
        }
        Ok(Self { job, digest: document.digest(), body: body.into() })
    }
}
