//! Workers: their list, drain, its withdrawal, and readmission.

use axum::http::StatusCode;
use longshore_protocol::wire::{NodeAnswer, NodeView};

use super::{Outcome, json};
use crate::call::Call;

pub(crate) async fn list(call: Call) -> Outcome {
    let nodes: Vec<NodeView> =
        call.shared.client.nodes().list().await?.iter().map(NodeView::from).collect();
    Ok(json(StatusCode::OK, &nodes))
}

pub(crate) async fn drain(call: Call) -> Outcome {
    let node = call.params.node();
    call.shared.client.nodes().drain(&node).await?;
    Ok(json(StatusCode::OK, &NodeAnswer::draining(node)))
}

pub(crate) async fn undrain(call: Call) -> Outcome {
    let node = call.params.node();
    call.shared.client.nodes().undrain(&node).await?;
    Ok(json(StatusCode::OK, &NodeAnswer::active(node)))
}

pub(crate) async fn readmit(call: Call) -> Outcome {
    let node = call.params.node();
    call.shared.client.nodes().readmit(&node).await?;
    Ok(json(StatusCode::OK, &NodeAnswer::in_rotation(node)))
}
