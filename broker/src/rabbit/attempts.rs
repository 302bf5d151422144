//! One try after the other to consume a queue: waits for a session, says once what is wrong, and pauses ever longer until it
//! flows.
//!
//! Deliberately absent: how a queue is consumed, which is the feed's and the journal reader's.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Queue;

use super::failure::Failure;
use super::link::{Backoff, Follower};
use super::session::Session;

/// The tries of one consumer.
pub(crate) struct Attempts {
    queue: Queue,
    link: Follower,
    closing: CancellationToken,
    backoff: Backoff,
    /// What is wrong, since it flowed last.
    trouble: Option<String>,
    /// Before the next try.
    pause: Duration,
}

impl Attempts {
    pub(crate) fn new(queue: Queue, link: Follower, closing: CancellationToken) -> Self {
        let (backoff, trouble, pause) = (Backoff::new(), None, Duration::ZERO);
        Self { queue, link, closing, backoff, trouble, pause }
    }

    /// The session to try it on; `None` once the broker is being closed, or nobody wants it any more.
    pub(crate) async fn next(
        &mut self,
        unwanted: impl Future<Output = ()>,
    ) -> Option<Arc<Session>> {
        let session = async {
            sleep(std::mem::take(&mut self.pause)).await;
            self.link.up().await
        };
        tokio::select! {
            session = session => session,
            () = self.closing.cancelled() => None,
            () = unwanted => None,
        }
    }

    /// It is consumed: the next failure is a new one.
    pub(crate) fn flows(&mut self) {
        self.backoff = Backoff::new();
        if self.trouble.take().is_some() {
            info!(queue = ?self.queue, "consuming again");
        }
    }

    /// It failed. One line for each new trouble; the session's own end is the link's to report.
    pub(crate) fn failed(&mut self, session: &Session, failure: &Failure) {
        let (queue, text) = (&self.queue, failure.to_string());
        match failure {
            // A queue whose leader is lost answers no declaration; other queues must not suffer for it.
            Failure::Refused { .. } | Failure::TimedOut { .. } if !session.is_over() => {
                if self.trouble.as_ref() != Some(&text) {
                    warn!(?queue, reason = text, "can't consume, trying again");
                }
            }
            _ => {
                debug!(?queue, reason = text, "the stream of deliveries ended");
                session.fail(text.clone());
            }
        }
        self.trouble = Some(text);
        self.pause = self.backoff.pause();
    }
}
