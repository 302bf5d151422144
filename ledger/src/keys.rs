//! The name and the type of every key of the ledger in Redis, each a function.
//!
//! What stands in braces decides the slot in a Redis Cluster: all keys of a job share one, so that
//! an operation on a job is one call.

use longshore_protocol::state::JobState;
use longshore_protocol::{JobId, NodeId, SchedulerId};

use crate::Topic;

/// The keys under one namespace (`longshore` unless configured).
#[derive(Clone, Debug)]
pub struct Keys {
    namespace: String,
}

/// Index of the job's hash in [`Keys::all_of_job`].
pub const JOB_HASH: usize = 0;

impl Keys {
    /// Keys that begin with `namespace:`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self { namespace: namespace.into() }
    }

    /// Hash: where the job stands.
    pub fn job(&self, job: JobId) -> String {
        format!("{}:{{{job}}}", self.namespace)
    }

    /// String: the job document.
    pub fn document(&self, job: JobId) -> String {
        self.part(job, "doc")
    }

    /// String: the manifest of a split over files, as JSON.
    pub fn manifest(&self, job: JobId) -> String {
        self.part(job, "manifest")
    }

    /// Bitmap: bit i is set when index i succeeded.
    pub fn done(&self, job: JobId) -> String {
        self.part(job, "done")
    }

    /// Bitmap: bit i is set when index i failed for good.
    pub fn failed(&self, job: JobId) -> String {
        self.part(job, "failed")
    }

    /// Hash: index -> why it failed.
    pub fn errors(&self, job: JobId) -> String {
        self.part(job, "errors")
    }

    /// Sorted set: index -> the order in which it failed.
    pub fn error_order(&self, job: JobId) -> String {
        self.part(job, "errors:order")
    }

    /// Hash: chunk -> record, open chunks only.
    pub fn chunks(&self, job: JobId) -> String {
        self.part(job, "chunks")
    }

    /// Sorted set: `i:attempt`, `i:attempt:deferrals` or `i:attempt:deferrals:nodes` -> due, ms.
    pub fn retry(&self, job: JobId) -> String {
        self.part(job, "retry")
    }

    /// Hash: index of a run's first subtask -> its results.
    pub fn results(&self, job: JobId) -> String {
        self.part(job, "results")
    }

    /// Hash: number -> what was done when a node was lost, the newest 100.
    pub fn recoveries(&self, job: JobId) -> String {
        self.part(job, "recoveries")
    }

    /// Sorted set: queued chunk -> when its message is due again, ms.
    pub fn due(&self, job: JobId) -> String {
        self.part(job, "due")
    }

    /// String: when the job was deleted, ms. Outlives the others for an hour, so that nobody takes
    /// the job for lost.
    pub fn deleted(&self, job: JobId) -> String {
        self.part(job, "deleted")
    }

    /// String: why the job, which is not admitted yet, can't be validated. Expires by itself.
    pub fn postponed(&self, job: JobId) -> String {
        self.part(job, "postponed")
    }

    /// Hash: worker -> the time of its last report that it can't go on, ms, and the reason. Expires
    /// by itself.
    pub fn stalls(&self, job: JobId) -> String {
        self.part(job, "stalls")
    }

    /// String: when the job was cancelled before its admission, ms. Expires by itself.
    pub fn cancel(&self, job: JobId) -> String {
        self.part(job, "cancel")
    }

    /// All keys of a job that there is, in the order in which the functions that touch them all
    /// declare them.
    pub fn all_of_job(&self, job: JobId) -> [String; 12] {
        [
            self.job(job),
            self.document(job),
            self.manifest(job),
            self.done(job),
            self.failed(job),
            self.errors(job),
            self.error_order(job),
            self.chunks(job),
            self.retry(job),
            self.results(job),
            self.recoveries(job),
            self.due(job),
        ]
    }

    /// Sorted set: job -> submitted, ms. Jobs that may not have ended.
    pub fn active(&self) -> String {
        self.name("jobs:active")
    }

    /// Sorted set: job -> finished, ms. Jobs that ended.
    pub fn finished(&self) -> String {
        self.name("jobs:finished")
    }

    /// Sorted set: job -> when its keys expire, ms. Tells what to take off the finished list.
    pub fn expiring(&self) -> String {
        self.name("jobs:expiring")
    }

    /// Sorted set: job -> its place in lists, ms. All jobs that are kept.
    pub fn all_jobs(&self) -> String {
        self.name("jobs:all")
    }

    /// Sorted set: job -> its place in lists, ms. Jobs that have not ended, or only lately.
    pub fn open_jobs(&self) -> String {
        self.name("jobs:open")
    }

    /// Sorted set: job -> its place in lists, ms. Jobs that ended in this state.
    pub fn ended_jobs(&self, state: JobState) -> String {
        format!("{}:jobs:state:{state}", self.namespace)
    }

    /// Sorted set: job -> its place in lists, ms. Jobs with this `queue`, `task`, `tenant` or
    /// `name`.
    pub fn jobs_with(&self, attribute: &str, value: &str) -> String {
        format!("{}:jobs:{attribute}:{value}", self.namespace)
    }

    /// Sorted set: job -> its place in lists, ms. Jobs with this label.
    pub fn jobs_with_label(&self, key: &str, value: &str) -> String {
        format!("{}:jobs:label:{key}={value}", self.namespace)
    }

    /// Sorted set: job -> 0, so that it is sorted by id. All jobs that are kept.
    pub fn job_ids(&self) -> String {
        self.name("jobs:ids")
    }

    /// Hash: job -> its attributes as JSON, which name the sets that list the job.
    pub fn job_attributes(&self) -> String {
        self.name("jobs:attributes")
    }

    /// Hash: how far the ledger's time is from that of the server, ms, where the server's clock
    /// jumped.
    pub fn clock(&self) -> String {
        self.name("clock")
    }

    /// Sorted set: node -> last heartbeat, ms.
    pub fn nodes(&self) -> String {
        self.name("nodes")
    }

    /// Sorted set: node -> the number of its last change, which grows from one to the next. In the
    /// slot of [`Self::nodes`].
    pub fn node_changes(&self) -> String {
        format!("{}:{{{}}}:changes", self.namespace, self.nodes())
    }

    /// Hash: the verdict on a worker that is lost. In the slot of [`Self::nodes`].
    pub fn lost_node(&self, node: &NodeId) -> String {
        format!("{}:{{{}}}:lost:{node}", self.namespace, self.nodes())
    }

    /// Hash: the node's last description of itself.
    pub fn node(&self, node: &NodeId) -> String {
        format!("{}:node:{node}", self.namespace)
    }

    /// Sorted set: scheduler -> last heartbeat, ms.
    pub fn schedulers(&self) -> String {
        self.name("schedulers")
    }

    /// Hash: what the scheduler registered when it signed in last.
    pub fn scheduler(&self, scheduler: &SchedulerId) -> String {
        format!("{}:scheduler:{scheduler}", self.namespace)
    }

    /// Hash: scope -> what blocks its jobs, as the owner of the queue says.
    pub fn blocked(&self, queue: &str) -> String {
        format!("{}:queue:{queue}:blocked", self.namespace)
    }

    /// Hash: up to where the ledger reflects the journal.
    pub fn journal(&self) -> String {
        self.name("journal")
    }

    /// Hash: id of an API token -> the token and the digest of its secret, JSON.
    pub fn api_tokens(&self) -> String {
        self.name("api:tokens")
    }

    /// Sorted set: entry of the audit trail, JSON -> when it was recorded, ms.
    pub fn actions(&self) -> String {
        self.name("api:actions")
    }

    /// Channel (pub/sub): all hints.
    pub fn events(&self) -> String {
        self.name("events")
    }

    /// Channel (pub/sub): the hints of a topic.
    pub fn events_for(&self, topic: Topic) -> String {
        self.name(match topic {
            Topic::Clients => "events:clients",
            Topic::Schedulers => "events:schedulers",
            Topic::Workers => "events:workers",
        })
    }

    fn name(&self, name: &str) -> String {
        format!("{}:{name}", self.namespace)
    }

    fn part(&self, job: JobId, part: &str) -> String {
        format!("{}:{{{job}}}:{part}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0190b0a2-0000-7000-8000-000000000001";

    fn keys() -> (Keys, JobId) {
        (Keys::new("longshore"), JOB.parse().expect("a UUID"))
    }

    #[test]
    fn the_keys_of_a_job_read_as_documented() {
        let (keys, job) = keys();
        let tag = format!("longshore:{{{JOB}}}");
        assert_eq!(keys.job(job), tag);
        let parts = [
            "doc",
            "manifest",
            "done",
            "failed",
            "errors",
            "errors:order",
            "chunks",
            "retry",
            "results",
            "recoveries",
            "due",
        ];
        let all = keys.all_of_job(job);
        assert_eq!(all[JOB_HASH], tag);
        assert_eq!(all[1..], parts.map(|part| format!("{tag}:{part}")));
    }

    #[test]
    fn all_keys_of_a_job_share_one_slot() {
        let (keys, job) = keys();
        let beside = [keys.deleted(job), keys.postponed(job), keys.stalls(job), keys.cancel(job)];
        for key in keys.all_of_job(job).into_iter().chain(beside) {
            let open = key.find('{').expect("a hash tag opens");
            let close = key.find('}').expect("a hash tag closes");
            assert_eq!(&key[open + 1..close], JOB, "{key}");
        }
    }

    #[test]
    fn the_keys_of_the_fleet_read_as_documented() {
        let keys = Keys::new("ls");
        assert_eq!(keys.active(), "ls:jobs:active");
        assert_eq!(keys.finished(), "ls:jobs:finished");
        assert_eq!(keys.job_ids(), "ls:jobs:ids");
        assert_eq!(keys.nodes(), "ls:nodes");
        assert_eq!(keys.node_changes(), "ls:{ls:nodes}:changes");
        assert_eq!(keys.node(&NodeId::new("box-1")), "ls:node:box-1");
        assert_eq!(keys.schedulers(), "ls:schedulers");
        assert_eq!(keys.scheduler(&SchedulerId::new("box-1")), "ls:scheduler:box-1");
        assert_eq!(keys.blocked("gpu"), "ls:queue:gpu:blocked");
        assert_eq!(keys.journal(), "ls:journal");
        assert_eq!(keys.api_tokens(), "ls:api:tokens");
        assert_eq!(keys.actions(), "ls:api:actions");
        assert_eq!(keys.events(), "ls:events");
    }
}
