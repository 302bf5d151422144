//! A job's way through the ledger: taken in, cut into chunks, claimed, settled, taken away, swept.

use std::time::Duration;

use longshore_protocol::{
    ChunkId, ChunkMessage, Digest, Epoch, JobId, NodeId, ReduceTree, Run, Token,
};
use redis::{Cmd, cmd};

use super::call::Call;
use super::reply::{Reply, corrupt, optional_word};
use super::summary::Fields;
use super::{RedisLedger, millis};
use crate::op::{MAX_CHUNKS_A_CALL, MAX_INDICES, shortened};
use crate::{
    Admission, Admitted, Claim, Commit, Committed, Error, Grant, HandBack, Open, Revoked, Sweep,
};

impl RedisLedger {
    /// A job of which only the hash, or only the place on the list, is there must be found by
    /// somebody: it goes on the list first.
    pub(super) async fn admit_job(&self, admission: &Admission) -> Result<Admitted, Error> {
        const OPERATION: &str = "admit";
        if admission.indices() > MAX_INDICES {
            return Ok(Admitted::TooLarge { most: MAX_INDICES });
        }
        let keys = self.keys();
        let (job, name) = (admission.job, admission.job.to_string());
        let look = [hget(keys.job(job), "state"), cmd("TIME")];
        let [state, time] = take(OPERATION, self.call_all(OPERATION, &look).await?)?;
        let state = optional_word(OPERATION, state)?;
        let is_new = matches!(state.as_deref(), None | Some("rejected"));
        if is_new {
            let now = clock_millis(OPERATION, time)?;
            self.send(OPERATION, &zadd(keys.active(), Some("NX"), now, &name)).await?;
        }
        let mut reply = self.call(&self.admission_call(admission)).await?;
        match reply.word()?.as_str() {
            "accepted" => {
                let submitted: u64 = reply.parse()?;
                let lists = [
                    zadd(keys.active(), None, submitted, &name),
                    zrem(keys.finished(), &name),
                    zrem(keys.expiring(), &name),
                ];
                self.call_all(OPERATION, &lists).await?;
                Ok(Admitted::Accepted)
            }
            "known" => Ok(Admitted::Known),
            "conflict" => Ok(Admitted::Conflict),
            other => Err(corrupt(OPERATION, format!("`{other}`"))),
        }
    }

    fn admission_call(&self, admission: &Admission) -> Call {
        let keys = self.keys();
        let job = admission.job;
        let optional = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        let tree = admission.fan_in.map(|fan_in| ReduceTree::new(admission.total, fan_in));
        Call::new("admit", [keys.job(job), keys.document(job), keys.manifest(job)])
            .arg(keys.events())
            .arg(job.to_string())
            .arg(admission.digest.as_str())
            .arg(&admission.document)
            .arg(admission.manifest.as_deref().unwrap_or_default())
            .arg(admission.total)
            .arg(&admission.task)
            .arg(&admission.queue)
            .arg(&admission.tenant)
            .arg(admission.priority)
            .arg(millis(admission.keep_for))
            .arg(optional(admission.fan_in))
            .arg(optional(tree.map(|tree| tree.node_count())))
            .arg(optional(admission.max_parallel))
            .arg(optional(admission.stop_after_failures))
            .arg(optional(admission.deadline.map(millis)))
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
            let lists = [
                zadd(keys.finished(), None, now, &name),
                zadd(keys.expiring(), None, now + KEPT_MS, &name),
            ];
            self.call_all(OPERATION, &lists).await?;
        }
        Ok(())
    }

    pub(super) async fn open_chunks(
        &self,
        job: JobId,
        open: &Open,
    ) -> Result<Vec<ChunkMessage>, Error> {
        let keys = self.keys();
        let call =
            Call::new("open", [keys.job(job), keys.done(job), keys.chunks(job), keys.retry(job)])
                .arg(open.chunks.min(MAX_CHUNKS_A_CALL))
                .arg(open.size)
                .arg(millis(open.publish_within));
        messages(job, self.call(&call).await?)
    }

    pub(super) async fn claim_chunk(
        &self,
        job: JobId,
        chunk: ChunkId,
        epoch: Epoch,
        token: Token,
        node: &NodeId,
    ) -> Result<Claim, Error> {
        let keys = self.keys();
        let call = Call::new("claim", [keys.job(job), keys.chunks(job)])
            .arg(keys.events())
            .arg(job.to_string())
            .arg(chunk.0)
            .arg(epoch.0)
            .arg(token.to_string())
            .arg(node.as_str());
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "granted" => Ok(Claim::Granted(Grant {
                from: reply.parse()?,
                to: reply.parse()?,
                attempt: reply.parse()?,
                deferrals: reply.parse()?,
                digest: Digest::new(reply.word()?),
            })),
            "stale" => Ok(Claim::Stale),
            "gone" => Ok(Claim::Gone),
            other => Err(reply.unexpected(other)),
        }
    }

    pub(super) async fn commit_chunk(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
        commit: &Commit,
    ) -> Result<Committed, Error> {
        commit.check()?;
        let mut call = Call::new("commit", self.keys().all_of_job(job))
            .arg(self.keys().events())
            .arg(job.to_string())
            .arg(chunk.0)
            .arg(token.to_string())
            .arg(commit.from)
            .arg(millis(commit.busy));
        for run in &commit.runs {
            push_run(&mut call, run);
        }
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "settled" => Ok(Committed::Settled { state: reply.parse()? }),
            "fenced" => Ok(Committed::Fenced),
            other => Err(reply.unexpected(other)),
        }
    }

    pub(super) async fn release_chunk(
        &self,
        job: JobId,
        chunk: ChunkId,
        token: Token,
    ) -> Result<HandBack, Error> {
        let keys = self.keys();
        let call = Call::new("release", [keys.job(job), keys.chunks(job)])
            .arg(keys.events())
            .arg(job.to_string())
            .arg(chunk.0)
            .arg(token.to_string());
        let mut reply = self.call(&call).await?;
        match reply.word()?.as_str() {
            "queued" => Ok(HandBack::Queued),
            "fenced" => Ok(HandBack::Fenced),
            other => Err(reply.unexpected(other)),
        }
    }

    pub(super) async fn revoke_node(
        &self,
        job: JobId,
        node: &NodeId,
        died: bool,
    ) -> Result<Vec<Revoked>, Error> {
        let keys = self.keys();
        let call = Call::new("revoke", [keys.job(job), keys.chunks(job)])
            .arg(keys.events())
            .arg(job.to_string())
            .arg(node.as_str())
            .arg(if died { "died" } else { "left" });
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

    pub(super) async fn read_holders(&self, job: JobId) -> Result<Vec<NodeId>, Error> {
        let keys = self.keys();
        let call = Call::new("holders", [keys.job(job), keys.chunks(job)]);
        let mut nodes: Vec<NodeId> =
            self.call(&call).await?.words()?.into_iter().map(NodeId::new).collect();
        nodes.sort();
        Ok(nodes)
    }

    pub(super) async fn sweep_job(
        &self,
        job: JobId,
        limit: u32,
        publish_within: Duration,
    ) -> Result<Option<Sweep>, Error> {
        const OPERATION: &str = "sweep";
        let keys = self.keys();
        let call = Call::new(OPERATION, [keys.job(job), keys.chunks(job), keys.retry(job)])
            .arg(limit.min(MAX_CHUNKS_A_CALL))
            .arg(millis(publish_within));
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

fn push_run(call: &mut Call, run: &Run) {
    match run {
        Run::Success { count, results: None } => {
            call.push("success");
            call.push(count);
        }
        Run::Success { count, results: Some(lines) } => {
            call.push("results");
            call.push(count);
            call.push(lines);
        }
        Run::Retry { error, delay } => {
            call.push("retry");
            call.push(millis(*delay));
            // The job shows so much of it; all of it is in the worker's log.
            call.push(shortened(error));
        }
        Run::Failed { error } => {
            call.push("failed");
            call.push(error);
        }
        Run::Defer { delay } => {
            call.push("defer");
            call.push(millis(*delay));
        }
    }
}

fn messages(job: JobId, mut reply: Reply) -> Result<Vec<ChunkMessage>, Error> {
    let mut messages = Vec::new();
    while !reply.is_empty() {
        messages.push(ChunkMessage {
            v: ChunkMessage::VERSION,
            job,
            chunk: ChunkId(reply.parse()?),
            from: reply.parse()?,
            to: reply.parse()?,
            epoch: Epoch(reply.parse()?),
        });
    }
    Ok(messages)
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
    Ok(seconds * 1000 + micros / 1000)
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

pub(super) fn zrem(key: String, member: &str) -> Cmd {
    let mut command = cmd("ZREM");
    command.arg(key).arg(member);
    command
}
