//! Scenario by scenario: a namespace, a fleet, a warm-up, then as many runs as wanted, each with its yardsticks right before;
//! afterwards nothing is left.

use std::pin::Pin;
use std::time::Duration;

use uuid::Uuid;

use crate::ground::Ground;
use crate::machine::load;
use crate::processes::Meter;
use crate::report::{Sample, figures};
use crate::scenario::{Name, Scenario};
use crate::services::Services;
use crate::yardstick::{self, Marks};
use crate::{Config, Error, Machine, Outcome, Report};

/// How long a yardstick is measured, times the scale.
const YARDSTICK_SECONDS: f64 = 2.0;

/// No run takes longer, whatever the machine.
const RUN_WITHIN: Duration = Duration::from_hours(2);

/// Measures everything that `config` asks for. `tell` gets a line for each step.
///
/// # Errors
/// When a service can't be reached, a process of the fleet ends, or a job does not succeed. What was made in RabbitMQ and
/// Redis is removed also then, and when `stop` comes to its end first.
pub async fn run(
    config: &Config,
    tell: &(dyn Fn(&str) + Sync),
    stop: impl Future<Output = ()>,
) -> Result<Report, Error> {
    tokio::pin!(stop);
    let machine = Machine::this();
    let services = Services::connect(&config.amqp_url, &config.redis_url).await?;
    let (mut yardsticks, mut scenarios) = (Vec::new(), Vec::new());
    for &name in &config.scenarios {
        let (outcome, samples) = one(config, &services, name, tell, stop.as_mut()).await?;
        scenarios.push(outcome);
        yardsticks.extend(samples);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        machine,
        redis: services.redis_version.clone(),
        work_queues: config.work_queues.clone(),
        scale: config.scale,
        yardsticks: figures(yardsticks),
        scenarios,
    })
}

async fn one(
    config: &Config,
    services: &Services,
    name: Name,
    tell: &(dyn Fn(&str) + Sync),
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(Outcome, Vec<Sample>), Error> {
    let namespace = format!("bench-{}", &Uuid::new_v4().simple().to_string()[..12]);
    let mut scenario = name.scenario();
    let layout = scenario.layout();
    let measured = match Ground::prepare(config, services, &namespace, &layout).await {
        Ok(mut ground) => {
            let measured = tokio::select! {
                measured = measure(&mut ground, name, scenario.as_mut(), tell) => measured,
                () = stop => Err(Error::Interrupted),
            };
            // Whoever is killed may have asked RabbitMQ for a queue that it makes after we removed it.
            ground.leave().await;
            measured
        }
        Err(error) => Err(error),
    };
    let cleaned = services.clean(&namespace).await;
    let (samples, cores, yardsticks) = measured?;
    cleaned?;
    let outcome = Outcome {
        scenario: name.as_str(),
        what: name.what(),
        figures: figures(samples),
        cores: figures(cores),
        load: load(),
    };
    Ok((outcome, yardsticks))
}

/// What was measured of a scenario, where the time went, and its yardsticks.
type Measured = (Vec<Sample>, Vec<Sample>, Vec<Sample>);

async fn measure(
    ground: &mut Ground<'_>,
    name: Name,
    scenario: &mut (dyn Scenario + 'static),
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Measured, Error> {
    tell(&format!("{name}: warming up"));
    guarded(scenario.warm_up(ground)).await?;
    let (mut samples, mut cores, mut yardsticks) = (Vec::new(), Vec::new(), Vec::new());
    let runs = ground.config.runs;
    for run in 1..=runs {
        ground.fleet.check()?;
        let time = ground.time(YARDSTICK_SECONDS);
        let wanted = scenario.yardsticks();
        let (services, namespace) = (ground.services, ground.namespace.as_str());
        let (marks, found) = yardstick::measure(services, namespace, wanted, time).await?;
        yardsticks.extend(found);
        let (found, used) = once(scenario, ground, marks).await?;
        let first = found.first().map(|sample| format!(": {} {:.4}", sample.name, sample.value));
        tell(&format!("{name}: run {run} of {runs}{}", first.unwrap_or_default()));
        samples.extend(found);
        cores.extend(used);
    }
    Ok((samples, cores, yardsticks))
}

async fn once(
    scenario: &mut dyn Scenario,
    ground: &mut Ground<'_>,
    marks: Marks,
) -> Result<(Vec<Sample>, Vec<Sample>), Error> {
    let meter = Meter::start(ground.watched());
    let found = guarded(scenario.run(ground, marks)).await?;
    Ok((found, meter.read().samples()))
}

async fn guarded<T>(step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(RUN_WITHIN, step)
        .await
        .unwrap_or(Err(Error::TimedOut { what: "the end of a run", seconds: RUN_WITHIN.as_secs() }))
}
