//! The task of the scenario `cpu`: it keeps a core busy.

use std::time::Duration;

use longshore_worker::{Builder, Context, TaskError};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::Value;

/// The name of the task.
pub(crate) const TASK: &str = "spin";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    ms: u64,
}

/// Adds the task `spin` to a worker: each subtask uses `params.ms` milliseconds of processor time, by the clock of its own
/// thread, so that a core shared with others is not counted as ours.
#[must_use]
pub fn spin(builder: Builder) -> Builder {
    builder.blocking_task(TASK, |ctx: Context, _: Value| {
        let Params { ms } = ctx.params()?;
        burn(Duration::from_millis(ms));
        Ok::<_, TaskError>(())
    })
}

/// Uses so much processor time.
pub(crate) fn burn(time: Duration) {
    // Without such a clock (there is none but on systems far from POSIX) there is nothing to burn.
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).ok();
    let Some(begun) = now() else { return };
    while now().is_some_and(|now| now - begun < time) {
        std::hint::spin_loop();
    }
}
