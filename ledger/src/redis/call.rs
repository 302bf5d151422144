//! Sends one call of a function, converts its errors, and loads the library where it is missing.

use longshore_protocol::ErrorKind;
use redis::{Cmd, ToRedisArgs, Value};
use tracing::{debug, info};

use super::RedisLedger;
use super::library::{self, LIBRARY};
use super::reply::{Reply, corrupt, word};
use super::transport::Failure;
use crate::Error;

/// A function with its keys and arguments.
pub(super) struct Call {
    operation: &'static str,
    keys: Vec<String>,
    arguments: Arguments,
}

/// The arguments of a function, or a part of them.
#[derive(Default)]
pub(super) struct Arguments(Vec<Vec<u8>>);

impl Arguments {
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.push(argument);
        self
    }

    pub(super) fn push(&mut self, argument: impl ToRedisArgs) {
        self.0.extend(argument.to_redis_args());
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

impl Call {
    pub(super) fn new(operation: &'static str, keys: impl IntoIterator<Item = String>) -> Self {
        Self { operation, keys: keys.into_iter().collect(), arguments: Arguments::default() }
    }

    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.push(argument);
        self
    }

    pub(super) fn push(&mut self, argument: impl ToRedisArgs) {
        self.arguments.push(argument);
    }

    pub(super) fn extend(&mut self, arguments: Arguments) {
        self.arguments.0.extend(arguments.0);
    }

    /// The command, with the ledger's time as the caller keeps it ([`RedisLedger::stamp`]).
    pub(super) fn command(&self, stamp: &str) -> Cmd {
        let verb = if library::is_read_only(self.operation) { "FCALL_RO" } else { "FCALL" };
        let mut cmd = redis::cmd(verb);
        cmd.arg(library::function(self.operation)).arg(self.keys.len());
        for key in &self.keys {
            cmd.arg(key);
        }
        for argument in &self.arguments.0 {
            cmd.arg(argument.as_slice());
        }
        cmd.arg(stamp);
        cmd
    }
}

impl RedisLedger {
    /// Calls a function. If Redis has lost the library (a `FUNCTION FLUSH`, an empty replica that
    /// was promoted), loads it and calls again: the first call did nothing.
    pub(super) async fn call(&self, call: &Call) -> Result<Reply, Error> {
        let command = call.command(&self.stamp().await);
        let first = self.transport().run(&command).await;
        let value = match first {
            Err(failure) if is_missing(&failure) => {
                self.load_library().await?;
                self.transport().run(&command).await
            }
            other => other,
        };
        let value = value.map_err(|failure| self.error(call.operation, &failure))?;
        Reply::list(call.operation, value)
    }

    /// Sends commands of any kind together, and returns their answers.
    pub(super) async fn call_all(
        &self,
        operation: &'static str,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, Error> {
        let values = match self.transport().run_all(commands).await {
            Err(failure) if is_missing(&failure) => {
                self.load_library().await?;
                self.transport().run_all(commands).await
            }
            other => other,
        };
        self.answers(operation, commands, values)
    }

    /// The same for commands each of which depends on the one before.
    pub(super) async fn call_in_order(
        &self,
        operation: &'static str,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, Error> {
        let values = match self.transport().run_in_order(commands).await {
            Err(failure) if is_missing(&failure) => {
                self.load_library().await?;
                self.transport().run_in_order(commands).await
            }
            other => other,
        };
        self.answers(operation, commands, values)
    }

    fn answers(
        &self,
        operation: &'static str,
        commands: &[Cmd],
        values: Result<Vec<Value>, Failure>,
    ) -> Result<Vec<Value>, Error> {
        let values = values.map_err(|failure| self.error(operation, &failure))?;
        if values.len() != commands.len() {
            let detail = format!("{} answers to {} commands", values.len(), commands.len());
            return Err(corrupt(operation, detail));
        }
        Ok(values)
    }

    /// Sends one plain command.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<Value, Error> {
        let sent = self.transport().run(command).await;
        sent.map_err(|failure| self.error(operation, &failure))
    }

    /// Converts a failure to the error of the trait.
    pub(super) fn error(&self, operation: &'static str, failure: &Failure) -> Error {
        if let (Failure::Redis(error), Some("MISUSE")) = (failure, failure.code()) {
            let detail = error.detail().unwrap_or_default().to_owned();
            return Error::Misuse { operation, detail };
        }
        // The function failed because it can't read a record; or a plain command did, since another
        // program stores a value of another type under our key.
        let has_failed =
            matches!(failure, Failure::Redis(e) if e.to_string().contains("script: longshore_"));
        if has_failed || failure.code() == Some("WRONGTYPE") {
            return corrupt(operation, failure.reason());
        }
        debug!(operation, reason = failure.reason(), "Redis command failed");
        self.unavailable(failure.kind(), failure.reason())
    }

    pub(super) fn unavailable(&self, kind: ErrorKind, reason: String) -> Error {
        Error::Unavailable { kind, address: self.transport().address().to_string(), reason }
    }

    /// Loads the library of this build unless it is loaded already.
    pub(super) async fn ensure_library(&self) -> Result<(), Error> {
        // In a cluster only one node would answer; loading again is cheap and reaches all nodes.
        if !self.transport().is_cluster() {
            match self.loaded_digest().await {
                Ok(Some(digest)) if digest == LIBRARY.digest => return Ok(()),
                Ok(_) => {}
                Err(failure) => return Err(self.error("version", &failure)),
            }
        }
        self.load_library().await
    }

    /// The digest of the loaded library; `None` if none is loaded.
    pub(super) async fn loaded_digest(&self) -> Result<Option<String>, Failure> {
        let mut ask = redis::cmd("FCALL_RO");
        ask.arg(library::VERSION_FUNCTION).arg(0);
        match self.transport().run_anywhere(&ask).await {
            Ok(value) => Ok(word("version", value).ok()),
            Err(failure) if is_missing(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn load_library(&self) -> Result<(), Error> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(&LIBRARY.source);
        match self.transport().run(&load).await {
            Ok(_) => {
                info!(library = library::NAME, digest = LIBRARY.digest, "functions loaded");
                Ok(())
            }
            Err(failure) if failure.kind() == ErrorKind::Forbidden => {
                let reason = format!(
                    "the function library {} is missing, and this user may not load it; start a \
                     scheduler, or load it as a user that may run FUNCTION LOAD",
                    library::NAME
                );
                // Not a refusal: the library is there once a scheduler has started.
                Err(self.unavailable(ErrorKind::NotYet, reason))
            }
            Err(failure) => Err(self.error("load_functions", &failure)),
        }
    }
}

/// Whether Redis does not know the function, which it has no code for.
fn is_missing(failure: &Failure) -> bool {
    matches!(failure, Failure::Redis(error) if error.to_string().contains("Function not found"))
}
