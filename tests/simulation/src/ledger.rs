//! The ledger as one process sees it: over a network that loses, delays and forgets.
//!
//! ```text
//!   process ──▶ gate (frozen, dead) ──▶ line (cut) ──▶ on its way (late, lost) ──▶ the true ledger, checked
//!           ◀── gate ◀── time limit ◀───────────────── on its way (late, lost) ◀──┘
//! ```
//!
//! A call that was sent is carried out whatever becomes of the caller: a time-out or a death cancels nothing.

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
use longshore_protocol::{NodeId, SchedulerId};
use tokio::sync::oneshot;

use crate::hints::RemoteEvents;
use crate::process::{Process, Trouble};
use crate::sabotage::Sabotage;
use crate::world::World;

/// How long a caller waits for an answer (`response_timeout` of the Redis ledger).
const RESPONSE: Duration = Duration::from_secs(2);

/// The connections of one process to the ledger.
pub(crate) struct RemoteLedger {
    process: Arc<Process>,
    /// Which trouble cuts them.
    line: Trouble,
}

impl RemoteLedger {
    pub(crate) fn connect(process: &Arc<Process>) -> Arc<dyn Ledger> {
        Arc::new(Intercepted(Self { process: process.clone(), line: Trouble::Ledger }))
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

    /// Sends a heartbeat and hears, or in a sabotaged run mishears, its answer.
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
        self.stumble("crashes before a call").await;
        let (answer, reply) = oneshot::channel();
        tokio::spawn(carry(self.process.clone(), self.line, operation, act, answer));
        let reply = tokio::time::timeout(RESPONSE, reply).await;
        self.process.running().await;
        self.stumble("crashes after a call").await;
        match reply {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("connection reset").into()),
            Err(_) => Err(unavailable("no answer in time").into()),
        }
    }

    /// Whether a worker would fall to this scheduler if workers were spread over schedulers.
    fn owns(&self, node: &NodeId) -> bool {
        let living = self.process.world.living();
        let schedulers = living.iter().filter(|it| it.name.starts_with("scheduler"));
        let ids: Vec<_> = schedulers.map(|it| SchedulerId::new(it.name.clone())).collect();
        let owner = longshore_scheduler::owner(node.as_str(), &ids);
        owner.is_some_and(|owner| owner.as_str() == self.process.name)
    }

    /// Perhaps the process dies here.
    async fn stumble(&self, where_: &'static str) {
        if self.process.mortal && self.process.world.happens(where_, |w| w.crash_at_call) {
            self.process.kill();
            self.process.alive().await;
        }
    }
}

/// A call and its answer on their way.
async fn carry<T, E>(
    process: Arc<Process>,
    line: Trouble,
    operation: &'static str,
    act: impl FnOnce(Arc<World>) -> BoxFuture<'static, Result<T, E>> + Send + 'static,
    answer: oneshot::Sender<Result<T, E>>,
) {
    let world = process.world.clone();
    if process.has(line) {
        // Half of them are refused, the others wait in a buffer until the line is mended.
        if world.dice.chance(500) {
            return;
        }
        process.without(line).await;
        world.count("calls that waited for a cut line");
    }
    if world.happens("calls lost", |weather| weather.call_lost) {
        return;
    }
    pause(world.dice.millis(0..3)).await;
    if world.happens("calls late", |weather| weather.call_late) {
        pause(world.dice.millis(100..6_000)).await;
    }
    let done = act(world.clone()).await;
    world.note(|| format!("{} {operation} #{}", process.name, world.dice.fingerprint()));
    if world.happens("replies lost", |weather| weather.reply_lost) {
        return;
    }
    pause(world.dice.millis(0..3)).await;
    // Nobody waits any more: then nobody hears.
    let _ = answer.send(done);
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn unavailable(reason: &str) -> Error {
    Error::Unavailable { address: "the simulation".into(), reason: reason.into() }
}

/// A scheduler's look at the hearts, over its line. What cuts all lines cuts that one too: then only
/// those count whose hearts it has seen since.
struct RemoteConnectionWatch {
    ledger: RemoteLedger,
    was_cut: bool,
    /// Of the ledger's connections, as far as this one has gone through them.
    resets: u64,
    seen: BTreeSet<Beating>,
}

#[async_trait]
impl ConnectionWatch for RemoteConnectionWatch {
    async fn disconnected(&mut self, hearts: &[ProcessConnections]) -> Result<Vec<Beating>, Error> {
        let mut there: BTreeSet<Beating> =
            hearts.iter().map(|heart| heart.process.clone()).collect();
        let hearts = hearts.to_vec();
        let asked = self.ledger.ask("hearts", move |world| {
            Box::pin(async move { world.ledger.connection_watch().disconnected(&hearts).await })
        });
        let asked = asked.await;
        let resets = self.ledger.process.resets();
        if asked.is_err() || std::mem::replace(&mut self.resets, resets) != resets {
            self.was_cut = true;
            self.seen.clear();
        }
        let mut severed = asked?;
        there.retain(|process| !severed.contains(process));
        self.seen.extend(there);
        severed.retain(|process| !self.was_cut || self.seen.contains(process));
        Ok(severed)
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
            // They are for display only.
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
        Arc::new(Intercepted(Self { process: self.process.clone(), line: Trouble::Heart }))
    }

    fn describe(&self) -> String {
        "the simulation's ledger".into()
    }
}
