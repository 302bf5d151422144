//! Calls of one function about one job that come while such a call is under way go together, as the next call: Redis reads and
//! writes the job's books once for all of them. A call that comes alone goes at once; where many come, the next one waits a
//! moment for more, since what a call costs by itself, on both sides, is as much as five of its parts.
//!
//! Deliberately absent: order. Whoever needs an answer before it asks again has waited for it.

use std::collections::HashMap;
use std::time::Duration;

use longshore_protocol::JobId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::RedisLedger;
use super::call::{Arguments, Call};
use super::reply::{Reply, corrupt};
use crate::Error;

/// After a call with so many parts the next one waits for more, unless they were as many as may be.
const MANY: usize = 4;

/// How long it waits.
const LINGER: Duration = Duration::from_millis(1);

/// Most that go together, so that nobody else waits long for Redis.
const MOST: usize = 64;

/// A call with so many bytes of arguments takes no more along.
const MOST_BYTES: usize = 256 << 10;

type Answer = Result<Reply, Error>;

type Waiting = (Arguments, oneshot::Sender<Answer>);

type Key = (&'static str, JobId);

/// What waits, by function and job. There is an entry while a call is under way.
#[derive(Default)]
pub(super) struct Groups {
    waiting: Mutex<HashMap<Key, Vec<Waiting>>>,
}

impl RedisLedger {
    /// Calls a function that takes several parts and gives a list of answers, one for each.
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
            let turn = Turn { ledger: self.clone(), key, is_over: false };
            // A task of its own: whoever came first may stop to wait.
            tokio::spawn(turn.run(call, vec![first]));
        }
        answered.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// The runtime on which the call was under way has ended.
    fn unanswered(&self) -> Error {
        let reason = "given up before an answer came".into();
        Error::Unavailable { address: self.transport().address().to_string(), reason }
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

/// Makes the calls of one key until nothing waits. Dropping it gives up what does.
struct Turn {
    ledger: RedisLedger,
    key: Key,
    /// The entry is gone; another one of this key is somebody else's.
    is_over: bool,
}

impl Turn {
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
                // Nobody may be left who wants to know.
                let _ = wait.send(answer);
            }
            if (MANY..MOST).contains(&count) {
                tokio::time::sleep(LINGER).await;
            }
            waiting = self.next();
        }
    }

    /// What goes together next, in the order in which it came; the entry goes when nothing waits.
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

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            self.ledger.groups().waiting.lock().remove(&self.key);
        }
    }
}

/// One of several that makes no sense is no reason to refuse the others.
fn judge(operation: &'static str, mut reply: Reply) -> Answer {
    if reply.first() != Some(b"misuse") {
        return Ok(reply);
    }
    reply.word()?;
    Err(Error::Misuse { operation, detail: reply.word()? })
}
