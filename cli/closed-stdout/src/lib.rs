//! Finds out, before Rust's runtime starts, whether standard output was closed (`longshore … >&-`).
//!
//! Before `main`, Rust's runtime opens `/dev/null` in place of a standard stream that is closed, so
//! that no file gets its number. From then on a closed stream can't be told from one that was
//! led to `/dev/null` on purpose: what is printed is lost, and the command succeeds. This crate
//! looks before that: the functions that `.init_array` lists run before the runtime.
//!
//! The workspace forbids unsafe code. To place a function there is unsafe, so it is done here, in a
//! crate of its own that does nothing else. Deliberately absent: other systems than Linux, on which
//! standard output never counts as closed.

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when the process began.
pub fn was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

/// Runs before `main`, on the only thread there is. It may not use anything that the runtime sets
/// up: it makes one system call and sets one flag.
#[cfg(target_os = "linux")]
extern "C" fn look() {
    let is_closed =
        rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(rustix::io::Errno::BADF);
    WAS_CLOSED.store(is_closed, Ordering::Relaxed);
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the section has to hold functions of this type and nothing else, as it does: \
              the loader calls each of them once, with arguments that `look` does not read"
)]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
