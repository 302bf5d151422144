//! `longshore undrain`: withdraws a drain, so that the worker takes work again.

use clap::Args;
use longshore_protocol::wire::NodeAnswer;

use super::node_id;
use crate::failure::Failure;
use crate::output::Output;
use crate::services;
use crate::settings::Settings;

/// Let a drained worker take work again; a drain that still runs ends first
#[derive(Args)]
pub(crate) struct Undrain {
    /// The worker's id, or as much of it as `longshore nodes` shows
    #[arg(value_name = "NODE")]
    node: String,
}

impl Undrain {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let nodes = services::nodes(settings).await?;
        let node = node_id::find(&nodes, &self.node).await?;
        nodes.undrain(&node).await?;
        if output.is_json() {
            output.json(&NodeAnswer::active(node))
        } else {
            output.line(format_args!("{node} takes work again"))
        }
    }
}
