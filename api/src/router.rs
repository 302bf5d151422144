//! The router, made from the table of endpoints, and the path of a request through it.
//!
//! ```text
//! request id ─> compression ─> route ─> token ─> role and scope ─> parameters ─> handler
//!                                                          audit trail <─ status ─┘
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use longshore_protocol::{Action, ActionOutcome, ErrorKind};
use parking_lot::Mutex;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::access::Caller;
use crate::call::Call;
use crate::endpoint::{Access, Endpoint, Verb};
use crate::endpoints::endpoints;
use crate::lines::Live;
use crate::params::Params;
use crate::refusal::{HttpProblem, Inner, PROBLEM_JSON, Refusal};
use crate::{Shared, server};

/// The header with the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a request that is taken from the client.
const MAX_REQUEST_ID: usize = 64;

/// The id of a request.
#[derive(Clone)]
struct RequestId(Arc<str>);

/// What a request was about, if its path does not tell: set by handlers, for the audit trail.
#[derive(Clone)]
pub(crate) struct Target(pub(crate) String);

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for endpoint in endpoints() {
        let shared = Arc::clone(shared);
        let handler = move |request: Request| dispatch(Arc::clone(&shared), endpoint, request);
        router = router.route(endpoint.path, on(filter(endpoint.verb), handler));
    }
    let may_compress = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
        extensions.get::<Live>().is_none()
    };
    let compression =
        CompressionLayer::new().compress_when(DefaultPredicate::new().and(may_compress));
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(compression)
        .layer(from_fn(label))
}

fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Post => MethodFilter::POST,
        Verb::Delete => MethodFilter::DELETE,
    }
}

/// Gives the request an id, and the answer the headers that every answer has.
async fn label(mut request: Request, next: Next) -> Response {
    let id = RequestId(request_id(request.headers()).into());
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, value);
    }
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// The client's id of the request, if it is a plain word; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        let chars = |char: char| char.is_ascii_alphanumeric() || ".-_".contains(char);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.chars().all(chars)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_plain);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

async fn no_such_path(request: Request) -> Response {
    let detail = "no such path; GET /openapi.json lists them";
    let refusal = Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, detail);
    refused(refusal, request.extensions())
}

async fn wrong_method(request: Request) -> Response {
    let detail = "the path does not take this method; the header Allow lists those that it takes";
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::BadInput, detail);
    refused(refusal, request.extensions())
}

/// The answer to a request that is not carried out.
fn refused(refusal: Refusal, extensions: &Extensions) -> Response {
    let request = extensions.get::<RequestId>().map(|id| Arc::clone(&id.0)).unwrap_or_default();
    let Inner { status, problem, retry_after_s } = refusal.into_inner();
    let problem = HttpProblem::new(status, &request, &problem);
    let body = serde_json::to_vec(&problem).expect("problems are JSON");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(seconds) = retry_after_s {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The address that a request came from.
fn address(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<server::Peer>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
}

async fn dispatch(shared: Arc<Shared>, endpoint: &'static Endpoint, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let extensions = parts.extensions.clone();
    let path = parts.uri.path().to_owned();
    let mut caller = None;
    let carried_out = carry_out(&shared, endpoint, parts, body, &mut caller);
    let outcome = match tokio::time::timeout(endpoint.within, carried_out).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Refusal::no_answer()),
    };
    let target = outcome.as_ref().ok().and_then(|response| response.extensions().get::<Target>());
    let target = target.map_or(path, |target| target.0.clone());
    let response = match outcome {
        Ok(response) => response,
        Err(refusal) => {
            if refusal.status().is_server_error() {
                let (operation, problem) = (endpoint.id, refusal.problem());
                error!(operation, status = %refusal.status(), kind = ?problem.kind, "refused");
            }
            refused(refusal, &extensions)
        }
    };
    // Failed logins are counted, not recorded: anyone can make any number of them.
    if let Some(caller) = caller.filter(|_| endpoint.verb.may_change()) {
        let action = action(endpoint, &caller, target, response.status(), &extensions);
        record(&shared, &action).await;
    }
    response
}

async fn carry_out(
    shared: &Arc<Shared>,
    endpoint: &'static Endpoint,
    mut parts: Parts,
    body: Body,
    identified: &mut Option<Caller>,
) -> Result<Response, Refusal> {
    let caller = match endpoint.access {
        Access::Open => Caller::unknown(),
        Access::Needs(..) => {
            let address = address(&parts.extensions);
            shared.guard.identify(&parts.headers, endpoint.verb, address).await?
        }
    };
    *identified = Some(caller.clone());
    caller.authorize(endpoint.access)?;
    let path = match RawPathParams::from_request_parts(&mut parts, &()).await {
        Ok(path) => path.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        Err(_) => {
            let detail = "the path is not UTF-8";
            return Err(Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, detail));
        }
    };
    let params = Params::read(endpoint, path, parts.uri.query().unwrap_or_default())?;
    let (shared, headers) = (Arc::clone(shared), parts.headers);
    let call = Call { shared, endpoint, caller, params, headers, body: Mutex::new(body) };
    call.check_content_type()?;
    (endpoint.handler)(call).await
}

fn action(
    endpoint: &Endpoint,
    caller: &Caller,
    target: String,
    status: StatusCode,
    extensions: &Extensions,
) -> Action {
    let token = caller.token();
    let outcome = match status {
        status if status.is_server_error() => ActionOutcome::Failed,
        status if status.is_client_error() => ActionOutcome::Refused,
        _ => ActionOutcome::Done,
    };
    Action {
        id: Uuid::now_v7().to_string(),
        at: Default::default(),
        token: token.map(|token| token.id.clone()),
        who: token.map_or_else(|| "anyone".to_owned(), |token| token.name.clone()),
        address: Some(address(extensions).to_string()),
        action: endpoint.id.to_owned(),
        target,
        outcome,
        status: Some(status.as_u16()),
        request: extensions.get::<RequestId>().map(|id| id.0.to_string()),
    }
}

/// Records an action in the audit trail and in the log. The change has been made by then, so a
/// trail that can't be written is reported in the log, which has the whole entry.
async fn record(shared: &Shared, action: &Action) {
    let Action { token, who, address, action: operation, target, outcome, status, request, .. } =
        action;
    info!(?token, who, ?address, operation, target, ?outcome, ?status, ?request, "action");
    if let Err(error) = shared.ledger().record_action(action).await {
        warn!(%error, ?request, "an action is in this log alone, not in the audit trail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_id_of_a_request_is_used_if_it_is_a_plain_word() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).expect("a value"));
            request_id(&headers)
        };
        assert_eq!(with("abc-1.2_3"), "abc-1.2_3");
        for wrong in ["", "a b", "a;b", "é", &"a".repeat(65)] {
            assert!(with(wrong).parse::<Uuid>().is_ok(), "{wrong}");
        }
    }
}
