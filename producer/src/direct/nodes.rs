//! Lists and controls the workers of the fleet straight in the ledger.
//!
//! What each call does is said at [`crate::Nodes`].

use std::sync::Arc;

use longshore_ledger::{IsolateParams, Ledger};
use longshore_protocol::{NodeId, NodeRecord, Timestamp};

use crate::Error;

/// The workers of a ledger.
#[derive(Clone)]
pub(crate) struct Nodes {
    ledger: Arc<dyn Ledger>,
}

impl Nodes {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }

    pub(crate) fn place(&self) -> String {
        self.ledger.describe()
    }

    pub(crate) async fn list(&self) -> Result<Vec<NodeRecord>, Error> {
        Ok(self.ledger.nodes().await?)
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.ledger.now().await?)
    }

    pub(crate) async fn drain(&self, node: &NodeId) -> Result<(), Error> {
        found(node, self.ledger.drain(node).await?)
    }

    pub(crate) async fn undrain(&self, node: &NodeId) -> Result<(), Error> {
        found(node, self.ledger.undrain(node).await?)
    }

    pub(crate) async fn readmit(&self, node: &NodeId) -> Result<(), Error> {
        found(node, self.ledger.isolate(&IsolateParams::new(node.clone(), [])).await?)
    }
}

fn found(node: &NodeId, is_listed: bool) -> Result<(), Error> {
    if is_listed { Ok(()) } else { Err(Error::NodeNotFound(node.clone())) }
}
