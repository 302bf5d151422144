//! The tasks of the scenarios `cpu` and `sizes`, which keep a core busy.

use std::ops::Range;
use std::time::Duration;

use longshore_worker::{Builder, Context, TaskError};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the task whose subtasks all take the same time.
pub(crate) const TASK: &str = "spin";

/// The name of the task whose subtasks take different times.
pub(crate) const MIXED: &str = "spin-mixed";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    ms: u64,
}

/// The processor time of the subtasks of a mixed job.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    /// The processor time of an ordinary subtask, in microseconds.
    pub(crate) us: u64,
    /// The processor time of a long subtask, in microseconds.
    pub(crate) long_us: u64,
    /// The indices among which the long subtasks are.
    pub(crate) range: Range<u64>,
    /// A subtask in `range` is long if its index is a multiple of this.
    pub(crate) every: u64,
}

impl Load {
    fn of(&self, index: u64) -> Duration {
        let is_long = self.range.contains(&index) && index.is_multiple_of(self.every);
        Duration::from_micros(if is_long { self.long_us } else { self.us })
    }
}

/// Adds the tasks `spin` and `spin-mixed` to a worker. Each subtask uses the processor time that
/// the job's `params` say, by the clock of its thread, so that the time of other processes on the
/// same core does not count.
#[must_use]
pub fn spin(builder: Builder) -> Builder {
    let builder = builder.blocking_task(TASK, |ctx: Context, _: Value| {
        let Params { ms } = ctx.params()?;
        burn(Duration::from_millis(ms));
        Ok::<_, TaskError>(())
    });
    builder.blocking_task(MIXED, |ctx: Context, _: Value| {
        let load: Load = ctx.params()?;
        burn(load.of(ctx.index()));
        Ok::<_, TaskError>(())
    })
}

/// Uses this much processor time.
pub(crate) fn burn(time: Duration) {
    // Only systems far from POSIX lack the clock; no time can be measured there.
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).ok();
    let Some(begun) = now() else { return };
    while now().is_some_and(|now| now - begun < time) {
        std::hint::spin_loop();
    }
}
