//! Writes results outside of the ledger before the commit that names them, removes unnamed ones.
//!
//! ```text
//!   is the chunk still held? -> write objects -> commit their URLs -> remove the rest
//! ```
//!
//! A location that can't be written is not the subtasks' fault, and they don't run again for it:
//! their outcomes stay in the batch, other chunks get the slot, and the write is tried again. No
//! new chunk of the job begins on this worker meanwhile, which bounds what waits.
//!
//! Deliberately absent: the names of objects, and the storage itself (`result_store`).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use longshore_ledger::{
    Commit, CommitParams, Committed, Error, Held, Ledger, ReportStallParams, ResultsParams,
};
use longshore_protocol::document::Results;
use longshore_protocol::{
    Backoff, JobId, JobSummary, NodeId, OutcomeRun, ResultBody, split_results,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::Environment;
use crate::batch::{Batch, Settled};
use crate::chunk::Chunk;
use crate::held_chunks::StopMode;
use crate::metrics;
use crate::pipeline::Pipeline;
use crate::result_store::{is_result, name};
use crate::retry::retry_until;

/// First and longest pause before an object is written again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Results that could not be written for this long are given up: their subtasks fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// How late a commit may arrive after its sender has given it up. No object that it may name is
/// removed before.
const LATE: Duration = Duration::from_secs(30);

/// How often the ledger is asked, and how long apart, before unneeded objects are left in place.
const TRIES: u32 = 10;
const APART: Duration = Duration::from_secs(10);

/// Results are read in pages of about this many bytes.
const PAGE_BYTES: u64 = 256 << 10;

/// What came of the attempt to store the results of a batch.
pub(crate) enum Stored {
    /// The commit; it names the objects that were written.
    Ready(Commit),
    /// The ledger says that this worker does not hold the chunk any more; nothing was written.
    Lost,
    /// The location can't be written now, for this reason; nothing may be committed.
    Unwritten(Settled, String),
}

/// Locations that can't be written now, and since when.
#[derive(Debug, Default)]
pub(crate) struct UnwritableLocations(Mutex<FxHashMap<String, Unwritable>>);

#[derive(Debug)]
struct Unwritable {
    since: Instant,
    error: String,
    /// The number of chunks that wait.
    waiting: usize,
}

impl UnwritableLocations {
    /// Why a location can't be written, if a chunk waits for it.
    pub(crate) fn error(&self, location: &str) -> Option<String> {
        self.0.lock().get(location).map(|it| it.error.clone())
    }

    /// Marks a location as unwritable until the guard is dropped.
    fn wait(&self, location: &str, error: &str) -> Waiting<'_> {
        let mut locations = self.0.lock();
        let entry = locations.entry(location.to_owned()).or_insert_with(|| {
            warn!(location, error, "results can't be written; keeping them and trying again");
            Unwritable { since: Instant::now(), error: error.to_owned(), waiting: 0 }
        });
        entry.waiting += 1;
        Waiting { locations: self, location: location.to_owned(), since: entry.since }
    }
}

/// Marks a location as unwritable while it lives.
struct Waiting<'a> {
    locations: &'a UnwritableLocations,
    location: String,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut locations = self.locations.0.lock();
        if let Some(entry) = locations.get_mut(&self.location) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                locations.remove(&self.location);
                info!(location = self.location, "no results wait to be written any more");
            }
        }
    }
}

/// Reports to the ledger that results of a job wait to be written, and on drop that they don't.
/// Best effort, in the background.
struct StallReport {
    ledger: Arc<dyn Ledger>,
    node: NodeId,
    job: JobId,
}

impl StallReport {
    fn report(&self, error: &str) {
        let minutes = PATIENCE.as_secs() / 60;
        let reason = format!(
            "results can't be written: {error}; the worker keeps them and tries again for \
             {minutes} minutes"
        );
        self.send(Some(reason));
    }

    fn send(&self, reason: Option<String>) {
        let (ledger, node, job) = (self.ledger.clone(), self.node.clone(), self.job);
        tokio::spawn(async move {
            if let Err(error) =
                ledger.report_stall(job, &ReportStallParams::new(node, reason)).await
            {
                debug!(%job, %error, "can't report results that wait to be written");
            }
        });
    }
}

impl Drop for StallReport {
    fn drop(&mut self) {
        self.send(None);
    }
}

impl Pipeline {
    /// Why results of a job with this document can't be written now, if that is known.
    pub(crate) fn unwritable(&self, results: &Results) -> Option<String> {
        let Results::Url(location) = results else { return None };
        self.locations.error(location).map(|error| format!("results can't be written: {error}"))
    }

    /// Writes results to where the job wants them, and names the objects in their place.
    pub(crate) async fn store(&self, chunk: &Chunk<'_>, settled: Settled) -> Stored {
        let Settled { from, runs, busy } = settled;
        let runs = split_results(from, runs);
        let has_results =
            |run: &OutcomeRun| matches!(run, OutcomeRun::Success { results: Some(_), .. });
        let Results::Url(location) = &chunk.plan.document().results else {
            return Stored::Ready(Commit::new(from, runs, busy));
        };
        if !runs.iter().any(has_results) {
            return Stored::Ready(Commit::new(from, runs, busy));
        }
        if !self.still_holds(chunk, from).await {
            return Stored::Lost;
        }
        let mut stored = Vec::with_capacity(runs.len());
        let mut index = from;
        for run in &runs {
            let to = index + run.len();
            match run {
                OutcomeRun::Success { count, results: Some(ResultBody::Lines(lines)) } => {
                    match self.write(chunk, location, index..to, lines).await {
                        Ok(url) => {
                            let results = Some(ResultBody::object(url));
                            stored.push(OutcomeRun::Success { count: *count, results });
                        }
                        Err(error) if error.is_permanent() => {
                            stored.extend((index..to).map(|_| unwritable(&error)));
                        }
                        Err(error) => {
                            let settled = Settled { from, runs, busy };
                            return Stored::Unwritten(settled, error.to_string());
                        }
                    }
                }
                other => stored.push(other.clone()),
            }
            index = to;
        }
        Stored::Ready(Commit::new(from, stored, busy))
    }

    /// Whether the ledger still lists this worker as the holder of the chunk. A worker that was cut
    /// off and lost the chunk must not leave objects behind. An empty commit asks, and changes
    /// nothing.
    async fn still_holds(&self, chunk: &Chunk<'_>, from: u64) -> bool {
        let lease = chunk.lease;
        let Held { job, chunk: id, token } = lease.held;
        let nothing = CommitParams::new(id, token, Commit::new(from, Vec::new(), Duration::ZERO));
        let call = || self.ledger.commit(job, &nothing);
        let (health, environment) = (&self.ledger_health, &self.environment);
        let answer = retry_until(health, "commit", environment, lease.abandoned(), call).await;
        if let Some(Ok(Committed::Settled { .. })) = answer {
            return true;
        }
        if let Some(Ok(fenced)) = &answer {
            metrics::committed(&nothing.commit, fenced);
        }
        info!(from, "results not written: another worker holds the chunk");
        lease.stop(StopMode::Abandon);
        false
    }

    async fn write(
        &self,
        chunk: &Chunk<'_>,
        location: &str,
        subtasks: Range<u64>,
        lines: &str,
    ) -> Result<String, longshore_storage::Error> {
        let Held { job, token, .. } = chunk.lease.held;
        let name = name(job, subtasks.start, subtasks.end, token);
        let bytes = lines.as_bytes().to_vec();
        let url = self.environment.results().write(location, &name, bytes).await?;
        chunk.written.lock().push(url.clone());
        Ok(url)
    }

    /// Commits the rest, for as long as it takes to write the results.
    pub(crate) async fn commit_rest(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        let mut waiting = None;
        let mut backoff = Backoff::doubling(FIRST_PAUSE, LONGEST_PAUSE);
        while let Err(error) = self.try_commit(chunk, batch).await {
            let Results::Url(location) = &chunk.plan.document().results else { return };
            let waiting = waiting.get_or_insert_with(|| {
                (self.locations.wait(location, &error), self.stall_report(chunk))
            });
            let (waiting, stall) = waiting;
            stall.report(&error);
            if waiting.since.elapsed() >= PATIENCE {
                warn!(location, error, "results can't be written; their subtasks fail");
                batch.fail_results(&format!("results: {error}"));
                continue;
            }
            tokio::select! {
                biased;
                () = chunk.lease.abandoned().cancelled() => return,
                () = tokio::time::sleep(backoff.next_jittered(self.environment.random())) => {}
            }
        }
    }

    fn stall_report(&self, chunk: &Chunk<'_>) -> StallReport {
        let (ledger, node) = (self.ledger.clone(), self.node.clone());
        StallReport { ledger, node, job: chunk.lease.held.job }
    }

    /// Starts to remove the objects of a commit that the ledger does not name.
    pub(crate) fn tidy_up(&self, chunk: &Chunk<'_>, commit: &Commit, answer: Option<&Committed>) {
        let written = std::mem::take(&mut *chunk.written.lock());
        let Results::Url(location) = &chunk.plan.document().results else { return };
        let cleaner = ObjectCleaner {
            ledger: self.ledger.clone(),
            environment: self.environment.clone(),
            held: chunk.lease.held.clone(),
        };
        let from = chunk.grant.from;
        match answer {
            Some(Committed::Settled { state }) => {
                let named: HashSet<&str> = commit.runs.iter().filter_map(object_url).collect();
                let mut unused = written;
                unused.retain(|url| !named.contains(url.as_str()));
                if !unused.is_empty() {
                    let (cleaner, all) = (cleaner.clone(), from..chunk.grant.to);
                    tokio::spawn(async move { cleaner.remove_unnamed(all, unused).await });
                }
                if state.is_terminal() {
                    let (location, plan) = (location.clone(), &chunk.plan);
                    let all = 0..plan.reduce_tree().map_or(plan.total(), |tree| tree.root() + 1);
                    tokio::spawn(async move { cleaner.sweep(&location, all).await });
                }
            }
            _ if written.is_empty() => {}
            _ => {
                let all = from..chunk.grant.to;
                tokio::spawn(async move { cleaner.remove_lost(all, written).await });
            }
        }
    }
}

/// The URL of the object that a committed run names.
fn object_url(run: &OutcomeRun) -> Option<&str> {
    match run {
        OutcomeRun::Success { results: Some(body), .. } => body.url(),
        _ => None,
    }
}

fn unwritable(error: &longshore_storage::Error) -> OutcomeRun {
    OutcomeRun::Failed { error: format!("results: {error}") }
}

/// Removes objects that no commit names. Best effort: an object that stays is never read.
#[derive(Clone)]
struct ObjectCleaner {
    ledger: Arc<dyn Ledger>,
    environment: Arc<Environment>,
    held: Held,
}

impl ObjectCleaner {
    /// Removes the objects of a claim that was lost before its commit.
    async fn remove_lost(&self, subtasks: Range<u64>, urls: Vec<String>) {
        tokio::time::sleep(LATE).await;
        let Held { job, chunk, token } = self.held;
        let nothing = Commit::new(subtasks.start, Vec::new(), Duration::ZERO);
        let params = CommitParams::new(chunk, token, nothing);
        let answer = self.ask(|| self.ledger.commit(job, &params)).await;
        // While the token holds its chunk, its commit may still go through.
        if matches!(answer, Some(Committed::Fenced)) {
            self.remove_unnamed(subtasks, urls).await;
        }
    }

    /// Removes those of the objects that the results of these subtasks don't name. The answer to a
    /// commit that counted may have been lost.
    async fn remove_unnamed(&self, subtasks: Range<u64>, urls: Vec<String>) {
        let Some(named) = self.named(subtasks).await else { return };
        self.remove(urls.into_iter().filter(|url| !named.contains(file_name(url)))).await;
    }

    /// Removes all objects that a job which has ended does not name: those of workers that died or
    /// lost a race. Only for a job that lost a chunk; a job that was restored from the journal
    /// names no objects, and keeps all of them.
    async fn sweep(&self, location: &str, subtasks: Range<u64>) {
        tokio::time::sleep(LATE).await;
        let Some(before) = self.ended_job().await else { return };
        let lost = before.lost + before.recoveries + before.speculative_chunks + before.fenced;
        if lost == 0 || before.restored_at.is_some() {
            return;
        }
        let folder = before.id.to_string();
        let listed = match self.environment.results().list(location, &folder).await {
            Ok(listed) => listed,
            Err(error) => return debug!(%error, "can't list unneeded result objects"),
        };
        let Some(named) = self.named(subtasks).await else { return };
        // A job that was re-opened meanwhile may have new claims, with objects that no commit names
        // yet.
        let Some(after) = self.ended_job().await else { return };
        if after.generation == before.generation && after.finished_at == before.finished_at {
            let unnamed = |url: &String| is_result(url) && !named.contains(file_name(url));
            self.remove(listed.into_iter().filter(unnamed)).await;
        }
    }

    async fn ended_job(&self) -> Option<JobSummary> {
        let job = self.held.job;
        let summary = self.ask(|| self.ledger.job(job)).await??;
        Some(summary).filter(|it| it.state.is_terminal())
    }

    /// The names of all objects that hold results of these subtasks.
    async fn named(&self, subtasks: Range<u64>) -> Option<HashSet<String>> {
        let job: JobId = self.held.job;
        let Range { start: mut next, end } = subtasks;
        let mut named = HashSet::new();
        while next < end {
            let params = ResultsParams::new(next..end, PAGE_BYTES);
            let page = self.ask(|| self.ledger.results(job, &params)).await?;
            let urls = page.runs.iter().filter_map(|run| run.body.url());
            named.extend(urls.map(|url| file_name(url).to_owned()));
            if page.next <= next {
                return None;
            }
            next = page.next;
        }
        Some(named)
    }

    async fn remove(&self, urls: impl Iterator<Item = String>) {
        for url in urls {
            match self.environment.results().remove(&url).await {
                Ok(()) => debug!(url, "removed an unneeded result object"),
                Err(error) => debug!(%error, "can't remove an unneeded result object"),
            }
        }
    }

    /// Asks the ledger until it answers, [`TRIES`] times at most.
    async fn ask<T, F>(&self, call: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        for _ in 0..TRIES {
            match call().await {
                Ok(answer) => return Some(answer),
                Err(Error::Unavailable { .. }) => tokio::time::sleep(APART).await,
                Err(_) => return None,
            }
        }
        None
    }
}

/// The name of an object; two objects of a job never have the same.
fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
