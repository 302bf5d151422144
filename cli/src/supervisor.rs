//! Executes the program again as a worker's supervisor, which restarts the worker after a crash.
//!
//! `longshore worker` checks its settings first. What the supervisor does is in the crate `worker`.
//!
//! The supervisor is the same program, executed again under another name, which distinguishes the
//! two in a list of processes. The second execution starts with fresh memory, so the supervisor
//! takes a quarter of the memory of the worker.
//!
//! Deliberately absent: everything that is not needed before a crash. Settings are read after one.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command as Process;
use std::sync::{Arc, Once};

use clap::Parser;
use longshore_ledger::Ledger;

use crate::failure::Failure;
use crate::verbs::Verb;
use crate::{Command, logging, services};

/// The process name of a supervisor.
const NAME: &str = "longshore-supervisor";

/// Whether this process is a supervisor.
pub(crate) fn is_supervisor() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Makes this process a supervisor; returns only if the system refuses.
pub(crate) fn become_supervisor() -> Failure {
    let (program, _) = longshore_worker::program();
    let error = Process::new(program).arg0(NAME).args(std::env::args_os().skip(1)).exec();
    Failure::other(format_args!("can't start the supervisor: {error}"))
}

/// Supervises the worker until it stops.
pub(crate) fn run() -> Result<(), Failure> {
    match longshore_worker::supervise(ledger).map_err(Failure::other)? {
        0 => Ok(()),
        code => Err(Failure::WorkerExited(code)),
    }
}

/// Connects to the ledger, which records a crash, and starts the log.
fn ledger() -> io::Result<Arc<dyn Ledger>> {
    static LOGGING: Once = Once::new();
    let command = Command::try_parse().map_err(io::Error::other)?;
    LOGGING.call_once(|| logging::start(command.verb.default_log(), command.log_format));
    let Verb::Worker(worker) = &command.verb else {
        return Err(io::Error::other("not a worker's command line"));
    };
    let settings = worker.settings(&command.flags).map_err(io::Error::other)?;
    Ok(Arc::new(services::ledger(&settings).map_err(io::Error::other)?))
}
