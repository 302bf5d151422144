//! Runs the scenarios one by one, each in a namespace of its own that is removed at the end.
//!
//! A scenario gets a fleet and a warm-up; each of its runs comes right after its baselines.

use std::pin::Pin;
use std::time::Duration;

use uuid::Uuid;

use crate::baseline::{self, BaselineValues};
use crate::host::load;
use crate::processes::Meter;
use crate::report::{Sample, figures};
use crate::scenario::{Name, Scenario};
use crate::services::Services;
use crate::testbed::Testbed;
use crate::{Config, Error, Host, Outcome, Report};

/// How long each baseline is measured, in seconds, times the scale.
const BASELINE_SECONDS: f64 = 2.0;

/// The longest wait for the end of a run.
const RUN_TIMEOUT: Duration = Duration::from_hours(2);

/// Measures the scenarios of `config`. `tell` gets a line of progress for each step.
///
/// # Errors
/// If a service can't be reached, a process of the fleet ends, a job does not succeed, or `stop`
/// completes first. The queues and keys of the benchmark are removed in these cases, too.
pub async fn run(
    config: &Config,
    tell: &(dyn Fn(&str) + Sync),
    stop: impl Future<Output = ()>,
) -> Result<Report, Error> {
    tokio::pin!(stop);
    let host = Host::this();
    let services = Services::connect(&config.amqp_url, &config.redis_url).await?;
    let (mut baselines, mut scenarios) = (Vec::new(), Vec::new());
    for &name in &config.scenarios {
        let (outcome, samples) = run_scenario(config, &services, name, tell, stop.as_mut()).await?;
        scenarios.push(outcome);
        baselines.extend(samples);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        host,
        redis: services.redis_version.clone(),
        work_queues: config.work_queues.clone(),
        scale: config.scale,
        baselines: figures(baselines),
        scenarios,
    })
}

async fn run_scenario(
    config: &Config,
    services: &Services,
    name: Name,
    tell: &(dyn Fn(&str) + Sync),
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(Outcome, Vec<Sample>), Error> {
    let namespace = format!("bench-{}", &Uuid::new_v4().simple().to_string()[..12]);
    let mut scenario = name.scenario();
    let layout = scenario.layout();
    let measured = match Testbed::prepare(config, services, &namespace, &layout).await {
        Ok(mut testbed) => {
            let measured = tokio::select! {
                measured = measure(&mut testbed, name, scenario.as_mut(), tell) => measured,
                () = stop => Err(Error::Interrupted),
            };
            // Before the cleanup: RabbitMQ could create a queue later for a process that was
            // killed.
            testbed.stop().await;
            measured
        }
        Err(error) => Err(error),
    };
    let cleaned = services.clean(&namespace).await;
    let (samples, cores, baselines) = measured?;
    cleaned?;
    let outcome = Outcome {
        scenario: name.as_str(),
        what: name.what(),
        figures: figures(samples),
        cores: figures(cores),
        load: load(),
    };
    Ok((outcome, baselines))
}

/// The samples of a scenario, the cores that each role kept busy, and the baselines.
type RunSamples = (Vec<Sample>, Vec<Sample>, Vec<Sample>);

async fn measure(
    testbed: &mut Testbed<'_>,
    name: Name,
    scenario: &mut (dyn Scenario + 'static),
    tell: &(dyn Fn(&str) + Sync),
) -> Result<RunSamples, Error> {
    tell(&format!("{name}: warming up"));
    with_timeout(scenario.warm_up(testbed)).await?;
    let (mut samples, mut cores, mut baselines) = (Vec::new(), Vec::new(), Vec::new());
    let runs = testbed.config.runs;
    for run in 1..=runs {
        testbed.fleet.check()?;
        let time = testbed.time(BASELINE_SECONDS);
        let wanted = scenario.baselines();
        let (services, namespace) = (testbed.services, testbed.namespace.as_str());
        let (baseline, found) = baseline::measure(services, namespace, wanted, time).await?;
        baselines.extend(found);
        let (found, used) = run_once(scenario, testbed, baseline).await?;
        let first = found.first().map(|sample| format!(": {} {:.4}", sample.name, sample.value));
        tell(&format!("{name}: run {run} of {runs}{}", first.unwrap_or_default()));
        samples.extend(found);
        cores.extend(used);
    }
    Ok((samples, cores, baselines))
}

async fn run_once(
    scenario: &mut dyn Scenario,
    testbed: &mut Testbed<'_>,
    baseline: BaselineValues,
) -> Result<(Vec<Sample>, Vec<Sample>), Error> {
    let meter = Meter::start(testbed.measured_processes());
    let found = with_timeout(scenario.run(testbed, baseline)).await?;
    Ok((found, meter.read().samples()))
}

async fn with_timeout<T>(step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(RUN_TIMEOUT, step).await.unwrap_or(Err(Error::TimedOut {
        what: "the end of a run",
        seconds: RUN_TIMEOUT.as_secs(),
    }))
}
