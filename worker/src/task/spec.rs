//! Parses and checks `[task.NAME]` of the settings, and makes handlers of it.
//!
//! A task is a command, a served command or a URL.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::command::CommandTask;
use super::http::HttpTask;
use super::pool::Pool;
use super::process::Program;
use super::serve::ServeTask;
use super::{Handler, HttpAddresses, Output};

/// One `[task.NAME]` of a worker.
///
/// Exactly one of `command`, `serve` and `http`. For programs `env` and `cwd`. For all tasks
/// `timeout`, a humantime string, beside the job's own; `speculative`, false where no second worker
/// may start a subtask that takes long; `on_disconnect`: `"continue"`, or `"stop"` where two
/// attempts at a subtask must never overlap. For commands and URLs `output`, the kind of their
/// output: `auto`, `json` or `text`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct TaskSpec {
    how: How,
    timeout: Option<Duration>,
    speculative: bool,
    on_disconnect: OnDisconnect,
    output: Output,
}

/// What happens to running attempts while the worker can't reach the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnDisconnect {
    /// They go on until the ledger says that they run on another worker.
    #[default]
    Continue,
    /// They stop before another worker may start the subtasks.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Command(Program),
    Serve(Program),
    Http(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    command: Option<Vec<String>>,
    serve: Option<Vec<String>>,
    http: Option<String>,
    env: Option<BTreeMap<String, String>>,
    cwd: Option<PathBuf>,
    timeout: Option<String>,
    speculative: Option<bool>,
    on_disconnect: Option<OnDisconnect>,
    output: Option<Output>,
}

impl TryFrom<Fields> for TaskSpec {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields { command, serve, http, env, cwd, timeout, speculative, on_disconnect, output } =
            fields;
        let is_program = command.is_some() || serve.is_some();
        if !is_program && (env.is_some() || cwd.is_some()) {
            return Err("`env` and `cwd` go with `command` or `serve`".into());
        }
        if serve.is_some() && output.is_some() {
            return Err(
                "`output` goes with `command` or `http`: a served command answers JSON".into()
            );
        }
        let program = |argv: Vec<String>| match argv.first() {
            Some(name) if !name.is_empty() => {
                Ok(Program { argv, env: env.clone().unwrap_or_default(), cwd: cwd.clone() })
            }
            _ => Err("name a program, as in command = [\"python3\", \"thumbnail.py\"]".to_owned()),
        };
        let how = match (command, serve, http) {
            (Some(argv), None, None) => How::Command(program(argv)?),
            (None, Some(argv), None) => How::Serve(program(argv)?),
            (None, None, Some(url)) => How::Http(url),
            _ => return Err("use exactly one of `command`, `serve` and `http`".into()),
        };
        let timeout = timeout
            .map(|text| match humantime::parse_duration(&text) {
                Ok(duration) if !duration.is_zero() => Ok(duration),
                _ => Err(format!("timeout: `{text}` is no duration; write it like \"30s\"")),
            })
            .transpose()?;
        let on_disconnect = on_disconnect.unwrap_or_default();
        if on_disconnect == OnDisconnect::Stop && speculative == Some(true) {
            return Err("speculative: `true` does not go with `on_disconnect = \"stop\"`".into());
        }
        let (speculative, output) = (speculative.unwrap_or(true), output.unwrap_or_default());
        Ok(Self { how, timeout, speculative, on_disconnect, output })
    }
}

impl TaskSpec {
    /// A command: a process an attempt.
    pub fn command<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(How::Command(Program::new(argv)))
    }

    /// A served command: a process a slot that answers line by line.
    pub fn serve<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(How::Serve(Program::new(argv)))
    }

    /// A POST to a URL an attempt.
    pub fn http(url: impl Into<String>) -> Self {
        Self::new(How::Http(url.into()))
    }

    fn new(how: How) -> Self {
        let on_disconnect = OnDisconnect::default();
        Self { how, timeout: None, speculative: true, on_disconnect, output: Output::Auto }
    }

    /// Whether a second worker may start a subtask that takes long.
    pub(crate) fn is_speculative(&self) -> bool {
        self.speculative
    }

    /// Whether two attempts at a subtask must never overlap.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.on_disconnect == OnDisconnect::Stop
    }

    /// Why the task can't be started on this host, as far as that can be told at once.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.how {
            How::Command(program) => program.check().map_err(|error| format!("command: {error}")),
            How::Serve(program) => program.check().map_err(|error| format!("serve: {error}")),
            How::Http(_) => Ok(()),
        }
    }

    /// The task's handler. The error says what is wrong with the configuration, on any host.
    pub(crate) fn handler(
        &self,
        pool: &Arc<Pool>,
        addresses: &HttpAddresses,
    ) -> Result<Arc<dyn Handler>, String> {
        let timeout = self.timeout;
        Ok(match &self.how {
            How::Command(program) => {
                let (program, shims) = (program.clone(), pool.shims.clone());
                Arc::new(CommandTask { program, timeout, shims, output: self.output })
            }
            How::Serve(program) => Arc::new(ServeTask::new(program.clone(), timeout, pool.clone())),
            How::Http(url) => Arc::new(HttpTask::new(url, timeout, self.output, addresses)?),
        })
    }
}

impl Program {
    fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: BTreeMap::new(), cwd: None }
    }

    /// Why it can't be started, as far as its files tell.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(cwd) = self.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            return Err(format!("cwd: no directory `{}`", cwd.display()));
        }
        let Some(name) = self.argv.first().filter(|name| !name.is_empty()) else {
            return Err("no program".into());
        };
        let program = Path::new(name);
        let base = self.cwd.as_deref().unwrap_or(Path::new("."));
        let files: Vec<PathBuf> = if name.contains('/') {
            vec![base.join(program)]
        } else {
            let path =
                self.env.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
            let path = path.unwrap_or_default();
            std::env::split_paths(&path).map(|folder| base.join(folder).join(program)).collect()
        };
        let mut modes = files.iter().filter_map(|file| {
            let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some(metadata.permissions().mode())
        });
        match modes.next() {
            None => Err(format!("no program `{name}` on this host")),
            Some(first) if std::iter::once(first).chain(modes).any(|mode| mode & 0o111 != 0) => {
                Ok(())
            }
            Some(_) => Err(format!("`{name}` is not executable")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn refused(fields: &serde_json::Value, complaint: &str) {
        let error = serde_json::from_value::<TaskSpec>(fields.clone()).expect_err("it is wrong");
        assert!(error.to_string().contains(complaint), "{fields}: {error}");
    }

    #[test]
    fn a_spec_is_read_from_the_configuration() {
        let fields = json!({
            "command": ["sh", "-c", "true"], "env": {"A": "b"}, "cwd": "/", "timeout": "1m 30s",
            "speculative": false,
        });
        let spec: TaskSpec = serde_json::from_value(fields).expect("it is valid");
        assert_eq!((spec.timeout, spec.is_speculative()), (Some(Duration::from_secs(90)), false));
        assert!(matches!(&spec.how, How::Command(program) if program.env["A"] == "b"));
        assert!(handler(&spec).is_ok());
    }

    #[test]
    fn mistakes_in_a_spec_are_named() {
        refused(&json!({}), "use exactly one of `command`, `serve` and `http`");
        refused(&json!({"command": ["a"], "http": "http://x"}), "use exactly one of");
        refused(&json!({"command": []}), "name a program");
        refused(&json!({"serve": [""]}), "name a program");
        refused(&json!({"command": ["a"], "shell": true}), "unknown field `shell`");
        refused(&json!({"http": "http://x", "cwd": "/"}), "`env` and `cwd` go with");
        refused(&json!({"http": "http://x", "timeout": "5"}), "`5` is no duration");
        refused(&json!({"command": "a b"}), "expected a sequence");
        let unknown = json!({"http": "http://x", "on_disconnect": "wait"});
        refused(&unknown, "unknown variant `wait`, expected `continue` or `stop`");
        let torn = json!({"http": "http://x", "on_disconnect": "stop", "speculative": true});
        refused(&torn, "does not go with `on_disconnect");
        refused(
            &json!({"command": ["a"], "output": "yaml"}),
            "expected one of `auto`, `json`, `text`",
        );
        refused(
            &json!({"serve": ["a"], "output": "json"}),
            "`output` goes with `command` or `http`",
        );
    }

    fn handler(spec: &TaskSpec) -> Result<Arc<dyn Handler>, String> {
        spec.handler(&Pool::new(1, crate::PassEnv::default()), &HttpAddresses::default())
    }

    #[test]
    fn a_program_that_is_not_there_is_found_out_at_the_start() {
        let error = TaskSpec::command(["pythn3", "x.py"]).check().err();
        assert_eq!(error.as_deref(), Some("command: no program `pythn3` on this host"));
        let error = TaskSpec::serve(["./nowhere"]).check().err();
        assert_eq!(error.as_deref(), Some("serve: no program `./nowhere` on this host"));
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let name = file.path().to_str().expect("a plain name");
        let error = TaskSpec::command([name]).check().err();
        assert_eq!(error, Some(format!("command: `{name}` is not executable")));
    }
}
