//! The ledger of the model: one job, its chunks and its books, moved by THE tables in `longshore_protocol::state`.
//!
//! Not the memory ledger itself: its states can't be told apart by a hash without teaching a dozen of its types to be hashed
//! for this alone, and it does not let itself be broken on purpose. Instead `tests/replay.rs` drives the memory ledger along
//! ways through the model and compares every answer.

#![expect(missing_docs, reason = "the fields of requests and answers are what their names say")]

use longshore_protocol::state::{ChunkEvent, ChunkState, JobEvent, JobState};
use longshore_protocol::{Epoch, NodeId, Timestamp, Token};

use crate::Mutation;
use crate::fleet::Fleet;

/// Subtasks of the job.
pub const SUBTASKS: u8 = 3;

/// The chunks that it is handed out in: a partial commit is possible in the first.
pub const RANGES: [(u8, u8); 2] = [(0, 2), (2, 3)];

/// One incarnation of a worker: which one, and how often it was started before.
pub type Node = (u8, u8);

/// A message, as far as it matters: chunk and epoch.
pub type Message = (u8, u8);

/// A token. Random in truth; here the smallest number that nobody remembers.
pub type TokenNumber = u8;

/// What a worker asks of the ledger. Late, lost or repeated, it is the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// The chunk of a message, please.
    Claim { message: Message, token: TokenNumber, node: Node },
    /// Subtasks `from ≤ i < to` have succeeded. The epoch is what the claim was made with; only broken ledgers look at it.
    Commit { message: Message, token: TokenNumber, from: u8, to: u8 },
    /// The rest is for somebody else.
    Release { message: Message, token: TokenNumber },
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The chunk is the claimant's: what is left of it.
    Granted { from: u8, to: u8 },
    /// Held by somebody else, or an old message.
    Stale,
    /// Nothing to do.
    Gone,
    /// In the books.
    Settled,
    /// The token holds nothing.
    Fenced,
    /// Waits for somebody else.
    Queued,
}

/// An open chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// First subtask that is left.
    pub from: u8,
    /// One past the last.
    pub to: u8,
    /// How often it was handed out.
    pub epoch: u8,
    /// Who runs it.
    pub holder: Option<(TokenNumber, Node)>,
    /// While somebody runs it: whether a second one may, or does.
    pub copy: Copied,
}

/// What became of the copy of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copied {
    /// There is none.
    No,
    /// Another node than the holder may claim it.
    Offered,
    /// It runs, too.
    Held(TokenNumber, Node),
}

/// One history of the ledger. A rollback takes up an older one, with all that happened in it.
#[derive(Clone, Debug, Hash)]
pub struct Ledger {
    /// The job.
    pub state: JobState,
    /// How many chunks were opened.
    pub opened: u8,
    /// The open ones, by number.
    pub chunks: [Option<Chunk>; RANGES.len()],
    /// Which subtasks are done.
    pub done: [bool; SUBTASKS as usize],
    /// What the books say: queued, running, done. The rest waits.
    pub counts: [i8; 3],
    /// The workers that beat, and those that are lost.
    pub fleet: Fleet,
    /// Remembered for the properties: how often each subtask was counted.
    pub counted: [u8; SUBTASKS as usize],
    /// Remembered for the properties: the token whose commit of each subtask was accepted.
    pub settled_by: [Option<TokenNumber>; SUBTASKS as usize],
    /// Remembered for the properties: tokens that held a chunk and lost it.
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

    /// Everybody who holds it.
    pub fn holders(self) -> impl Iterator<Item = (TokenNumber, Node)> {
        let copy = match self.copy {
            Copied::Held(token, node) => Some((token, node)),
            Copied::No | Copied::Offered => None,
        };
        self.holder.into_iter().chain(copy)
    }

    /// Whether the table lets this happen; all that can change is who holds it.
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
    /// Hands out the next chunk.
    pub fn open(&mut self) -> Option<Message> {
        if self.state.is_terminal() {
            return None;
        }
        let &(from, to) = RANGES.get(usize::from(self.opened))?;
        let number = self.opened;
        let chunk = Chunk { from, to, epoch: 1, holder: None, copy: Copied::No };
        self.chunks[usize::from(number)] = Some(chunk);
        self.opened += 1;
        self.counts[QUEUED] += chunk.len();
        Some((number, 1))
    }

    /// The message of a chunk that waits, to be published again.
    pub fn sweep(&self, number: u8) -> Option<Message> {
        let chunk = self.chunks[usize::from(number)]?;
        (chunk.holder.is_none() && !self.state.is_terminal()).then_some((number, chunk.epoch))
    }

    /// A second node may run the first chunk that runs and has no copy.
    pub fn copy(&mut self) -> Option<Message> {
        let number = self.to_be_copied()?;
        let chunk = self.chunks[usize::from(number)].as_mut()?;
        (chunk.epoch, chunk.copy) = (chunk.epoch + 1, Copied::Offered);
        Some((number, chunk.epoch))
    }

    /// Which one that is.
    pub fn to_be_copied(&self) -> Option<u8> {
        let may_be = |chunk: Chunk| chunk.holder.is_some() && chunk.copy == Copied::No;
        let number = self.chunks.iter().position(|chunk| chunk.is_some_and(may_be))?;
        u8::try_from(number).ok().filter(|_| !self.state.is_terminal())
    }

    /// Does what a worker asks.
    pub fn serve(&mut self, request: Request, mutation: Option<Mutation>) -> Answer {
        match request {
            Request::Claim { message, token, node } => self.claim(message, token, node, mutation),
            Request::Commit { message, token, from, to } => {
                self.commit(message, token, from, to, mutation)
            }
            Request::Release { message: (number, _), token } => {
                match self.hand_back(number, token, mutation) {
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
        let is_offered = chunk.copy == Copied::Offered
            || mutation == Some(Mutation::OffersStay) && chunk.copy != Copied::No;
        let is_other = chunk.holder.is_some_and(|(_, holder)| holder != node);
        if is_offered && is_other && chunk.epoch == epoch {
            chunk.copy = Copied::Held(token, node);
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
        // What leaves a gap is refused by every ledger. What begins before what is left repeats what whoever runs it as well did.
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

    /// What is left of a chunk is for somebody else; whether the token held it.
    fn hand_back(&mut self, number: u8, token: TokenNumber, mutation: Option<Mutation>) -> bool {
        let Some(mut chunk) = self.chunks[usize::from(number)] else { return false };
        if let Copied::Held(copy, node) = chunk.copy {
            if copy != token {
                let event =
                    ChunkEvent::HandOver { token: real(token), to: real(copy), node: name(node) };
                if !chunk.allows(event) {
                    return false;
                }
                chunk.holder = Some((copy, node));
            }
            chunk.copy = Copied::No;
            self.chunks[usize::from(number)] = Some(chunk);
            return true;
        }
        let event = ChunkEvent::Released { token: real(token), due: Timestamp::default() };
        if !chunk.allows(event) {
            return false;
        }
        (chunk.holder, chunk.copy) = (None, Copied::No);
        chunk.epoch += u8::from(mutation != Some(Mutation::EpochsKept));
        self.counts[RUNNING] -= chunk.len();
        self.counts[QUEUED] += chunk.len();
        self.chunks[usize::from(number)] = Some(chunk);
        true
    }

    /// Takes away all that a node holds.
    pub fn revoke(&mut self, node: Node, mutation: Option<Mutation>) {
        for number in 0..RANGES.len() as u8 {
            let held = self.holders(number).find(|(_, holder)| *holder == node);
            if let Some((token, _)) = held {
                self.hand_back(number, token, mutation);
            }
        }
    }

    /// Takes one chunk away from whoever holds it under this token.
    pub fn reclaim(&mut self, number: u8, token: TokenNumber, mutation: Option<Mutation>) {
        self.hand_back(number, token, mutation);
    }

    /// Who holds a chunk.
    pub fn holders(&self, number: u8) -> impl Iterator<Item = (TokenNumber, Node)> {
        self.chunks[usize::from(number)].into_iter().flat_map(Chunk::holders)
    }

    /// Whether a node holds any chunk.
    pub fn holds(&self, node: Node) -> bool {
        self.chunks.iter().flatten().flat_map(|it| it.holders()).any(|(_, it)| it == node)
    }

    /// Whether the books say what the chunks and bits do.
    pub fn balances(&self) -> bool {
        let mut counted = [0; 3];
        for chunk in self.chunks.iter().flatten() {
            counted[if chunk.holder.is_some() { RUNNING } else { QUEUED }] += chunk.len();
        }
        counted[DONE] = self.done.iter().map(|done| i8::from(*done)).sum();
        counted == self.counts
    }
}
