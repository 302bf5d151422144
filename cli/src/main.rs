//! The `longshore` command: wiring, configuration, printing.
//!
//! One verb, one file, under `verbs/`; printing only in `output/`; exit codes only in `failure`. Deliberately absent:
//! any decision about jobs, which belongs to the scheduler, the worker and the ledger.

mod document;
mod embedded;
mod environment;
mod failure;
mod interrupt;
mod logging;
mod memory;
mod metrics;
mod output;
mod services;
mod settings;
mod supervisor;
mod verbs;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use failure::Failure;
use output::Output;
use verbs::Verb;

/// What still runs when the command is done (a read of a terminal, say) may take so long and no longer.
const GOODBYE: Duration = Duration::from_millis(200);

/// Runs big jobs on a fleet: splits them, hands the pieces to workers, and loses none.
///
/// Exit codes: 0 success, 1 the job failed, 2 bad usage or input, 3 a service can't be reached, 4 not found.
#[derive(Parser)]
#[command(name = "longshore", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    flags: settings::Flags,
    /// Print JSON in place of text for people
    #[arg(long, global = true)]
    json: bool,
    /// How log lines look on standard error; RUST_LOG says which there are
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logging::Format,
}

fn main() -> ExitCode {
    // Before anything else, since what these touch stays in their memory.
    longshore_worker::init();
    if supervisor::is_one() {
        return end(supervisor::run());
    }
    let command = match Command::try_parse() {
        Ok(command) => command,
        // Help, or the version.
        Err(text) if !text.use_stderr() && longshore_closed_stdout::was_closed() => {
            return end(Err(Failure::no_output()));
        }
        Err(error) => error.exit(),
    };
    if matches!(command.verb, Verb::Scheduler(_) | Verb::Worker(_) | Verb::Dev(_)) {
        memory::bound_what_is_kept();
    }
    logging::start(command.verb.default_log(), command.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return end(Err(Failure::other(format_args!("can't start threads: {error}"))));
        }
    };
    let mut output = Output::new(command.json);
    let outcome = runtime.block_on(command.verb.perform(&command.flags, &mut output));
    let outcome = outcome.and(output.flush());
    runtime.shutdown_timeout(GOODBYE);
    end(outcome)
}

fn end(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
