//! Reads results.
//!
//! Those that are there, those of a job that still runs as they come, and the reduced value.

use axum::http::StatusCode;
use futures_util::StreamExt;
use longshore_protocol::wire::ResultView;

use super::{Outcome, json};
use crate::call::Call;
use crate::lines::{self, line};

pub(crate) async fn results(call: Call) -> Outcome {
    let indices = call.params.indices()?;
    let is_followed = call.params.flag("follow")?;
    let (job, _) = call.job().await?;
    let stop = call.shared.stop.clone();
    let results = match is_followed {
        true => job.follow_results(indices),
        // Saves a read of the ledger.
        false if indices == (0..u64::MAX) => job.results(),
        false => job.results_in(indices),
    };
    let results = results.map(|result| {
        let (index, value) = result?;
        Ok(line(&ResultView { index: Some(index), result: &value }))
    });
    match is_followed {
        true => Ok(lines::respond_live(results.boxed(), stop)),
        false => lines::respond(results.boxed(), stop).await,
    }
}

pub(crate) async fn value(call: Call) -> Outcome {
    let (job, _) = call.job().await?;
    let value = job.value().await?;
    Ok(json(StatusCode::OK, &ResultView { index: None, result: &value }))
}
