//! `longshore bench`: starts a fleet of its own on this host, measures it, and prints the report.

use clap::Args;
use longshore_bench::{Config, Name};

use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::{Output, bench, talk};
use crate::services::{self, CLOSE_WITHIN};
use crate::settings::{Reach, Settings};

/// Measure what a fleet achieves on this host, compared with RabbitMQ and Redis alone
///
/// Starts a scheduler and a worker of this program with the RabbitMQ and the Redis of the settings,
/// in a namespace of its own that is removed afterwards. The host should be idle otherwise.
/// docs/performance.md explains the figures.
///
/// Example: longshore bench single latency --runs 1
#[derive(Args)]
pub(crate) struct Bench {
    /// The scenarios to measure [default: all but huge and sizes]
    #[arg(value_name = "SCENARIO", value_parser = scenario, long_help = scenarios())]
    scenarios: Vec<Name>,
    /// The number of runs of each scenario; medians are reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    runs: u16,
    /// The factor for sizes and durations, for a quick look; the targets hold at 1
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = scale)]
    scale: f64,
}

impl Bench {
    pub(crate) async fn perform(
        self,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<(), Failure> {
        check_no_server(settings)?;
        let mut interrupts = Interrupts::follow()?;
        // Reports an unreachable service with its address, which the baselines would not name.
        services::direct_client(settings).await?.close(CLOSE_WITHIN).await;
        let quick = || Name::ALL.into_iter().filter(|name| name.is_quick()).collect();
        let config = Config {
            amqp_url: settings.amqp_url.clone(),
            redis_url: settings.redis_url.clone(),
            work_queues: settings.work_queues.name().to_owned(),
            program: std::env::current_exe().map_err(Failure::other)?,
            scenarios: if self.scenarios.is_empty() { quick() } else { self.scenarios },
            runs: self.runs.into(),
            scale: self.scale,
        };
        let tell = |line: &str| talk(line);
        let report = longshore_bench::run(&config, &tell, interrupts.next()).await?;
        bench::report(output, &report)
    }
}

/// Refuses settings that name a server in place of services.
fn check_no_server(settings: &Settings) -> Result<(), Failure> {
    match settings.reach {
        Reach::Server(_) => Err(Failure::usage(
            "bench measures RabbitMQ and Redis themselves, and the settings name a server; give \
             --amqp-url and --redis-url",
        )),
        Reach::Services | Reach::Unsaid => Ok(()),
    }
}

fn scenario(text: &str) -> Result<Name, String> {
    let known = || Name::ALL.map(Name::as_str).join(", ");
    let found = Name::ALL.into_iter().find(|name| name.as_str() == text);
    found.ok_or_else(|| format!("there is no such scenario; use {}", known()))
}

fn scenarios() -> String {
    let lines = Name::ALL.map(|name| format!("  {:19} {}", name.as_str(), name.what()));
    format!("What to measure; all but huge and sizes if none is named:\n\n{}", lines.join("\n"))
}

fn scale(text: &str) -> Result<f64, String> {
    let scale: Option<f64> = text.parse().ok();
    scale
        .filter(|scale| (0.001..=100.0).contains(scale))
        .ok_or_else(|| "a scale is a number from 0.001 to 100".to_owned())
}
