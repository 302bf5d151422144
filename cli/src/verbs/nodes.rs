//! `longshore nodes`: lists the workers of the fleet, as the ledger knows them.

use clap::Args;

use crate::failure::Failure;
use crate::output::{Output, node};
use crate::services;
use crate::settings::Settings;

/// List the workers of the fleet
#[derive(Args)]
pub(crate) struct Nodes {
    /// List whole ids, and more columns
    #[arg(long)]
    wide: bool,
}

impl Nodes {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let nodes = services::nodes(settings).await?;
        node::list(output, &nodes.list().await?, nodes.now().await?, self.wide)
    }
}
