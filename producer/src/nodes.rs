//! The workers of the fleet, as a client sees and controls them.
//!
//! Deliberately absent: what schedulers alone decide, which is when a worker is lost and when it is
//! taken out of rotation.

use std::sync::Arc;

use longshore_ledger::Ledger;
use longshore_protocol::{NodeId, NodeRecord, Timestamp};

use crate::{Error, Way, direct, either, http};

/// Lists and controls the workers of the fleet. Cheap to clone; all clones share their connections.
///
/// ```no_run
/// # async fn example(client: longshore_producer::Client) -> Result<(), longshore_producer::Error> {
/// let nodes = client.nodes();
/// for node in nodes.list().await? {
///     if node.info.labels.get("rack").is_some_and(|rack| rack == "7") {
///         nodes.drain(&node.info.id).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Nodes {
    pub(crate) way: Way<direct::nodes::Nodes, http::nodes::Nodes>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match &self.way {
            Way::Direct(nodes) => nodes.place(),
            Way::Http(nodes) => nodes.server().to_string(),
        };
        f.debug_tuple("Nodes").field(&place).finish()
    }
}

impl Nodes {
    /// The workers of this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { way: Way::Direct(direct::nodes::Nodes::new(ledger)) }
    }

    /// All workers that are listed, by id: those that send heartbeats, and those that stopped and
    /// that no scheduler has declared lost yet. A server does not tell how a process ended.
    pub async fn list(&self) -> Result<Vec<NodeRecord>, Error> {
        either!(&self.way, nodes => nodes.list().await)
    }

    /// The time of the ledger's clock, by which heartbeats and isolations are dated.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        either!(&self.way, nodes => nodes.now().await)
    }

    /// Asks a worker to drain: it learns so with its next heartbeat, takes no new chunks, and
    /// finishes or releases those that it holds. Then its state is `drained`, and it stays so until
    /// [`Self::undrain`], or until its process is stopped.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`] if the worker is not listed.
    pub async fn drain(&self, node: &NodeId) -> Result<(), Error> {
        either!(&self.way, nodes => nodes.drain(node).await)
    }

    /// Withdraws a drain: the worker takes chunks again, after a drain that still runs has ended.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`] if the worker is not listed.
    pub async fn undrain(&self, node: &NodeId) -> Result<(), Error> {
        either!(&self.way, nodes => nodes.undrain(node).await)
    }

    /// Puts a worker back into rotation for all of its tasks. Schedulers take it out again if
    /// subtasks go on failing there that succeed elsewhere.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`] if the worker is not listed.
    pub async fn readmit(&self, node: &NodeId) -> Result<(), Error> {
        either!(&self.way, nodes => nodes.readmit(node).await)
    }
}
