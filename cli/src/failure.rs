//! Why a command ends without success, and the exit code of each cause.

use std::fmt;
use std::path::Path;

use longshore_producer as producer;
use longshore_protocol::{ErrorKind, Invalid, JobId, Problem};

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command did not succeed, for a reason that is printed.
    #[error("{problem}")]
    Problem {
        /// The exit code.
        exit: Exit,
        /// The reason.
        problem: Box<Problem>,
    },
    /// The reader of the output has gone.
    #[error("the output was closed")]
    Closed,
    /// The user interrupted the command.
    #[error("interrupted")]
    Interrupted,
    /// A supervised worker ended with this code; the worker itself has logged why.
    #[error("the worker ended with code {0}")]
    WorkerExited(u8),
}

/// The exit code of a command that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A job failed, a check found a problem, or an unexpected error.
    Failed = 1,
    /// Bad flags, settings or input.
    Usage = 2,
    /// A service can't be reached or refuses the login.
    Unreachable = 3,
    /// No such job or node.
    NotFound = 4,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Problem { exit, .. } => *exit as u8,
            // As in shells: 128 plus the number of the signal.
            Self::Interrupted => 130,
            Self::WorkerExited(code) => *code,
        }
    }

    /// The reason, if it is printed.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem, .. } => Some(problem),
            Self::Closed | Self::Interrupted | Self::WorkerExited(_) => None,
        }
    }

    fn new(exit: Exit, problem: Problem) -> Self {
        Self::Problem { exit, problem: Box::new(problem) }
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, Problem::new(ErrorKind::BadInput, text))
    }

    pub(crate) fn other(text: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, Problem::new(ErrorKind::Other, text))
    }

    /// A job that ended, but did not succeed; its errors were printed.
    pub(crate) fn job_failed(job: Option<JobId>, text: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, Problem::new(ErrorKind::JobFailed, text).about_job(job))
    }

    /// Something that was named and does not exist.
    pub(crate) fn not_found(text: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, Problem::new(ErrorKind::NotFound, text))
    }

    /// A check that found a problem, which was printed.
    pub(crate) fn unwell(text: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, Problem::new(ErrorKind::CheckFailed, text))
    }

    /// A service that can't be used, as printed findings say.
    pub(crate) fn unusable_service() -> Self {
        Self::new(
            Exit::Unreachable,
            Problem::new(ErrorKind::Unreachable, "a service can't be used"),
        )
    }

    pub(crate) fn no_such_job(job: JobId) -> Self {
        producer::Error::NotFound(job).into()
    }

    /// Standard output is closed, and there is something to print.
    pub(crate) fn no_output() -> Self {
        Self::other("standard output is closed")
    }

    /// Converts an error of a verb for which a job that is not admitted yet matters. The ledger
    /// does not know such a job; its document is in RabbitMQ only.
    pub(crate) fn or_not_admitted(error: producer::Error) -> Self {
        match error {
            producer::Error::NotFound(job) => Self::no_such_job(job).saying(format!(
                "job {job} is unknown: not admitted yet, kept no longer, or never published"
            )),
            other => other.into(),
        }
    }

    /// A document that is not valid, with its source.
    pub(crate) fn invalid(source: &str, error: Invalid) -> Self {
        let text = format!("{source}: {error}");
        Self::from(error).saying(text)
    }

    /// A file that can't be read.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        Self::usage(match error.kind() {
            std::io::ErrorKind::NotFound => format!("{path}: no such file"),
            std::io::ErrorKind::PermissionDenied => format!("{path}: permission denied"),
            std::io::ErrorKind::IsADirectory => format!("{path}: is a directory"),
            std::io::ErrorKind::InvalidData => format!("{path}: is not UTF-8 text"),
            _ => format!("{path}: {error}"),
        })
    }

    /// The same failure, of which settings are the cause.
    pub(crate) fn of_settings(self) -> Self {
        match self {
            Self::Problem { exit, problem } => {
                let kind = ErrorKind::BadConfig;
                Self::new(exit, Problem { kind, title: kind.title().to_owned(), ..*problem })
            }
            other => other,
        }
    }

    /// The same failure in other words.
    fn saying(self, text: String) -> Self {
        match self {
            Self::Problem { exit, problem } => {
                Self::new(exit, Problem { detail: text, ..*problem })
            }
            other => other,
        }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::new(Exit::Usage, Problem::from(&invalid))
    }
}

impl From<longshore_ledger::Error> for Failure {
    fn from(error: longshore_ledger::Error) -> Self {
        use longshore_ledger::Error as E;
        let exit = match error {
            E::BadUrl(_) | E::BadFile(_) => Exit::Usage,
            E::Unavailable { .. } => Exit::Unreachable,
            E::Corrupt { .. } | E::Misuse { .. } => Exit::Failed,
        };
        Self::new(exit, Problem::new(error.kind(), error))
    }
}

impl From<longshore_broker::Error> for Failure {
    fn from(error: longshore_broker::Error) -> Self {
        use longshore_broker::Error as E;
        let exit = match error {
            E::BadUrl(_) | E::BadFile(_) | E::BadNamespace(_) => Exit::Usage,
            E::Unavailable { .. } => Exit::Unreachable,
        };
        Self::new(exit, Problem::new(error.kind(), error))
    }
}

impl From<longshore_storage::Error> for Failure {
    fn from(error: longshore_storage::Error) -> Self {
        let (exit, kind) = if error.is_users_fault() {
            (Exit::Usage, ErrorKind::BadInput)
        } else {
            (Exit::Unreachable, ErrorKind::Unreachable)
        };
        Self::new(exit, Problem::new(kind, error))
    }
}

impl From<producer::ConnectError> for Failure {
    fn from(error: producer::ConnectError) -> Self {
        match error {
            producer::ConnectError::Broker(error) => error.into(),
            producer::ConnectError::Ledger(error) => error.into(),
            producer::ConnectError::Server(error) => error.into(),
        }
    }
}

impl From<producer::ServerError> for Failure {
    fn from(error: producer::ServerError) -> Self {
        let kind = error.kind();
        let exit = match (error.status(), kind) {
            (Some(404), _) => Exit::NotFound,
            (_, ErrorKind::BadInput | ErrorKind::BadConfig | ErrorKind::Conflict) => Exit::Usage,
            (_, ErrorKind::NotYet) => Exit::Failed,
            (_, ErrorKind::BadCertificate) => Exit::Unreachable,
            (_, kind) if kind.is_transient() || kind.is_refusal() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self::new(exit, error.problem().clone())
    }
}

#[cfg(feature = "bench")]
impl From<longshore_bench::Error> for Failure {
    fn from(error: longshore_bench::Error) -> Self {
        use longshore_bench::Error as E;
        match error {
            E::Connect(error) => error.into(),
            E::Submit(error) => error.into(),
            E::Job(error) => error.into(),
            E::Ledger(error) => error.into(),
            E::Unsupported(_) => Self::usage(error),
            E::Rabbit(_) | E::Redis(_) => {
                Self::new(Exit::Unreachable, Problem::new(ErrorKind::Unreachable, error))
            }
            E::Interrupted => Self::Interrupted,
            E::Process { .. } | E::System(_) | E::Unexpected(_) | E::TimedOut { .. } => {
                Self::other(error)
            }
        }
    }
}

impl From<producer::SubmitError> for Failure {
    fn from(error: producer::SubmitError) -> Self {
        use producer::SubmitError as E;
        let problem = Problem::from(&error);
        match error {
            E::Invalid(_) | E::Rejected { .. } | E::Conflict { .. } => {
                Self::new(Exit::Usage, problem)
            }
            E::Storage(error) => error.into(),
            E::Ledger(error) => error.into(),
            E::Server(error) => error.into(),
            E::NotAccepted { job, .. } => Self::new(Exit::Unreachable, problem).saying(format!(
                "{error}; RabbitMQ keeps the job until then, and `longshore status {job}` shows it"
            )),
            E::NotPublished { job, .. } | E::Unknown { job, .. } => {
                Self::new(Exit::Unreachable, problem)
                    .saying(format!("{error}; submit again with `--id {job}`, which is safe"))
            }
        }
    }
}

impl From<producer::TokenError> for Failure {
    fn from(error: producer::TokenError) -> Self {
        use producer::TokenError as E;
        match error {
            E::Invalid(_) | E::TooMany => Self::usage(error),
            E::Ledger(error) => error.into(),
            E::Server(error) => error.into(),
        }
    }
}

impl From<producer::FindError> for Failure {
    fn from(error: producer::FindError) -> Self {
        use producer::FindError as E;
        let exit = match error {
            E::NotFound(_) => Exit::NotFound,
            E::Ambiguous { .. } => Exit::Usage,
            E::Jobs(error) => return error.into(),
        };
        Self::new(exit, Problem::new(error.kind(), error))
    }
}

impl From<producer::DeadLetterError> for Failure {
    fn from(error: producer::DeadLetterError) -> Self {
        match error {
            producer::DeadLetterError::Broker(error) => error.into(),
            producer::DeadLetterError::Server(error) => error.into(),
            producer::DeadLetterError::Publish(_) => {
                Self::new(Exit::Failed, Problem::new(error.kind(), error))
            }
        }
    }
}

impl From<producer::Error> for Failure {
    fn from(error: producer::Error) -> Self {
        use longshore_ledger::ControlError;
        use producer::Error as E;
        let problem = Problem::from(&error);
        let exit = match error {
            E::NotFound(_) | E::NodeNotFound(_) | E::Postponed { .. } | E::Cancelled { .. } => {
                Exit::NotFound
            }
            E::Refused { reason: ControlError::BadIndices(_), .. } => Exit::Usage,
            E::Ledger(error) => return error.into(),
            E::Storage(error) => return error.into(),
            E::Server(error) => return error.into(),
            E::Refused { .. }
            | E::ResultsLost(_)
            | E::MapLost(_)
            | E::NoValue { .. }
            | E::Corrupt { .. } => Exit::Failed,
        };
        Self::new(exit, problem)
    }
}

#[cfg(test)]
mod tests {
    use longshore_protocol::NodeId;

    use super::*;

    #[track_caller]
    fn prints(failure: impl Into<Failure>, code: u8, json: &str) {
        let failure = failure.into();
        assert_eq!(failure.exit_code(), code, "{failure}");
        let problem = failure.problem().expect("it is printed");
        assert_eq!(serde_json::to_string(problem).expect("JSON"), json);
    }

    #[test]
    fn a_failure_has_a_kind_and_names_the_place_the_job_or_the_node() {
        let place = || Invalid {
            place: "priority".into(),
            found: "10".into(),
            allowed: "use 0 to 9".into(),
        };
        prints(
            Failure::invalid("job.json", place()),
            2,
            r#"{"kind":"bad_input","title":"bad input","detail":"job.json: priority: 10; use 0 to 9","errors":[{"place":"priority","found":"10","allowed":"use 0 to 9"}]}"#,
        );
        prints(
            Failure::from(place()).of_settings(),
            2,
            r#"{"kind":"bad_config","title":"bad setting","detail":"priority: 10; use 0 to 9","errors":[{"place":"priority","found":"10","allowed":"use 0 to 9"}]}"#,
        );
        prints(
            producer::Error::NodeNotFound(NodeId::new("n1")),
            4,
            r#"{"kind":"not_found","title":"not found","detail":"no such node: n1","node":"n1"}"#,
        );
        let job: JobId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id");
        prints(
            producer::SubmitError::Conflict { job },
            2,
            r#"{"kind":"conflict","title":"name is taken","detail":"job 01890a5d-ac96-774b-bcce-b302099a8057 exists already, with other content; choose another id or leave it out","job":"01890a5d-ac96-774b-bcce-b302099a8057"}"#,
        );
        prints(
            longshore_ledger::Error::BadUrl("none".into()),
            2,
            r#"{"kind":"bad_config","title":"bad setting","detail":"redis_url: none"}"#,
        );
    }

    #[test]
    fn a_command_that_was_interrupted_says_nothing() {
        assert!(Failure::Interrupted.problem().is_none() && Failure::Closed.problem().is_none());
        assert_eq!([Failure::Interrupted, Failure::Closed].map(|it| it.exit_code()), [130, 0]);
    }
}
