//! Starts foreign programs for these tests: a Python client of RabbitMQ, and an HTTP endpoint.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use longshore_tests::{Fleet, repository};
use serde_json::{Value, json};

/// A script under `tests/foreign` that answers each line with a line. It ends with its standard
/// input.
pub(crate) struct Script {
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    child: Child,
}

/// A message that was taken from a queue.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) message_id: Option<String>,
    pub(crate) reason: String,
    pub(crate) id: Option<String>,
}

impl Script {
    fn start<'a>(name: &str, environment: impl Iterator<Item = (&'static str, &'a str)>) -> Self {
        // `./test` installs pika and names the Python that has it.
        let python = std::env::var("LONGSHORE_TEST_PYTHON");
        let mut command = Command::new(python.unwrap_or_else(|_| "/usr/bin/python3".to_owned()));
        command.arg(repository().join("tests/foreign").join(name));
        command.envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { pipes: Mutex::new((stdin, stdout)), child }
    }

    #[track_caller]
    fn ask(&self, request: Option<&Value>) -> Value {
        let mut pipes = self.pipes.lock().expect("no panic while it was locked");
        if let Some(request) = request {
            writeln!(pipes.0, "{request}").expect("the script reads");
        }
        let mut line = String::new();
        pipes.1.read_line(&mut line).expect("the script answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Killed, because a failing test must not wait for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of RabbitMQ.
pub(crate) struct Client(Script);

impl Client {
    /// Starts a client that is connected to the fleet's RabbitMQ.
    pub(crate) fn start(fleet: &Fleet) -> Self {
        Self(Script::start("publish.py", fleet.environment()))
    }

    /// Publishes a message; returns RabbitMQ's answer: `kept`, `returned` or `refused: …`.
    #[track_caller]
    pub(crate) fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: &Value,
    ) -> String {
        let publish = json!({
            "exchange": exchange, "key": key, "body": latin1(body), "properties": properties,
        });
        let answer = self.0.ask(Some(&json!({ "publish": publish })));
        answer.as_str().unwrap_or_else(|| panic!("a word, not {answer}")).to_owned()
    }

    /// Takes the next message of a queue.
    #[track_caller]
    pub(crate) fn take(&self, queue: &str) -> Option<Message> {
        let answer = self.0.ask(Some(&json!({ "take": queue })));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let body = answer["body"].as_str()?;
        Some(Message {
            body: body.chars().map(|c| u8::try_from(c).expect("a byte each")).collect(),
            message_id: text(&answer["message_id"]),
            reason: text(&answer["headers"]["reason"]).unwrap_or_default(),
            id: text(&answer["headers"]["id"]),
        })
    }
}

/// Encodes bytes for the scripts' JSON.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// An HTTP endpoint that answers badly.
pub(crate) struct Endpoint {
    _script: Script,
    /// Its port on 127.0.0.1.
    pub(crate) port: u64,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let script = Script::start("bad_endpoint.py", std::iter::empty());
        let port = script.ask(None).as_u64().expect("a port");
        Self { _script: script, port }
    }
}
