//! The streams of a job: results, progress, and errors of subtasks.
//!
//! Each has a `next` of its own, so that a loop needs neither a trait nor pinning; each is a
//! `Stream` too.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use longshore_producer as producer;
use longshore_protocol as protocol;
use longshore_protocol::ErrorKind;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::bulk::BulkOutcome;
use crate::dead_letters::DeadLetterAnswer;
use crate::{Error, JobStatus, SubtaskError, SubtaskResult};

macro_rules! stream {
    ($(#[$doc:meta])* $name:ident $(<$parameter:ident>)? => $item:ty) => {
        $(#[$doc])*
        pub struct $name $(<$parameter>)? {
            inner: BoxStream<'static, Result<$item, Error>>,
        }

        impl $(<$parameter>)? $name $(<$parameter>)? {
            /// The next item; `None` at the end. After an error there are no more items.
            pub async fn next(&mut self) -> Option<Result<$item, Error>> {
                self.inner.next().await
            }
        }

        impl $(<$parameter>)? Stream for $name $(<$parameter>)? {
            type Item = Result<$item, Error>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.inner.poll_next_unpin(cx)
            }
        }

        impl $(<$parameter>)? fmt::Debug for $name $(<$parameter>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

stream! {
    /// The results of a job, in index order; see [`Job::results`](crate::Job::results).
    Results<T> => SubtaskResult<T>
}

stream! {
    /// The states of a job until its end; see [`Job::progress`](crate::Job::progress).
    Progress => JobStatus
}

stream! {
    /// The errors of the subtasks that failed for good; see [`Job::errors`](crate::Job::errors).
    SubtaskErrors => SubtaskError
}

stream! {
    /// What became of the jobs of a bulk action; see [`Client::bulk`](crate::Client::bulk).
    BulkOutcomes => BulkOutcome
}

stream! {
    /// What became of dead letters; see [`DeadLetters`](crate::DeadLetters).
    DeadLetterAnswers => DeadLetterAnswer
}

impl<T: DeserializeOwned + 'static> Results<T> {
    pub(crate) fn new(
        results: impl Stream<Item = Result<(u64, Box<RawValue>), producer::Error>> + Send + 'static,
    ) -> Self {
        let read = |result: Result<(u64, Box<RawValue>), producer::Error>| {
            let (index, text) = result?;
            let value = read(&text, || format!("the result of subtask {index}"))?;
            Ok::<_, Error>(SubtaskResult { index, value })
        };
        Self { inner: results.map(read).boxed() }
    }
}

impl Progress {
    pub(crate) fn new(job: &producer::Job) -> Self {
        Self { inner: job.progress().map(|report| Ok::<_, Error>(report?.into())).boxed() }
    }
}

impl SubtaskErrors {
    pub(crate) fn new(job: &producer::Job) -> Self {
        Self { inner: job.errors().map(|entry| Ok::<_, Error>(entry?.into())).boxed() }
    }
}

impl BulkOutcomes {
    pub(crate) fn new(
        outcomes: BoxStream<'static, Result<protocol::BulkOutcome, producer::Error>>,
    ) -> Self {
        Self { inner: outcomes.map(|outcome| Ok::<_, Error>(outcome?.into())).boxed() }
    }
}

impl DeadLetterAnswers {
    pub(crate) fn new(
        answers: BoxStream<'static, Result<protocol::DeadLetterAnswer, producer::DeadLetterError>>,
    ) -> Self {
        Self { inner: answers.map(|answer| Ok::<_, Error>(answer?.into())).boxed() }
    }
}

/// Reads a result as a type of Rust.
pub(crate) fn read<T: DeserializeOwned>(
    text: &RawValue,
    what: impl Fn() -> String,
) -> Result<T, Error> {
    serde_json::from_str(text.get()).map_err(|error| {
        let text = format!("{} is not a {}: {error}", what(), std::any::type_name::<T>());
        Error::new(ErrorKind::BadInput, text)
    })
}
