//! Who calls: API tokens, and what a fleet without tokens permits.
//!
//! The list of tokens is read from the ledger at most once a second, so a revoked token is refused
//! within a second or so. While the ledger is away the last list holds for a minute. A server that
//! has seen a token never again takes requests without one: a ledger that lost its data must not
//! open the door.
//!
//! Deliberately absent: which endpoint needs which role, which the table of endpoints says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use longshore_ledger::Ledger;
use longshore_protocol::{ApiSecret, ApiToken, ErrorKind, KeptApiToken, Role, Timestamp};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::endpoint::{Access, Scope, Verb};
use crate::refusal::Refusal;

/// How old the list of tokens may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How old the list of tokens may be while the ledger can't be read.
const USABLE_FOR: Duration = Duration::from_secs(60);

/// The failed logins of an address within [`FAILURES_WITHIN`] after which it is told to wait.
const MOST_FAILURES: u32 = 10;

/// The time over which failed logins of an address are counted.
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

/// The most addresses whose failed logins are counted.
const MOST_ADDRESSES: usize = 1_024;

/// From where a server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// From this machine alone. Without API tokens every caller is an admin.
    Loopback,
    /// Through a reverse proxy that terminates TLS and, as long as there are no API tokens, decides
    /// who may call.
    BehindProxy,
    /// From the network, with TLS. Every endpoint that needs a role needs a token, also as long as
    /// there are none.
    NetworkTls,
    /// From the network, without TLS. Endpoints that need a role are refused, since a token would
    /// be sent in the clear.
    Network,
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The token that was presented; none is needed in a fleet without tokens.
    token: Option<Arc<KeptApiToken>>,
}

impl Caller {
    /// The caller of an endpoint that is open to all.
    pub(crate) const fn unknown() -> Self {
        Self { token: None }
    }

    pub(crate) fn token(&self) -> Option<&ApiToken> {
        Some(&self.token.as_ref()?.token)
    }

    fn role(&self) -> Role {
        self.token().map_or(Role::Admin, |token| token.role)
    }

    /// Whether the caller may see the jobs of a tenant.
    pub(crate) fn shows(&self, tenant: &str) -> bool {
        self.token().is_none_or(|token| token.shows(tenant))
    }

    /// The tenants to which the caller is bound; `None` for all.
    pub(crate) fn tenants(&self) -> Option<Vec<String>> {
        Some(self.token()?.tenants.as_ref()?.iter().cloned().collect())
    }

    /// Refuses what the caller's role or tenants don't permit.
    pub(crate) fn authorize(&self, access: Access) -> Result<(), Refusal> {
        let Access::Needs(needed, scope) = access else { return Ok(()) };
        let role = self.role();
        if !role.permits(needed) {
            let text = format_args!("the token has the role {role}; this needs {needed}");
            return Err(Refusal::forbidden(text));
        }
        if scope == Scope::Fleet && self.tenants().is_some() {
            let text = "the token is bound to tenants; this needs one that is not";
            return Err(Refusal::forbidden(text));
        }
        Ok(())
    }
}

/// The tokens as they were read last.
#[derive(Clone, Default)]
struct Known {
    tokens: Arc<HashMap<String, Arc<KeptApiToken>>>,
    /// When they were read, and the ledger's time then.
    read: Option<(Instant, Timestamp)>,
    /// The tokens were changed here since.
    is_outdated: bool,
    /// There was a token once.
    had_tokens: bool,
}

impl Known {
    fn is_younger_than(&self, age: Duration) -> bool {
        self.read.is_some_and(|(at, _)| at.elapsed() < age)
    }

    fn is_fresh(&self) -> bool {
        !self.is_outdated && self.is_younger_than(FRESH_FOR)
    }

    /// The ledger's time now.
    fn now(&self) -> Timestamp {
        self.read.map_or(Timestamp::default(), |(at, then)| then.plus(at.elapsed()))
    }

    /// The token of a secret, if the token is valid.
    fn find(&self, secret: &ApiSecret) -> Option<Arc<KeptApiToken>> {
        let digest = secret.digest();
        let kept = self.tokens.get(&ApiToken::id_of(&digest))?;
        let is_same = kept.digest.as_str().as_bytes().ct_eq(digest.as_str().as_bytes());
        (bool::from(is_same) && !kept.token.has_expired(self.now())).then(|| Arc::clone(kept))
    }
}

/// Failed logins from one address.
struct Failures {
    since: Instant,
    count: u32,
}

/// Identifies callers.
pub(crate) struct Guard {
    ledger: Arc<dyn Ledger>,
    exposure: Exposure,
    known: Mutex<Known>,
    /// Held by the request that reads the tokens, so that one does.
    reading: tokio::sync::Mutex<()>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

impl Guard {
    pub(crate) fn new(ledger: Arc<dyn Ledger>, exposure: Exposure) -> Self {
        let (known, reading, failures) = (Mutex::default(), Default::default(), Mutex::default());
        Self { ledger, exposure, known, reading, failures }
    }

    /// The caller of a request that needs a role.
    pub(crate) async fn identify(
        &self,
        headers: &HeaderMap,
        verb: Verb,
        address: IpAddr,
    ) -> Result<Caller, Refusal> {
        if self.exposure == Exposure::Network {
            return Err(Refusal::forbidden(
                "the API is not served on this address, because it has no TLS; set http_tls_cert \
                 and http_tls_key, listen on 127.0.0.1, or behind a proxy with http_behind_proxy = \
                 true",
            ));
        }
        let known = self.known().await?;
        let Some(presented) = headers.get(AUTHORIZATION) else {
            if known.had_tokens || self.exposure == Exposure::NetworkTls {
                return Err(unauthorized("present an API token: `Authorization: Bearer TOKEN`"));
            }
            self.check_source(headers, verb)?;
            return Ok(Caller::unknown());
        };
        let secret = presented.to_str().ok().and_then(bearer);
        match secret.and_then(|secret| known.find(&secret)) {
            Some(token) => Ok(Caller { token: Some(token) }),
            None => Err(self.failed(address)),
        }
    }

    /// Whether a caller that was identified before would be identified again.
    pub(crate) async fn is_valid(&self, caller: &Caller) -> bool {
        let Ok(known) = self.known().await else { return false };
        let Some(token) = caller.token() else { return !known.had_tokens };
        known.tokens.contains_key(&token.id) && !token.has_expired(known.now())
    }

    /// The tokens were changed through this server, which knows of it at once.
    pub(crate) fn tokens_changed(&self) {
        self.known.lock().is_outdated = true;
    }

    async fn known(&self) -> Result<Known, Refusal> {
        let known = self.known.lock().clone();
        if known.is_fresh() {
            return Ok(known);
        }
        let _reading = self.reading.lock().await;
        let known = self.known.lock().clone();
        if known.is_fresh() {
            return Ok(known);
        }
        match tokio::try_join!(self.ledger.api_tokens(), self.ledger.now()) {
            Ok((tokens, now)) => {
                let by_id = |kept: KeptApiToken| (kept.token.id.clone(), Arc::new(kept));
                let tokens: HashMap<_, _> = tokens.into_iter().map(by_id).collect();
                let known = Known {
                    had_tokens: known.had_tokens || !tokens.is_empty(),
                    tokens: Arc::new(tokens),
                    is_outdated: false,
                    read: Some((Instant::now(), now)),
                };
                *self.known.lock() = known.clone();
                Ok(known)
            }
            Err(error) if known.is_younger_than(USABLE_FOR) => {
                debug!(%error, "API tokens can't be read; using the last list");
                Ok(known)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses requests that a foreign web page makes in the browser of a person on this machine,
    /// where no token proves who calls.
    fn check_source(&self, headers: &HeaderMap, verb: Verb) -> Result<(), Refusal> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(HOST.as_str());
        if self.exposure == Exposure::Loopback && !host.is_none_or(is_loopback) {
            return Err(Refusal::forbidden(
                "without API tokens the Host has to be localhost or a loopback address",
            ));
        }
        let is_foreign_site =
            text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site));
        let is_foreign_origin = text(ORIGIN.as_str())
            .is_some_and(|origin| origin.split_once("://").map(|(_, authority)| authority) != host);
        if verb.may_change() && (is_foreign_site || is_foreign_origin) {
            return Err(Refusal::forbidden("a web page of another origin may change nothing"));
        }
        Ok(())
    }

    /// Counts a failed login.
    fn failed(&self, address: IpAddr) -> Refusal {
        let mut failures = self.failures.lock();
        if failures.len() >= MOST_ADDRESSES {
            failures.retain(|_, failures| failures.since.elapsed() < FAILURES_WITHIN);
        }
        if failures.len() >= MOST_ADDRESSES && !failures.contains_key(&address) {
            return too_many();
        }
        let now = Instant::now();
        let counted = failures.entry(address).or_insert(Failures { since: now, count: 0 });
        if counted.since.elapsed() >= FAILURES_WITHIN {
            *counted = Failures { since: now, count: 0 };
        }
        counted.count = counted.count.saturating_add(1);
        if counted.count == MOST_FAILURES {
            warn!(%address, "many requests with tokens that are not valid");
        }
        if counted.count > MOST_FAILURES {
            return too_many();
        }
        unauthorized("the API token is not valid: unknown, revoked or expired")
    }
}

fn unauthorized(detail: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, ErrorKind::LoginRefused, detail)
}

fn too_many() -> Refusal {
    let detail = "too many requests with tokens that are not valid";
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, ErrorKind::LoginRefused, detail);
    refusal.retry_after(u32::try_from(FAILURES_WITHIN.as_secs()).unwrap_or(u32::MAX))
}

/// The secret in `Bearer SECRET`.
fn bearer(header: &str) -> Option<ApiSecret> {
    let (scheme, secret) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    ApiSecret::parse(secret.trim())
}

/// Whether a `Host` names this machine's loopback.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_of_the_loopback_is_one() {
        for host in ["localhost", "localhost:7700", "127.0.0.1:7700", "[::1]:7700", "127.1.2.3"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "example.org", "127.0.0.1.example.org", "10.0.0.1:7700", "[::2]", "[", ":"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        let secret = ApiSecret::from_bytes([7; 32]);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(bearer(&format!("{scheme} {}", secret.as_str())), Some(secret.clone()));
        }
        for wrong in ["", "Bearer", "Bearer x", "Basic YTpi", secret.as_str()] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }
}
