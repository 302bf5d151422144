//! Reads one job, the lists, the document, and pages of results, errors and recoveries.

use longshore_protocol::{
    Death, Digest, ErrorEntry, JobId, JobSummary, LossKind, NodeId, Recovery, ResultRun,
    ResultsPage, Timestamp,
};
use std::ops::Range;
use std::time::Duration;

use redis::cmd;
use serde::Deserialize;

use super::call::Call;
use super::jobs::{hget, take};
use super::reply::{Reply, corrupt, optional_word, parse, word};
use super::summary::Fields;
use super::{RedisLedger, packing};
use crate::op::MAX_RECOVERIES;
use crate::{Error, ErrorsParams, ResultsParams, StoredDocument};

/// Above the largest index of any job; larger numbers would lose digits in Lua. A page that ends
/// here is the last.
pub(super) const MOST_INDEX: u64 = 1 << 41;

/// The number of finished jobs that one round trip reads.
const PAGE: usize = 100;

/// The value of a field of the hash `:errors`.
#[derive(Deserialize)]
struct KeptError {
    error: String,
    attempts: u32,
    node: String,
    at: u64,
    #[serde(default)]
    deaths: Vec<Death>,
}

/// The value of a field of the hash `:recoveries`.
#[derive(Deserialize)]
struct KeptRecovery {
    at: u64,
    node: String,
    lost: LossKind,
    how: Option<String>,
    chunks: u64,
    subtasks: u64,
    cut: u64,
    #[serde(default)]
    given_up: Vec<u64>,
    waiting: u64,
    again_after_ms: Option<u64>,
}

impl RedisLedger {
    pub(super) async fn read_job(&self, job: JobId) -> Result<Option<JobSummary>, Error> {
        const OPERATION: &str = "job";
        let call = Call::new(OPERATION, [self.keys().job(job), self.keys().retry(job)]);
        let mut reply = self.call(&call).await?;
        if reply.is_empty() {
            return Ok(None);
        }
        let fields = Fields::new(OPERATION, reply.reply()?.fields()?);
        fields.summary(job, &reply.word()?).map(Some)
    }

    pub(super) async fn read_active(&self) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "active_jobs";
        let mut list = cmd("ZRANGE");
        list.arg(self.keys().active()).arg(0).arg(-1);
        let names = Reply::list(OPERATION, self.send(OPERATION, &list).await?)?.words()?;
        names.iter().map(|name| parse(OPERATION, name)).collect()
    }

    /// Skips jobs whose keys have expired.
    pub(super) async fn read_finished(&self, limit: usize) -> Result<Vec<JobId>, Error> {
        const OPERATION: &str = "finished_jobs";
        let mut jobs = Vec::new();
        let mut start = 0;
        while jobs.len() < limit {
            let mut list = cmd("ZREVRANGE");
            list.arg(self.keys().finished()).arg(start).arg(start + PAGE - 1);
            let names = Reply::list(OPERATION, self.send(OPERATION, &list).await?)?.words()?;
            let page: Vec<JobId> =
                names.iter().map(|name| parse(OPERATION, name)).collect::<Result<_, _>>()?;
            let looks: Vec<_> = page
                .iter()
                .map(|job| {
                    let mut look = cmd("EXISTS");
                    look.arg(self.keys().job(*job));
                    look
                })
                .collect();
            let answers = self.call_all(OPERATION, &looks).await?;
            for (job, exists) in page.iter().zip(answers) {
                if word(OPERATION, exists)? == "1" {
                    jobs.push(*job);
                }
            }
            if page.len() < PAGE {
                break;
            }
            start += PAGE;
        }
        jobs.truncate(limit);
        Ok(jobs)
    }

    pub(super) async fn read_document(&self, job: JobId) -> Result<Option<StoredDocument>, Error> {
        const OPERATION: &str = "document";
        let keys = self.keys();
        let get = |key: String| {
            let mut command = cmd("GET");
            command.arg(key);
            command
        };
        let asked =
            [hget(keys.job(job), "digest"), get(keys.document(job)), get(keys.manifest(job))];
        let [digest, document, manifest] =
            take(OPERATION, self.call_all(OPERATION, &asked).await?)?;
        let digest = optional_word(OPERATION, digest)?;
        let document = optional_word(OPERATION, document)?;
        let manifest = optional_word(OPERATION, manifest)?;
        Ok(digest.zip(document).map(|(digest, document)| StoredDocument {
            digest: Digest::new(digest),
            document,
            manifest,
        }))
    }

    pub(super) async fn read_results(
        &self,
        job: JobId,
        params: &ResultsParams,
    ) -> Result<ResultsPage, Error> {
        let Range { start, end } = params.indices;
        let call = Call::new("results", [self.keys().results(job), self.keys().done(job)])
            .arg(start.min(MOST_INDEX))
            .arg(end.min(MOST_INDEX))
            .arg(params.max_bytes.min(1 << 52));
        let mut page = results_page(self.call(&call).await?)?;
        if page.next == MOST_INDEX {
            page.next = end;
        }
        Ok(page)
    }

    pub(super) async fn read_errors(
        &self,
        job: JobId,
        params: &ErrorsParams,
    ) -> Result<Vec<ErrorEntry>, Error> {
        const OPERATION: &str = "errors";
        let key = self.keys().errors(job);
        let mut list = cmd("HKEYS");
        list.arg(&key);
        let names = Reply::list(OPERATION, self.send(OPERATION, &list).await?)?.words()?;
        let mut indices: Vec<u64> =
            names.iter().map(|name| parse(OPERATION, name)).collect::<Result<_, _>>()?;
        indices.retain(|index| *index >= params.from);
        indices.sort_unstable();
        indices.truncate(params.limit);
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let mut page = cmd("HMGET");
        page.arg(&key).arg(&indices);
        let mut page = Reply::list(OPERATION, self.send(OPERATION, &page).await?)?;
        let mut entries = Vec::with_capacity(indices.len());
        for index in indices {
            // The error may have been dropped, or the subtask re-opened, between the two commands.
            if let Some(text) = optional_word(OPERATION, page.next()?)? {
                entries.push(error_entry(index, &text)?);
            }
        }
        Ok(entries)
    }

    pub(super) async fn read_recoveries(
        &self,
        job: JobId,
        limit: usize,
    ) -> Result<Vec<Recovery>, Error> {
        const OPERATION: &str = "recoveries";
        let keys = self.keys();
        let call = Call::new(OPERATION, [keys.job(job), keys.recoveries(job)])
            .arg(limit.min(MAX_RECOVERIES));
        let kept = self.call(&call).await?.words()?;
        kept.iter().map(|text| recovery(text)).collect()
    }
}

pub(super) fn results_page(mut reply: Reply) -> Result<ResultsPage, Error> {
    let next = reply.parse()?;
    let mut runs = Vec::new();
    while !reply.is_empty() {
        let (from, count): (u64, u64) = (reply.parse()?, reply.parse()?);
        if from.checked_add(count).is_none() {
            return Err(reply.unexpected("a run of results past the end of numbers"));
        }
        let kept = reply.word()?;
        let lines = packing::unpack(kept)
            .map_err(|detail| corrupt("results", format!("the run from {from} on: {detail}")))?;
        runs.push(ResultRun { from, count, body: lines.into() });
    }
    Ok(ResultsPage { runs, next })
}

pub(super) fn error_entry(index: u64, text: &str) -> Result<ErrorEntry, Error> {
    let kept: KeptError = serde_json::from_str(text)
        .map_err(|e| corrupt("errors", format!("subtask {index}: {e}")))?;
    Ok(ErrorEntry {
        index,
        error: kept.error,
        attempts: kept.attempts,
        node: NodeId::new(kept.node),
        at: Timestamp::from_millis(kept.at),
        deaths: kept.deaths,
    })
}

fn recovery(text: &str) -> Result<Recovery, Error> {
    let kept: KeptRecovery =
        serde_json::from_str(text).map_err(|e| corrupt("recoveries", format!("`{text}`: {e}")))?;
    Ok(Recovery {
        at: Timestamp::from_millis(kept.at),
        node: NodeId::new(kept.node),
        lost: kept.lost,
        how: kept.how,
        chunks: kept.chunks,
        subtasks: kept.subtasks,
        cut: kept.cut,
        given_up: kept.given_up,
        waiting: kept.waiting,
        again_after: kept.again_after_ms.map(Duration::from_millis),
    })
}
