//! The ledger as one process sees it, over a network that delays and loses calls and answers.
//!
//! ```text
//!   process ──▶ gate (frozen, dead) ──▶ line (cut) ──▶ network (late, lost) ──▶ checked_ledger.rs
//!           ◀── gate ◀── time limit ◀───────────────── network (late, lost) ◀──┘
//! ```
//!
//! A call that was sent is executed even if the caller gives up or dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use longshore_ledger::testing::{Answer, Intercepted, Interceptor, Operation};
use longshore_ledger::{
    Beat, BeatParams, ConnectionWatch, ControlError, Error, Events, Ledger, Process as Beating,
    ProcessConnections, Stop, StopReason, Topic,
};
use longshore_protocol::{ErrorKind, NodeId, SchedulerId};
use tokio::sync::oneshot;

use crate::hints::RemoteEvents;
use crate::process::{Impairment, Process};
use crate::sabotage::Sabotage;
use crate::world::World;

/// How long a caller waits for an answer (`response_timeout` of the Redis ledger).
const RESPONSE: Duration = Duration::from_secs(2);

/// The connections of one process to the ledger.
pub(crate) struct RemoteLedger {
    process: Arc<Process>,
    /// The impairment that cuts them.
    line: Impairment,
}

impl RemoteLedger {
    pub(crate) fn connect(process: &Arc<Process>) -> Arc<dyn Ledger> {
        Arc::new(Intercepted(Self { process: process.clone(), line: Impairment::Ledger }))
    }

    /// Sends an operation to the true ledger.
    async fn perform(&self, operation: Operation) -> Result<Answer, ControlError> {
        let process = self.process.clone();
        let is_heartbeat =
            matches!(operation, Operation::Beat(..) | Operation::RegisterScheduler(..));
        self.ask(operation.name(), move |world| {
            Box::pin(async move {
                let answer = world.carry_out(&operation).await;
                if is_heartbeat {
                    process.lose_connection_if_dead();
                }
                answer
            })
        })
        .await
    }

    /// Sends a heartbeat and returns its answer, changed in a sabotaged run.
    async fn beat(&self, operation: Operation, params: BeatParams) -> Result<Beat, ControlError> {
        let world = &self.process.world;
        let begun = world.now();
        self.process.beats_as(Beating::Worker(params.info.id));
        match self.perform(operation).await {
            Ok(Answer::Beat(mut beat)) => {
                world.heartbeat_heard(&self.process, begun);
                world.stops_heard(begun, &beat.stop);
                if world.is_sabotaged(Sabotage::AssumeRevoked) && self.process.missed_beat(false) {
                    let reason = StopReason::Revoked;
                    let believed = params.held.into_iter();
                    beat.stop = believed.map(|held| Stop { held, reason }).collect();
                }
                if world.is_sabotaged(Sabotage::IgnoreStops) {
                    beat.stop.clear();
                }
                Ok(beat)
            }
            Ok(other) => panic!("a heartbeat was answered with {other:?}"),
            Err(_) if world.is_sabotaged(Sabotage::IgnoreMissedHeartbeats) => Ok(Beat::default()),
            Err(error) => {
                self.process.missed_beat(true);
                Err(error)
            }
        }
    }

    async fn ask<T, E>(
        &self,
        operation: &'static str,
        act: impl FnOnce(Arc<World>) -> BoxFuture<'static, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.process.running().await;
        self.may_crash("crashes before a call").await;
        let (answer, reply) = oneshot::channel();
        tokio::spawn(carry(self.process.clone(), self.line, operation, act, answer));
        let reply = tokio::time::timeout(RESPONSE, reply).await;
        self.process.running().await;
        self.may_crash("crashes after a call").await;
        match reply {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("connection reset").into()),
            Err(_) => Err(unavailable("no answer in time").into()),
        }
    }

    /// Whether this scheduler would own a worker if workers were distributed over schedulers.
    fn owns(&self, node: &NodeId) -> bool {
        let living = self.process.world.living();
        let schedulers = living.iter().filter(|process| process.name.starts_with("scheduler"));
        let ids: Vec<_> =
            schedulers.map(|process| SchedulerId::new(process.name.clone())).collect();
        let owner = longshore_scheduler::owner(node.as_str(), &ids);
        owner.is_some_and(|owner| owner.as_str() == self.process.name)
    }

    /// Kills the process here with the probability `crash_at_call`.
    async fn may_crash(&self, where_: &'static str) {
        if self.process.is_mortal && self.process.world.happens(where_, |w| w.crash_at_call) {
            self.process.kill();
            self.process.alive().await;
        }
    }
}

/// Delivers a call to the true ledger, and its answer.
async fn carry<T, E>(
    process: Arc<Process>,
    line: Impairment,
    operation: &'static str,
    act: impl FnOnce(Arc<World>) -> BoxFuture<'static, Result<T, E>> + Send + 'static,
    answer: oneshot::Sender<Result<T, E>>,
) {
    let world = process.world.clone();
    if process.has(line) {
        // Half of the calls are refused; the others wait in a buffer until the line works again.
        if world.rng.chance(500) {
            return;
        }
        process.without(line).await;
        world.count("calls that waited for a cut line");
    }
    if world.happens("calls lost", |rates| rates.call_lost) {
        return;
    }
    pause(world.rng.millis(0..3)).await;
    if world.happens("calls late", |rates| rates.call_late) {
        pause(world.rng.millis(100..6_000)).await;
    }
    let done = act(world.clone()).await;
    world.note(|| format!("{} {operation} #{}", process.name, world.rng.fingerprint()));
    if world.happens("replies lost", |rates| rates.reply_lost) {
        return;
    }
    pause(world.rng.millis(0..3)).await;
    // The caller may have stopped waiting.
    let _ = answer.send(done);
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn unavailable(reason: &str) -> Error {
    let kind = ErrorKind::Unreachable;
    Error::Unavailable { kind, address: "the simulation".into(), reason: reason.into() }
}

/// The connection watch of a scheduler, over its line. A fault that cuts all lines cuts this one,
/// too; after that only processes count whose connections the watch has seen since.
struct RemoteConnectionWatch {
    ledger: RemoteLedger,
    was_cut: bool,
    /// The number of resets of the ledger's connections that the watch has noticed.
    resets: u64,
    seen: BTreeSet<Beating>,
}

#[async_trait]
impl ConnectionWatch for RemoteConnectionWatch {
    async fn disconnected(
        &mut self,
        connections: &[ProcessConnections],
    ) -> Result<Vec<Beating>, Error> {
        let mut there: BTreeSet<Beating> =
            connections.iter().map(|connections| connections.process.clone()).collect();
        let connections = connections.to_vec();
        let asked = self.ledger.ask("connections", move |world| {
            Box::pin(
                async move { world.ledger.connection_watch().disconnected(&connections).await },
            )
        });
        let asked = asked.await;
        let resets = self.ledger.process.resets();
        if asked.is_err() || std::mem::replace(&mut self.resets, resets) != resets {
            self.was_cut = true;
            self.seen.clear();
        }
        let mut disconnected = asked?;
        there.retain(|process| !disconnected.contains(process));
        self.seen.extend(there);
        disconnected.retain(|process| !self.was_cut || self.seen.contains(process));
        Ok(disconnected)
    }
}

#[async_trait]
impl Interceptor for RemoteLedger {
    fn ledger(&self) -> &dyn Ledger {
        &self.process.world.ledger
    }

    async fn intercept(&self, operation: Operation) -> Result<Answer, ControlError> {
        let world = &self.process.world;
        match &operation {
            // These operations are for display only.
            Operation::Postpone(..)
            | Operation::Postponed(..)
            | Operation::ReportStall(..)
            | Operation::Stalls(..)
            | Operation::PendingCancel(..) => operation.call(&world.ledger).await,
            Operation::Claim(job, _) => {
                let job = *job;
                let answer = self.perform(operation).await?;
                world.grant_heard(&self.process, job);
                Ok(answer)
            }
            Operation::Revoke(_, params)
                if world.is_sabotaged(Sabotage::OneRecovers) && !self.owns(&params.node) =>
            {
                Ok(Answer::Revoke(Vec::new()))
            }
            Operation::Beat(params) => {
                let params = params.clone();
                Ok(Answer::Beat(self.beat(operation, params).await?))
            }
            Operation::RegisterScheduler(params) => {
                self.process.beats_as(Beating::Scheduler(params.scheduler.clone()));
                self.perform(operation).await
            }
            _ => self.perform(operation).await,
        }
    }

    async fn events(&self, topic: Topic) -> Result<Box<dyn Events>, Error> {
        let real = self
            .ask("events", move |world| Box::pin(async move { world.ledger.events(topic).await }));
        let real = real.await?;
        Ok(Box::new(RemoteEvents { process: self.process.clone(), line: self.line, real }))
    }

    fn connection_watch(&self) -> Box<dyn ConnectionWatch> {
        let ledger = Self { process: self.process.clone(), line: self.line };
        Box::new(RemoteConnectionWatch {
            ledger,
            was_cut: false,
            resets: self.process.resets(),
            seen: BTreeSet::new(),
        })
    }

    fn separate(&self) -> Arc<dyn Ledger> {
        Arc::new(Intercepted(Self { process: self.process.clone(), line: Impairment::Heartbeat }))
    }

    fn describe(&self) -> String {
        "the simulation's ledger".into()
    }
}
