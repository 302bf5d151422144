//! Streams the lines of an answer, and goes on behind the last one after a broken connection.
//!
//! A line is read when it is asked for, so a reader that is slow slows down the server, and memory
//! does not grow with the answer. A server ends an answer that it can't complete with a broken
//! connection; then the reason shows when the rest is asked for.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use longshore_protocol::ErrorEntry;
use reqwest::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::request::Request;
use super::{Server, ServerError};
use crate::timers::{OutageTimer, PollInterval};

/// The most bytes of a line: more than a result can have.
const MAX_LINE: usize = 256 << 20;

/// The longest silence of a server in the middle of an answer that is complete.
const SILENCE: Duration = Duration::from_secs(60);

/// A line that knows its place among the others.
pub(super) trait Indexed: DeserializeOwned + Send + 'static {
    fn index(&self) -> u64;
}

/// A result of a subtask.
#[derive(Deserialize)]
pub(super) struct ResultLine {
    pub(super) index: u64,
    pub(super) result: Box<RawValue>,
}

impl Indexed for ResultLine {
    fn index(&self) -> u64 {
        self.index
    }
}

impl Indexed for ErrorEntry {
    fn index(&self) -> u64 {
        self.index
    }
}

/// The items from an index on. `request` asks for those from an index on.
pub(super) fn resumed<T: Indexed>(
    server: Server,
    from: u64,
    silence: Option<Duration>,
    request: impl Fn(u64) -> Request + Send + 'static,
) -> BoxStream<'static, Result<T, ServerError>> {
    let reader = Reader { server, request, next: from, silence, lines: None };
    try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|item| (item, reader))) },
    )
    .boxed()
}

/// The items of an answer that can't be asked for again.
pub(super) fn once<T: DeserializeOwned + Send + 'static>(
    server: Server,
    request: Request,
) -> BoxStream<'static, Result<T, ServerError>> {
    try_unfold((server, request, None), |(server, request, lines)| async move {
        let mut lines = match lines {
            Some(lines) => lines,
            None => Lines::new(server.open(&request).await?, None),
        };
        Ok(lines.next(&server).await?.map(|item| (item, (server, request, Some(lines)))))
    })
    .boxed()
}

/// The usual silence of an answer that the server gives as fast as it can.
pub(super) fn usual_silence() -> Option<Duration> {
    Some(SILENCE)
}

struct Reader<F> {
    server: Server,
    request: F,
    /// The index behind the last item.
    next: u64,
    silence: Option<Duration>,
    lines: Option<Lines>,
}

impl<F: Fn(u64) -> Request> Reader<F> {
    async fn next<T: Indexed>(&mut self) -> Result<Option<T>, ServerError> {
        let (mut outage, mut interval) = (OutageTimer::default(), PollInterval::new());
        loop {
            let item = match &mut self.lines {
                Some(lines) => lines.next::<T>(&self.server).await,
                None => {
                    let opened = self.server.open(&(self.request)(self.next)).await;
                    match opened {
                        Ok(response) => {
                            self.lines = Some(Lines::new(response, self.silence));
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match item {
                Ok(Some(item)) => {
                    self.next = item.index() + 1;
                    return Ok(Some(item));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.lines = None;
                    outage.tolerate::<(), _>(Err(error))?;
                    tokio::time::sleep(interval.next()).await;
                }
            }
        }
    }
}

/// An answer that is being read.
struct Lines {
    response: Response,
    read: BytesMut,
    /// The part of `read` that is known to hold no line break.
    searched: usize,
    silence: Option<Duration>,
}

impl Lines {
    fn new(response: Response, silence: Option<Duration>) -> Self {
        Self { response, read: BytesMut::new(), searched: 0, silence }
    }

    /// The next line that is not empty; `None` at the end.
    async fn next<T: DeserializeOwned>(
        &mut self,
        server: &Server,
    ) -> Result<Option<T>, ServerError> {
        loop {
            let found = self.read[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let line = self.read.split_to(self.searched + at);
                self.read.advance(1);
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let item = serde_json::from_slice(&line);
                return item.map(Some).map_err(|error| ServerError::unreadable(server, &error));
            }
            self.searched = self.read.len();
            if self.searched > MAX_LINE {
                return Err(ServerError::too_large(server, MAX_LINE));
            }
            match self.chunk(server).await? {
                true => {}
                false if self.read.trim_ascii().is_empty() => return Ok(None),
                false => return Err(ServerError::cut(server, "ended an answer within a line")),
            }
        }
    }

    /// Reads more of the answer; `false` at its end.
    async fn chunk(&mut self, server: &Server) -> Result<bool, ServerError> {
        let chunk = match self.silence {
            None => self.response.chunk().await,
            Some(longest) => match tokio::time::timeout(longest, self.response.chunk()).await {
                Ok(chunk) => chunk,
                Err(_) => {
                    return Err(ServerError::cut(server, "stopped in the middle of an answer"));
                }
            },
        };
        let chunk = chunk.map_err(|error| ServerError::no_answer(server, &error))?;
        if let Some(chunk) = &chunk {
            self.read.extend_from_slice(chunk);
        }
        Ok(chunk.is_some())
    }
}
