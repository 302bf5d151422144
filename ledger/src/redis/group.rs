//! Batches calls of one function about one job that arrive while such a call is in flight.
//!
//! They are sent together as the next call, so that Redis reads and writes the job's counts once
//! for all of them. A call that arrives alone is sent at once; after a large batch the next one
//! waits a moment for more calls, since the fixed cost of a call, on both sides, is that of five of
//! its parts.
//!
//! Deliberately absent: order. A caller that needs one answer before its next call has waited for
//! it.

use std::collections::HashMap;
use std::time::Duration;

use longshore_protocol::{ErrorKind, JobId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::RedisLedger;
use super::call::{Arguments, Call};
use super::reply::{Reply, corrupt};
use crate::Error;

/// After a batch of this many parts the next one waits for more, unless it was as large as allowed.
const MANY: usize = 4;

/// How long a batch waits for more parts.
const LINGER: Duration = Duration::from_millis(1);

/// The most parts of a batch, so that it does not block Redis for long.
const MOST: usize = 64;

/// A batch with this many bytes of arguments takes no more parts.
const MOST_BYTES: usize = 256 << 10;

type Answer = Result<Reply, Error>;

type Waiting = (Arguments, oneshot::Sender<Answer>);

type Key = (&'static str, JobId);

/// The waiting parts, by function and job. An entry exists while a call is in flight.
#[derive(Default)]
pub(super) struct Groups {
    waiting: Mutex<HashMap<Key, Vec<Waiting>>>,
}

impl RedisLedger {
    /// Calls a function that takes several parts and returns a list of answers, one for each.
    pub(super) async fn call_together(
        &self,
        call: fn(&Self, JobId) -> Call,
        key: Key,
        part: Arguments,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let waiting = (part, answer);
        let first = {
            let mut groups = self.groups().waiting.lock();
            match groups.get_mut(&key) {
                Some(others) => {
                    others.push(waiting);
                    None
                }
                None => {
                    groups.insert(key, Vec::new());
                    Some(waiting)
                }
            }
        };
        if let Some(first) = first {
            let sender = GroupSender { ledger: self.clone(), key, is_over: false };
            // In a task of its own, since the first caller may stop waiting.
            tokio::spawn(sender.run(call, vec![first]));
        }
        answered.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// The runtime on which the call was in flight has ended.
    fn unanswered(&self) -> Error {
        self.unavailable(ErrorKind::Other, "given up before an answer came".into())
    }

    async fn ask(
        &self,
        mut call: Call,
        operation: &'static str,
        parts: Vec<Arguments>,
    ) -> Result<Vec<Reply>, Error> {
        let count = parts.len();
        parts.into_iter().for_each(|part| call.extend(part));
        let mut reply = self.call(&call).await?;
        let answers: Vec<Reply> = (0..count).map(|_| reply.reply()).collect::<Result<_, _>>()?;
        if reply.is_empty() {
            Ok(answers)
        } else {
            Err(corrupt(operation, "more answers than questions"))
        }
    }
}

/// Sends the calls of one key until no part waits. Dropping it abandons the waiting parts.
struct GroupSender {
    ledger: RedisLedger,
    key: Key,
    /// Whether the entry was removed; another entry of this key belongs to another task.
    is_over: bool,
}

impl GroupSender {
    async fn run(mut self, call: fn(&RedisLedger, JobId) -> Call, mut waiting: Vec<Waiting>) {
        let (operation, job) = self.key;
        while !waiting.is_empty() {
            let (parts, waits): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            let count = parts.len();
            let answers: Vec<Answer> =
                match self.ledger.ask(call(&self.ledger, job), operation, parts).await {
                    Ok(replies) => {
                        replies.into_iter().map(|reply| judge(operation, reply)).collect()
                    }
                    Err(error) => waits.iter().map(|_| Err(error.clone())).collect(),
                };
            for (wait, answer) in waits.into_iter().zip(answers) {
                // The caller may have stopped waiting.
                let _ = wait.send(answer);
            }
            if (MANY..MOST).contains(&count) {
                tokio::time::sleep(LINGER).await;
            }
            waiting = self.next();
        }
    }

    /// The next batch, in the order of arrival; removes the entry when no part waits.
    fn next(&mut self) -> Vec<Waiting> {
        let mut groups = self.ledger.groups().waiting.lock();
        let Some(waiting) = groups.get_mut(&self.key) else { return Vec::new() };
        let mut bytes = 0;
        let fits = waiting.iter().take(MOST).take_while(|(part, _)| {
            let before = bytes;
            bytes += part.bytes();
            before < MOST_BYTES
        });
        let count = fits.count();
        if count == 0 {
            groups.remove(&self.key);
            self.is_over = true;
            return Vec::new();
        }
        waiting.drain(..count).collect()
    }
}

impl Drop for GroupSender {
    fn drop(&mut self) {
        if !self.is_over {
            self.ledger.groups().waiting.lock().remove(&self.key);
        }
    }
}

/// The failure of one part must not fail the others.
fn judge(operation: &'static str, mut reply: Reply) -> Answer {
    if reply.first() != Some(b"misuse") {
        return Ok(reply);
    }
    reply.word()?;
    Err(Error::Misuse { operation, detail: reply.word()? })
}
