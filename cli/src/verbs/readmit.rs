//! `longshore readmit`: ends all isolations of a worker, so that all its tasks get work again.

use clap::Args;
use longshore_protocol::wire::NodeAnswer;

use super::node_id;
use crate::failure::Failure;
use crate::output::Output;
use crate::services;
use crate::settings::Settings;

/// Put a worker back into rotation for all of its tasks
///
/// Schedulers take a worker out of rotation for a task when subtasks fail on it and succeed on
/// other workers; `longshore nodes` shows why. They retry by themselves after some time; after a
/// repair, this command puts the worker back at once.
#[derive(Args)]
pub(crate) struct Readmit {
    /// The worker's id, or as much of it as `longshore nodes` shows
    #[arg(value_name = "NODE")]
    node: String,
}

impl Readmit {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let nodes = services::nodes(settings).await?;
        let node = node_id::find(&nodes, &self.node).await?;
        nodes.readmit(&node).await?;
        if output.is_json() {
            output.json(&NodeAnswer::in_rotation(node))
        } else {
            output.line(format_args!("{node} back in rotation"))
        }
    }
}
