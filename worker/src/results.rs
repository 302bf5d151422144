//! Results that a job wants outside of the ledger: written before the commit that names them,
//! removed if none does.
//!
//! ```text
//!   ask the ledger whether the chunk is still ours -> write objects -> commit their URLs -> remove what was not needed
//! ```
//!
//! A location that can't be written is not the subtasks' fault, and their work is not repeated for
//! it: outcomes stay in the batch, the slot goes to others, and the write is tried again. No new
//! chunk of the job begins here meanwhile, which bounds what waits.
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
use longshore_protocol::{JobId, JobSummary, NodeId, OutcomeRun, split_results};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::Machine;
use crate::backoff::insist;
use crate::batch::{Batch, Settled};
use crate::holdings::Ending;
use crate::input::pointer;
use crate::metrics;
use crate::pipeline::{Chunk, Pipeline};
use crate::result_store::{is_result, name};

/// First and longest pause before an object is written again.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// A location that could not be written for so long is given up: the subtasks whose results wait
/// for it fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// A commit may arrive this late, after its sender has given it up. Until then nothing is removed
/// that it may name.
const LATE: Duration = Duration::from_secs(30);

/// How often the ledger is asked, and how long apart, before objects that nobody needs are left
/// where they are.
const TRIES: u32 = 10;
const APART: Duration = Duration::from_secs(10);

/// References are read in pages of about this many bytes.
const PAGE_BYTES: u64 = 256 << 10;

/// What came of the attempt to store the results of a batch.
pub(crate) enum Stored {
    /// They are where they belong.
    Ready(Commit),
    /// The ledger says that the chunk is not ours any more; nothing was written.
    Lost,
    /// A location can't be written now; nothing may be committed.
    Unwritten(Settled, String),
}

/// Locations that can't be written now, and since when.
#[derive(Debug, Default)]
pub(crate) struct UnwritableLocations(Mutex<FxHashMap<String, Unwritable>>);

#[derive(Debug)]
struct Unwritable {
    since: Instant,
    error: String,
    waiting: usize,
}

impl UnwritableLocations {
    /// Why a location can't be written, if somebody waits for it.
    pub(crate) fn error(&self, location: &str) -> Option<String> {
        self.0.lock().get(location).map(|it| it.error.clone())
    }

    /// Somebody waits until a location can be written.
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

/// Results of a job wait to be written, and the ledger is told so while this lives. Best effort,
/// and nobody waits for it.
struct Stalled {
    ledger: Arc<dyn Ledger>,
    node: NodeId,
    job: JobId,
}

impl Stalled {
    fn report(&self, error: &str) {
        let minutes = PATIENCE.as_secs() / 60;
        let reason = format!(
            "results can't be written: {error}; the worker keeps them and tries again for {minutes} minutes"
        );
        self.tell(Some(reason));
    }

    fn tell(&self, reason: Option<String>) {
        let (ledger, node, job) = (self.ledger.clone(), self.node.clone(), self.job);
        tokio::spawn(async move {
            let report = ReportStallParams::new(node, reason);
            if let Err(error) = ledger.report_stall(job, &report).await {
                debug!(%job, %error, "can't tell of results that wait to be written");
            }
        });
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.tell(None);
    }
}

impl Pipeline {
    /// Why results of a job with this document can't be written here, if that is known.
    pub(crate) fn unwritable(&self, results: &Results) -> Option<String> {
        let Results::Url(location) = results else { return None };
        self.locations.error(location).map(|error| format!("results can't be written: {error}"))
    }

    /// Writes results to where the job wants them, and leaves pointers in their place.
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
                OutcomeRun::Success { count, results: Some(lines) } => {
                    match self.write(chunk, location, index..to, lines).await {
                        Ok(url) => {
                            let results = Some(format!("@{url}"));
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

    /// Whether the ledger still has us hold the chunk. Who was cut off and has lost it must not
    /// litter the storage; a commit of nothing asks, and changes nothing.
    async fn still_holds(&self, chunk: &Chunk<'_>, from: u64) -> bool {
        let hold = chunk.hold;
        let Held { job, chunk: id, token } = hold.held;
        let nothing = CommitParams::new(id, token, Commit::new(from, Vec::new(), Duration::ZERO));
        let ask = || self.ledger.commit(job, &nothing);
        let answer = insist(&self.reach, "commit", &self.machine, hold.abandoned(), ask).await;
        if let Some(Ok(Committed::Settled { .. })) = answer {
            return true;
        }
        if let Some(Ok(fenced)) = &answer {
            metrics::committed(&nothing.commit, fenced);
        }
        info!(from, "the chunk is somebody else's; its results are not written");
        hold.end(Ending::Abandon);
        false
    }

    async fn write(
        &self,
        chunk: &Chunk<'_>,
        location: &str,
        subtasks: Range<u64>,
        lines: &str,
    ) -> Result<String, longshore_storage::Error> {
        let Held { job, token, .. } = chunk.hold.held;
        let name = name(job, subtasks.start, subtasks.end, token);
        let bytes = lines.as_bytes().to_vec();
        let url = self.machine.results().write(location, &name, bytes).await?;
        chunk.written.lock().push(url.clone());
        Ok(url)
    }

    /// Commits what is left, for as long as it takes to write it.
    pub(crate) async fn commit_rest(&self, chunk: &Chunk<'_>, batch: &mut Batch) {
        let mut waiting = None;
        let mut pause = FIRST;
        while let Err(error) = self.try_commit(chunk, batch).await {
            let Results::Url(location) = &chunk.plan.document().results else { return };
            let waiting = waiting.get_or_insert_with(|| {
                (self.locations.wait(location, &error), self.stalled(chunk))
            });
            let (waiting, stalled) = waiting;
            stalled.report(&error);
            if waiting.since.elapsed() >= PATIENCE {
                warn!(location, error, "results can't be written; their subtasks fail");
                batch.fail_results(&format!("results: {error}"));
                continue;
            }
            tokio::select! {
                biased;
                () = chunk.hold.abandoned().cancelled() => return,
                () = tokio::time::sleep(pause.mul_f64(0.5 + self.machine.share() / 2.0)) => {}
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Tells people that a chunk stalls, until that is over.
    fn stalled(&self, chunk: &Chunk<'_>) -> Stalled {
        let (ledger, node) = (self.ledger.clone(), self.node.clone());
        Stalled { ledger, node, job: chunk.hold.held.job }
    }

    /// After a commit: sees that the objects which no commit names are removed.
    pub(crate) fn tidy_up(&self, chunk: &Chunk<'_>, commit: &Commit, answer: Option<&Committed>) {
        let written = std::mem::take(&mut *chunk.written.lock());
        let Results::Url(location) = &chunk.plan.document().results else { return };
        let tidier = Tidier {
            ledger: self.ledger.clone(),
            machine: self.machine.clone(),
            held: chunk.hold.held.clone(),
        };
        let from = chunk.grant.from;
        match answer {
            Some(Committed::Settled { state }) => {
                let named: HashSet<&str> = commit.runs.iter().filter_map(url).collect();
                let mut unused = written;
                unused.retain(|url| !named.contains(url.as_str()));
                if !unused.is_empty() {
                    let (tidier, all) = (tidier.clone(), from..chunk.grant.to);
                    tokio::spawn(async move { tidier.remove_unnamed(all, unused).await });
                }
                if state.is_terminal() {
                    let (location, plan) = (location.clone(), &chunk.plan);
                    let all = 0..plan.reduce_tree().map_or(plan.total(), |tree| tree.root() + 1);
                    tokio::spawn(async move { tidier.sweep(&location, all).await });
                }
            }
            _ if written.is_empty() => {}
            _ => {
                let all = from..chunk.grant.to;
                tokio::spawn(async move { tidier.remove_lost(all, written).await });
            }
        }
    }
}

/// The object that a committed run names.
fn url(run: &OutcomeRun) -> Option<&str> {
    match run {
        OutcomeRun::Success { results: Some(lines), .. } => pointer(lines).map(|(url, _)| url),
        _ => None,
    }
}

fn unwritable(error: &longshore_storage::Error) -> OutcomeRun {
    OutcomeRun::Failed { error: format!("results: {error}") }
}

/// Removes objects that no commit names. Best effort: what is left behind is never read.
#[derive(Clone)]
struct Tidier {
    ledger: Arc<dyn Ledger>,
    machine: Arc<Machine>,
    held: Held,
}

impl Tidier {
    /// Removes what a claim wrote, and lost before its commit.
    async fn remove_lost(&self, subtasks: Range<u64>, urls: Vec<String>) {
        tokio::time::sleep(LATE).await;
        let Held { job, chunk, token } = self.held;
        let nothing = Commit::new(subtasks.start, Vec::new(), Duration::ZERO);
        let params = CommitParams::new(chunk, token, nothing);
        let answer = self.ask(|| self.ledger.commit(job, &params)).await;
        // A token that holds its chunk may still see its commit go through.
        if matches!(answer, Some(Committed::Fenced)) {
            self.remove_unnamed(subtasks, urls).await;
        }
    }

    /// Removes those objects that the results of these subtasks don't name. A lost answer may hide
    /// that a commit counted.
    async fn remove_unnamed(&self, subtasks: Range<u64>, urls: Vec<String>) {
        let Some(named) = self.named(subtasks).await else { return };
        self.remove(urls.into_iter().filter(|url| !named.contains(file_name(url)))).await;
    }

    /// Removes all that nobody needs of a job that has ended: left behind by workers that died or
    /// lost a race. Only of a job that lost something; a job that was put back from the journal
    /// names nothing, and keeps everything.
    async fn sweep(&self, location: &str, subtasks: Range<u64>) {
        tokio::time::sleep(LATE).await;
        let Some(before) = self.ended_job().await else { return };
        let lost = before.lost + before.recoveries + before.speculative_chunks + before.fenced;
        if lost == 0 || before.restored_at.is_some() {
            return;
        }
        let folder = before.id.to_string();
        let listed = match self.machine.results().list(location, &folder).await {
            Ok(listed) => listed,
            Err(error) => return debug!(%error, "can't look for objects that nobody needs"),
        };
        let Some(named) = self.named(subtasks).await else { return };
        // A job that was re-opened meanwhile may have new claims, whose objects no commit names
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

    /// The names of all objects that the results of these subtasks lie in.
    async fn named(&self, subtasks: Range<u64>) -> Option<HashSet<String>> {
        let job: JobId = self.held.job;
        let Range { start: mut next, end } = subtasks;
        let mut named = HashSet::new();
        while next < end {
            let params = ResultsParams::new(next..end, PAGE_BYTES);
            let page = self.ask(|| self.ledger.results(job, &params)).await?;
            let urls = page.runs.iter().filter_map(|run| pointer(&run.lines));
            named.extend(urls.map(|(url, _)| file_name(url).to_owned()));
            if page.next <= next {
                return None;
            }
            next = page.next;
        }
        Some(named)
    }

    async fn remove(&self, urls: impl Iterator<Item = String>) {
        for url in urls {
            match self.machine.results().remove(&url).await {
                Ok(()) => debug!(url, "removed a result object that nobody needs"),
                Err(error) => debug!(%error, "can't remove a result object that nobody needs"),
            }
        }
    }

    /// Asks the ledger until it answers, but not for ever.
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

/// What an object is called; two of a job never have the same name.
fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
