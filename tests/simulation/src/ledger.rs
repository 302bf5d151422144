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
use longshore_ledger::{
    Admission, Admitted, Beat, Cancelled, Claim, Commit, Committed, ConnectionWatch, ControlError,
    Error, Events, Heart, Held, Holder, Ledger, LossCause, LossEvidence, LossVerdict, NodeSnapshot,
    Open, PriorState, Process as Beating, Released, Restored, Revoked, SpeculationRequest,
    SpeculativeChunk, Stop, StopReason, StoredDocument, Sweep, Topic,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    Audit, ChunkId, ChunkMessage, Epoch, ErrorEntry, Finding, Isolation, JobId, JobSummary,
    JournalPlace, NodeId, NodeInfo, NodeRecord, Recovery, ResultsPage, SchedulerId,
    SchedulerRecord, Stall, Timestamp, Token,
};
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
    pub(crate) fn new(process: &Arc<Process>) -> Arc<Self> {
        Arc::new(Self { process: process.clone(), line: Trouble::Ledger })
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
struct RemoteHearts {
    ledger: RemoteLedger,
    was_cut: bool,
    /// Of the ledger's connections, as far as this one has gone through them.
    resets: u64,
    seen: BTreeSet<Beating>,
}

#[async_trait]
impl ConnectionWatch for RemoteHearts {
    async fn severed(&mut self, hearts: &[Heart]) -> Result<Vec<Beating>, Error> {
        let mut there: BTreeSet<Beating> = hearts.iter().map(|heart| heart.of.clone()).collect();
        let hearts = hearts.to_vec();
        let asked = self.ledger.ask("hearts", move |world| {
            Box::pin(async move { world.ledger.hearts().severed(&hearts).await })
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
impl Ledger for RemoteLedger {
    async fn admit(&self, admission: &Admission) -> Result<Admitted, Error> {
        let admission = admission.clone();
        self.ask("admit", move |world| Box::pin(async move { world.admit(&admission).await })).await
    }

    async fn reject(&self, job: JobId, error: &str) -> Result<(), Error> {
        let error = error.to_owned();
        self.ask("reject", move |world| {
            Box::pin(async move { world.ledger.reject(job, &error).await })
        })
        .await
    }

    async fn postpone(&self, job: JobId, reason: &str) -> Result<(), Error> {
        self.process.world.ledger.postpone(job, reason).await
    }

    async fn postponed(&self, job: JobId) -> Result<Option<String>, Error> {
        self.process.world.ledger.postponed(job).await
    }

    async fn report_stall(
        &self,
        job: JobId,
        node: &NodeId,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.process.world.ledger.report_stall(job, node, reason).await
    }

    async fn stalls(&self, job: JobId) -> Result<Vec<Stall>, Error> {
        self.process.world.ledger.stalls(job).await
    }

    async fn open(&self, job: JobId, open: &Open) -> Result<Vec<ChunkMessage>, Error> {
        let open = *open;
        self.ask("open", move |world| Box::pin(async move { world.open(job, &open).await })).await
    }

    async fn claim(
        &self,
        job: JobId,
        chunk: ChunkId,
        epoch: Epoch,
        token: Token,
        node: &NodeId,
    ) -> Result<Claim, Error> {
        let node = node.clone();
        let claim = self
            .ask("claim", move |world| {
                Box::pin(async move { world.claim(job, chunk, epoch, token, &node).await })
            })
            .await?;
        self.process.world.grant_heard(&self.process, job);
        Ok(claim)
    }

    async fn commit(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        commit: &Commit,
    ) -> Result<Committed, Error> {
        let commit = commit.clone();
        self.ask("commit", move |world| {
            Box::pin(async move { world.commit(job, chunk, token, &commit).await })
        })
        .await
    }

    async fn release(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        part: Option<u64>,
    ) -> Result<Released, Error> {
        self.ask("release", move |world| {
            Box::pin(async move { world.release(job, chunk, token, part).await })
        })
        .await
    }

    async fn revoke(
        &self,
        job: JobId,
        node: &NodeId,
        loss: &LossCause,
    ) -> Result<Vec<Revoked>, Error> {
        let (node, loss) = (node.clone(), loss.clone());
        if self.process.world.is_sabotaged(Sabotage::OneRecovers) && !self.owns(&node) {
            return Ok(Vec::new());
        }
        self.ask("revoke", move |world| {
            Box::pin(async move { world.revoke(job, &node, &loss).await })
        })
        .await
    }

    async fn copy(
        &self,
        job: JobId,
        lagging: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error> {
        let lagging = lagging.clone();
        self.ask("copy", move |world| Box::pin(async move { world.copy(job, &lagging).await }))
            .await
    }

    async fn holders(&self, job: JobId) -> Result<Vec<Holder>, Error> {
        self.ask("holders", move |world| Box::pin(async move { world.ledger.holders(job).await }))
            .await
    }

    async fn sweep(
        &self,
        job: JobId,
        limit: u32,
        publish_within: Duration,
        doubt: Option<Duration>,
    ) -> Result<Option<Sweep>, Error> {
        self.ask("sweep", move |world| {
            Box::pin(async move { world.sweep(job, limit, publish_within, doubt).await })
        })
        .await
    }

    async fn pause(&self, job: JobId) -> Result<JobState, ControlError> {
        self.ask("pause", move |world| Box::pin(async move { world.pause(job).await })).await
    }

    async fn resume(&self, job: JobId) -> Result<JobState, ControlError> {
        self.ask("resume", move |world| Box::pin(async move { world.resume(job).await })).await
    }

    async fn cancel(&self, job: JobId) -> Result<Cancelled, ControlError> {
        self.ask("cancel", move |world| Box::pin(async move { world.cancel(job).await })).await
    }

    async fn pending_cancel(&self, job: JobId) -> Result<Option<Timestamp>, Error> {
        self.process.world.ledger.pending_cancel(job).await
    }

    async fn fail(&self, job: JobId, error: &str) -> Result<JobState, ControlError> {
        let error = error.to_owned();
        self.ask("fail", move |world| {
            Box::pin(async move {
                let done = world.ledger.fail(job, &error).await;
                world.ended(job, "deadlines passed", done).await
            })
        })
        .await
    }

    async fn retry(&self, job: JobId, indices: Option<&[u64]>) -> Result<JobState, ControlError> {
        let indices = indices.map(<[u64]>::to_vec);
        self.ask("retry", move |world| {
            Box::pin(async move { world.retry(job, indices.as_deref()).await })
        })
        .await
    }

    async fn delete(&self, job: JobId) -> Result<(), ControlError> {
        self.ask("delete", move |world| Box::pin(async move { world.ledger.delete(job).await }))
            .await
    }

    async fn job(&self, job: JobId) -> Result<Option<JobSummary>, Error> {
        self.ask("job", move |world| Box::pin(async move { world.ledger.job(job).await })).await
    }

    async fn active_jobs(&self) -> Result<Vec<JobId>, Error> {
        self.ask("active_jobs", |world| Box::pin(async move { world.ledger.active_jobs().await }))
            .await
    }

    async fn finished_jobs(&self, limit: usize) -> Result<Vec<JobId>, Error> {
        self.ask("finished_jobs", move |world| {
            Box::pin(async move { world.ledger.finished_jobs(limit).await })
        })
        .await
    }

    async fn archive(&self, job: JobId) -> Result<(), Error> {
        self.ask("archive", move |world| Box::pin(async move { world.ledger.archive(job).await }))
            .await
    }

    async fn document(&self, job: JobId) -> Result<Option<StoredDocument>, Error> {
        self.ask("document", move |world| Box::pin(async move { world.ledger.document(job).await }))
            .await
    }

    async fn results(
        &self,
        job: JobId,
        from: u64,
        to: u64,
        max_bytes: u64,
    ) -> Result<ResultsPage, Error> {
        self.ask("results", move |world| {
            Box::pin(async move { world.ledger.results(job, from, to, max_bytes).await })
        })
        .await
    }

    async fn errors(&self, job: JobId, from: u64, limit: usize) -> Result<Vec<ErrorEntry>, Error> {
        self.ask("errors", move |world| {
            Box::pin(async move { world.ledger.errors(job, from, limit).await })
        })
        .await
    }

    async fn recoveries(&self, job: JobId, limit: usize) -> Result<Vec<Recovery>, Error> {
        self.ask("recoveries", move |world| {
            Box::pin(async move { world.ledger.recoveries(job, limit).await })
        })
        .await
    }

    async fn audit(&self, job: JobId) -> Result<Option<Audit>, Error> {
        self.ask("audit", move |world| Box::pin(async move { world.ledger.audit(job).await })).await
    }

    async fn beat(&self, info: &NodeInfo, held: &[Held]) -> Result<Beat, Error> {
        let (info, held) = (info.clone(), held.to_vec());
        let believed = held.clone();
        let world = &self.process.world;
        let begun = world.now();
        self.process.beats_as(Beating::Worker(info.id.clone()));
        let process = self.process.clone();
        let beat = self.ask("beat", move |world| {
            Box::pin(async move {
                let beat = world.ledger.beat(&info, &held).await;
                process.sever_if_dead();
                beat
            })
        });
        match beat.await {
            Ok(mut beat) => {
                world.heartbeat_heard(&self.process, begun);
                world.stops_heard(begun, &beat.stop);
                if world.is_sabotaged(Sabotage::PanickyHeart) && self.process.missed_beat(false) {
                    let reason = StopReason::Revoked;
                    beat.stop = believed.into_iter().map(|held| Stop { held, reason }).collect();
                }
                if world.is_sabotaged(Sabotage::IgnoreStops) {
                    beat.stop.clear();
                }
                Ok(beat)
            }
            Err(_) if world.is_sabotaged(Sabotage::DeafHeart) => Ok(Beat::default()),
            Err(error) => {
                self.process.missed_beat(true);
                Err(error)
            }
        }
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        self.ask("nodes", |world| Box::pin(async move { world.ledger.nodes().await })).await
    }

    async fn tried(&self, job: JobId, chunks: &[ChunkId]) -> Result<Vec<Vec<NodeId>>, Error> {
        let chunks = chunks.to_vec();
        self.ask("tried", move |world| {
            Box::pin(async move {
                if world.is_sabotaged(Sabotage::ForgetTried) {
                    return Ok(vec![Vec::new(); chunks.len()]);
                }
                world.ledger.tried(job, &chunks).await
            })
        })
        .await
    }

    async fn refund_attempts(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error> {
        let nodes = nodes.to_vec();
        self.ask("absolve", move |world| {
            Box::pin(async move { world.refund_attempts(job, &nodes).await })
        })
        .await
    }

    async fn isolate(&self, node: &NodeId, isolated: &[Isolation]) -> Result<bool, Error> {
        let (node, isolated) = (node.clone(), isolated.to_vec());
        self.ask("isolate", move |world| {
            Box::pin(async move {
                world.note(|| format!("{node} is out of rotation: {isolated:?}"));
                if !isolated.is_empty() {
                    world.count("nodes isolated");
                }
                world.ledger.isolate(&node, &isolated).await
            })
        })
        .await
    }

    async fn nodes_since(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        let known = known.clone();
        self.ask("nodes", move |world| Box::pin(async move { world.nodes_since(&known).await }))
            .await
    }

    async fn drain(&self, node: &NodeId) -> Result<bool, Error> {
        let node = node.clone();
        self.ask("drain", move |world| Box::pin(async move { world.ledger.drain(&node).await }))
            .await
    }

    // The simulated broker keeps no journal, so none of these is ever asked.

    async fn restore(&self, admission: &Admission, was: &PriorState) -> Result<Restored, Error> {
        let (admission, was) = (admission.clone(), was.clone());
        self.ask("restore", move |world| {
            Box::pin(async move { Ledger::restore(&world.ledger, &admission, &was).await })
        })
        .await
    }

    async fn missing(&self, jobs: &[JobId]) -> Result<Vec<JobId>, Error> {
        let jobs = jobs.to_vec();
        self.ask("missing", move |world| Box::pin(async move { world.ledger.missing(&jobs).await }))
            .await
    }

    async fn journal_place(&self) -> Result<Option<JournalPlace>, Error> {
        self.ask("journal_place", move |world| {
            Box::pin(async move { world.ledger.journal_place().await })
        })
        .await
    }

    async fn advance_journal(
        &self,
        from: Option<&JournalPlace>,
        to: &JournalPlace,
    ) -> Result<Option<JournalPlace>, Error> {
        let (from, to) = (from.cloned(), to.clone());
        self.ask("advance_journal", move |world| {
            Box::pin(async move { world.ledger.advance_journal(from.as_ref(), &to).await })
        })
        .await
    }

    async fn record_crash(&self, node: &NodeId, death: &str) -> Result<bool, Error> {
        let (node, death) = (node.clone(), death.to_owned());
        self.ask("certify", move |world| {
            Box::pin(async move { world.ledger.record_crash(&node, &death).await })
        })
        .await
    }

    async fn lose(
        &self,
        node: &NodeId,
        grounds: LossEvidence,
        loss: &LossCause,
    ) -> Result<LossVerdict, Error> {
        let (node, loss) = (node.clone(), loss.clone());
        self.ask("lose", move |world| {
            Box::pin(async move { world.lose(&node, grounds, &loss).await })
        })
        .await
    }

    async fn register_scheduler(
        &self,
        scheduler: &SchedulerId,
        within: Duration,
    ) -> Result<Vec<SchedulerRecord>, Error> {
        let scheduler = scheduler.clone();
        self.process.beats_as(Beating::Scheduler(scheduler.clone()));
        let process = self.process.clone();
        self.ask("attend", move |world| {
            Box::pin(async move {
                let present = world.ledger.register_scheduler(&scheduler, within).await;
                process.sever_if_dead();
                present
            })
        })
        .await
    }

    async fn schedulers(&self) -> Result<Vec<SchedulerRecord>, Error> {
        self.ask("schedulers", |world| Box::pin(async move { world.ledger.schedulers().await }))
            .await
    }

    async fn deregister_scheduler(&self, scheduler: &SchedulerId) -> Result<(), Error> {
        let scheduler = scheduler.clone();
        self.ask("withdraw", move |world| {
            Box::pin(async move { world.ledger.deregister_scheduler(&scheduler).await })
        })
        .await
    }

    async fn events(&self, audience: Topic) -> Result<Box<dyn Events>, Error> {
        let real = self.ask("events", move |world| {
            Box::pin(async move { world.ledger.events(audience).await })
        });
        let real = real.await?;
        Ok(Box::new(RemoteEvents { process: self.process.clone(), line: self.line, real }))
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.ask("now", |world| Box::pin(async move { world.ledger.now().await })).await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.process.world.ledger.examine().await
    }

    fn hearts(&self) -> Box<dyn ConnectionWatch> {
        let ledger = Self { process: self.process.clone(), line: self.line };
        Box::new(RemoteHearts {
            ledger,
            was_cut: false,
            resets: self.process.resets(),
            seen: BTreeSet::new(),
        })
    }

    fn separate(&self) -> Arc<dyn Ledger> {
        Arc::new(Self { process: self.process.clone(), line: Trouble::Heart })
    }

    fn describe(&self) -> String {
        "the simulation's ledger".into()
    }
}
