//! `sizes`: automatic chunk sizes compared with fixed ones, for subtasks of various durations.
//!
//! The durations are equal, different, or change within the job.

use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::JobDocument;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::baseline::BaselineValues;
use crate::host::cores;
use crate::report::{Sample, Unit, sample};
use crate::spin::{self, Load};
use crate::testbed::{Testbed, job};

/// The fixed chunk sizes.
const FIXED: [u64; 5] = [1, 10, 100, 1_000, 10_000];

/// The longest a job of automatic sizes may take, as a multiple of the best fixed size.
const MOST: f64 = 1.1;

/// The durations of the subtasks of a job.
struct Mix {
    /// The name of the figure.
    figure: &'static str,
    /// The ideal duration of a job in seconds, times the scale.
    seconds: f64,
    /// The duration of an ordinary subtask.
    usual: Duration,
    /// The duration of a long subtask.
    long: Duration,
    spread: Spread,
}

/// The positions of the long subtasks.
enum Spread {
    Nowhere,
    /// One of this many subtasks is long.
    Everywhere(u64),
    /// The long subtasks are half of the work, in the middle of the job.
    Middle,
    /// The long subtasks are half of the work, at the end of the job.
    End,
}

const MIXES: [Mix; 6] = [
    Mix::even("auto, to the best fixed size: 0.1 ms", Duration::from_micros(100)),
    Mix::even("auto, to the best fixed size: 20 ms", Duration::from_millis(20)),
    Mix {
        figure: "auto, to the best fixed size: 0.5 ms, one of 100 50 ms",
        seconds: 3.0,
        usual: Duration::from_micros(500),
        long: Duration::from_millis(50),
        spread: Spread::Everywhere(100),
    },
    Mix {
        figure: "auto, to the best fixed size: 1 ms, every other 9 ms",
        seconds: 3.0,
        usual: Duration::from_millis(1),
        long: Duration::from_millis(9),
        spread: Spread::Everywhere(2),
    },
    Mix {
        figure: "auto, to the best fixed size: 0.1 ms, in the middle 30 ms",
        // Long enough for one chunk to hold all long subtasks.
        seconds: 15.0,
        usual: Duration::from_micros(100),
        long: Duration::from_millis(30),
        spread: Spread::Middle,
    },
    Mix {
        figure: "auto, to the best fixed size: 0.1 ms, at the end 30 ms",
        seconds: 3.0,
        usual: Duration::from_micros(100),
        long: Duration::from_millis(30),
        spread: Spread::End,
    },
];

impl Mix {
    const fn even(figure: &'static str, usual: Duration) -> Self {
        Self { figure, seconds: 3.0, usual, long: usual, spread: Spread::Nowhere }
    }

    /// A job of about this much work.
    fn document(&self, work: Duration, chunk: Option<u64>) -> JobDocument {
        let count = |work: Duration, each: Duration| {
            (work.as_secs_f64() / each.as_secs_f64()).ceil().max(1.0) as u64
        };
        let together = |is_at_the_end: bool| {
            let (short, long) = (count(work / 2, self.usual), count(work / 2, self.long));
            let from = if is_at_the_end { short } else { short / 2 };
            (short + long, from..from + long, 1)
        };
        let (total, range, every) = match self.spread {
            Spread::Nowhere => (count(work, self.usual), 0..0, 1),
            Spread::Everywhere(every) => {
                let mean = (self.usual * (every as u32 - 1) + self.long) / every as u32;
                let total = count(work, mean);
                (total, 0..total, every)
            }
            Spread::Middle => together(false),
            Spread::End => together(true),
        };
        let load = Load { us: micros(self.usual), long_us: micros(self.long), range, every };
        let chunk = chunk.map_or(json!("auto"), |size| json!(size));
        let extra = json!({"params": load, "results": "discard", "chunk": chunk});
        job(spin::MIXED, total, &extra)
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

/// Jobs of all mixes, each with all chunk sizes.
pub(super) struct Sizes;

#[async_trait]
impl Scenario for Sizes {
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        let (job, _) = testbed.run(&MIXES[0].document(Duration::from_millis(500), None)).await?;
        Ok(job.delete().await?)
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let mut samples = Vec::new();
        for mix in &MIXES {
            let work = testbed.time(mix.seconds) * cores() as u32;
            let mut best = Duration::MAX;
            for size in FIXED {
                let (job, took) = testbed.run(&mix.document(work, Some(size))).await?;
                job.delete().await?;
                best = best.min(took);
            }
            let (job, took) = testbed.run(&mix.document(work, None)).await?;
            job.delete().await?;
            let ratio = took.as_secs_f64() / best.as_secs_f64();
            samples.push(sample(mix.figure, Unit::Ratio, ratio).at_most(MOST));
        }
        Ok(samples)
    }
}
