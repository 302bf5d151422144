//! How memory goes back to the system.
//!
//! glibc keeps what is freed for later, and once a block of 15 MiB was freed it keeps blocks of that size, too: several
//! for each thread, 200 MiB in a scheduler that saw some large documents. With a fixed bound every block above it goes
//! back when it is freed. glibc takes the bound from the environment, when the program begins and then never again; so the
//! program is executed once more with it. What the bound is does not matter to musl, nor to what the program does.

use std::os::unix::process::CommandExt;
use std::process::Command as Process;

/// Executes the program anew with the bound, unless it has one. Comes back if the system won't; then all works as well, in
/// more memory.
pub(crate) fn bound_what_is_kept() {
    let (name, bound) = longshore_worker::MALLOC_BOUND;
    if !cfg!(target_env = "gnu") || std::env::var_os(name).is_some() {
        return;
    }
    let (Ok(program), mut arguments) = (std::env::current_exe(), std::env::args_os()) else {
        return;
    };
    let mut again = Process::new(program);
    if let Some(called) = arguments.next() {
        again.arg0(called);
    }
    let _ = again.args(arguments).env(name, bound).exec();
}
