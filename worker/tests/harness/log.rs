//! Captures the log of the current thread, for tests that count lines.

#![expect(unreachable_pub, reason = "one test file uses it")]

use std::sync::Arc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tracing::subscriber::DefaultGuard;

/// Captures the log of this thread until it is dropped.
pub struct Log {
    file: NamedTempFile,
    _guard: DefaultGuard,
}

impl Log {
    /// A test on another thread may be registering a call site that no subscriber was interested in
    /// a moment ago; once that is over, all call sites are asked again.
    pub fn follow() -> Self {
        let file = NamedTempFile::new().expect("a folder for it");
        let writer = Arc::new(file.reopen().expect("it is there"));
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
        let guard = tracing::subscriber::set_default(log);
        std::thread::sleep(Duration::from_millis(10));
        tracing::callsite::rebuild_interest_cache();
        Self { file, _guard: guard }
    }

    /// The lines that contain this text.
    pub fn lines(&self, words: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file.path()).expect("it is there");
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}
