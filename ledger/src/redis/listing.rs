//! The index of jobs: the sorted sets in which jobs are put, and the lists read from them by page.
//!
//! Each job stands in the set of all jobs and in one set for each of its attributes: queue, task,
//! tenant, name and labels. An ended job also stands in the set of its state, every other job in
//! the set of open jobs. The score is the time at which the job was put into the index.
//!
//! A job is put into the sets before it is admitted and is taken out of them after its keys have
//! gone, so that each job can be found. In between a set may name a job that is not there, or that
//! has another state by now: a reader leaves out what does not match its filter.

use std::collections::BTreeMap;

use longshore_protocol::state::JobState;
use longshore_protocol::{JobCursor, JobFilter, JobId, JobPage, JobSummary, MAX_PAGE, Timestamp};
use redis::{Cmd, Value, cmd};
use serde::{Deserialize, Serialize};

use super::RedisLedger;
use super::call::Call;
use super::jobs::{take, zadd, zrem};
use super::reply::{Reply, optional_word, parse, word};
use super::summary::Fields;
use crate::keys::Keys;
use crate::{Admission, Error, ListParams};

/// How many jobs a page looks at, at most, so that a filter that matches few jobs does not keep one
/// call busy for long. The page that ends here is short, and has a cursor.
const MAX_EXAMINED: usize = 2_000;

/// How many jobs one round trip looks at.
const BATCH: usize = 200;

/// The states that have a set of their own.
const TERMINAL: [JobState; 4] =
    [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::Rejected];

/// What a job is indexed by, as `longshore:jobs:attributes` keeps it: when the keys of the job have
/// expired, this tells which sets still name the job. A rejected job has no attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl Attributes {
    pub(super) fn of(admission: &Admission) -> Self {
        Self {
            queue: Some(admission.queue.clone()),
            task: Some(admission.task.clone()),
            tenant: Some(admission.tenant.clone()),
            name: admission.name.clone(),
            labels: admission.labels.clone(),
        }
    }

    /// The sets of a filter's conditions: what the filter shows is in each of them.
    pub(super) fn of_filter(filter: &JobFilter) -> Self {
        Self {
            queue: filter.queue.clone(),
            task: filter.task.clone(),
            tenant: filter.tenant.clone(),
            name: filter.name.clone(),
            labels: filter.labels.clone(),
        }
    }

    pub(super) fn sets(&self, keys: &Keys) -> Vec<String> {
        let attributes = [
            ("queue", &self.queue),
            ("task", &self.task),
            ("tenant", &self.tenant),
            ("name", &self.name),
        ];
        let set = |(attribute, value): (&str, &Option<String>)| {
            value.as_ref().map(|value| keys.jobs_with(attribute, value))
        };
        let labels = self.labels.iter().map(|(key, value)| keys.jobs_with_label(key, value));
        attributes.into_iter().filter_map(set).chain(labels).collect()
    }
}

/// What the index has to know of a job.
struct Indexed {
    state: JobState,
    submitted_at: u64,
    attributes: Attributes,
}

/// The labels of a job as its hash keeps them.
pub(super) fn labels(text: Option<&str>) -> BTreeMap<String, String> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Scores are whole milliseconds; Redis may write a large one as a float.
fn score_of(operation: &'static str, score: &str) -> Result<u64, Error> {
    Ok(parse::<f64>(operation, score)? as u64)
}

impl RedisLedger {
    /// Commands that put a job into the index; a job that is there keeps its place. They go before
    /// the command that makes the job.
    pub(super) fn index(&self, job: JobId, attributes: &Attributes, at: u64) -> Vec<Cmd> {
        let (keys, name) = (self.keys(), job.to_string());
        let mut keep = cmd("HSET");
        let text = serde_json::to_string(attributes).expect("attributes are strings");
        keep.arg(keys.job_attributes()).arg(&name).arg(text);
        // The set of all jobs comes last: a job that stands there was indexed as a whole.
        let sets = attributes.sets(keys).into_iter().chain([keys.open_jobs(), keys.all_jobs()]);
        [keep, self.index_id(&name)]
            .into_iter()
            .chain(sets.map(|set| zadd(set, Some("NX"), at, &name)))
            .collect()
    }

    /// Commands that move a job which has ended to the set of its state; it may stand in that of an
    /// earlier end.
    pub(super) fn index_end(&self, job: JobId, state: JobState, at: u64) -> Vec<Cmd> {
        let (keys, name) = (self.keys(), job.to_string());
        let command = |ended: JobState| match ended == state {
            true => zadd(keys.ended_jobs(ended), Some("NX"), at, &name),
            false => zrem(keys.ended_jobs(ended), &name),
        };
        let moves = TERMINAL.into_iter().map(command);
        moves.chain([zrem(keys.open_jobs(), &name)]).collect()
    }

    /// Commands that put a job which is re-opened among those that have not ended.
    pub(super) fn index_reopened(&self, job: JobId, at: u64) -> Vec<Cmd> {
        let (keys, name) = (self.keys(), job.to_string());
        let ends = TERMINAL.into_iter().map(|state| zrem(keys.ended_jobs(state), &name));
        ends.chain([zadd(keys.open_jobs(), Some("NX"), at, &name)]).collect()
    }

    /// The time at which a job is put on lists now. It orders lists; nothing else depends on it.
    pub(super) async fn listing_time(&self) -> Result<u64, Error> {
        match self.ledger_clock().now() {
            Some(now) => Ok(now),
            None => Ok(self.read_clock().await?.as_millis()),
        }
    }

    /// A job's place in lists, if the index has the job.
    pub(super) async fn listed_at(
        &self,
        operation: &'static str,
        job: JobId,
    ) -> Result<Option<u64>, Error> {
        listed_at(operation, self.send(operation, &self.look_for_place(job)).await?)
    }

    fn look_for_place(&self, job: JobId) -> Cmd {
        let mut look = cmd("ZSCORE");
        look.arg(self.keys().all_jobs()).arg(job.to_string());
        look
    }

    /// Brings the index up to date with a job that has ended, or is gone. The state is looked at
    /// again afterwards: the job may have been re-opened, or submitted again, meanwhile.
    pub(super) async fn index_archived(
        &self,
        operation: &'static str,
        job: JobId,
    ) -> Result<(), Error> {
        let look = [self.look_at(job), self.look_for_place(job)];
        let [found, place] = take(operation, self.call_all(operation, &look).await?)?;
        let place = listed_at(operation, place)?;
        match indexed(operation, found)? {
            None => {
                self.unindex(operation, &[job.to_string()]).await?;
                if let Some(found) = self.read_indexed(operation, job).await? {
                    let commands = self.index(job, &found.attributes, found.submitted_at);
                    self.call_all(operation, &commands).await?;
                }
            }
            Some(found) if found.state.is_terminal() => {
                let at = place.unwrap_or(found.submitted_at);
                let mut commands = match place {
                    Some(_) => Vec::new(),
                    None => self.index(job, &found.attributes, at),
                };
                commands.extend(self.index_end(job, found.state, at));
                commands.push(self.look_at(job));
                let again = self.call_in_order(operation, &commands).await?.pop();
                let again = indexed(operation, again.unwrap_or(Value::Nil))?;
                if again.is_some_and(|again| !again.state.is_terminal()) {
                    self.call_all(operation, &self.index_reopened(job, at)).await?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// What the index has to know of a job, from the job's hash.
    async fn read_indexed(
        &self,
        operation: &'static str,
        job: JobId,
    ) -> Result<Option<Indexed>, Error> {
        indexed(operation, self.send(operation, &self.look_at(job)).await?)
    }

    fn look_at(&self, job: JobId) -> Cmd {
        let mut look = cmd("HMGET");
        look.arg(self.keys().job(job));
        look.arg(&["state", "submitted_at", "queue", "task", "tenant", "name", "labels"]);
        look
    }

    /// Takes jobs out of the index whose keys are gone.
    pub(super) async fn unindex(
        &self,
        operation: &'static str,
        names: &[String],
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let keys = self.keys();
        let mut look = cmd("HMGET");
        look.arg(keys.job_attributes()).arg(names);
        let mut kept = Reply::list(operation, self.send(operation, &look).await?)?;
        let mut commands = Vec::new();
        for name in names {
            let text = optional_word(operation, kept.next()?)?.unwrap_or_default();
            // A text that can't be read tells of no sets; readers step over the names that stay
            // there.
            let attributes: Attributes = serde_json::from_str(&text).unwrap_or_default();
            let ends = TERMINAL.into_iter().map(|state| keys.ended_jobs(state));
            let sets = attributes.sets(keys).into_iter().chain(ends);
            let sets = sets.chain([keys.all_jobs(), keys.open_jobs()]);
            commands.extend(sets.map(|set| zrem(set, name)));
            commands.push(self.unindex_id(name));
            let mut forget = cmd("HDEL");
            forget.arg(keys.job_attributes()).arg(name);
            commands.push(forget);
        }
        self.call_all(operation, &commands).await.map(drop)
    }

    /// Takes a job out of the sets of attributes that it does not have: they are those of another
    /// document with the id of this job.
    pub(super) async fn unindex_attributes(
        &self,
        operation: &'static str,
        other: &Admission,
    ) -> Result<(), Error> {
        let (keys, job) = (self.keys(), other.job);
        let found = self.read_indexed(operation, job).await?;
        let own = found.as_ref().map(|found| found.attributes.sets(keys)).unwrap_or_default();
        let wrong = Attributes::of(other).sets(keys).into_iter().filter(|set| !own.contains(set));
        let commands: Vec<Cmd> = wrong.map(|set| zrem(set, &job.to_string())).collect();
        self.call_all(operation, &commands).await?;
        if let Some(found) = found {
            let at = self.listed_at(operation, job).await?.unwrap_or(found.submitted_at);
            self.call_all(operation, &self.index(job, &found.attributes, at)).await?;
        }
        Box::pin(self.index_archived(operation, job)).await
    }

    pub(super) async fn list_jobs(&self, params: &ListParams) -> Result<JobPage, Error> {
        const OPERATION: &str = "list";
        let ListParams { filter, cursor, limit } = params;
        let (cursor, limit) = (*cursor, (*limit).clamp(1, MAX_PAGE));
        let sources = self.sources(OPERATION, filter).await?;
        let mut page = JobPage { jobs: Vec::new(), next: cursor };
        let mut examined = 0;
        while examined < MAX_EXAMINED {
            let batch = self.behind(OPERATION, &sources, page.next).await?;
            let summaries = self.read_jobs(OPERATION, &batch, filter).await?;
            let is_last = batch.len() < BATCH;
            examined += batch.len();
            for (place, job) in batch.into_iter().zip(summaries) {
                page.next = Some(place);
                page.jobs.extend(job.filter(|job| filter.matches(job)));
                if page.jobs.len() == limit {
                    return Ok(page);
                }
            }
            if is_last {
                return Ok(JobPage { next: None, ..page });
            }
        }
        Ok(page)
    }

    /// The sets that name together all jobs which the filter shows, and as few others as possible.
    async fn sources(
        &self,
        operation: &'static str,
        filter: &JobFilter,
    ) -> Result<Vec<String>, Error> {
        let keys = self.keys();
        let mut choices: Vec<Vec<String>> =
            Attributes::of_filter(filter).sets(keys).into_iter().map(|set| vec![set]).collect();
        if !filter.tenants.is_empty() {
            let set = |tenant: &String| keys.jobs_with("tenant", tenant);
            choices.push(filter.tenants.iter().map(set).collect());
        }
        if !filter.states.is_empty() {
            let mut sets: Vec<String> = filter
                .states
                .iter()
                .filter(|state| state.is_terminal())
                .map(|state| keys.ended_jobs(*state))
                .collect();
            // A job that has just ended stays among the open ones until it is archived.
            sets.push(keys.open_jobs());
            choices.push(sets);
        }
        if choices.len() < 2 {
            return Ok(choices.pop().unwrap_or_else(|| vec![keys.all_jobs()]));
        }
        let mut counts = Vec::new();
        for set in choices.iter().flatten() {
            let mut count = cmd("ZCARD");
            count.arg(set);
            counts.push(count);
        }
        let mut counts = self.call_all(operation, &counts).await?.into_iter();
        let mut smallest = (u64::MAX, Vec::new());
        for sets in choices {
            let mut total: u64 = 0;
            for count in counts.by_ref().take(sets.len()) {
                total += parse::<u64>(operation, &word(operation, count)?)?;
            }
            if total < smallest.0 {
                smallest = (total, sets);
            }
        }
        Ok(smallest.1)
    }

    /// The next jobs of the sets behind a place, newest first, at most [`BATCH`]: fewer are the
    /// last.
    async fn behind(
        &self,
        operation: &'static str,
        sets: &[String],
        place: Option<JobCursor>,
    ) -> Result<Vec<JobCursor>, Error> {
        let mut found = Vec::new();
        for set in sets {
            found.extend(self.behind_in(operation, set, place).await?);
        }
        found.sort_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(BATCH);
        Ok(found)
    }

    /// The same of one set. Jobs with the time of the place that stand in front of it are stepped
    /// over; Redis sorts equal scores by name, as cursors are sorted.
    async fn behind_in(
        &self,
        operation: &'static str,
        set: &str,
        place: Option<JobCursor>,
    ) -> Result<Vec<JobCursor>, Error> {
        let highest = place.map_or("+inf".to_owned(), |place| place.listed_at.to_string());
        let (mut jobs, mut offset) = (Vec::new(), 0);
        loop {
            let mut range = cmd("ZREVRANGEBYSCORE");
            range.arg(set).arg(&highest).arg("-inf").arg("WITHSCORES");
            range.arg("LIMIT").arg(offset).arg(BATCH);
            let words = Reply::list(operation, self.send(operation, &range).await?)?.words()?;
            for pair in words.chunks_exact(2) {
                let listed_at = Timestamp::from_millis(score_of(operation, &pair[1])?);
                let job = JobCursor { listed_at, job: parse(operation, &pair[0])? };
                if place.is_none_or(|place| job < place) {
                    jobs.push(job);
                }
            }
            if jobs.len() >= BATCH || words.len() < 2 * BATCH {
                return Ok(jobs);
            }
            offset += BATCH;
        }
    }

    /// Reads jobs; `None` for those that are gone, or in no state that the filter shows.
    async fn read_jobs(
        &self,
        operation: &'static str,
        places: &[JobCursor],
        filter: &JobFilter,
    ) -> Result<Vec<Option<JobSummary>>, Error> {
        let stamp = self.stamp().await;
        let keys = self.keys();
        let wanted = self.in_states(operation, places, &filter.states).await?;
        let read = |(place, _): (&JobCursor, &bool)| {
            Call::new("job", [keys.job(place.job), keys.retry(place.job)]).command(&stamp)
        };
        let calls: Vec<Cmd> =
            places.iter().zip(&wanted).filter(|(_, is_wanted)| **is_wanted).map(read).collect();
        let mut answers = self.call_all(operation, &calls).await?.into_iter();
        let mut jobs = Vec::new();
        for (place, is_wanted) in places.iter().zip(wanted) {
            let answer = answers.by_ref().take(usize::from(is_wanted)).next();
            let mut reply = Reply::list(operation, answer.unwrap_or(Value::Nil))?;
            if reply.is_empty() {
                jobs.push(None);
                continue;
            }
            let fields = Fields::new(operation, reply.reply()?.fields()?);
            jobs.push(Some(fields.summary(place.job, &reply.word()?)?));
        }
        Ok(jobs)
    }

    /// Which jobs are in one of these states; all of them if there are none. Of many open jobs few
    /// may have ended, and to ask for a state takes a tenth of the time that a job takes to read.
    async fn in_states(
        &self,
        operation: &'static str,
        places: &[JobCursor],
        states: &[JobState],
    ) -> Result<Vec<bool>, Error> {
        if states.is_empty() {
            return Ok(vec![true; places.len()]);
        }
        let ask = |place: &JobCursor| {
            let mut ask = cmd("HGET");
            ask.arg(self.keys().job(place.job)).arg("state");
            ask
        };
        let asked: Vec<Cmd> = places.iter().map(ask).collect();
        let is_wanted = |answer| {
            let word = optional_word(operation, answer)?;
            let state: Option<JobState> = word.map(|it| parse(operation, &it)).transpose()?;
            Ok(state.is_some_and(|state| states.contains(&state)))
        };
        self.call_all(operation, &asked).await?.into_iter().map(is_wanted).collect()
    }
}

/// The answer to [`RedisLedger::look_for_place`].
fn listed_at(operation: &'static str, answer: Value) -> Result<Option<u64>, Error> {
    let score = optional_word(operation, answer)?;
    score.map(|score| score_of(operation, &score)).transpose()
}

/// The answer to [`RedisLedger::look_at`]; `None` if there is no job.
fn indexed(operation: &'static str, answer: Value) -> Result<Option<Indexed>, Error> {
    let mut values = Reply::list(operation, answer)?;
    let mut next = || optional_word(operation, values.next()?);
    let Some(state) = next()? else { return Ok(None) };
    let submitted_at = next()?.map(|at| parse(operation, &at)).transpose()?.unwrap_or(0);
    let attributes = Attributes {
        queue: next()?,
        task: next()?,
        tenant: next()?,
        name: next()?,
        labels: labels(next()?.as_deref()),
    };
    Ok(Some(Indexed { state: parse(operation, &state)?, submitted_at, attributes }))
}
