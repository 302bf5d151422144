//! One worker as this scheduler knows it: its last heartbeat, its silence, and what it can run.
//!
//! Deliberately absent: when silence counts, and which workers fall silent together (see `fleet`).

use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::{Isolation, LivenessTerms, NodeInfo, NodeRecord, NodeState, Timestamp};

use super::disconnect_timer::DisconnectTimer;

/// What one scheduler knows of a worker.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) info: Arc<NodeInfo>,
    pub(super) beat_at: Timestamp,
    pub(super) round_trip: Duration,
    /// How many heartbeats this scheduler has seen.
    pub(super) beats: u64,
    pub(super) silent: Duration,
    pub(super) disconnect: DisconnectTimer,
    /// The node fell silent together with many others, and gets twice the time, once.
    pub(super) is_spared: bool,
    pub(super) is_dead: bool,
    /// When its connections had been gone for too long.
    pub(super) disconnected_at: Option<Timestamp>,
    /// How its process ended, if a supervisor watched it.
    pub(super) death: Option<String>,
    /// The tasks for which it is out of rotation.
    pub(super) isolated: Vec<Isolation>,
    /// The number of heartbeats seen when the node was last tried with such a task.
    pub(super) tried_at_beat: u64,
}

impl Node {
    /// A node of which this many heartbeats were seen.
    pub(super) fn new(record: &NodeRecord, beats: u64) -> Self {
        let NodeRecord { info, beat_at, round_trip, death, isolated, .. } = record.clone();
        Self {
            info,
            beat_at,
            round_trip,
            beats,
            silent: Duration::ZERO,
            disconnect: DisconnectTimer::default(),
            is_spared: false,
            // No heartbeat undoes a death that a supervisor watched.
            is_dead: death.is_some(),
            disconnected_at: None,
            death,
            isolated,
            tried_at_beat: 0,
        }
    }

    /// The silence after which the node is dead: as it announced, or `default`.
    pub(super) fn dead_after(&self, default: Duration) -> Duration {
        let dead_after = self.info.terms.dead_after.unwrap_or(default);
        if self.is_spared { 2 * dead_after } else { dead_after }
    }

    /// Whether the node has been silent long enough that it may be dead soon: for half of the time
    /// that is left once its next heartbeat is due.
    pub(super) fn is_suspect(&self, default: Duration) -> bool {
        let LivenessTerms { heartbeat, dead_after, .. } = self.info.terms;
        let until = dead_after.unwrap_or(default) + heartbeat.unwrap_or_default();
        !self.is_dead && self.silent >= until / 2
    }

    /// Whether lost connections prove that the node runs nothing any more. A worker that was cut
    /// off has not stopped its exclusive tasks yet.
    pub(super) fn ends_with_its_connections(&self) -> bool {
        self.info.terms.exclusive.is_empty()
    }

    /// Whether the node takes chunks at all.
    pub(super) fn is_open(&self) -> bool {
        !self.is_dead && self.info.state == NodeState::Active && self.info.slots > 0
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
