//! Admits and rejects jobs, and opens, claims, commits, releases, revokes and sweeps their chunks.

use longshore_protocol::state::JobState;
use longshore_protocol::{
    ChunkId, ChunkMessage, Digest, Epoch, JobId, NodeId, OutcomeRun, Timestamp,
};
use redis::{Cmd, Value, cmd};

use super::call::{Arguments, Call};
use super::listing::Attributes;
use super::reply::{Reply, corrupt, optional_word, parse, word};
use super::summary::Fields;
use super::{RedisLedger, job_fields, millis, packing};
use crate::op::{MAX_CHUNKS_A_CALL, MAX_INDICES, MAX_PARTS, shortened};
use crate::{
    Admission, Admitted, Claim, ClaimParams, CommitParams, Committed, Error, Grant, Holder,
    OpenParams, POSTPONED_FOR, ReleaseParams, Released, RevokeParams, Revoked, SpeculationRequest,
    SpeculativeChunk, Sweep, SweepParams,
};

impl RedisLedger {
    pub(super) async fn admit_job(&self, admission: &Admission) -> Result<Admitted, Error> {
        const OPERATION: &str = "admit";
        if admission.indices() > MAX_INDICES {
            return Ok(Admitted::TooLarge { most: MAX_INDICES });
        }
        if self.transport().is_cluster() {
            return self.admit_in_cluster(OPERATION, admission).await;
        }
        let keys = self.keys();
        let lists = [keys.active(), keys.finished(), keys.expiring()];
        let mut commands = Box::pin(self.index_admission(admission)).await?;
        let stamp = self.stamp().await;
        commands.push(self.admit_call(OPERATION, admission, &lists).command(&stamp));
        let answer = self.call_in_order(OPERATION, &commands).await?.pop().unwrap_or(Value::Nil);
        let answer = admitted(OPERATION, admission.job, Reply::list(OPERATION, answer)?)?;
        Box::pin(self.index_admitted(OPERATION, admission, &answer)).await?;
        Ok(answer)
    }

    /// Commands that put the job into the index, before it is admitted.
    async fn index_admission(&self, admission: &Admission) -> Result<Vec<Cmd>, Error> {
        let at = self.listing_time().await?;
        Ok(self.index(admission.job, &Attributes::of(admission), at))
    }

    /// Corrects what [`Self::index_admission`] has assumed: that the job has not ended, and is not
    /// another job with other attributes.
    async fn index_admitted(
        &self,
        operation: &'static str,
        admission: &Admission,
        answer: &Admitted,
    ) -> Result<(), Error> {
        match answer {
            Admitted::Accepted { .. } => Ok(()),
            Admitted::Conflict => self.unindex_attributes(operation, admission).await,
            Admitted::Cancelled { .. } | Admitted::Known | Admitted::TooLarge { .. } => {
                Box::pin(self.index_archived(operation, admission.job)).await
            }
        }
    }

    /// The lists lie elsewhere. A job of which only the hash, or only the place on the list, is
    /// there has to be found: it goes on the list first.
    async fn admit_in_cluster(
        &self,
        operation: &'static str,
        admission: &Admission,
    ) -> Result<Admitted, Error> {
        let (keys, name) = (self.keys(), admission.job.to_string());
        self.call_all(operation, &Box::pin(self.index_admission(admission)).await?).await?;
        // At the head of the list until the time is known.
        let list = zadd(keys.active(), Some("NX"), 0, &name);
        let stamp = self.stamp().await;
        let both = [list, self.admit_call(operation, admission, &[]).command(&stamp)];
        let answers = match self.call_in_order(operation, &both).await {
            Err(error @ (Error::Corrupt { .. } | Error::Misuse { .. })) => {
                // What has the job's name is no job.
                self.send(operation, &zrem(keys.active(), &name)).await?;
                return Err(error);
            }
            answers => answers?,
        };
        let [listed, answer] = take(operation, answers)?;
        let answer = admitted(operation, admission.job, Reply::list(operation, answer)?)?;
        if let Admitted::Accepted { at, .. } | Admitted::Cancelled { at } = answer {
            let lists = [
                zadd(keys.active(), None, at.as_millis(), &name),
                zrem(keys.finished(), &name),
                zrem(keys.expiring(), &name),
            ];
            self.call_all(operation, &lists).await?;
        } else if word(operation, listed)? == "1" {
            self.archive_job(admission.job).await?;
        }
        Box::pin(self.index_admitted(operation, admission, &answer)).await?;
        Ok(answer)
    }

    fn admit_call(&self, operation: &'static str, admission: &Admission, lists: &[String]) -> Call {
        let (keys, job) = (self.keys(), admission.job);
        let mut more = vec![keys.done(job), keys.chunks(job), keys.retry(job), keys.due(job)];
        more.extend_from_slice(lists);
        let call = self.admission_call(operation, admission, &more);
        let mut call = match &admission.open {
            Some(open) => opening(call, open),
            None => call.arg("").arg("").arg(""),
        };
        call.extend(job_fields::of_admission(admission));
        call
    }

    /// A call of `admit` or `restore` with the keys and arguments that both share; more keys follow
    /// those of the job, and the job's fields are to follow as pairs.
    pub(super) fn admission_call(
        &self,
        operation: &'static str,
        admission: &Admission,
        more: &[String],
    ) -> Call {
        let keys = self.keys();
        let job = admission.job;
        let own = [
            keys.job(job),
            keys.document(job),
            keys.manifest(job),
            keys.deleted(job),
            keys.cancel(job),
        ];
        Call::new(operation, own.into_iter().chain(more.iter().cloned()))
            .arg(keys.events())
            .arg(job.to_string())
            .arg(&admission.document)
            .arg(admission.manifest.as_deref().unwrap_or_default())
    }

    pub(super) async fn reject_job(&self, job: JobId, error: &str) -> Result<(), Error> {
        const OPERATION: &str = "reject";
        const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
        let keys = self.keys();
        let name = job.to_string();
        let call = Call::new(OPERATION, [keys.job(job)]).arg(keys.events()).arg(&name).arg(error);
        let mut reply = self.call(&call).await?;
        if reply.word()? == "rejected" {
            let now: u64 = reply.parse()?;
            let mut lists = vec![
                zadd(keys.finished(), None, now, &name),
                zadd(keys.expiring(), None, now + KEPT_MS, &name),
            ];
            lists.extend(self.index(job, &Attributes::default(), now));
            lists.extend(self.index_end(job, JobState::Rejected, now));
            self.call_all(OPERATION, &lists).await?;
        }
        Ok(())
    }

    pub(super) async fn postpone_job(&self, job: JobId, reason: &str) -> Result<(), Error> {
        let mut set = cmd("SET");
        set.arg(self.keys().postponed(job)).arg(reason);
        set.arg("PX").arg(millis(POSTPONED_FOR));
        self.send("postpone", &set).await.map(drop)
    }

    pub(super) async fn read_postponed(&self, job: JobId) -> Result<Option<String>, Error> {
        const OPERATION: &str = "postponed";
        let mut get = cmd("GET");
        get.arg(self.keys().postponed(job));
        optional_word(OPERATION, self.send(OPERATION, &get).await?)
    }

    pub(super) async fn read_pending_cancel(&self, job: JobId) -> Result<Option<Timestamp>, Error> {
        const OPERATION: &str = "pending_cancel";
        let mut get = cmd("GET");
        get.arg(self.keys().cancel(job));
        let at = optional_word(OPERATION, self.send(OPERATION, &get).await?)?;
        let at = at.map(|at| parse(OPERATION, &at)).transpose()?;
        Ok(at.map(Timestamp::from_millis))
    }

    pub(super) async fn open_chunks(
        &self,
        job: JobId,
        params: &OpenParams,
    ) -> Result<Vec<ChunkMessage>, Error> {
        let keys = self.keys();
        let call = Call::new(
            "open",
            [keys.job(job), keys.done(job), keys.chunks(job), keys.retry(job), keys.due(job)],
        );
        let call = opening(call, params);
        messages(job, self.call(&call).await?)
    }

    pub(super) async fn claim_chunk(
        &self,
        job: JobId,
        params: &ClaimParams,
    ) -> Result<Claim, Error> {
        let ClaimParams { chunk, epoch, token, node } = params;
        let part = Arguments::default()
            .arg(chunk.0)
            .arg(epoch.0)
            .arg(token.to_string())
            .arg(node.as_str());
        let mut reply = self.call_together(Self::claims, ("claim", job), part).await?;
        match reply.word()?.as_str() {
            "granted" => Ok(Claim::Granted(Grant {
                from: reply.parse()?,
                to: reply.parse()?,
                attempt: reply.parse()?,
                deferrals: reply.parse()?,
                crashes: reply.parse()?,
                digest: Digest::new(reply.word()?),
                tried: nodes(&reply.word()?),
            })),
            "stale" => {
                let holder = Some(reply.word()?).filter(|node| !node.is_empty());
                Ok(Claim::Stale { holder: holder.map(NodeId::new) })
            }
            "gone" => Ok(Claim::Gone),
            other => Err(reply.unexpected(other)),
        }
    }

    fn claims(&self, job: JobId) -> Call {
        let keys = self.keys();
        let own = [keys.job(job), keys.chunks(job), keys.recoveries(job), keys.due(job)];
        Call::new("claim", own).arg(keys.events()).arg(job.to_string())
    }

    fn commits(&self, job: JobId) -> Call {
        let keys = self.keys();
        Call::new("commit", keys.all_of_job(job)).arg(keys.events()).arg(job.to_string())
    }

    pub(super) async fn commit_chunk(
        &self,
        job: JobId,
        params: &CommitParams,
    ) -> Result<Committed, Error> {
        let CommitParams { chunk, token, commit } = params;
        commit.check()?;
        let mut part = Arguments::default()
            .arg(chunk.0)
            .arg(token.to_string())
            .arg(commit.from)
            .arg(millis(commit.busy))
            .arg(commit.runs.len());
        for run in &commit.runs {
            push_run(&mut part, run);
        }
        let mut reply = self.call_together(Self::commits, ("commit", job), part).await?;
        match reply.word()?.as_str() {
            "settled" => Ok(Committed::Settled { state: reply.parse()? }),
            "fenced" => Ok(Committed::Fenced),
            other => Err(reply.unexpected(other)),
        }
    }

    /// Reads the records of the chunks as they are.
    pub(super) async fn read_tried(
        &self,
        job: JobId,
        chunks: &[ChunkId],
    ) -> Result<Vec<Vec<NodeId>>, Error> {
        const OPERATION: &str = "tried";
        /// Where the nodes stand in a record.
        const PLACE: usize = 12;
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let mut look = cmd("HMGET");
        look.arg(self.keys().chunks(job));
        for chunk in chunks {
            look.arg(chunk.0);
        }
        let [records] = take(OPERATION, self.call_all(OPERATION, &[look]).await?)?;
        let mut reply = Reply::list(OPERATION, records)?;
        let record = |value| match value {
            redis::Value::Nil => Ok(Vec::new()),
            value => word(OPERATION, value)
                .map(|record| record.split(',').nth(PLACE).map(nodes).unwrap_or_default()),
        };
        chunks.iter().map(|_| record(reply.next()?)).collect()
    }

    pub(super) async fn refund_nodes(&self, job: JobId, nodes: &[NodeId]) -> Result<u64, Error> {
        let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
        let call = Call::new("refund_attempts", self.keys().all_of_job(job))
            .arg(self.keys().events())
            .arg(job.to_string())
            .arg(names.join(" "));
        self.call(&call).await?.parse()
    }

    pub(super) async fn release_chunk(
        &self,
        job: JobId,
        params: &ReleaseParams,
    ) -> Result<Released, Error> {
        let ReleaseParams { chunk, token, part } = params;
        let keys = self.keys();
        let call = Call::new("release", [keys.job(job), keys.chunks(job), keys.due(job)])
            .arg(keys.events())
            .arg(job.to_string())
            .arg(chunk.0)
            .arg(token.to_string())
            .arg(part.map_or(String::new(), |part| part.max(1).to_string()))
            .arg(MAX_PARTS);
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "queued" => Ok(Released::Queued),
            "fenced" => Ok(Released::Fenced),
            other => Err(reply.unexpected(other)),
        }
    }

    pub(super) async fn offer_stragglers(
        &self,
        job: JobId,
        params: &SpeculationRequest,
    ) -> Result<Vec<SpeculativeChunk>, Error> {
        let keys = self.keys();
        let call = Call::new("offer_speculative", [keys.job(job), keys.chunks(job)])
            .arg(millis(params.held_for))
            .arg(millis(params.offer_for))
            .arg(params.chunks.min(MAX_CHUNKS_A_CALL))
            .arg(params.only.as_ref().map_or("", NodeId::as_str));
        let mut reply = self.call(&call).await?;
        let mut stragglers = Vec::new();
        while !reply.is_empty() {
            let message = message(job, &mut reply)?;
            stragglers.push(SpeculativeChunk { message, holder: NodeId::new(reply.word()?) });
        }
        Ok(stragglers)
    }

    pub(super) async fn revoke_node(
        &self,
        job: JobId,
        params: &RevokeParams,
    ) -> Result<Vec<Revoked>, Error> {
        let RevokeParams { node, cause } = params;
        let keys = self.keys();
        let call = Call::new("revoke", keys.all_of_job(job))
            .arg(keys.events())
            .arg(job.to_string())
            .arg(node.as_str())
            .arg(cause.lost().word())
            .arg(cause.how().unwrap_or_default())
            .arg(cause.claimed_by().map(|at| at.to_string()).unwrap_or_default());
        let mut reply = self.call(&call).await?;
        let mut revoked = Vec::new();
        while !reply.is_empty() {
            revoked.push(Revoked {
                chunk: ChunkId(reply.parse()?),
                from: reply.parse()?,
                to: reply.parse()?,
                epoch: Epoch(reply.parse()?),
            });
        }
        Ok(revoked)
    }

    pub(super) async fn read_holders(&self, job: JobId) -> Result<Vec<Holder>, Error> {
        let keys = self.keys();
        let call = Call::new("holders", [keys.job(job), keys.chunks(job)]);
        let mut reply = self.call(&call).await?;
        let mut holders = Vec::new();
        while !reply.is_empty() {
            holders.push(Holder {
                node: NodeId::new(reply.word()?),
                oldest: Timestamp::from_millis(reply.parse()?),
                newest: Timestamp::from_millis(reply.parse()?),
            });
        }
        holders.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(holders)
    }

    pub(super) async fn sweep_job(
        &self,
        job: JobId,
        params: &SweepParams,
    ) -> Result<Option<Sweep>, Error> {
        const OPERATION: &str = "sweep";
        let keys = self.keys();
        let call =
            Call::new(OPERATION, [keys.job(job), keys.chunks(job), keys.retry(job), keys.due(job)])
                .arg(params.limit.min(MAX_CHUNKS_A_CALL))
                .arg(millis(params.publish_within))
                .arg(
                    params.suspect_lost.map_or_else(String::new, |after| millis(after).to_string()),
                );
        let mut reply = self.call(&call).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let fields = Fields::new(OPERATION, reply.reply()?.fields()?);
        let summary = fields.summary(job, &reply.word()?)?;
        let publish = messages(job, reply.reply()?)?;
        Ok(Some(Sweep { summary, publish }))
    }
}

fn push_run(part: &mut Arguments, run: &OutcomeRun) {
    match run {
        OutcomeRun::Success { count, results: None } => {
            part.push("success");
            part.push(count);
        }
        OutcomeRun::Success { count, results: Some(body) } => {
            part.push("results");
            part.push(count);
            part.push(packing::pack(*count, &body.text()));
        }
        OutcomeRun::Retry { error, delay } => {
            part.push("retry");
            part.push(millis(*delay));
            // The job shows so much of it; all of it is in the worker's log.
            part.push(shortened(error));
        }
        OutcomeRun::Failed { error } => {
            part.push("failure");
            part.push(error);
        }
        OutcomeRun::Defer { delay } => {
            part.push("defer");
            part.push(millis(*delay));
        }
    }
}

/// The nodes of a record: names between spaces, or `-`.
fn nodes(text: &str) -> Vec<NodeId> {
    text.split(' ').filter(|name| !matches!(*name, "" | "-")).map(NodeId::new).collect()
}

fn messages(job: JobId, mut reply: Reply) -> Result<Vec<ChunkMessage>, Error> {
    let mut messages = Vec::new();
    while !reply.is_empty() {
        messages.push(message(job, &mut reply)?);
    }
    Ok(messages)
}

fn message(job: JobId, reply: &mut Reply) -> Result<ChunkMessage, Error> {
    Ok(ChunkMessage {
        v: ChunkMessage::VERSION,
        job,
        chunk: ChunkId(reply.parse()?),
        from: reply.parse()?,
        to: reply.parse()?,
        epoch: Epoch(reply.parse()?),
    })
}

/// Adds what to open to a call.
fn opening(call: Call, open: &OpenParams) -> Call {
    call.arg(open.chunks.min(MAX_CHUNKS_A_CALL)).arg(open.size).arg(millis(open.publish_within))
}

fn admitted(operation: &'static str, job: JobId, mut reply: Reply) -> Result<Admitted, Error> {
    Ok(match reply.word()?.as_str() {
        "accepted" => {
            let at = Timestamp::from_millis(reply.parse()?);
            Admitted::Accepted { at, opened: messages(job, reply)? }
        }
        "cancelled" => Admitted::Cancelled { at: Timestamp::from_millis(reply.parse()?) },
        "known" => Admitted::Known,
        "conflict" => Admitted::Conflict,
        other => return Err(corrupt(operation, format!("`{other}`"))),
    })
}

/// As many answers as there were commands.
pub(super) fn take<const N: usize>(
    operation: &'static str,
    values: Vec<redis::Value>,
) -> Result<[redis::Value; N], Error> {
    values
        .try_into()
        .map_err(|values: Vec<_>| corrupt(operation, format!("{} answers, not {N}", values.len())))
}

/// Milliseconds of the answer to `TIME`.
pub(super) fn clock_millis(operation: &'static str, time: redis::Value) -> Result<u64, Error> {
    let mut time = Reply::list(operation, time)?;
    let (seconds, micros): (u64, u64) = (time.parse()?, time.parse()?);
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

pub(super) fn hget(key: String, field: &str) -> Cmd {
    let mut command = cmd("HGET");
    command.arg(key).arg(field);
    command
}

pub(super) fn zadd(key: String, option: Option<&str>, score: u64, member: &str) -> Cmd {
    let mut command = cmd("ZADD");
    command.arg(key).arg(option).arg(score).arg(member);
    command
}

pub(super) fn publish(channel: String, message: &str) -> Cmd {
    let mut command = cmd("PUBLISH");
    command.arg(channel).arg(message);
    command
}

pub(super) fn zrem(key: String, member: &str) -> Cmd {
    let mut command = cmd("ZREM");
    command.arg(key).arg(member);
    command
}
