//! Parses which verb is wanted, loads the settings and calls the verb's file.

mod api;
mod audit;
#[cfg(feature = "bench")]
mod bench;
#[cfg(not(feature = "bench"))]
#[path = "no_bench.rs"]
mod bench;
mod bulk;
mod cancel;
mod completions;
mod config;
mod dead;
mod delete;
mod dev;
mod doctor;
mod drain;
mod errors;
mod list;
mod node_id;
mod nodes;
mod pause;
mod readmit;
mod results;
mod resume;
mod retry;
mod run;
mod scheduler;
mod selection;
mod status;
mod submit;
mod token;
mod undrain;
mod worker;

use clap::Subcommand;

use crate::environment::environment;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::{Flags, FleetFlags, Settings, WorkerFlags};

/// A verb with its arguments.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Run(run::Run),
    Dev(dev::Dev),
    Scheduler(scheduler::Scheduler),
    Worker(worker::Worker),
    Api(api::ApiServer),
    Submit(submit::Submit),
    Status(status::Status),
    List(list::List),
    Results(results::Results),
    Errors(errors::Errors),
    Audit(audit::Audit),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Cancel(cancel::Cancel),
    Delete(delete::Delete),
    Retry(retry::Retry),
    Dead(dead::Dead),
    Nodes(nodes::Nodes),
    Drain(drain::Drain),
    Undrain(undrain::Undrain),
    Readmit(readmit::Readmit),
    Token(token::Token),
    Config(config::Config),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

impl Verb {
    /// The log filter while RUST_LOG is unset. Services log events; other commands log errors only.
    pub(crate) fn default_log(&self) -> &'static str {
        match self {
            // lapin logs failures that the broker already logs in one line.
            Self::Scheduler(_) | Self::Worker(_) | Self::Api(_) => "info,lapin=off",
            _ => "error,lapin=off",
        }
    }

    /// The name of a verb that reaches no jobs of others.
    fn own_work(&self) -> Option<&'static str> {
        match self {
            Self::Run(_) => Some("run"),
            Self::Dev(_) => Some("dev"),
            Self::Scheduler(_) => Some("scheduler"),
            Self::Worker(_) => Some("worker"),
            Self::Api(_) => Some("api"),
            Self::Config(_) => Some("config"),
            Self::Completions(_) => Some("completions"),
            _ => None,
        }
    }

    pub(crate) async fn perform(self, flags: &Flags, output: &mut Output) -> Result<(), Failure> {
        let plain = || {
            let (worker, fleet) = (WorkerFlags::default(), FleetFlags::default());
            Settings::load(flags, &worker, &fleet, &environment())
        };
        if let Some(name) = self.own_work() {
            flags.check_no_server(name)?;
        }
        match self {
            Self::Run(verb) => Box::pin(verb.perform(flags, output)).await,
            Self::Dev(verb) => Box::pin(verb.perform(flags, output)).await,
            Self::Scheduler(verb) => Box::pin(verb.perform(&plain()?)).await,
            Self::Api(verb) => Box::pin(verb.perform(&plain()?)).await,
            Self::Worker(verb) => Box::pin(verb.perform(flags)).await,
            Self::Submit(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Status(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::List(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Results(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Errors(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Audit(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Pause(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Resume(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Cancel(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Delete(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Retry(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Dead(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Nodes(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Drain(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Undrain(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Readmit(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Token(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Config(verb) => verb.perform(output),
            Self::Doctor(verb) => Box::pin(verb.perform(&plain, output)).await,
            Self::Bench(verb) => Box::pin(verb.perform(&plain()?, output)).await,
            Self::Completions(verb) => verb.perform(output),
        }
    }
}
