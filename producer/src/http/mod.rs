//! Reads and changes jobs through a server of the HTTP API.
//!
//! Requests that may be made again are: those that read, and submissions, which have an id. They
//! are repeated a few times after a broken connection, and where the server says when. All others
//! are made once, because a repetition might find its own effect and report it as a mistake.
//!
//! Deliberately absent: redirects, which could lead a token elsewhere.

pub(crate) mod dead_letters;
mod error;
pub(crate) mod job;
pub(crate) mod jobs;
mod lines;
pub(crate) mod nodes;
mod request;
mod settings;
pub(crate) mod submit;
pub(crate) mod tokens;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use longshore_protocol::Problem;
use longshore_protocol::wire::QueueView;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

pub use error::ServerError;
pub use settings::{ServerSettings, check_server_url};

use crate::Error;
use request::Request;

/// The longest time for a connection to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection stays open unused: less than servers and proxies allow.
const IDLE: Duration = Duration::from_secs(10);

/// How often the system checks that a server is still there which sends nothing.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How often a request is made that may be repeated.
const MOST_TRIES: u32 = 4;

/// The longest wait that a server may ask for before a request is repeated.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The wait after a connection broke.
const RETRY_BROKEN: Duration = Duration::from_millis(200);

/// The most bytes of an answer that is read as a whole: a page of jobs, a document, a value.
const MAX_ANSWER: usize = 256 << 20;

/// The most bytes of the body of a refusal.
const MAX_PROBLEM: usize = 1 << 20;

/// The content type of problem details.
const PROBLEM_JSON: &str = "application/problem+json";

/// A server. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

struct Inner {
    /// Where the API is; paths are added to its path.
    url: Url,
    client: reqwest::Client,
    authorization: Option<HeaderValue>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.url.as_str().trim_end_matches('/'))
    }
}

impl Server {
    pub(crate) fn new(settings: &ServerSettings) -> Result<Self, ServerError> {
        let (url, authorization) = settings.checked()?;
        longshore_tls::install_crypto_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(KEEP_ALIVE)
            .redirect(Policy::none());
        builder = match url.scheme() {
            // No certificate will be checked, so the host needs none.
            "http" => builder.tls_certs_only([]),
            _ => {
                let config = settings.tls.client_config().map_err(ServerError::bad_settings)?;
                builder.tls_backend_preconfigured(config)
            }
        };
        if settings::is_loopback(&url) {
            // A proxy of the network does not know this machine's services.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            ServerError::bad_settings(format_args!("server: {}", error::cause(&error)))
        })?;
        Ok(Self(Arc::new(Inner { url, client, authorization })))
    }

    /// Makes a request, and reads its answer as JSON.
    async fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ServerError> {
        let text = self.text(request).await?;
        serde_json::from_str(&text).map_err(|error| ServerError::unreadable(self, &error))
    }

    /// Makes a request, and reads its answer, which is JSON, as text.
    async fn text(&self, request: &Request) -> Result<String, ServerError> {
        let mut tries = 1;
        loop {
            let answered = async {
                let response = self.attempt(request).await?;
                let bytes = self.read(response, MAX_ANSWER).await?;
                String::from_utf8(bytes).map_err(|error| ServerError::unreadable(self, &error))
            };
            let answered = tokio::time::timeout(request.within, answered).await;
            match answered.unwrap_or_else(|_| Err(ServerError::timeout(self, request.within))) {
                Ok(text) => return Ok(text),
                Err(error) => self.before_next_try(request, &mut tries, error).await?,
            }
        }
    }

    /// Makes a request a single time; gives the status of its success too.
    async fn once<T: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(StatusCode, T), ServerError> {
        let answered = async {
            let response = self.attempt(request).await?;
            let status = response.status();
            let bytes = self.read(response, MAX_ANSWER).await?;
            let answer = serde_json::from_slice(&bytes);
            answer
                .map(|answer| (status, answer))
                .map_err(|error| ServerError::unreadable(self, &error))
        };
        let answered = tokio::time::timeout(request.within, answered).await;
        answered.unwrap_or_else(|_| Err(ServerError::timeout(self, request.within)))
    }

    /// Makes a request whose answer is read piece by piece.
    async fn open(&self, request: &Request) -> Result<Response, ServerError> {
        let mut tries = 1;
        loop {
            let answered = tokio::time::timeout(request.within, self.attempt(request)).await;
            match answered.unwrap_or_else(|_| Err(ServerError::timeout(self, request.within))) {
                Ok(response) => return Ok(response),
                Err(error) => self.before_next_try(request, &mut tries, error).await?,
            }
        }
    }

    /// Waits before a request is repeated; gives the error back if that can't help.
    async fn before_next_try(
        &self,
        request: &Request,
        tries: &mut u32,
        error: ServerError,
    ) -> Result<(), ServerError> {
        let wait = match error.retry_after() {
            Some(wait) => Some(wait).filter(|wait| *wait <= LONGEST_WAIT),
            None => error.is_broken_connection().then_some(RETRY_BROKEN),
        };
        let wait = wait.filter(|_| request.is_repeatable && *tries < MOST_TRIES);
        let Some(wait) = wait else { return Err(error) };
        tracing::debug!(%error, "a request failed; trying again");
        *tries += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Makes a request once; an answer that does not report success is an error.
    async fn attempt(&self, request: &Request) -> Result<Response, ServerError> {
        let mut builder = self.0.client.request(request.method.clone(), request.url(&self.0.url));
        if let Some(authorization) = &self.0.authorization {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        } else if request.method == Method::POST {
            builder = builder.header(reqwest::header::CONTENT_LENGTH, 0);
        }
        let sent = builder.send().await;
        let response = sent.map_err(|error| ServerError::no_answer(self, &error))?;
        let status = response.status();
        let kind = content_type(&response);
        if status.is_success() {
            return match kind.as_str() {
                "application/json" | "application/x-ndjson" => Ok(response),
                _ => Err(ServerError::foreign(self, status, &kind)),
            };
        }
        if status.is_redirection() {
            let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            return Err(ServerError::redirected(self, status, place.unwrap_or_default()));
        }
        Err(self.refusal(response, status, &kind, request).await)
    }

    /// Why a server did not do what was asked.
    async fn refusal(
        &self,
        response: Response,
        status: StatusCode,
        kind: &str,
        request: &Request,
    ) -> ServerError {
        if kind != PROBLEM_JSON {
            return ServerError::foreign(self, status, kind);
        }
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match self.read(response, MAX_PROBLEM).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_unknown_path(status, &problem) => {
                ServerError::unknown_path(self, request)
            }
            Ok(problem) => {
                ServerError::refused(status, problem, retry_after.map(Duration::from_secs))
            }
            Err(error) => ServerError::unreadable(self, &error),
        }
    }

    /// Reads the whole body of an answer.
    async fn read(&self, mut response: Response, most: usize) -> Result<Vec<u8>, ServerError> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|error| ServerError::no_answer(self, &error))? {
                None => return Ok(body),
                Some(chunk) if body.len() + chunk.len() > most => {
                    return Err(ServerError::too_large(self, most));
                }
                Some(chunk) => body.extend_from_slice(&chunk),
            }
        }
    }
}

/// The queues of a server's fleet.
pub(crate) async fn queues(server: &Server) -> Result<Vec<QueueView>, Error> {
    Ok(server.json(&Request::get(&[&"queues"])).await?)
}

/// Whether a server does not have the endpoint: it is older, or the URL's path is wrong.
fn is_unknown_path(status: StatusCode, problem: &Problem) -> bool {
    let is_named = problem.job.is_some() || problem.node.is_some();
    (status == StatusCode::NOT_FOUND && !is_named && problem.detail.starts_with("no such path"))
        || status == StatusCode::METHOD_NOT_ALLOWED
}

/// The content type without its parameters, in lower case.
fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}
