//! Answers of many lines of JSON (NDJSON), sent as fast as the client reads.
//!
//! A line is made when the one before has been taken, so a slow client slows down its own answer
//! and nothing else, and a client that went away ends it. An answer that can't be completed ends
//! with a broken connection, so that no client takes a part for the whole.

use std::io;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::refusal::Refusal;

/// The content type.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// The size from which a part of the answer is sent although more lines are ready.
const PART_BYTES: usize = 32 << 10;

/// Lines of an answer, each one JSON value without a line break.
pub(crate) type Lines = BoxStream<'static, Result<String, Refusal>>;

/// Marks an answer whose parts have to be sent at once, so that nothing between may collect them.
#[derive(Clone, Copy)]
pub(crate) struct Live;

/// A value as a line.
pub(crate) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("views are JSON")
}

/// An answer that is complete once its lines have ended. A failure in front of the first line is a
/// refusal.
pub(crate) async fn respond(
    mut lines: Lines,
    stop: CancellationToken,
) -> Result<Response, Refusal> {
    match lines.next().await {
        Some(Err(refusal)) => Err(refusal),
        Some(Ok(first)) => {
            let first = futures_util::stream::iter([Ok(first)]);
            Ok(streamed(first.chain(lines).boxed(), stop))
        }
        None => Ok(streamed(futures_util::stream::empty().boxed(), stop)),
    }
}

/// An answer that begins before its first line is known.
pub(crate) fn respond_live(lines: Lines, stop: CancellationToken) -> Response {
    let mut response = streamed(lines, stop);
    response.extensions_mut().insert(Live);
    // Asks a proxy not to collect the answer.
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn streamed(lines: Lines, stop: CancellationToken) -> Response {
    // Looked at again after its end.
    let lines = lines.fuse().boxed();
    let parts = try_unfold((lines, None), move |(mut lines, failed)| {
        let stop = stop.clone();
        async move {
            if let Some(refusal) = failed {
                return Err(broken(&refusal));
            }
            let next = tokio::select! {
                () = stop.cancelled() => return Err(io::Error::other("the server stops")),
                next = lines.next() => next,
            };
            Ok(part(next, &mut lines)
                .map_err(|refusal| broken(&refusal))?
                .map(|(bytes, failed)| (bytes, (lines, failed))))
        }
    });
    let mut response = Response::new(Body::from_stream(parts));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

/// The line and those that are ready behind it, and a failure that follows them.
type Part = Option<(Bytes, Option<Refusal>)>;

fn part(first: Option<Result<String, Refusal>>, lines: &mut Lines) -> Result<Part, Refusal> {
    let Some(first) = first else { return Ok(None) };
    let mut bytes = BytesMut::new();
    put(&mut bytes, &first?);
    while bytes.len() < PART_BYTES {
        match lines.next().now_or_never() {
            Some(Some(Ok(line))) => put(&mut bytes, &line),
            Some(Some(Err(refusal))) => return Ok(Some((bytes.freeze(), Some(refusal)))),
            // The end shows again with the next part.
            Some(None) | None => break,
        }
    }
    Ok(Some((bytes.freeze(), None)))
}

fn put(bytes: &mut BytesMut, line: &str) {
    bytes.put_slice(line.as_bytes());
    bytes.put_u8(b'\n');
}

fn broken(refusal: &Refusal) -> io::Error {
    debug!(detail = refusal.problem().detail, "an answer was broken off");
    io::Error::other("the answer can't be completed")
}
