//! The `longshore` command: parses the arguments, runs the verb, and ends with its exit code.
//!
//! Each verb is a file in `verbs/`. Only `output/` prints, and only `failure` knows exit codes.
//!
//! Deliberately absent: decisions about jobs, which belong to scheduler, worker and ledger.

mod document;
mod embedded;
mod environment;
mod failure;
mod http;
mod interrupt;
mod local_server;
mod logging;
mod memory;
mod metrics;
mod output;
mod restrictions;
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

/// The longest wait at the end for blocking calls that still run, such as a read from a terminal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs big jobs on a fleet of workers: splits them into subtasks and loses none
///
/// Exit codes: 0 success, 1 the job failed, 2 bad usage or input, 3 a service can't be reached,
/// 4 not found.
#[derive(Parser)]
#[command(name = "longshore", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    flags: settings::Flags,
    /// Print JSON in place of text for people, errors too
    #[arg(long, global = true)]
    json: bool,
    /// The format of log lines on standard error; RUST_LOG selects which are written
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logging::Format,
}

fn main() -> ExitCode {
    // First of all, because supervisors and shims keep every page that they have touched.
    longshore_worker::init();
    if supervisor::is_supervisor() {
        return end(supervisor::run(), false);
    }
    let command = match Command::try_parse() {
        Ok(command) => command,
        // Help or the version.
        Err(text) if !text.use_stderr() && longshore_closed_stdout::was_closed() => {
            return end(Err(Failure::no_output()), false);
        }
        // How much of a wrong command line was understood is unknown, so this is always text.
        Err(error) => error.exit(),
    };
    if matches!(command.verb, Verb::Scheduler(_) | Verb::Worker(_) | Verb::Api(_) | Verb::Dev(_)) {
        memory::limit_retained_memory();
    }
    logging::start(command.verb.default_log(), command.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::other(format_args!("can't start threads: {error}"));
            return end(Err(failure), command.json);
        }
    };
    let mut output = Output::new(command.json);
    let outcome = runtime.block_on(command.verb.perform(&command.flags, &mut output));
    let outcome = outcome.and(output.flush());
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    end(outcome, command.json)
}

fn end(outcome: Result<(), Failure>, is_json: bool) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure, is_json);
            ExitCode::from(failure.exit_code())
        }
    }
}
