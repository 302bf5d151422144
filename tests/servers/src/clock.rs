//! A clock that a test can set: a preloaded library shifts the system time of a server.
//!
//! A file holds the number of seconds.
//!
//! Deliberately absent: the monotonic clock, which can't be set in production either.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
  const char *name = getenv("LONGSHORE_TEST_CLOCK_SHIFT");
  int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  char text[32] = {0};
  if (file < 0) return 0;
  ssize_t read_bytes = read(file, text, sizeof text - 1);
  close(file);
  return read_bytes > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) time->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval *time, void *zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int result = real(time, zone);
  time->tv_sec += shift();
  return result;
}
"#;

/// The system time of servers that are started with [`Self::environment`].
pub struct SettableClock(TempDir);

impl SettableClock {
    /// A clock that shows the right time.
    ///
    /// # Panics
    /// When the C compiler fails, with its output.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-clock-").tempdir();
        let clock = Self(folder.expect("a temporary folder"));
        std::fs::write(clock.file("clock.c"), SOURCE).expect("the source can be written");
        clock.shift(0);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
        compiler.args([clock.file("clock.so"), clock.file("clock.c")]).arg("-ldl");
        let output = compiler.output().expect("cc runs");
        assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        clock
    }

    /// Sets the clock `seconds` ahead of the right time.
    ///
    /// # Panics
    /// When the file can't be written.
    pub fn shift(&self, seconds: i64) {
        // By a rename, so that a server never reads half of the number.
        std::fs::write(self.file("shift.new"), seconds.to_string()).expect("it can be written");
        std::fs::rename(self.file("shift.new"), self.file("shift")).expect("it can be replaced");
    }

    /// The environment variables that make a process use this clock.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.file("clock.so")),
            ("LONGSHORE_TEST_CLOCK_SHIFT", self.file("shift")),
        ]
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Default for SettableClock {
    fn default() -> Self {
        Self::new()
    }
}
