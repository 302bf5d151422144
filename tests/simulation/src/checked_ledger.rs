//! Runs each operation on the true ledger, and has the checkers inspect the result.
//!
//! In sabotaged runs the operations have bugs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longshore_ledger::memory::Snapshot;
use longshore_ledger::testing::{Answer, Operation};
use longshore_ledger::{
    Admission, Admitted, Cancelled, Claim, ClaimParams, Commit, CommitParams, Committed,
    ControlError, DeclareLostParams, Error, IsolateParams, Ledger, LossCause, LossVerdict,
    NodeSnapshot, OpenParams, Process, ProcessConnections, ReleaseParams, Released, ResultsParams,
    RetryParams, RevokeParams, Revoked, SpeculationRequest, SpeculativeChunk, Sweep, SweepParams,
};
use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, JobId, LivenessTerms, NodeId, OutcomeRun, RESULT_STRIDE, ResultBody,
    Timestamp, Token,
};

use crate::history::{Holder, Holders};
use crate::sabotage::Sabotage;
use crate::storage::lines;
use crate::world::World;

/// A snapshot of the ledger with the history that belongs to it.
pub(crate) struct Moment {
    ledger: Snapshot,
    holders: Holders,
    counted: BTreeMap<(JobId, u64), String>,
}

impl World {
    /// Executes an operation on the true ledger, with the checks of operations that have any.
    pub(crate) async fn carry_out(&self, operation: &Operation) -> Result<Answer, ControlError> {
        Ok(match operation {
            Operation::Admit(admission) => Answer::Admit(self.admit(admission).await?),
            Operation::Open(job, params) => Answer::Open(self.open(*job, params).await?),
            Operation::Claim(job, params) => Answer::Claim(self.claim(*job, params).await?),
            Operation::Commit(job, params) => Answer::Commit(self.commit(*job, params).await?),
            Operation::Release(job, params) => Answer::Release(self.release(*job, params).await?),
            Operation::OfferSpeculative(job, params) => {
                Answer::OfferSpeculative(self.offer_speculative(*job, params).await?)
            }
            Operation::Revoke(job, params) => Answer::Revoke(self.revoke(*job, params).await?),
            Operation::RefundAttempts(job, nodes) => {
                Answer::RefundAttempts(self.refund_attempts(*job, nodes).await?)
            }
            Operation::TriedNodes(_, chunks) if self.is_sabotaged(Sabotage::ForgetTried) => {
                Answer::TriedNodes(vec![Vec::new(); chunks.len()])
            }
            Operation::Sweep(job, params) => Answer::Sweep(self.sweep(*job, params).await?),
            Operation::Pause(job) => Answer::Pause(self.pause(*job).await?),
            Operation::Resume(job) => Answer::Resume(self.resume(*job).await?),
            Operation::Cancel(job) => Answer::Cancel(self.cancel(*job).await?),
            Operation::Fail(job, _) => {
                let done = operation.call(&self.ledger).await;
                self.ended(*job, "deadlines passed", done).await?
            }
            Operation::Retry(job, params) => Answer::Retry(self.retry(*job, params).await?),
            Operation::Isolate(IsolateParams { node, isolated, .. }) => {
                self.note(|| format!("{node} is out of rotation: {isolated:?}"));
                if !isolated.is_empty() {
                    self.count("nodes isolated");
                }
                operation.call(&self.ledger).await?
            }
            Operation::ReportBlocked(_) if self.is_sabotaged(Sabotage::ForgetReasons) => {
                Answer::ReportBlocked(())
            }
            Operation::NodesSince(known) => Answer::NodesSince(self.nodes_since(known).await?),
            Operation::DeclareLost(params) => Answer::DeclareLost(self.declare_lost(params).await?),
            _ => operation.call(&self.ledger).await?,
        })
    }

    pub(crate) async fn admit(&self, admission: &Admission) -> Result<Admitted, Error> {
        let mut admission = admission.clone();
        if self.is_sabotaged(Sabotage::ForgetMaxParallel) {
            admission.max_parallel = None;
            admission.open.iter_mut().for_each(|open| open.chunks += 2);
        }
        let admitted = self.ledger.admit(&admission).await?;
        self.note(|| format!("{} admitted: {admitted:?}", admission.job));
        self.inspect(admission.job).await;
        Ok(admitted)
    }

    async fn declare_lost(&self, params: &DeclareLostParams) -> Result<LossVerdict, Error> {
        let DeclareLostParams { node, evidence, .. } = params;
        let process = Process::Worker(node.clone());
        let connections =
            ProcessConnections { process, connections: None, beat_at: Timestamp::default() };
        let is_disconnected =
            !self.ledger.connection_watch().disconnected(&[connections]).await?.is_empty();
        let declared = self.ledger.declare_lost(params).await?;
        self.note(|| format!("{node} declared lost by {evidence:?}: {declared:?}"));
        if !is_disconnected && matches!(declared, LossVerdict::New(_)) {
            self.check_living(node, *evidence);
        }
        Ok(declared)
    }

    async fn nodes_since(&self, known: &NodeSnapshot) -> Result<NodeSnapshot, Error> {
        let mut snapshot = self.ledger.nodes_since(known).await?;
        if self.is_sabotaged(Sabotage::IgnoreTerms) {
            for record in Arc::make_mut(&mut snapshot.nodes) {
                Arc::make_mut(&mut record.info).terms = LivenessTerms::default();
            }
        }
        Ok(snapshot)
    }

    async fn open(&self, job: JobId, open: &OpenParams) -> Result<Vec<ChunkMessage>, Error> {
        let mut open = *open;
        if self.is_sabotaged(Sabotage::ForgetMaxParallel) {
            open.chunks += 2;
        }
        let opened = self.ledger.open(job, &open).await?;
        self.note(|| format!("{job} opened: {:?}", opened.iter().map(range).collect::<Vec<_>>()));
        self.inspect(job).await;
        Ok(opened)
    }

    pub(crate) async fn claim(&self, job: JobId, params: &ClaimParams) -> Result<Claim, Error> {
        let &ClaimParams { chunk, epoch, token, ref node, .. } = params;
        let mut claim = self.ledger.claim(job, params).await?;
        self.note(|| format!("{job}/{chunk} epoch {epoch} claimed by {node}: {claim:?}"));
        if let Claim::Granted(grant) = &mut claim {
            let since = self.ledger.now().await?;
            let holder = Holder { token, node: node.clone(), epoch, to: grant.to, since };
            let mut history = self.history.lock();
            let granted = (job, grant.from..grant.to);
            history.granted(self.now(), granted, epoch, (node, token));
            if history.holders.offers(job, chunk) && !history.holders.allow(job, chunk, token) {
                self.count("speculative chunks run");
            }
            if let Some(other) = history.holders.granted(job, chunk, holder) {
                drop(history);
                self.violated("S4", || {
                    format!("{job}/{chunk} was granted under {token} while {other} holds it")
                });
            } else if self.is_sabotaged(Sabotage::ChargeCrashes)
                && history.revoked.contains(&(job, chunk))
            {
                grant.attempt += 1;
            }
        }
        self.inspect(job).await;
        Ok(claim)
    }

    async fn commit(&self, job: JobId, params: &CommitParams) -> Result<Committed, Error> {
        let &CommitParams { chunk, token, .. } = params;
        let (allowed, to) = {
            let holders = &self.history.lock().holders;
            let to = holders.of(job, chunk).first().map(|holder| holder.to);
            (holders.allow(job, chunk, token), to)
        };
        let mut params = params.clone();
        self.corrupt(&mut params.commit, to);
        if self.is_sabotaged(Sabotage::ConfirmUnwritten) && self.rng.chance(50) {
            return Ok(Committed::Settled { state: JobState::Running });
        }
        params.token = self.effective(job, chunk, token);
        let before = self.kept(job, &params.commit).await;
        let committed = self.ledger.commit(job, &params).await?;
        let commit = params.commit;
        self.count_results(job, token, &commit, &before).await;
        self.note(|| {
            format!("{job}/{chunk} commit {}..{}: {committed:?}", commit.from, commit.end())
        });
        if let Committed::Settled { state } = committed {
            if !allowed {
                self.violated("S4", || format!("{job}/{chunk}: a commit under {token} counted"));
            }
            self.check_ran(job, &commit);
            if state.is_terminal() {
                self.history.lock().holders.ended(job);
            }
        } else {
            self.count("stale commits refused");
        }
        self.inspect(job).await;
        Ok(committed)
    }

    async fn release(&self, job: JobId, params: &ReleaseParams) -> Result<Released, Error> {
        let &ReleaseParams { chunk, token, part, .. } = params;
        let shown = self.effective(job, chunk, token);
        let answer = self.ledger.release(job, &ReleaseParams { token: shown, ..*params }).await?;
        self.note(|| format!("{job}/{chunk} released, split into {part:?}: {answer:?}"));
        if answer == Released::Queued {
            let mut history = self.history.lock();
            let allowed = history.holders.allow(job, chunk, token);
            history.holders.released(job, chunk, token);
            if part.is_some() {
                history.holders.split(job, chunk);
                history.split.insert(job);
                self.count("chunks split because they took long");
            }
            drop(history);
            if !allowed {
                self.violated("S4", || format!("{job}/{chunk}: a release under {token} counted"));
            }
        }
        self.inspect(job).await;
        Ok(answer)
    }

    async fn offer_speculative(
        &self,
        job: JobId,
        params: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error> {
        let offered = self.ledger.offer_speculative(job, params).await?;
        for SpeculativeChunk { message, holder } in &offered {
            self.count("chunks offered speculatively");
            self.note(|| {
                format!("{job}/{} is offered speculatively, {holder} holds it", message.chunk)
            });
            self.history.lock().holders.offered(job, message.chunk);
            self.offered_speculatively(job, message.chunk);
        }
        self.inspect(job).await;
        Ok(offered)
    }

    async fn revoke(&self, job: JobId, params: &RevokeParams) -> Result<Vec<Revoked>, Error> {
        let RevokeParams { node, cause, .. } = params;
        if self.is_sabotaged(Sabotage::NeverRevoke) {
            return Ok(Vec::new());
        }
        self.check_lost().await;
        let revoked = self.ledger.revoke(job, params).await?;
        let claimed_by = match cause {
            LossCause::Orphaned { claimed_by } => Some(*claimed_by),
            _ => None,
        };
        self.history.lock().holders.revoked(job, node, claimed_by);
        for Revoked { chunk, .. } in &revoked {
            self.count("chunks revoked");
            self.note(|| format!("{job}/{chunk} revoked from {node}"));
            let mut history = self.history.lock();
            history.revoked.insert((job, *chunk));
        }
        self.inspect(job).await;
        Ok(revoked)
    }

    async fn refund_attempts(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error> {
        let again = self.ledger.refund_attempts(job, nodes).await?;
        self.note(|| format!("{job} refunded attempts of {nodes:?}: {again} are retried"));
        self.inspect(job).await;
        Ok(again)
    }

    async fn sweep(&self, job: JobId, params: &SweepParams) -> Result<Option<Sweep>, Error> {
        let mut sweep = self.ledger.sweep(job, params).await?;
        if let Some(sweep) = &mut sweep
            && self.is_sabotaged(Sabotage::NeverSweep)
        {
            sweep.publish.clear();
        }
        let suspect_lost = params.suspect_lost;
        self.note(|| format!("{job} swept, suspected lost after {suspect_lost:?}: {sweep:?}"));
        Ok(sweep)
    }

    async fn pause(&self, job: JobId) -> Result<JobState, ControlError> {
        let state = if self.is_sabotaged(Sabotage::PauseWithoutEffect) {
            JobState::Paused
        } else {
            self.ledger.pause(job).await?
        };
        self.count("pauses");
        self.note(|| format!("{job} paused"));
        self.history.lock().paused.entry(job).or_insert(self.now());
        self.inspect(job).await;
        Ok(state)
    }

    pub(crate) async fn resume(&self, job: JobId) -> Result<JobState, ControlError> {
        let state = self.ledger.resume(job).await?;
        self.note(|| format!("{job} resumed"));
        self.history.lock().paused.remove(&job);
        self.inspect(job).await;
        Ok(state)
    }

    async fn cancel(&self, job: JobId) -> Result<Cancelled, ControlError> {
        let is_known = self.ledger.job(job).await?.is_some();
        let done = if is_known || !self.is_sabotaged(Sabotage::ForgetCancels) {
            self.ledger.cancel(job).await?
        } else {
            Cancelled::BeforeAdmission
        };
        if done == Cancelled::BeforeAdmission {
            self.count("jobs cancelled before they were admitted");
            self.note(|| format!("{job} cancelled before it was admitted"));
            self.history.lock().cancelled_early.insert(job);
            return Ok(done);
        }
        self.ended(job, "jobs cancelled", Ok(done)).await
    }

    /// Records a control operation after which no chunk of the job has a holder.
    async fn ended<A>(
        &self,
        job: JobId,
        how: &'static str,
        done: Result<A, ControlError>,
    ) -> Result<A, ControlError> {
        let state = done?;
        self.count(how);
        self.note(|| format!("{job} {how}"));
        self.history.lock().holders.ended(job);
        self.inspect(job).await;
        Ok(state)
    }

    async fn retry(&self, job: JobId, params: &RetryParams) -> Result<JobState, ControlError> {
        let state = self.ledger.retry(job, params).await?;
        self.count("retries asked for");
        self.note(|| format!("{job} re-opened"));
        // The job may have been paused when it ended.
        self.history.lock().paused.remove(&job);
        self.inspect(job).await;
        Ok(state)
    }

    /// The indices of a commit that have a result.
    async fn kept(&self, job: JobId, commit: &Commit) -> BTreeSet<u64> {
        let params = ResultsParams::new(commit.from..commit.end(), u64::MAX);
        let page = self.ledger.results(job, &params).await;
        let runs = page.unwrap_or_default().runs;
        runs.iter().flat_map(|run| run.from..run.from + run.count).collect()
    }

    /// Records the results that a commit added to the job.
    async fn count_results(
        &self,
        job: JobId,
        token: Token,
        commit: &Commit,
        before: &BTreeSet<u64>,
    ) {
        let after = self.kept(job, commit).await;
        let mut history = self.history.lock();
        let mut from = commit.from;
        for run in &commit.runs {
            if let OutcomeRun::Success { results: Some(results), .. } = run {
                let lines = match results {
                    ResultBody::Lines(text) => lines(text.as_bytes()),
                    ResultBody::Object { .. } => {
                        history.written.get(&(job, from, token)).cloned().unwrap_or_default()
                    }
                };
                let counted = (from..).zip(lines).filter(|(index, _)| {
                    (from..from + run.len()).contains(index)
                        && after.contains(index)
                        && !before.contains(index)
                });
                let counted: Vec<_> = counted.map(|(index, line)| ((job, index), line)).collect();
                history.counted.extend(counted);
            }
            from += run.len();
        }
    }

    // Rollback

    pub(crate) fn moment(&self) -> Moment {
        let history = self.history.lock();
        let (holders, counted) = (history.holders.clone(), history.counted.clone());
        Moment { ledger: self.ledger.snapshot(), holders, counted }
    }

    pub(crate) async fn roll_back(&self, to: &Moment) {
        self.count("ledger rolled back");
        self.note(|| "the ledger is rolled back".into());
        self.ledger.restore(&to.ledger);
        let mut paused = Vec::new();
        for job in self.jobs.keys() {
            let summary = self.ledger.job(*job).await.ok().flatten();
            paused.extend(summary.filter(|job| job.state == JobState::Paused).map(|job| job.id));
            self.inspect(*job).await;
        }
        let now = self.now();
        let mut history = self.history.lock();
        history.holders = to.holders.clone();
        history.counted = to.counted.clone();
        history.cancelled_early.clear();
        history.rolled_back_at = self.now();
        history.paused.clear();
        history.paused.extend(paused.into_iter().map(|job| (job, now)));
    }

    // Sabotage

    /// The token that the ledger checks: the given one, except in runs that sabotage fencing.
    fn effective(&self, job: JobId, chunk: ChunkId, given: Token) -> Token {
        let history = self.history.lock();
        let Some(holder) = history.holders.of(job, chunk).first() else { return given };
        let same_epoch = history.epochs.get(&given) == Some(&holder.epoch);
        let is_accepted = self.is_sabotaged(Sabotage::IgnoreFencing)
            || self.is_sabotaged(Sabotage::EpochsForTokens) && same_epoch;
        if is_accepted { holder.token } else { given }
    }

    fn corrupt(&self, commit: &mut Commit, to: Option<u64>) {
        let end = commit.end();
        if self.is_sabotaged(Sabotage::SkipSubtasks)
            && let Some(to) = to.filter(|to| *to > end)
            && end / RESULT_STRIDE == (to - 1) / RESULT_STRIDE
        {
            let results = Some("0\n".repeat((to - end) as usize).into());
            commit.runs.push(OutcomeRun::Success { count: to - end, results });
        }
        if self.is_sabotaged(Sabotage::ShiftResults) {
            for run in &mut commit.runs {
                if let OutcomeRun::Success { results: Some(ResultBody::Lines(lines)), .. } = run {
                    let shifted = |line: &str| match line.parse::<u64>() {
                        Ok(value) => format!("{}\n", value + 1),
                        Err(_) => format!("{line}\n"),
                    };
                    *lines = lines.lines().map(shifted).collect();
                }
            }
        }
    }
}

fn range(message: &ChunkMessage) -> String {
    format!("{}={}..{}", message.chunk, message.from, message.to)
}
