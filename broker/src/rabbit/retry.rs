//! Decides when a consumer or a journal reader tries again, and which of its failures are logged.
//!
//! It waits for a session, logs each new failure once, and pauses longer after each failure until
//! consuming succeeds.
//!
//! Deliberately absent: consuming itself, which is the consumer's and the journal reader's.

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::Backoff;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Queue;

use super::failure::Failure;
use super::link::{Follower, backoff};
use super::session::Session;

/// The attempts of one consumer.
pub(crate) struct ConsumeRetry {
    queue: Queue,
    link: Follower,
    closing: CancellationToken,
    backoff: Backoff,
    /// The last failure since consuming succeeded.
    failure: Option<String>,
    /// The pause before the next attempt.
    pause: Duration,
}

impl ConsumeRetry {
    pub(crate) fn new(queue: Queue, link: Follower, closing: CancellationToken) -> Self {
        let (backoff, failure, pause) = (backoff(), None, Duration::ZERO);
        Self { queue, link, closing, backoff, failure, pause }
    }

    /// The session for the next attempt; `None` once the broker is being closed, or `dropped` has
    /// come about: the subscription was dropped.
    pub(crate) async fn next_session(
        &mut self,
        dropped: impl Future<Output = ()>,
    ) -> Option<Arc<Session>> {
        let session = async {
            sleep(std::mem::take(&mut self.pause)).await;
            self.link.up().await
        };
        tokio::select! {
            session = session => session,
            () = self.closing.cancelled() => None,
            () = dropped => None,
        }
    }

    /// The queue is being consumed; the next failure is a new one.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
        if self.failure.take().is_some() {
            info!(queue = ?self.queue, "consuming again");
        }
    }

    /// The attempt failed. Each new failure is logged once; the end of the session itself is logged
    /// by the link.
    pub(crate) fn failed(&mut self, session: &Session, failure: &Failure) {
        let (queue, text) = (&self.queue, failure.to_string());
        match failure {
            // A queue whose leader is lost answers no declaration; the other queues of the session
            // must not suffer.
            Failure::Refused { .. } | Failure::TimedOut { .. } if !session.is_over() => {
                if self.failure.as_ref() != Some(&text) {
                    warn!(?queue, reason = text, "can't consume; trying again");
                }
            }
            _ => {
                debug!(?queue, reason = text, "the stream of deliveries ended");
                session.fail(failure.clone());
            }
        }
        self.failure = Some(text);
        self.pause = self.backoff.next_jittered(rand::random());
    }
}
