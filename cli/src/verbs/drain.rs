//! `longshore drain`: asks a worker to finish its chunks and take no new ones; can wait for that.

use std::time::Duration;

use clap::Args;
use longshore_producer::Nodes;
use longshore_protocol::wire::NodeAnswer;
use longshore_protocol::{NodeId, NodeState};
use tokio::time::Instant;

use super::node_id;
use crate::failure::Failure;
use crate::output::{Output, talk};
use crate::services;
use crate::settings::{Settings, parse_duration};

/// The time between two looks at the worker.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Ask a worker to finish its running subtasks and take no new ones
///
/// The worker stays, `draining` and then `drained`, until `longshore undrain` lets it take work
/// again or its process is stopped. A process that is started anew is another worker: it takes
/// work.
///
/// Example: longshore drain quay-0197c7a0 --wait --timeout 10m && systemctl stop longshore-worker
#[derive(Args)]
pub(crate) struct Drain {
    /// The worker's id, or as much of it as `longshore nodes` shows
    #[arg(value_name = "NODE")]
    node: String,
    /// Return when the worker holds no chunk any more, or has left
    #[arg(long)]
    wait: bool,
    /// The longest wait; the worker goes on draining afterwards [default: no limit]
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Drain {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let nodes = services::nodes(settings).await?;
        let node = node_id::find(&nodes, &self.node).await?;
        nodes.drain(&node).await?;
        if self.wait {
            wait(&nodes, &node, self.timeout).await?;
        }
        let (answer, word) = match self.wait {
            true => (NodeAnswer::drained(node.clone()), "drained"),
            false => (NodeAnswer::draining(node.clone()), "draining"),
        };
        if output.is_json() {
            output.json(&answer)
        } else {
            output.line(format_args!("{node} {word}"))
        }
    }
}

/// Waits until the worker is drained or gone, and says how many chunks it still runs.
async fn wait(nodes: &Nodes, id: &NodeId, timeout: Option<Duration>) -> Result<(), Failure> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut said = None;
    loop {
        let listed = nodes.list().await?;
        let Some(node) = listed.iter().find(|node| node.info.id == *id) else { return Ok(()) };
        if node.info.state == NodeState::Drained {
            return Ok(());
        }
        let busy = node.info.busy;
        if said.replace(busy) != Some(busy) {
            talk(format_args!("{id} runs {busy} chunks"));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Failure::other(format_args!(
                "{id} still runs {busy} chunks after {}; it goes on draining",
                humantime::format_duration(timeout.unwrap_or_default())
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
