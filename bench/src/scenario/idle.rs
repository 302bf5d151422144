//! `idle`: start time, memory and processor time of a scheduler and a worker with nothing to do.

use async_trait::async_trait;

use super::Scenario;
use crate::Error;
use crate::baseline::BaselineValues;
use crate::fleet::Layout;
use crate::processes::{Meter, memory, tree};
use crate::report::{Sample, Unit, sample};
use crate::testbed::Testbed;

/// The time in seconds from the start until its effects are over, times the scale.
const SETTLE_SECONDS: f64 = 3.0;

/// The duration of the measurement in seconds, times the scale.
const SECONDS: f64 = 20.0;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) struct Idle;

#[async_trait]
impl Scenario for Idle {
    fn layout(&self) -> Layout {
        Layout::default()
    }

    /// Starts the fleet once, which reads the program from disk and creates the queues.
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        testbed.fleet.start(&Layout::usual(), testbed.services).await?;
        testbed.fleet.stop().await;
        Ok(())
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let (settle, seconds) = (testbed.time(SETTLE_SECONDS), testbed.time(SECONDS));
        let fleet = &mut testbed.fleet;
        let scheduler_start = fleet.scheduler(testbed.services).await?;
        let worker_start = fleet.worker(None, testbed.services).await?;
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
            bytes("worker and supervisor, shared pages once", worker.shared_once)
                .at_most(15.0 * MIB),
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
