//! One worker: what it said last, for how long it has been silent, and whether it is taken for dead.
//!
//! Deliberately absent: when silence counts, and who falls silent together (see `fleet`).

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{Isolation, LivenessTerms, NodeInfo, NodeRecord, NodeState, Timestamp};

use super::severance::Severance;

/// What one scheduler knows of a worker.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) info: Arc<NodeInfo>,
    pub(super) beat_at: Timestamp,
    pub(super) round_trip: Duration,
    /// How often we have heard it.
    pub(super) beats: u64,
    pub(super) silent: Duration,
    pub(super) severance: Severance,
    /// It fell silent together with many others, and gets twice the time, once.
    pub(super) spared: bool,
    pub(super) dead: bool,
    /// When its connections were found gone for too long.
    pub(super) disconnected_at: Option<Timestamp>,
    /// How its process ended, if somebody watched it.
    pub(super) death: Option<String>,
    /// The tasks for which it is out of rotation.
    pub(super) isolated: Vec<Isolation>,
    /// How often we had heard it when it got a chunk of such a task last.
    pub(super) probed: u64,
}

impl Node {
    /// Heard for this many times.
    pub(super) fn new(record: &NodeRecord, beats: u64) -> Self {
        let NodeRecord { info, beat_at, round_trip, death, isolated, .. } = record.clone();
        let (silent, severance) = (Duration::ZERO, Severance::default());
        // No beat undoes what somebody saw with his own eyes.
        let dead = death.is_some();
        Self {
            info,
            beat_at,
            round_trip,
            beats,
            silent,
            severance,
            spared: false,
            dead,
            disconnected_at: None,
            death,
            isolated,
            probed: 0,
        }
    }

    /// So much silence is a death by its terms, or by ours.
    pub(super) fn dead_after(&self, ours: Duration) -> Duration {
        let grace = self.info.terms.dead_after.unwrap_or(ours);
        if self.spared { 2 * grace } else { grace }
    }

    /// Whether it has been silent for so long that it may die soon: for half of the time that is
    /// left once its next heartbeat is due.
    pub(super) fn is_suspect(&self, ours: Duration) -> bool {
        let LivenessTerms { heartbeat, dead_after, .. } = self.info.terms;
        let until = dead_after.unwrap_or(ours) + heartbeat.unwrap_or_default();
        !self.dead && self.silent >= until / 2
    }

    /// Whether connections that are gone prove that it runs nothing any more. A worker that was cut
    /// off has not stopped its exclusive tasks yet.
    pub(super) fn ends_with_its_connections(&self) -> bool {
        self.info.terms.exclusive.is_empty()
    }

    /// Whether it takes chunks at all.
    pub(super) fn is_open(&self) -> bool {
        !self.dead && self.info.state == NodeState::Active && self.info.slots > 0
    }

    pub(super) fn takes_from(&self, queue: &str) -> bool {
        self.is_open() && self.info.queues.iter().any(|name| name == queue)
    }

    pub(super) fn can_run(&self, task: &str) -> bool {
        self.has_task(task) && self.isolation(task).is_none()
    }

    pub(super) fn has_task(&self, task: &str) -> bool {
        self.info.tasks.iter().any(|name| name == task)
    }

    pub(super) fn isolation(&self, task: &str) -> Option<&Isolation> {
        self.isolated.iter().find(|isolation| isolation.task == task)
    }
}
