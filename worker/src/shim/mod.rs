//! Starts this program as a shim, a process that holds all processes which a command starts.
//!
//! ```text
//!   worker -- what to run, three pipes --> shim -- starts --> command -- starts --> anything
//!   worker <-- "exited", "empty" --------- shim <-- every orphan of the command --------'
//! ```
//!
//! A shim is this program once more under another name. It runs one command at a time and is the
//! subreaper of all processes that the command starts, so that neither a new session nor a double
//! fork leads out of its reach. When the worker ends in any way, the shim reads the end of its
//! socket and kills these processes. Deliberately absent: anything about subtasks.

mod client;
mod pass_env;
mod server;
pub(crate) mod tree;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

pub(crate) use client::{Group, Pipes, Shims, TERM_GRACE};
pub use pass_env::PassEnv;
pub(crate) use wire::Request;

/// The process name of a shim. It does not contain the program's own name, so that a `pkill -9` by
/// that name leaves the shims to kill the commands.
const NAME: &str = "command-shim";

/// The file of this program, also after an upgrade replaced it.
const PROGRAM: &str = "/proc/self/exe";

/// The arguments with which a new start of this program reaches [`init_with`].
static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Prepares this program to run command tasks; to be called first in `main`.
///
/// Each command runs below a small process, which is this program started once more: there, this
/// call never returns. A program that calls [`supervise_from_env`](crate::supervise_from_env) need
/// not call it; the code before that call then runs once for each command that runs at the same
/// time.
///
/// ```no_run
/// longshore_worker::init();
/// // From here on this is the program itself.
/// ```
pub fn init() {
    init_with::<OsString>([]);
}

/// [`init`] for programs that get here only with certain arguments, such as tests: started with
/// these arguments under any name, the program has to come here without doing anything else.
pub fn init_with<S: Into<OsString>>(arguments: impl IntoIterator<Item = S>) {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        std::process::exit(match server::run() {
            Ok(()) => 0,
            Err(_) => 1,
        });
    }
    let _ = ARGUMENTS.set(arguments.into_iter().map(Into::into).collect());
}

/// Whether this program can be started as a shim.
pub(crate) fn is_prepared() -> bool {
    ARGUMENTS.get().is_some()
}

/// The file to execute to start this program once more, and the process name to give it. It is the
/// program that runs, not one that an upgrade put in its place: the two might not be compatible.
pub fn program() -> (PathBuf, OsString) {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &std::path::Path| std::fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    let path = std::env::current_exe().unwrap_or_else(|_| PROGRAM.into());
    let name = path.to_string_lossy().trim_end_matches(" (deleted)").to_owned().into();
    let is_same = id(&path).is_some() && id(&path) == id(PROGRAM.as_ref());
    (if is_same { path } else { PROGRAM.into() }, name)
}

/// Lets a unit test start shims, all of which begin in the test below.
#[cfg(test)]
pub(crate) fn prepare_test() {
    init_with(["shim::tests::a_shim_begins_here", "--exact"]);
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shim_begins_here() {
        super::prepare_test();
        assert!(super::is_prepared());
    }
}
