//! Runs any program in the background of a test, which can kill, freeze and restart it.
//!
//! The program ends with the test process, and the test can read its output.

use std::process::Command;

use crate::guardian::Guardian;

/// A program that runs in the background of a test, in `/`, with its output in a file.
pub struct Process {
    guardian: Guardian,
}

impl Process {
    /// Starts the program with its arguments and environment; its standard input is empty.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn start(command: &Command) -> Self {
        let folder = tempfile::Builder::new().prefix("longshore-process-").tempdir();
        let folder = folder.unwrap_or_else(|e| panic!("a folder for {command:?}: {e}"));
        let mut guardian =
            Guardian::new(folder, command).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        guardian.start().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { guardian }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.guardian.pid().unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.guardian.is_running()
    }

    /// Kills it and its children with SIGKILL; returns when it is gone.
    ///
    /// # Panics
    /// When it survives.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.guardian.kill9().unwrap_or_else(|e| panic!("process {}: {e}", self.pid()));
    }

    /// Sends a signal, named without `SIG`, to the process itself.
    ///
    /// # Panics
    /// When the signal can't be sent.
    #[track_caller]
    pub fn signal(&mut self, name: &str) {
        self.guardian.signal(name).unwrap_or_else(|e| panic!("process {}: {e}", self.pid()));
    }

    /// Starts the program again, after killing it if it runs. Its output is appended to the same
    /// file.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn restart(&mut self) {
        if self.is_running() {
            self.kill9();
        }
        self.guardian.start().unwrap_or_else(|e| panic!("a process does not start again: {e}"));
    }

    /// Everything that it printed to both streams since the first start.
    pub fn output(&self) -> String {
        self.guardian.output()
    }

    /// The last lines that it printed to both streams.
    pub fn tail(&self) -> String {
        self.guardian.tail(&[])
    }
}
