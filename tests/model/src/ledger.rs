//! The ledger of the model: one job, its chunks and counts, and the answers to workers' requests.
//!
//! It follows the transition tables of `longshore_protocol::state`.
//!
//! It is not the memory ledger: a dozen types of that would need `Hash` for this purpose only, and
//! it has no deliberate bugs. Instead `tests/replay.rs` drives the memory ledger along paths
//! through the model and compares every answer.

#![expect(missing_docs, reason = "the names of the fields of requests and answers say enough")]

use longshore_protocol::state::{ChunkEvent, ChunkState, JobEvent, JobState};
use longshore_protocol::{Epoch, NodeId, Timestamp, Token};

use crate::Mutation;
use crate::fleet::Fleet;

/// The number of subtasks of the job.
pub const SUBTASKS: u8 = 3;

/// The chunks of the job. A partial commit is possible in the first.
pub const RANGES: [(u8, u8); 2] = [(0, 2), (2, 3)];

/// One incarnation of a worker: its number, and how often it was started before.
pub type Node = (u8, u8);

/// A chunk message: chunk and epoch.
pub type Message = (u8, u8);

/// A token: the smallest number that is not in use (in production a random number).
pub type TokenNumber = u8;

/// A request of a worker to the ledger. A late, lost or repeated request has the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// Asks for the chunk of a message.
    Claim { message: Message, token: TokenNumber, node: Node },
    /// Reports that subtasks `from ≤ i < to` have succeeded. The epoch is that of the claim; only
    /// ledgers with a deliberate bug read it.
    Commit { message: Message, token: TokenNumber, from: u8, to: u8 },
    /// Gives up the remaining subtasks of the chunk.
    Release { message: Message, token: TokenNumber },
}

/// The ledger's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The worker holds the chunk; these subtasks remain.
    Granted { from: u8, to: u8 },
    /// The chunk has another holder, or the message is old.
    Stale,
    /// The chunk is not open any more.
    Gone,
    /// The commit is recorded.
    Settled,
    /// The token holds nothing.
    Fenced,
    /// The chunk is queued again.
    Queued,
}

/// An open chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// The first remaining subtask.
    pub from: u8,
    /// One past the last subtask.
    pub to: u8,
    /// Grows with each release, revoke and speculative offer.
    pub epoch: u8,
    /// The holder of the chunk.
    pub holder: Option<(TokenNumber, Node)>,
    /// Whether a second node may run the running chunk, or does.
    pub speculation: Speculation,
}

/// The speculative execution of a running chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speculation {
    /// The chunk is not offered.
    No,
    /// Another node than the holder may claim it.
    Offered,
    /// A second node runs it, too.
    Held(TokenNumber, Node),
}

/// The ledger and its history. A rollback restores an older ledger with its history.
#[derive(Clone, Debug, Hash)]
pub struct Ledger {
    /// The state of the job.
    pub state: JobState,
    /// The number of opened chunks.
    pub opened: u8,
    /// The open chunks, by number.
    pub chunks: [Option<Chunk>; RANGES.len()],
    /// The subtasks that are done.
    pub done: [bool; SUBTASKS as usize],
    /// The counts of queued, running and done subtasks. The others are waiting.
    pub counts: [i8; 3],
    /// The listed workers and the lost ones.
    pub fleet: Fleet,
    /// For the properties: how often each subtask was counted.
    pub counted: [u8; SUBTASKS as usize],
    /// For the properties: the token whose commit of each subtask was accepted.
    pub settled_by: [Option<TokenNumber>; SUBTASKS as usize],
    /// For the properties: tokens that held a chunk and lost it.
    pub lost: Vec<(u8, TokenNumber)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            state: JobState::Queued,
            opened: 0,
            chunks: [None; RANGES.len()],
            done: [false; SUBTASKS as usize],
            counts: [0; 3],
            fleet: Fleet::default(),
            counted: [0; SUBTASKS as usize],
            settled_by: [None; SUBTASKS as usize],
            lost: Vec::new(),
        }
    }
}

const QUEUED: usize = 0;
const RUNNING: usize = 1;
const DONE: usize = 2;

impl Chunk {
    fn len(self) -> i8 {
        (self.to - self.from).cast_signed()
    }

    fn state(self) -> ChunkState {
        match self.holder {
            Some((token, node)) => ChunkState::Running { token: real(token), node: name(node) },
            None => ChunkState::Queued { due: Timestamp::default() },
        }
    }

    /// All holders of the chunk.
    pub fn holders(self) -> impl Iterator<Item = (TokenNumber, Node)> {
        let second = match self.speculation {
            Speculation::Held(token, node) => Some((token, node)),
            Speculation::No | Speculation::Offered => None,
        };
        self.holder.into_iter().chain(second)
    }

    /// Whether the transition table allows the event.
    fn allows(self, event: ChunkEvent) -> bool {
        self.state().on(Epoch(self.epoch.into()), event).is_ok()
    }
}

/// The token behind a number.
pub fn real(token: TokenNumber) -> Token {
    Token::from_bytes([token; 16])
}

/// The name of a node.
pub fn name((worker, start): Node) -> NodeId {
    NodeId::new(format!("worker-{worker}-{start}"))
}

impl Ledger {
    /// Opens the next chunk.
    pub fn open(&mut self) -> Option<Message> {
        if self.state.is_terminal() {
            return None;
        }
        let &(from, to) = RANGES.get(usize::from(self.opened))?;
        let number = self.opened;
        let chunk = Chunk { from, to, epoch: 1, holder: None, speculation: Speculation::No };
        self.chunks[usize::from(number)] = Some(chunk);
        self.opened += 1;
        self.counts[QUEUED] += chunk.len();
        Some((number, 1))
    }

    /// The message of a queued chunk, to be published again.
    pub fn sweep(&self, number: u8) -> Option<Message> {
        let chunk = self.chunks[usize::from(number)]?;
        (chunk.holder.is_none() && !self.state.is_terminal()).then_some((number, chunk.epoch))
    }

    /// Offers the next speculation target to a second node.
    pub fn offer_speculative(&mut self) -> Option<Message> {
        let number = self.speculation_target()?;
        let chunk = self.chunks[usize::from(number)].as_mut()?;
        (chunk.epoch, chunk.speculation) = (chunk.epoch + 1, Speculation::Offered);
        Some((number, chunk.epoch))
    }

    /// The first running chunk that is not offered to a second node.
    pub fn speculation_target(&self) -> Option<u8> {
        let may_be = |chunk: Chunk| chunk.holder.is_some() && chunk.speculation == Speculation::No;
        let number = self.chunks.iter().position(|chunk| chunk.is_some_and(may_be))?;
        u8::try_from(number).ok().filter(|_| !self.state.is_terminal())
    }

    /// Serves the request of a worker.
    pub fn serve(&mut self, request: Request, mutation: Option<Mutation>) -> Answer {
        match request {
            Request::Claim { message, token, node } => self.claim(message, token, node, mutation),
            Request::Commit { message, token, from, to } => {
                self.commit(message, token, from, to, mutation)
            }
            Request::Release { message: (number, _), token } => {
                match self.release(number, token, mutation) {
                    true => Answer::Queued,
                    false => Answer::Fenced,
                }
            }
        }
    }

    fn claim(
        &mut self,
        (number, epoch): Message,
        token: TokenNumber,
        node: Node,
        mutation: Option<Mutation>,
    ) -> Answer {
        let Some(mut chunk) = self.chunks[usize::from(number)] else { return Answer::Gone };
        let granted = Answer::Granted { from: chunk.from, to: chunk.to };
        if chunk.holders().any(|(holder, _)| holder == token) {
            return granted;
        }
        let is_offered = chunk.speculation == Speculation::Offered
            || mutation == Some(Mutation::OffersStay) && chunk.speculation != Speculation::No;
        let is_other = chunk.holder.is_some_and(|(_, holder)| holder != node);
        if is_offered && is_other && chunk.epoch == epoch {
            chunk.speculation = Speculation::Held(token, node);
            self.chunks[usize::from(number)] = Some(chunk);
            return granted;
        }
        let (epoch, token_event) = (Epoch(epoch.into()), real(token));
        let event = ChunkEvent::Claim { epoch, token: token_event, node: name(node) };
        let takes_over =
            mutation == Some(Mutation::ClaimsTakeOver) && Epoch(chunk.epoch.into()) == epoch;
        if !chunk.allows(event) && !takes_over {
            return Answer::Stale;
        }
        if chunk.holder.is_none() {
            self.counts[QUEUED] -= chunk.len();
            self.counts[RUNNING] += chunk.len();
        }
        chunk.holder = Some((token, node));
        self.chunks[usize::from(number)] = Some(chunk);
        self.state = self.state.on(JobEvent::Start, self.state).expect("it has not ended");
        granted
    }

    fn commit(
        &mut self,
        (number, epoch): Message,
        token: TokenNumber,
        from: u8,
        to: u8,
        mutation: Option<Mutation>,
    ) -> Answer {
        let Some(chunk) = &mut self.chunks[usize::from(number)] else { return Answer::Fenced };
        let held = chunk.holder.is_some();
        let accepted = match mutation {
            Some(Mutation::EpochsCompared) => held && epoch == chunk.epoch,
            Some(Mutation::EpochsOrdered) => held && epoch >= chunk.epoch,
            Some(Mutation::CommitsUnchecked) => true,
            _ => chunk.holders().any(|(holder, _)| holder == token),
        };
        // Every ledger refuses a commit that leaves a gap. A commit that begins before the
        // remaining subtasks repeats those that the other holder has settled.
        let is_repeat = to <= chunk.from;
        if !accepted || !is_repeat && from > chunk.from {
            return Answer::Fenced;
        }
        let start = if mutation == Some(Mutation::OverlapsCounted) { from } else { chunk.from };
        for index in from..to {
            self.settled_by[usize::from(index)].get_or_insert(token);
        }
        let counts_again = mutation == Some(Mutation::RepeatsCounted);
        if is_repeat && !counts_again {
            return Answer::Settled;
        }
        if !is_repeat {
            self.counts[RUNNING] -= (to - start).cast_signed();
            chunk.from = to;
        }
        if chunk.from == chunk.to {
            self.chunks[usize::from(number)] = None;
        }
        for index in usize::from(from)..usize::from(to) {
            let flips = !std::mem::replace(&mut self.done[index], true);
            if flips || counts_again {
                self.counts[DONE] += 1;
                self.counted[index] += 1;
            }
        }
        if self.done == [true; SUBTASKS as usize] {
            self.state = self.state.on(JobEvent::Succeed, self.state).expect("it has not ended");
        }
        Answer::Settled
    }

    /// Takes a chunk from the holder of this token. Returns whether the token held it.
    fn release(&mut self, number: u8, token: TokenNumber, mutation: Option<Mutation>) -> bool {
        let Some(mut chunk) = self.chunks[usize::from(number)] else { return false };
        if let Speculation::Held(second, node) = chunk.speculation {
            if second != token {
                let event =
                    ChunkEvent::HandOver { token: real(token), to: real(second), node: name(node) };
                if !chunk.allows(event) {
                    return false;
                }
                chunk.holder = Some((second, node));
            }
            chunk.speculation = Speculation::No;
            self.chunks[usize::from(number)] = Some(chunk);
            return true;
        }
        let event = ChunkEvent::Released { token: real(token), due: Timestamp::default() };
        if !chunk.allows(event) {
            return false;
        }
        (chunk.holder, chunk.speculation) = (None, Speculation::No);
        chunk.epoch += u8::from(mutation != Some(Mutation::EpochsKept));
        self.counts[RUNNING] -= chunk.len();
        self.counts[QUEUED] += chunk.len();
        self.chunks[usize::from(number)] = Some(chunk);
        true
    }

    /// Revokes all chunks of a node.
    pub fn revoke(&mut self, node: Node, mutation: Option<Mutation>) {
        for number in 0..RANGES.len() as u8 {
            let held = self.holders(number).find(|(_, holder)| *holder == node);
            if let Some((token, _)) = held {
                self.release(number, token, mutation);
            }
        }
    }

    /// Takes a chunk from the live worker that holds it under this token.
    pub fn reclaim(&mut self, number: u8, token: TokenNumber, mutation: Option<Mutation>) {
        self.release(number, token, mutation);
    }

    /// The holders of a chunk.
    pub fn holders(&self, number: u8) -> impl Iterator<Item = (TokenNumber, Node)> {
        self.chunks[usize::from(number)].into_iter().flat_map(Chunk::holders)
    }

    /// Whether a node holds any chunk.
    pub fn holds(&self, node: Node) -> bool {
        self.chunks
            .iter()
            .flatten()
            .flat_map(|chunk| chunk.holders())
            .any(|(_, holder)| holder == node)
    }

    /// Whether the counts agree with the chunks and the done subtasks.
    pub fn balances(&self) -> bool {
        let mut counted = [0; 3];
        for chunk in self.chunks.iter().flatten() {
            counted[if chunk.holder.is_some() { RUNNING } else { QUEUED }] += chunk.len();
        }
        counted[DONE] = self.done.iter().map(|done| i8::from(*done)).sum();
        counted == self.counts
    }
}
