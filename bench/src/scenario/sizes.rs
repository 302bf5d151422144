//! Chunks of automatic size beside chunks of fixed ones, for subtasks that are alike, that differ, and that change in the midst of
//! a job.

use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::JobDocument;
use serde_json::json;

use super::Scenario;
use crate::Error;
use crate::ground::{Ground, job};
use crate::machine::cores;
use crate::report::{Sample, Unit, sample};
use crate::spin::{self, Load};
use crate::yardstick::Marks;

/// The sizes that somebody would choose.
const FIXED: [u64; 5] = [1, 10, 100, 1_000, 10_000];

/// Automatic sizes may be so far behind the best fixed one.
const MOST: f64 = 1.1;

/// How long the subtasks of a job take.
struct Mix {
    /// The name of the figure.
    figure: &'static str,
    /// How long a job lasts at best, times the scale.
    seconds: f64,
    usual: Duration,
    long: Duration,
    spread: Spread,
}

/// Where the long ones are.
enum Spread {
    Nowhere,
    /// One of so many.
    Everywhere(u64),
    /// Half of the work, all together in the middle of the job,
    Middle,
    /// or at its end.
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
        // So long that all long ones may be in one chunk.
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

    /// A job of about so much work.
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

/// Jobs of all mixes, each in all sizes.
pub(super) struct Sizes;

#[async_trait]
impl Scenario for Sizes {
    async fn warm_up(&mut self, ground: &mut Ground<'_>) -> Result<(), Error> {
        let (job, _) = ground.run(&MIXES[0].document(Duration::from_millis(500), None)).await?;
        Ok(job.delete().await?)
    }

    async fn run(&mut self, ground: &mut Ground<'_>, _: Marks) -> Result<Vec<Sample>, Error> {
        let mut samples = Vec::new();
        for mix in &MIXES {
            let work = ground.time(mix.seconds) * cores() as u32;
            let mut best = Duration::MAX;
            for size in FIXED {
                let (job, took) = ground.run(&mix.document(work, Some(size))).await?;
                job.delete().await?;
                best = best.min(took);
            }
            let (job, took) = ground.run(&mix.document(work, None)).await?;
            job.delete().await?;
            let ratio = took.as_secs_f64() / best.as_secs_f64();
            samples.push(sample(mix.figure, Unit::Ratio, ratio).at_most(MOST));
        }
        Ok(samples)
    }
}
