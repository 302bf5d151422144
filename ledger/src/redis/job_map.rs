//! Reads the states of a job's subtasks by ranges of their indices, with `map.lua`.

use longshore_protocol::{Counts, JobId, JobMap, MapCell};

use super::RedisLedger;
use super::call::Call;
use super::reply::Reply;
use crate::Error;
use crate::op::MapParams;

impl RedisLedger {
    pub(super) async fn read_map(
        &self,
        job: JobId,
        params: &MapParams,
    ) -> Result<Option<JobMap>, Error> {
        const OPERATION: &str = "map";
        let keys = self.keys();
        let touched =
            [keys.job(job), keys.done(job), keys.failed(job), keys.chunks(job), keys.retry(job)];
        let call = Call::new(OPERATION, touched)
            .arg(params.indices.start)
            .arg(params.indices.end)
            .arg(params.cells);
        let mut reply = self.call(&call).await?;
        if reply.word()? != "map" {
            return Ok(None);
        }
        let cells = (0..params.cells).map(|cell| cell_of(params, cell, &mut reply));
        let cells = cells.collect::<Result<_, _>>()?;
        Ok(Some(JobMap { id: job, from: params.indices.start, to: params.indices.end, cells }))
    }
}

fn cell_of(params: &MapParams, cell: u64, reply: &mut Reply) -> Result<MapCell, Error> {
    let range = params.cell(cell);
    let counts = Counts {
        total: range.end - range.start,
        waiting: reply.parse()?,
        queued: reply.parse()?,
        running: reply.parse()?,
        retrying: reply.parse()?,
        done: reply.parse()?,
        failed: reply.parse()?,
        cancelled: reply.parse()?,
    };
    Ok(MapCell { from: range.start, counts })
}
