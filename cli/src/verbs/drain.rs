//! `longshore drain`: asks a worker to finish its running subtasks and stop; does not wait for it.

use clap::Args;
use longshore_protocol::NodeId;
use longshore_protocol::wire::NodeAnswer;

use crate::failure::Failure;
use crate::output::Output;
use crate::services;
use crate::settings::Settings;

/// Ask a worker to finish its running subtasks, take no new ones, and stop
#[derive(Args)]
pub(crate) struct Drain {
    /// The worker's id, as `longshore nodes` lists them
    #[arg(value_name = "NODE")]
    node: String,
}

impl Drain {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let node = NodeId::new(self.node);
        services::nodes(settings)?.drain(&node).await?;
        if output.is_json() {
            output.json(&NodeAnswer::draining(node))
        } else {
            output.line(format_args!("{node} draining"))
        }
    }
}
