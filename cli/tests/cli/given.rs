//! Runs `longshore` in a new folder, with nothing of the caller's environment except PATH.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The folder and the environment of a command.
pub(crate) struct Given {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    stdin: Vec<u8>,
}

/// The outcome of a finished command.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Given {
    pub(crate) fn nothing() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        Self { folder, environment: Vec::new(), stdin: Vec::new() }
    }

    pub(crate) fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("made");
        std::fs::write(path, contents).expect("written");
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command, ready to start.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(arguments).current_dir(self.folder()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the command; its standard input stays open.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("longshore starts");
        let stdin = child.stdin.as_mut().expect("it is a pipe");
        // A command that refuses its flags closes the pipe without reading it.
        let _ = stdin.write_all(&self.stdin);
        child
    }

    /// Runs a line of shell, in which `$0` is the command.
    pub(crate) fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", line, env!("CARGO_BIN_EXE_longshore")]).current_dir(self.folder());
        let command = self.command(&[]);
        let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        shell.env_clear().envs(environment);
        shell
    }

    /// Runs the command to its end.
    pub(crate) fn longshore(&self, arguments: &[&str]) -> Left {
        finish(self.start(arguments))
    }
}

/// Closes a command's standard input and waits for its end.
pub(crate) fn finish(mut child: Child) -> Left {
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("it ends");
    Left {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}
