//! The list of scenarios with their names, and the trait that each scenario's file implements.

mod busy;
mod huge;
mod idle;
mod jobs;
mod latency;
mod latency_http;
mod nodes;
mod results;
mod sizes;
mod throughput;

use std::fmt;

use async_trait::async_trait;

use crate::Error;
use crate::baseline::{Baseline, BaselineValues};
use crate::fleet::Layout;
use crate::report::Sample;
use crate::testbed::Testbed;

/// The name of a scenario, as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// No-op subtasks, chunk `auto`, results kept.
    ThroughputKeep,
    /// No-op subtasks, chunk `auto`, results discarded.
    ThroughputDiscard,
    /// No-op subtasks, one message for each.
    Single,
    /// Jobs of one no-op, one after another.
    Latency,
    /// The same through the HTTP API, beside jobs without it.
    LatencyHttp,
    /// 100,000,000 no-op subtasks.
    Huge,
    /// Subtasks that keep a core busy for 10 ms.
    Cpu,
    /// Subtasks that wait for 100 ms, at 1,000 slots.
    Sleep,
    /// Automatic chunk sizes beside fixed ones.
    Sizes,
    /// A fleet with nothing to do.
    Idle,
    /// 10,000 nodes that send heartbeats.
    Nodes,
    /// 10,000 jobs at once.
    Jobs,
    /// The results of 1,000,000 subtasks, streamed to a client.
    Results,
}

impl Name {
    /// All scenarios, in the order of the targets.
    pub const ALL: [Self; 13] = [
        Self::ThroughputKeep,
        Self::ThroughputDiscard,
        Self::Single,
        Self::Latency,
        Self::LatencyHttp,
        Self::Huge,
        Self::Cpu,
        Self::Sleep,
        Self::Sizes,
        Self::Idle,
        Self::Nodes,
        Self::Jobs,
        Self::Results,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ThroughputKeep => "throughput-keep",
            Self::ThroughputDiscard => "throughput-discard",
            Self::Single => "single",
            Self::Latency => "latency",
            Self::LatencyHttp => "latency-http",
            Self::Huge => "huge",
            Self::Cpu => "cpu",
            Self::Sleep => "sleep",
            Self::Sizes => "sizes",
            Self::Idle => "idle",
            Self::Nodes => "nodes",
            Self::Jobs => "jobs",
            Self::Results => "results",
        }
    }

    /// What the scenario does, in one line.
    pub fn what(self) -> &'static str {
        match self {
            Self::ThroughputKeep => "no-op subtasks, chunk auto, results kept",
            Self::ThroughputDiscard => "no-op subtasks, chunk auto, results discarded",
            Self::Single => "no-op subtasks, chunk 1: one message per subtask",
            Self::Latency => "jobs of one no-op, one after another, submit to result",
            Self::LatencyHttp => "the same through the HTTP API, and without it, in turn",
            Self::Huge => "100,000,000 no-op subtasks, beside 1,000,000",
            Self::Cpu => "subtasks of 10 ms of processor time",
            Self::Sleep => "subtasks that wait for 100 ms, at 1,000 slots",
            Self::Sizes => "chunk auto beside sizes of 1 to 10,000, for even and uneven subtasks",
            Self::Idle => "a scheduler and a worker with nothing to do",
            Self::Nodes => "10,000 simulated nodes that send a heartbeat each second",
            Self::Jobs => "10,000 jobs of one no-op at once",
            Self::Results => "the results of 1,000,000 subtasks streamed to a client",
        }
    }

    /// Whether a benchmark without named scenarios includes it; the others take minutes.
    pub fn is_quick(self) -> bool {
        !matches!(self, Self::Huge | Self::Sizes)
    }

    pub(crate) fn scenario(self) -> Box<dyn Scenario> {
        match self {
            Self::ThroughputKeep => Box::new(throughput::Throughput::keep()),
            Self::ThroughputDiscard => Box::new(throughput::Throughput::discard()),
            Self::Single => Box::new(throughput::Throughput::single()),
            Self::Latency => Box::new(latency::Latency),
            Self::LatencyHttp => Box::new(latency_http::LatencyHttp::default()),
            Self::Huge => Box::new(huge::Huge),
            Self::Cpu => Box::new(busy::Busy::cpu()),
            Self::Sleep => Box::new(busy::Busy::sleep()),
            Self::Sizes => Box::new(sizes::Sizes),
            Self::Idle => Box::new(idle::Idle),
            Self::Nodes => Box::new(nodes::Nodes::default()),
            Self::Jobs => Box::new(jobs::Jobs),
            Self::Results => Box::new(results::Results),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A scenario. The fleet stays the same in all runs.
#[async_trait]
pub(crate) trait Scenario: Send {
    /// The fleet that the scenario needs.
    fn layout(&self) -> Layout {
        Layout::usual()
    }

    /// The baselines that the scenario is compared with, measured before each run.
    fn baselines(&self) -> &'static [Baseline] {
        &[]
    }

    /// Prepares the runs; nothing is measured.
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error>;

    /// Measures one run.
    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        baseline: BaselineValues,
    ) -> Result<Vec<Sample>, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_scenarios_are_unique() {
        let mut names = Name::ALL.map(Name::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Name::ALL.len());
    }
}
