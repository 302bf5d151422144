//! The workers of a server's fleet. What each call does is said at [`crate::Nodes`].

use std::sync::Arc;

use longshore_protocol::wire::{NodeAnswer, NodeView};
use longshore_protocol::{NodeId, NodeRecord, Timestamp};

use super::job::of_server;
use super::request::Request;
use super::{Server, jobs};
use crate::Error;

/// The workers of a server's fleet.
#[derive(Clone)]
pub(crate) struct Nodes {
    server: Server,
}

impl Nodes {
    pub(crate) fn new(server: Server) -> Self {
        Self { server }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) async fn list(&self) -> Result<Vec<NodeRecord>, Error> {
        let nodes: Vec<NodeView> = self.server.json(&Request::get(&[&"nodes"])).await?;
        let record = |node: NodeView| NodeRecord {
            isolated: node.isolated,
            ..NodeRecord::new(Arc::new(node.info), node.beat_at)
        };
        Ok(nodes.into_iter().map(record).collect())
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        Ok(jobs::now(&self.server).await?)
    }

    pub(crate) async fn drain(&self, node: &NodeId) -> Result<(), Error> {
        self.change(node, "drain").await
    }

    pub(crate) async fn undrain(&self, node: &NodeId) -> Result<(), Error> {
        self.change(node, "undrain").await
    }

    pub(crate) async fn readmit(&self, node: &NodeId) -> Result<(), Error> {
        self.change(node, "readmit").await
    }

    async fn change(&self, node: &NodeId, verb: &str) -> Result<(), Error> {
        let request = Request::post(&[&"nodes", node, &verb]);
        let _: NodeAnswer = self.server.json(&request).await.map_err(of_server)?;
        Ok(())
    }
}
