//! `longshore drain`: asks a worker to finish its running subtasks and stop; does not wait for it.

use clap::Args;
use longshore_protocol::wire::NodeAnswer;

use super::node_id;
use crate::failure::Failure;
use crate::output::Output;
use crate::services;
use crate::settings::Settings;

/// Ask a worker to finish its running subtasks, take no new ones, and stop
#[derive(Args)]
pub(crate) struct Drain {
    /// The worker's id, or as much of it as `longshore nodes` shows
    #[arg(value_name = "NODE")]
    node: String,
}

impl Drain {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let nodes = services::nodes(settings)?;
        let node = node_id::find(&nodes, &self.node).await?;
        nodes.drain(&node).await?;
        if output.is_json() {
            output.json(&NodeAnswer::draining(node))
        } else {
            output.line(format_args!("{node} draining"))
        }
    }
}
