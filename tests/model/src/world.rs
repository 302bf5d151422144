//! The workers, the schedulers and the queue of the model, with their steps and faults.
//!
//! Situations with the same behavior are one state. A message that a scheduler has not published
//! yet is in the queue, where it may wait; a worker that has acknowledged early differs from
//! another only in whether its message comes back when it dies.
//!
//! A request to the ledger is served and answered; or it is served, but the answer is lost; or it
//! is late: served at any later time or never, while its sender repeats it or gives up, and no
//! process receives the answer. A message may be lost, come twice, or wait for any time. Slow
//! processes need no step of their own: a process that takes no step for a while is frozen.
//!
//! A worker starts with its first heartbeat. Another heartbeat is a step only if it changes the
//! list, voids a verdict, or voids the evidence of a scheduler. One of the two schedulers owns the
//! queue of the job. Either may notice that a worker died; only the owner revokes its chunks.

#![expect(missing_docs, reason = "the names of the fields of states and steps say enough")]

use std::sync::Arc;

use longshore_protocol::state::JobState;

use crate::fleet::LossEvidence;
use crate::ledger::{Answer, Ledger, Message, Node, RANGES, Request, TokenNumber};
use crate::{Config, Model, Mutation, properties, symmetry};

/// The maximum number of equal messages in the queue.
const DUPLICATES: usize = 2;

/// The number of workers.
pub const WORKERS: u8 = 2;

/// The number of schedulers.
pub const SCHEDULERS: usize = 2;

/// The scheduler that owns the queue of the job.
pub const OWNER: usize = 0;

/// The next step of a worker, with everything that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worker {
    /// It crashed or never ran, and sends no heartbeats. A start makes it `Idle`, as another node.
    Dead,
    /// It waits for a delivery.
    Idle,
    /// It repeats a claim until the ledger answers.
    Claiming { message: Message, token: TokenNumber },
    /// It runs subtasks and commits them; `asked` is the end of a commit without an answer.
    Holding { message: Message, token: TokenNumber, from: u8, to: u8, asked: Option<u8> },
    /// It releases the chunk that it may hold, then settles the message.
    Leaving { message: Message, token: TokenNumber, then: Then },
}

/// The next step of a scheduler in the recovery of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// No step.
    Nothing,
    /// It considers the worker dead, and will ask the ledger to declare it lost.
    Judging { node: Node, evidence: LossEvidence },
    /// It saw a verdict, and will revoke the worker's chunks.
    Revoking { node: Node },
}

/// How a worker settles a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// It is acknowledged, now or earlier.
    Ack,
    /// It returns to the queue.
    Requeue,
}

/// A state of the model.
#[derive(Clone, Debug, Hash)]
pub struct State {
    pub ledger: Ledger,
    /// The ledger that a rollback would return to.
    pub saved: Option<Arc<Ledger>>,
    /// How often each worker was started, and its next step.
    pub workers: [(u8, Worker); WORKERS as usize],
    /// The next step of each scheduler; the owner of the queue comes first.
    pub next_steps: [NextStep; SCHEDULERS],
    /// Only for [`Mutation::RevokesOnce`]: the lost workers whose chunks the owner has revoked.
    pub revoked_once: Vec<Node>,
    /// Sorted, because any message may be delivered next.
    pub queue: Vec<Message>,
    /// Requests in flight whose senders don't wait for them any more.
    pub late: Vec<Request>,
    /// Whether a chunk was ever offered speculatively.
    pub has_speculated: bool,
    /// How many faults may still happen.
    pub faults: u8,
    /// Whether a rollback may still happen.
    pub may_roll_back: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A scheduler opens the next chunk and publishes its message.
    Open,
    /// A scheduler publishes the message of a queued chunk again.
    Sweep { chunk: u8 },
    /// A scheduler offers a running chunk speculatively, and publishes its message.
    OfferSpeculative,
    /// A scheduler considers a node dead; wrongly, if the node is alive (a fault).
    Judge { scheduler: usize, node: Node, evidence: LossEvidence, wrongly: bool },
    /// A scheduler asks the ledger to declare that node lost.
    Declare { scheduler: usize },
    /// The owner of the queue sees a verdict on a node that holds a chunk.
    Learn { node: Node },
    /// A scheduler revokes all chunks of a lost node.
    Revoke { scheduler: usize },
    /// A scheduler reclaims a chunk from a live worker that does not know that it holds it.
    Reclaim { chunk: u8 },
    /// A scheduler dies with its next step; the other one then owns the queue.
    SchedulerDies { scheduler: usize },
    /// The other scheduler becomes the owner of the queue, and both go on.
    TakeOver,
    /// A message is lost: by the broker, or by a scheduler that did not get the answer to its open.
    Lose { message: Message },
    /// The broker delivers a message once more.
    Double { message: Message },
    /// A worker receives a message; while it counts as lost if its next heartbeat comes later (a
    /// fault, because otherwise the owner of the queue could revoke its claims endlessly).
    Deliver { worker: u8, message: Message, lost: bool },
    /// A worker sends its request to the ledger; a commit ends at `to`.
    Ask { worker: u8, to: u8, fate: Fate },
    /// A worker gives up its chunk, because its heartbeats fail or because it has to stop.
    GiveUp { worker: u8 },
    /// A worker dies; the broker takes back the message if it was not acknowledged yet.
    Crash { worker: u8, acked: bool },
    /// A worker is started, and sends its first heartbeat.
    Start { worker: u8 },
    /// A heartbeat arrives; late if its worker has died in the meantime (a fault).
    Beat { node: Node, late: bool },
    /// A late request is served.
    Arrive { request: Request },
    /// The ledger is saved for a rollback.
    Save,
    /// The ledger returns to the saved state.
    RollBack,
}

/// The fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Served and answered.
    Heard,
    /// Served, but the answer is lost.
    Unheard,
    /// Not served yet.
    Late,
}

impl State {
    pub(crate) fn node(&self, worker: u8) -> Node {
        (worker, self.workers[usize::from(worker)].0)
    }

    pub(crate) fn is_alive(&self, node: Node) -> bool {
        self.node(node.0) == node && self.workers[usize::from(node.0)].1 != Worker::Dead
    }

    /// Whether a live node does not know that it holds a chunk under this token.
    fn has_forgotten(&self, token: TokenNumber, node: Node) -> bool {
        self.is_alive(node) && !self.knows(node.0, token)
    }

    /// The token under which a live node holds the chunk without knowing it.
    pub fn forgotten(&self, chunk: u8) -> Option<TokenNumber> {
        let mut holders = self.ledger.holders(chunk);
        Some(holders.find(|(token, node)| self.has_forgotten(*token, *node))?.0)
    }

    /// Whether a worker would report the token as one that it holds or may hold.
    fn knows(&self, worker: u8, wanted: TokenNumber) -> bool {
        match self.workers[usize::from(worker)].1 {
            Worker::Dead | Worker::Idle => false,
            Worker::Claiming { token, .. }
            | Worker::Holding { token, .. }
            | Worker::Leaving { token, .. } => token == wanted,
        }
    }

    /// The smallest number that is not in use. Tokens are never drawn twice, but one that left no
    /// trace is as good as new.
    fn fresh_token(&self) -> TokenNumber {
        let ledgers = [Some(&self.ledger), self.saved.as_deref()];
        let mut known: Vec<TokenNumber> = Vec::new();
        for ledger in ledgers.into_iter().flatten() {
            let holders = ledger.chunks.iter().flatten().flat_map(|chunk| chunk.holders());
            known.extend(holders.map(|(token, _)| token));
            known.extend(ledger.settled_by.iter().flatten());
            known.extend(ledger.lost.iter().map(|(_, token)| token));
        }
        known.extend(self.late.iter().map(|request| match *request {
            Request::Claim { token, .. }
            | Request::Commit { token, .. }
            | Request::Release { token, .. } => token,
        }));
        let free = |token: &TokenNumber| {
            !known.contains(token) && (0..WORKERS).all(|worker| !self.knows(worker, *token))
        };
        (0..).find(free).expect("there are few")
    }

    /// The next request of a worker, if it has one.
    pub fn request(&self, worker: u8, upto: u8) -> Option<Request> {
        Some(match self.workers[usize::from(worker)].1 {
            Worker::Dead | Worker::Idle => return None,
            Worker::Claiming { message, token } => {
                Request::Claim { message, token, node: self.node(worker) }
            }
            Worker::Holding { message, token, from, .. } => {
                Request::Commit { message, token, from, to: upto }
            }
            Worker::Leaving { message, token, .. } => Request::Release { message, token },
        })
    }

    fn publish(&mut self, message: Message) {
        if self.queue.iter().filter(|other| **other == message).count() < DUPLICATES {
            self.queue.push(message);
            self.queue.sort_unstable();
        }
    }

    fn take(&mut self, message: Message) {
        let at = self.queue.iter().position(|other| *other == message).expect("it is there");
        self.queue.remove(at);
    }

    /// Moves a worker on by an answer.
    fn hear(&mut self, worker: u8, upto: u8, answer: Answer) {
        let place = &mut self.workers[usize::from(worker)].1;
        let before = *place;
        *place = match (before, answer) {
            (Worker::Claiming { message, token }, Answer::Granted { from, to }) => {
                Worker::Holding { message, token, from, to, asked: None }
            }
            (Worker::Holding { message, token, to, .. }, Answer::Settled) if upto < to => {
                Worker::Holding { message, token, from: upto, to, asked: None }
            }
            (Worker::Holding { message, token, .. }, Answer::Fenced) => {
                Worker::Leaving { message, token, then: Then::Ack }
            }
            _ => Worker::Idle,
        };
        if let Worker::Leaving { message, then: Then::Requeue, .. } = before {
            self.publish(message);
        }
    }
}

impl Config {
    fn scheduler_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let ledger = &state.ledger;
        let chunks = 0..RANGES.len() as u8;
        if usize::from(ledger.opened) < RANGES.len() && !ledger.state.is_terminal() {
            actions.push(Action::Open);
        }
        if self.speculative && ledger.speculation_target().is_some() {
            actions.push(Action::OfferSpeculative);
        }
        let waits = |chunk: &u8| {
            ledger.sweep(*chunk).is_some_and(|message| !state.queue.contains(&message))
        };
        if self.mutation != Some(Mutation::NoSweep) {
            actions.extend(chunks.clone().filter(waits).map(|chunk| Action::Sweep { chunk }));
        }
        self.recovery_actions(state, actions);
        if self.mutation != Some(Mutation::NoReclaim) {
            let forgotten = chunks.filter(|chunk| {
                ledger.holders(*chunk).any(|(token, node)| state.has_forgotten(token, node))
            });
            actions.extend(forgotten.map(|chunk| Action::Reclaim { chunk }));
        }
    }

    fn worker_actions(&self, state: &State, worker: u8, actions: &mut Vec<Action>) {
        let mut messages = state.queue.clone();
        messages.dedup();
        let ask = |to: u8| {
            [Fate::Heard, Fate::Unheard, Fate::Late].map(|fate| Action::Ask { worker, to, fate })
        };
        match state.workers[usize::from(worker)].1 {
            Worker::Dead if worker < self.workers => return actions.push(Action::Start { worker }),
            Worker::Dead => return,
            Worker::Idle => {
                let lost = state.ledger.fleet.is_lost(state.node(worker));
                let deliver = |message| Action::Deliver { worker, message, lost };
                actions.extend(messages.into_iter().map(deliver));
            }
            Worker::Claiming { .. } => {
                actions.extend(ask(0));
                actions.push(Action::GiveUp { worker });
            }
            Worker::Holding { from, to, asked, .. } => {
                let ends = asked.map_or(from + 1..=to, |to| to..=to);
                actions.extend(ends.flat_map(ask));
                actions.push(Action::GiveUp { worker });
            }
            Worker::Leaving { .. } => actions.extend(ask(0)),
        }
        actions.extend([true, false].map(|acked| Action::Crash { worker, acked }));
    }

    fn network_actions(state: &State, actions: &mut Vec<Action>) {
        let mut messages = state.queue.clone();
        messages.dedup();
        for message in messages {
            actions.push(Action::Lose { message });
            actions.push(Action::Double { message });
        }
        let mut late = state.late.clone();
        late.dedup();
        actions.extend(late.into_iter().map(|request| Action::Arrive { request }));
        if state.may_roll_back {
            actions.push(if state.saved.is_some() { Action::RollBack } else { Action::Save });
        }
    }

    /// Lets the ledger serve a request, and checks the properties.
    fn serve(&self, state: &mut State, request: Request) -> Result<Answer, &'static str> {
        let before = state.ledger.clone();
        let answer = state.ledger.serve(request, self.mutation);
        properties::check_step(&before, &mut state.ledger)?;
        properties::check_answer(&before, request, answer, state.has_speculated)?;
        Ok(answer)
    }

    fn ask(&self, state: &mut State, worker: u8, upto: u8, fate: Fate) -> Result<(), &'static str> {
        let request = state.request(worker, upto).expect("it asks");
        if let Worker::Holding { asked, .. } = &mut state.workers[usize::from(worker)].1 {
            *asked = Some(upto);
        }
        match fate {
            Fate::Heard => {
                let answer = self.serve(state, request)?;
                state.hear(worker, upto, answer);
            }
            Fate::Unheard => {
                self.serve(state, request)?;
            }
            Fate::Late => {
                state.late.push(request);
                state.late.sort_unstable();
            }
        }
        Ok(())
    }

    /// Takes a step of the ledger that no worker asked for, and checks the properties.
    pub(crate) fn change(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Ledger),
    ) -> Result<(), &'static str> {
        let before = state.ledger.clone();
        change(&mut state.ledger);
        properties::check_step(&before, &mut state.ledger)
    }

    fn scheduler_acts(&self, state: &mut State, action: Action) -> Result<(), &'static str> {
        match action {
            Action::Open => {
                let message = state.ledger.open().expect("there is a chunk to open");
                state.publish(message);
            }
            Action::Sweep { chunk } => {
                let message = state.ledger.sweep(chunk).expect("it waits");
                state.publish(message);
            }
            Action::OfferSpeculative => {
                let message = state.ledger.offer_speculative().expect("there is a target");
                state.has_speculated = true;
                state.publish(message);
            }
            Action::Reclaim { chunk } => {
                let token = state.forgotten(chunk).expect("a worker holds it unknowingly");
                self.change(state, |ledger| ledger.reclaim(chunk, token, self.mutation))?;
            }
            _ => self.recover(state, action)?,
        }
        Ok(())
    }

    fn happens(&self, state: &mut State, action: Action) -> Result<(), &'static str> {
        match action {
            Action::Lose { message } => state.take(message),
            Action::Double { message } => state.publish(message),
            Action::Deliver { worker, message, .. } => {
                let token = state.fresh_token();
                state.take(message);
                state.workers[usize::from(worker)].1 = Worker::Claiming { message, token };
            }
            Action::Ask { worker, to, fate } => self.ask(state, worker, to, fate)?,
            Action::GiveUp { worker } => {
                let place = &mut state.workers[usize::from(worker)].1;
                *place = match *place {
                    Worker::Claiming { message, token } => {
                        Worker::Leaving { message, token, then: Then::Requeue }
                    }
                    Worker::Holding { message, token, .. } => {
                        Worker::Leaving { message, token, then: Then::Ack }
                    }
                    other => other,
                };
            }
            Action::Crash { worker, acked } => {
                let place = &mut state.workers[usize::from(worker)].1;
                match std::mem::replace(place, Worker::Dead) {
                    Worker::Claiming { message, .. }
                    | Worker::Holding { message, .. }
                    | Worker::Leaving { message, .. }
                        if !acked =>
                    {
                        state.publish(message);
                    }
                    _ => {}
                }
            }
            Action::Start { worker } => {
                let (starts, place) = &mut state.workers[usize::from(worker)];
                (*starts, *place) = (*starts + 1, Worker::Idle);
                let node = state.node(worker);
                self.beat(state, node)?;
            }
            Action::Arrive { request } => {
                let at = state.late.iter().position(|other| *other == request);
                state.late.remove(at.expect("it is on its way"));
                self.serve(state, request)?;
            }
            Action::Save => state.saved = Some(Arc::new(state.ledger.clone())),
            Action::RollBack => {
                state.ledger = Arc::unwrap_or_clone(state.saved.take().expect("it was saved"));
                state.may_roll_back = false;
            }
            _ => self.scheduler_acts(state, action)?,
        }
        Ok(())
    }
}

impl Model for Config {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        State {
            ledger: Ledger::default(),
            saved: None,
            workers: [(0, Worker::Dead); WORKERS as usize],
            next_steps: [NextStep::Nothing; SCHEDULERS],
            revoked_once: Vec::new(),
            queue: Vec::new(),
            late: Vec::new(),
            has_speculated: false,
            faults: self.faults,
            may_roll_back: self.rolls_back,
        }
    }

    fn key(&self, state: &State) -> Vec<u8> {
        symmetry::key(state)
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        self.scheduler_actions(state, &mut actions);
        for worker in 0..WORKERS {
            self.worker_actions(state, worker, &mut actions);
        }
        Self::network_actions(state, &mut actions);
        actions.retain(|action| state.faults > 0 || !self.uses_up(*action));
        actions
    }

    fn next(&self, state: &State, action: Action) -> Result<State, &'static str> {
        let mut next = state.clone();
        next.faults -= u8::from(self.uses_up(action));
        self.happens(&mut next, action)?;
        Ok(next)
    }

    fn is_fault(&self, action: Action) -> bool {
        self.uses_up(action) || action == Action::RollBack
    }

    fn is_done(&self, state: &State) -> bool {
        state.ledger.state == JobState::Succeeded
    }

    fn describe(&self, state: &State) -> String {
        let State { ledger, workers, next_steps, queue, late, .. } = state;
        let Ledger { chunks, done, fleet, .. } = ledger;
        format!(
            "ledger {chunks:?} done {done:?} {fleet:?} | workers {workers:?} | \
             schedulers {next_steps:?} | queue {queue:?} | late {late:?}"
        )
    }
}

impl Config {
    /// Whether a step counts as one of the faults. Rollbacks count separately.
    fn uses_up(&self, action: Action) -> bool {
        match action {
            Action::Judge { wrongly, .. } => wrongly,
            Action::Beat { late, .. } => late,
            Action::Deliver { lost, .. } => lost,
            Action::Ask { fate, .. } => fate != Fate::Heard,
            Action::SchedulerDies { .. }
            | Action::TakeOver
            | Action::OfferSpeculative
            | Action::Lose { .. }
            | Action::Double { .. }
            | Action::GiveUp { .. }
            | Action::Crash { .. } => true,
            _ => false,
        }
    }
}
