//! `longshore nodes`: lists the workers of the fleet, as the ledger knows them.

use clap::Args;
use longshore_ledger::Ledger;

use crate::failure::Failure;
use crate::output::{Output, node};
use crate::services;
use crate::settings::Settings;

/// List the workers of the fleet
#[derive(Args)]
pub(crate) struct Nodes {}

impl Nodes {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let ledger = services::ledger(settings)?;
        let nodes = ledger.nodes().await?;
        node::list(output, &nodes, ledger.now().await?)
    }
}
