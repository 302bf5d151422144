//! The process that watches a worker: `longshore worker` checks what can be checked, then becomes one.
//!
//! It is the same program, executed anew under another name, which also tells the two apart in a list of processes. Read again,
//! nothing of the first start is left in memory: it takes a fourth of what the worker takes. Deliberately absent: anything it
//! does not need before a crash, such as settings; then they are read.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command as Process;
use std::sync::{Arc, Once};

use clap::Parser;
use longshore_ledger::Ledger;

use crate::failure::Failure;
use crate::verbs::Verb;
use crate::{Command, logging, services};

/// Its name among processes.
const NAME: &str = "longshore-supervisor";

/// Whether this process is one.
pub(crate) fn is_one() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Makes this process one; comes back only if the system won't.
pub(crate) fn become_one() -> Failure {
    let (program, _) = longshore_worker::program();
    let error = Process::new(program).arg0(NAME).args(std::env::args_os().skip(1)).exec();
    Failure::other(format_args!("can't start the supervisor: {error}"))
}

/// Watches the worker until it leaves.
pub(crate) fn run() -> Result<(), Failure> {
    match longshore_worker::supervise(ledger).map_err(Failure::other)? {
        0 => Ok(()),
        code => Err(Failure::Ended(code)),
    }
}

/// Where to tell of a crash; from now on there may be something to log.
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
