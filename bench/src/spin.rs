//! The tasks of the scenarios `cpu` and `sizes`: they keep a core busy.

use std::ops::Range;
use std::time::Duration;

use longshore_worker::{Builder, Context, TaskError};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the task whose subtasks are all alike,
pub(crate) const TASK: &str = "spin";

/// and of that whose are not.
pub(crate) const MIXED: &str = "spin-mixed";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    ms: u64,
}

/// What the subtasks of a mixed job cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    /// Microseconds of processor time; `long_us` instead for one of `every` within `range`.
    pub(crate) us: u64,
    pub(crate) long_us: u64,
    pub(crate) range: Range<u64>,
    pub(crate) every: u64,
}

impl Load {
    fn of(&self, index: u64) -> Duration {
        let is_long = self.range.contains(&index) && index.is_multiple_of(self.every);
        Duration::from_micros(if is_long { self.long_us } else { self.us })
    }
}

/// Adds the tasks `spin` and `spin-mixed` to a worker: each subtask uses as much processor time as the job's `params` say, by the clock of its own
/// thread, so that a core shared with others is not counted as ours.
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

/// Uses so much processor time.
pub(crate) fn burn(time: Duration) {
    // Without such a clock (there is none but on systems far from POSIX) there is nothing to burn.
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).ok();
    let Some(begun) = now() else { return };
    while now().is_some_and(|now| now - begun < time) {
        std::hint::spin_loop();
    }
}
