//! A scheduler and a worker with nothing to do: how soon they are there, and what they take.

use async_trait::async_trait;

use super::Scenario;
use crate::Error;
use crate::fleet::Layout;
use crate::ground::Ground;
use crate::processes::{Meter, memory, tree};
use crate::report::{Sample, Unit, sample};
use crate::yardstick::Marks;

/// From the start until nothing of it is left to see, times the scale.
const SETTLE_SECONDS: f64 = 3.0;

/// How long is measured, times the scale.
const SECONDS: f64 = 20.0;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) struct Idle;

#[async_trait]
impl Scenario for Idle {
    fn layout(&self) -> Layout {
        Layout::default()
    }

    /// A first start reads the program from the disk and makes the queues.
    async fn warm_up(&mut self, ground: &mut Ground<'_>) -> Result<(), Error> {
        ground.fleet.start(&Layout::usual(), ground.services).await?;
        ground.fleet.stop().await;
        Ok(())
    }

    async fn run(&mut self, ground: &mut Ground<'_>, _: Marks) -> Result<Vec<Sample>, Error> {
        let (settle, seconds) = (ground.time(SETTLE_SECONDS), ground.time(SECONDS));
        let fleet = &mut ground.fleet;
        let scheduler_start = fleet.scheduler(ground.services).await?;
        let worker_start = fleet.worker(None, ground.services).await?;
        tokio::time::sleep(settle).await;
        let meter = Meter::start(fleet.processes());
        tokio::time::sleep(seconds).await;
        let usage = meter.read();
        let worker = memory(&tree(fleet.process("worker")));
        let supervisor = memory(&[fleet.process("worker")]);
        let scheduler = memory(&tree(fleet.process("scheduler")));
        fleet.check()?;
        fleet.stop().await;
        let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
        let bytes = |name, bytes: u64| sample(name, Unit::Bytes, bytes as f64);
        let cores = |name, role| sample(name, Unit::Share, usage.of(role));
        Ok(vec![
            bytes("worker and supervisor, shared pages once", worker.once).at_most(15.0 * MIB),
            bytes("worker, resident", worker.resident - supervisor.resident),
            bytes("supervisor, resident", supervisor.resident),
            cores("worker and supervisor, of a core", "worker").at_most(0.003),
            bytes("scheduler, resident", scheduler.resident).at_most(20.0 * MIB),
            cores("scheduler, of a core", "scheduler").at_most(0.005),
            sample("worker started after", Unit::Ms, ms(worker_start)).at_most(200.0),
            sample("scheduler started after", Unit::Ms, ms(scheduler_start)).at_most(200.0),
        ])
    }
}
