//! What RabbitMQ and Redis do by themselves, measured with the client libraries that Longshore uses and nothing of
//! Longshore in between. Scenarios are judged by their ratio to these.

mod floor;
mod function;
mod queue;

use std::time::Duration;

use crate::Error;
use crate::report::{Sample, Unit, sample};
use crate::services::Services;

/// What a scenario is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yardstick {
    /// Messages a second through one queue, of either kind.
    Queue,
    /// The latency of one message and one write.
    Floor,
    /// Calls a second of a small Redis function that writes.
    Function,
}

/// What was found in one run. What was not asked for is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    /// Messages a second, the faster of both kinds of queue, so that ratios err against us.
    pub(crate) queue: f64,
    pub(crate) floor_p50_ms: f64,
    pub(crate) floor_p99_ms: f64,
}

/// Measures these, each for about this long.
pub(crate) async fn measure(
    services: &Services,
    namespace: &str,
    wanted: &[Yardstick],
    time: Duration,
) -> Result<(Marks, Vec<Sample>), Error> {
    let (mut marks, mut samples) = (Marks::default(), Vec::new());
    for yardstick in wanted {
        match yardstick {
            Yardstick::Queue => {
                let classic = queue::through(services, namespace, "classic", time).await?;
                let quorum = queue::through(services, namespace, "quorum", time).await?;
                marks.queue = classic.max(quorum);
                samples.push(sample("one classic queue", Unit::PerSecond, classic));
                samples.push(sample("one quorum queue", Unit::PerSecond, quorum));
            }
            Yardstick::Floor => {
                let floor = floor::latency(services, namespace, time).await?;
                (marks.floor_p50_ms, marks.floor_p99_ms) = floor;
                samples.push(sample("latency floor p50", Unit::Ms, floor.0));
                samples.push(sample("latency floor p99", Unit::Ms, floor.1));
            }
            Yardstick::Function => {
                let calls = function::calls(services, namespace, time).await?;
                samples.push(sample("small Redis function", Unit::PerSecond, calls));
            }
        }
    }
    Ok((marks, samples))
}
