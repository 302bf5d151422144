//! Submitting many documents, one a line, with one outcome a line, in the order of the documents.
//!
//! The body is read as outcomes are taken, and a bounded number of documents is in flight at a
//! time: a batch of any length takes constant memory. An outcome does not stop the batch, except
//! of a line that is too long or a body that ends early, behind which no line can be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{Stream, unfold};
use longshore_protocol::ErrorKind;
use longshore_protocol::wire::SubmitOutcome;

use super::Outcome;
use super::submit::{Submitted, submit_one};
use crate::call::Call;
use crate::lines::{self, line};
use crate::refusal::Refusal;
use crate::router::Target;

/// The documents of a batch that are in flight at a time. They arrive at a scheduler together,
/// which admits them together.
const AT_ONCE: usize = 64;

/// The longest line. Larger documents are submitted one by one.
const MAX_LINE: usize = 1 << 20;

pub(crate) async fn submit(mut call: Call, within: Duration) -> Outcome {
    let body = std::mem::take(call.body.get_mut());
    let (shared, caller) = (Arc::clone(&call.shared), call.caller.clone());
    let stop = shared.stop.clone();
    let number = AtomicU64::new(0);
    let outcomes = documents(body, shared.limits.body_within)
        .map(move |document| {
            let (shared, caller) = (Arc::clone(&shared), caller.clone());
            let number = number.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                let submitted = match document {
                    Ok(bytes) => submit_one(&shared, &caller, &bytes, within).await,
                    Err(refusal) => Err(refusal),
                };
                Ok(line(&outcome(number, submitted)))
            }
        })
        .buffered(AT_ONCE);
    let mut response = lines::respond_live(outcomes.boxed(), stop);
    response.extensions_mut().insert(Target("/v1/jobs (a batch)".into()));
    Ok(response)
}

fn outcome(line: u64, submitted: Result<Submitted, Refusal>) -> SubmitOutcome {
    match submitted {
        Ok(submitted) => SubmitOutcome {
            line,
            status: submitted.status().as_u16(),
            id: Some(submitted.job()),
            problem: None,
        },
        Err(refusal) => {
            let problem = refusal.problem().clone();
            let (status, id) = (refusal.status().as_u16(), problem.job);
            SubmitOutcome { line, status, id, problem: Some(problem) }
        }
    }
}

/// Reads the lines of a body that are not empty.
struct LineReader {
    body: BodyDataStream,
    read: BytesMut,
    /// The part of `read` that is known to hold no line break.
    searched: usize,
    has_ended: bool,
    /// The longest wait for the next part.
    next_within: Duration,
}

fn documents(
    body: Body,
    next_within: Duration,
) -> impl Stream<Item = Result<Bytes, Refusal>> + Send {
    let (body, read) = (body.into_data_stream(), BytesMut::new());
    let reader = LineReader { body, read, searched: 0, has_ended: false, next_within };
    unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(document)) => Some((Ok(document), Some(reader))),
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal), None)),
        }
    })
}

impl LineReader {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let found = self.read[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let document = self.read.split_to(self.searched + at).freeze();
                self.read.advance(1);
                self.searched = 0;
                if !document.trim_ascii().is_empty() {
                    return Ok(Some(document));
                }
                continue;
            }
            self.searched = self.read.len();
            if self.searched > MAX_LINE {
                return Err(too_long());
            }
            if self.has_ended {
                self.searched = 0;
                let document = self.read.split().freeze();
                return Ok((!document.trim_ascii().is_empty()).then_some(document));
            }
            match tokio::time::timeout(self.next_within, self.body.next()).await {
                Err(_) => return Err(Refusal::too_slow()),
                Ok(None) => self.has_ended = true,
                Ok(Some(Ok(part))) => self.read.extend_from_slice(&part),
                Ok(Some(Err(_))) => return Err(cut()),
            }
        }
    }
}

fn too_long() -> Refusal {
    let detail = format!(
        "a line of a batch is longer than {MAX_LINE} bytes; submit larger documents one by one"
    );
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::BadInput, detail)
}

fn cut() -> Refusal {
    let detail = "the body ended early; the lines before are submitted";
    Refusal::new(StatusCode::BAD_REQUEST, ErrorKind::BadInput, detail)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;

    use super::*;

    async fn read(parts: &[&str]) -> Vec<Result<String, u16>> {
        let parts: Vec<io::Result<Bytes>> =
            parts.iter().map(|part| Ok(Bytes::copy_from_slice(part.as_bytes()))).collect();
        let body = Body::from_stream(futures_util::stream::iter(parts));
        let documents: Pin<Box<dyn Stream<Item = _> + Send>> =
            Box::pin(documents(body, Duration::from_secs(5)));
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        documents
            .map(|document| document.map(text).map_err(|refusal| refusal.status().as_u16()))
            .collect()
            .await
    }

    #[tokio::test]
    async fn lines_are_read_however_the_body_is_cut() {
        let ok =
            |lines: &[&str]| lines.iter().map(|line| Ok((*line).to_owned())).collect::<Vec<_>>();
        assert_eq!(read(&["{}\n{\"a\":1}\n"]).await, ok(&["{}", "{\"a\":1}"]));
        assert_eq!(read(&["{", "}", "\n\n \r\n{", "1}"]).await, ok(&["{}", "{1}"]));
        assert_eq!(read(&["", "\n"]).await, ok(&[]));
        assert_eq!(read(&[]).await, ok(&[]));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_ends_the_batch() {
        let long = "x".repeat(MAX_LINE + 1);
        let found = read(&["1\n", &long, "\n2\n"]).await;
        assert_eq!(found, [Ok("1".to_owned()), Err(413)]);
    }
}
