//! Baselines: what RabbitMQ and Redis achieve without Longshore, by the same client libraries.
//! Scenarios are judged by their ratio to a baseline.

mod function;
mod latency;
mod queue;

use std::time::Duration;

use crate::Error;
use crate::report::{Sample, Unit, sample};
use crate::services::Services;

/// A baseline that a scenario is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// Messages per second through one queue, measured for classic and quorum queues.
    Queue,
    /// The latency of one message and one write to Redis.
    Latency,
    /// Calls per second of a small Redis function that writes.
    Function,
}

/// The baselines measured before one run. A baseline that was not asked for is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BaselineValues {
    /// Messages per second, of the faster kind of queue, so that ratios never flatter Longshore.
    pub(crate) queue: f64,
    /// The median latency, in milliseconds.
    pub(crate) latency_p50_ms: f64,
    /// The 99th percentile of the latency, in milliseconds.
    pub(crate) latency_p99_ms: f64,
}

/// Measures the `wanted` baselines, each for about `time`.
pub(crate) async fn measure(
    services: &Services,
    namespace: &str,
    wanted: &[Baseline],
    time: Duration,
) -> Result<(BaselineValues, Vec<Sample>), Error> {
    let (mut values, mut samples) = (BaselineValues::default(), Vec::new());
    for baseline in wanted {
        match baseline {
            Baseline::Queue => {
                let classic = queue::through(services, namespace, "classic", time).await?;
                let quorum = queue::through(services, namespace, "quorum", time).await?;
                values.queue = classic.max(quorum);
                samples.push(sample("one classic queue", Unit::PerSecond, classic));
                samples.push(sample("one quorum queue", Unit::PerSecond, quorum));
            }
            Baseline::Latency => {
                let latency = latency::measure(services, namespace, time).await?;
                (values.latency_p50_ms, values.latency_p99_ms) = latency;
                samples.push(sample("latency baseline p50", Unit::Ms, latency.0));
                samples.push(sample("latency baseline p99", Unit::Ms, latency.1));
            }
            Baseline::Function => {
                let calls = function::calls(services, namespace, time).await?;
                samples.push(sample("small Redis function", Unit::PerSecond, calls));
            }
        }
    }
    Ok((values, samples))
}
