//! Limits the freed memory that glibc retains, by executing the program again with a variable set.
//!
//! glibc keeps freed blocks for later allocations. Once a block of 15 MiB was freed, it also keeps
//! blocks of that size, several for each thread: 200 MiB in a scheduler that read some large
//! documents. With a fixed threshold, every block above it is returned to the system when it is
//! freed. glibc reads the threshold from the environment at the start of the program only, so the
//! program executes itself once more with that variable set. musl ignores it.

use std::os::unix::process::CommandExt;
use std::process::Command as Process;

/// Executes the program again with the threshold, unless it is set. Returns if the system refuses;
/// the program then works as well, but takes more memory.
pub(crate) fn limit_retained_memory() {
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
