//! Posts a subtask as JSON to a URL for each attempt, and classifies the answer by its status.
//!
//! | answer | outcome |
//! | --- | --- |
//! | 2xx | success; the body is the result |
//! | 429, 503; a status of the next row with `Retry-After` | not now: again later, costs no attempt
//! |
//! | 408, 409, 421, 423, 425, 5xx but 501 and 505; no answer | failed; the next attempt may succeed
//! |
//! | all others | the subtask failed for good |

use std::time::Duration;

use async_trait::async_trait;
use longshore_protocol::{Input, Outcome};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::redirect::{self, Policy};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::net::TcpStream;

use super::addresses::{CheckedResolver, HttpAddresses, RefusedAddress};
use super::{Handler, Output, not_started, permanent, result_of_text, retryable, subtask_line};
use crate::Context;

/// How long the connection may take; the answer may take as long as the job allows.
const CONNECT: Duration = Duration::from_secs(10);

/// Most redirects: more than any sensible endpoint has, and an end for circular ones.
const MAX_REDIRECTS: usize = 5;

/// How many bytes of an error's body are shown.
const SHOWN: usize = 400;

/// Posts subtasks to a URL.
pub(super) struct HttpTask {
    url: Url,
    client: Client,
    resolver: CheckedResolver,
    timeout: Option<Duration>,
    output: Output,
}

impl HttpTask {
    /// The error is for people: the URL is invalid or that of an address that is not allowed, or
    /// the host has no trusted certificates.
    pub(super) fn new(
        url: &str,
        timeout: Option<Duration>,
        output: Output,
        addresses: &HttpAddresses,
    ) -> Result<Self, String> {
        Self::resolving(url, timeout, output, CheckedResolver::new(addresses.clone()))
    }

    fn resolving(
        url: &str,
        timeout: Option<Duration>,
        output: Output,
        resolver: CheckedResolver,
    ) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("http: `{url}` is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("http: `{url}`: use an http:// or https:// URL"));
        }
        resolver.addresses.check_url(&url).map_err(|refused| format!("http: {refused}"))?;
        longshore_tls::install_crypto_provider();
        let addresses = resolver.addresses.clone();
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .dns_resolver(resolver.clone())
            .redirect(Policy::custom(move |attempt| redirect(attempt, &addresses)));
        if url.scheme() == "http" {
            // No certificate will be checked, so the host needs none.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| format!("http: {}", causes(&error)))?;
        Ok(Self { url, client, resolver, timeout, output })
    }

    async fn post(&self, ctx: &Context, input: &Input) -> Result<Outcome, reqwest::Error> {
        let mut response = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", ctx.idempotency_key())
            .body(subtask_line(ctx, input))
            .send()
            .await?;
        let status = response.status();
        let after = retry_after(&response);
        let output = self.output_of(&response);
        if let Some(place) = response.headers().get(LOCATION).filter(|_| status.is_redirection()) {
            let place = String::from_utf8_lossy(place.as_bytes());
            return Ok(permanent(format!(
                "HTTP {status}: redirects to {place}; give the task that URL"
            )));
        }
        let limit = if status.is_success() { ctx.max_result.saturating_mul(2) } else { SHOWN };
        let (body, complete) = read(&mut response, limit).await?;
        Ok(match status {
            _ if status.is_success() && !complete => permanent(format!(
                "the answer is longer than {} bytes (max_result)",
                ctx.max_result
            )),
            _ if status.is_success() => match result_of_text(&body, output) {
                Ok(json) => Outcome::Success(json),
                Err(outcome) => outcome,
            },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Outcome::NotNow { reason: refusal(status, &body), after }
            }
            _ if !may_pass(status) => permanent(refusal(status, &body)),
            // An endpoint that says when to come again has not failed.
            _ if after.is_some() => Outcome::NotNow { reason: refusal(status, &body), after },
            _ => retryable(refusal(status, &body)),
        })
    }
}

impl HttpTask {
    /// The kind of the answer's body: an answer that says it is JSON has to be JSON.
    fn output_of(&self, response: &Response) -> Output {
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        let kind = kind.trim().to_ascii_lowercase();
        let says_json = kind == "application/json" || kind.ends_with("+json");
        if self.output == Output::Auto && says_json { Output::Json } else { self.output }
    }
}

#[async_trait]
impl Handler for HttpTask {
    async fn run(&self, ctx: Context, input: Input) -> Outcome {
        match self.post(&ctx, &input).await {
            Ok(outcome) => outcome,
            Err(error) => {
                if let Some(refused) = refused_address(&error) {
                    return permanent(format!("POST {}: {refused}", self.url));
                }
                // The endpoint has not seen the subtask.
                let is_unreachable = error.is_connect();
                let text = format!("POST {}: {}", self.url, causes(&error.without_url()));
                if is_unreachable { not_started(text) } else { retryable(text) }
            }
        }
    }

    async fn check(&self) -> Result<(), String> {
        let (Some(host), Some(port)) = (self.url.host_str(), self.url.port_or_known_default())
        else {
            return Ok(());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |why: &dyn std::fmt::Display| Err(format!("POST {}: {why}", self.url));
        let connect = async {
            let mut addresses = self.resolver.addresses_of(host).await?;
            addresses.iter_mut().for_each(|address| address.set_port(port));
            TcpStream::connect(&addresses[..]).await?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => failed(&error),
            Err(_) => failed(&"no connection in time"),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

/// Follows redirects that repeat the POST, unless they lead to an address that is not allowed. The
/// others would GET a page that knows nothing about the subtask, a login for example, and take it
/// for the result.
fn redirect(attempt: redirect::Attempt<'_>, addresses: &HttpAddresses) -> redirect::Action {
    if let Err(refused) = addresses.check_url(attempt.url()) {
        return attempt.error(refused);
    }
    match attempt.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
            if attempt.previous().len() <= MAX_REDIRECTS =>
        {
            attempt.follow()
        }
        _ => attempt.stop(),
    }
}

/// Reads a body up to a limit; tells whether that was all of it.
async fn read(response: &mut Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        body.extend_from_slice(&bytes);
        if body.len() > limit {
            body.truncate(limit);
            return Ok((body, false));
        }
    }
    Ok((body, true))
}

/// Whether another attempt may get another answer.
fn may_pass(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT
        // For example, the first request with this `Idempotency-Key` is still being processed.
        | StatusCode::CONFLICT
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::LOCKED
        | StatusCode::TOO_EARLY => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        _ => status.is_server_error(),
    }
}

/// The `Retry-After` header as seconds or as a date, by the clock of the server.
fn retry_after(response: &Response) -> Option<Duration> {
    let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::trim);
    let text = header(RETRY_AFTER)?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| httpdate::parse_http_date(text).ok();
    date(text)?.duration_since(date(header(DATE)?)?).ok()
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let body = body.trim();
    if body.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {body}") }
}

/// The refusal of an address, if that is the cause.
fn refused_address(error: &reqwest::Error) -> Option<&RefusedAddress> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref() {
            return Some(refused);
        }
        source = cause.source();
    }
    None
}

/// The error with its causes, which the library's own text leaves out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use futures_util::FutureExt;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::fixtures::{context, failure, success};
    use super::*;

    fn post_to(url: &str) -> Result<HttpTask, String> {
        HttpTask::new(url, None, Output::Auto, &HttpAddresses::default())
    }

    /// Answers one request with these head lines and body, and gives the request.
    async fn exchange(head: &str, body: &str) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/run", listener.local_addr().expect("it is bound"));
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a request");
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert!(stream.read_buf(&mut request).await.expect("a request") > 0);
            }
            stream.write_all(answer.as_bytes()).await.expect("the client listens");
            String::from_utf8(request).expect("text")
        });
        let task = post_to(&url).expect("a good URL");
        let outcome = task.run(context(&json!(null)), Input::Number(3)).await;
        (outcome, server.await.expect("no panic"))
    }

    #[tokio::test]
    async fn the_subtask_is_posted_and_the_body_is_the_result() {
        let (outcome, request) = exchange("200 OK", "{\"a\": [1]}").await;
        assert_eq!(outcome, Outcome::Success(r#"{"a":[1]}"#.into()));
        assert!(request.starts_with("POST /run HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("idempotency-key: 00000000-0000-0000-0000-000000000010/7\r\n"));
        assert!(
            request.ends_with(r#""index":7,"attempt":1,"params":null,"input":3}"#),
            "{request}"
        );
    }

    #[tokio::test]
    async fn an_answer_that_says_it_is_json_has_to_be() {
        let (outcome, _) = exchange("200 OK\r\ncontent-type: application/json", "nearly").await;
        let (error, retry) = failure(outcome);
        assert!(error.starts_with("the output \"nearly\" is not JSON: "), "{error}");
        assert!(retry);
        let (outcome, _) = exchange("200 OK\r\ncontent-type: text/plain", "nearly").await;
        assert_eq!(outcome, success("nearly"));
    }

    #[tokio::test]
    async fn statuses_say_whether_to_try_again() {
        assert_eq!(exchange("204 No Content", "").await.0, success(""));
        assert_eq!(exchange("404 Not Found", "x").await.0, permanent("HTTP 404 Not Found: x"));
        let broken = retryable("HTTP 500 Internal Server Error");
        assert_eq!(exchange("500 Oh", "").await.0, broken);
        let full = Outcome::NotNow { reason: "HTTP 503 Service Unavailable".into(), after: None };
        assert_eq!(exchange("503 Full", "").await.0, full);
        let later = Outcome::NotNow {
            reason: "HTTP 429 Too Many Requests".into(),
            after: Some(Duration::from_secs(7)),
        };
        assert_eq!(exchange("429 Slow\r\nretry-after: 7", "").await.0, later);
        let dates = "date: Sun, 06 Nov 1994 08:49:30 GMT\r\n\
                     retry-after: Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(exchange(&format!("429 Slow\r\n{dates}"), "").await.0, later);
    }

    #[tokio::test]
    async fn a_status_that_may_pass_is_retried_and_any_other_fails_for_good() {
        for status in [408, 409, 421, 423, 425, 500, 502, 504, 507, 520] {
            let (error, retry) = failure(exchange(&format!("{status} X"), "").await.0);
            assert!(retry, "{error}");
            let later = exchange(&format!("{status} X\r\nretry-after: 7"), "").await.0;
            let after = Some(Duration::from_secs(7));
            assert!(matches!(&later, Outcome::NotNow { after: a, .. } if *a == after), "{later:?}");
        }
        for status in [400, 401, 403, 404, 410, 413, 422, 501, 505] {
            let head = format!("{status} X\r\nretry-after: 7");
            let (error, retry) = failure(exchange(&head, "").await.0);
            assert!(!retry, "{error}");
        }
    }

    #[tokio::test]
    async fn a_redirect_to_a_page_is_a_failure() {
        let (outcome, _) = exchange("302 Found\r\nlocation: /login", "").await;
        let error = "HTTP 302 Found: redirects to /login; give the task that URL";
        assert_eq!(outcome, permanent(error));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_fails_for_good() {
        let (error, retry) = failure(exchange("200 OK", &"x".repeat(5000)).await.0);
        assert_eq!(error, "the answer is longer than 1000 bytes (max_result)");
        assert!(!retry);
    }

    #[tokio::test]
    async fn an_unreachable_server_has_seen_no_attempt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let task = post_to(&format!("http://{address}/")).expect("a good URL");
        let outcome = task.run(context(&json!(null)), Input::Number(3)).await;
        let Outcome::NotStarted { reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("refused"), "{reason}");
        assert!(task.check().await.is_err());
        let _listener = TcpListener::bind(address).await.expect("the port is still free");
        assert_eq!(task.check().await, Ok(()));
    }

    #[test]
    fn a_bad_url_is_refused_before_the_worker_starts() {
        let error = post_to("ftp://x/").err();
        assert_eq!(error.as_deref(), Some("http: `ftp://x/`: use an http:// or https:// URL"));
        assert!(post_to("nonsense").is_err());
        let error = post_to("http://169.254.169.254/latest").err().expect("it is refused");
        assert!(error.starts_with("http: 169.254.169.254, a link-local or metadata"), "{error}");
    }

    /// A task whose resolver knows these addresses for every name.
    fn with_names(url: &str, addresses: &[&str], allowed: &[&str]) -> HttpTask {
        let found: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| SocketAddr::new(address.parse().expect("an address"), 0))
            .collect();
        let lookup =
            move |_: String| std::future::ready(Ok::<_, std::io::Error>(found.clone())).boxed();
        let addresses = HttpAddresses::allowing(allowed).expect("good addresses");
        let resolver = CheckedResolver { addresses, lookup: Arc::new(lookup) };
        HttpTask::resolving(url, None, Output::Auto, resolver).expect("a good URL")
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_metadata_address_fails_for_good() {
        for found in [&["169.254.169.254"][..], &["127.0.0.1", "::ffff:169.254.169.254"]] {
            let task = with_names("http://rebound.example/x", found, &[]);
            let (error, retry) = failure(task.run(context(&json!(null)), Input::Number(3)).await);
            let address = found.last().expect("an address");
            assert!(
                error.starts_with(&format!(
                    "POST http://rebound.example/x: rebound.example is {address}, a link-local"
                )),
                "{error}"
            );
            assert!(!retry);
            assert!(task.check().await.is_err_and(|why| why.contains("link-local")));
        }
    }

    #[tokio::test]
    async fn a_request_goes_to_the_address_that_was_checked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let server =
            tokio::spawn(answer(listener, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"));
        let task = with_names(&format!("http://name.example:{port}/"), &["127.0.0.1"], &[]);
        let outcome = task.run(context(&json!(null)), Input::Number(3)).await;
        assert_eq!(outcome, success(1));
        server.await.expect("no panic");
        // Nothing listens there, but it was tried.
        let allowed = with_names("http://name.example:1/", &["127.0.0.1"], &["169.254.0.0/16"]);
        let outcome = allowed.run(context(&json!(null)), Input::Number(3)).await;
        assert!(matches!(outcome, Outcome::NotStarted { .. }), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_redirect_to_a_metadata_address_fails_for_good() {
        for (to, said) in [
            ("http://169.254.169.254/latest", "169.254.169.254, a link-local"),
            ("http://[::ffff:a9fe:a9fe]/latest", "::ffff:169.254.169.254, a link-local"),
            ("http://metadata.example/latest", "metadata.example is 169.254.169.254, a link-local"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}/run", listener.local_addr().expect("it is bound"));
            let moved =
                format!("HTTP/1.1 307 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            let server = tokio::spawn(answer(listener, moved));
            let task = with_names(&url, &["169.254.169.254"], &[]);
            let (error, retry) = failure(task.run(context(&json!(null)), Input::Number(3)).await);
            assert!(error.contains(said), "{error}");
            assert!(!retry);
            server.await.expect("no panic");
        }
    }

    /// Answers one request.
    async fn answer(listener: TcpListener, answer: impl AsRef<str>) {
        let (mut stream, _) = listener.accept().await.expect("a request");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert!(stream.read_buf(&mut request).await.expect("a request") > 0);
        }
        stream.write_all(answer.as_ref().as_bytes()).await.expect("the client listens");
    }
}
