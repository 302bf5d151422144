//! Describes endpoints.
//!
//! An endpoint is a method and a path, who may call it, what it takes and answers, and its handler.
//! Deliberately absent: a default for who may call it. [`Endpoint::new`] asks for it, so an
//! endpoint without a role can't be written.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use longshore_protocol::Role;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use axum::response::Response;

use crate::call::Call;
use crate::refusal::Refusal;

/// The time that a request may take until its answer begins, its body included.
const WITHIN: Duration = Duration::from_secs(30);

/// The most bytes of a body of an endpoint that takes little more than a list of numbers.
pub(crate) const SMALL_BODY: usize = 1 << 20;

/// The method of an endpoint. A `GET` changes nothing; everything else is in the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Reads.
    Get,
    /// Creates or changes.
    Post,
    /// Deletes.
    Delete,
}

impl Verb {
    /// The method's name in HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a request with this method may change something.
    pub const fn may_change(self) -> bool {
        !matches!(self, Self::Get)
    }
}

/// Who may call an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Open,
    /// The holder of a token with at least this role.
    Needs(Role, Scope),
}

/// What an endpoint shows or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What belongs to tenants: a token that is bound to tenants reaches theirs alone.
    Tenant,
    /// What belongs to all of them: a token that is bound to tenants is refused.
    Fleet,
}

/// Makes the schema of a value.
pub(crate) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// Content types with the schema of each.
pub(crate) type Content = &'static [(&'static str, MakeSchema)];

/// A parameter of the query.
#[derive(Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) schema: MakeSchema,
    pub(crate) may_repeat: bool,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(crate) struct RequestBody {
    /// The content types with the schema of each; a request without a content type has the first.
    pub(crate) content: Content,
    pub(crate) is_required: bool,
}

/// An answer with a status below 400.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) description: &'static str,
    /// The content types that it may have, with the schema of each.
    pub(crate) content: Content,
}

/// Answers a request.
pub(crate) type Handler = fn(Call) -> BoxFuture<'static, Result<Response, Refusal>>;

/// An endpoint of the API.
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// The operation's name: `operationId` of the OpenAPI document, and the action in the audit
    /// trail.
    pub id: &'static str,
    /// The method.
    pub verb: Verb,
    /// The path; `{job}`, `{node}`, `{token}` and `{letter}` stand for ids.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    pub(crate) handler: Handler,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) body: Option<RequestBody>,
    pub(crate) answers: &'static [Answer],
    /// The statuses of problems that only some endpoints answer; see [`Self::problems`].
    pub(crate) refuses: &'static [u16],
    /// The time until the answer begins.
    pub(crate) within: Duration,
    /// The most bytes of a body that is read as a whole.
    pub(crate) max_body: usize,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.as_str(), self.path)
    }
}

impl Endpoint {
    pub(crate) const fn new(
        id: &'static str,
        verb: Verb,
        path: &'static str,
        access: Access,
        handler: Handler,
    ) -> Self {
        Self {
            id,
            verb,
            path,
            access,
            handler,
            summary: "",
            parameters: &[],
            body: None,
            answers: &[],
            refuses: &[],
            within: WITHIN,
            max_body: SMALL_BODY,
        }
    }

    /// The parameters of the query.
    pub(crate) fn query(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter()
    }

    /// The names of the parameters of the path.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    pub(crate) const fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    pub(crate) const fn takes(self, parameters: &'static [Parameter]) -> Self {
        Self { parameters, ..self }
    }

    pub(crate) const fn body(self, body: RequestBody, max_body: usize) -> Self {
        Self { body: Some(body), max_body, ..self }
    }

    pub(crate) const fn answers(self, answers: &'static [Answer]) -> Self {
        Self { answers, ..self }
    }

    /// Answers problems with these statuses beside those of every endpoint.
    pub(crate) const fn refuses(self, refuses: &'static [u16]) -> Self {
        Self { refuses, ..self }
    }

    /// The statuses of the problems that the endpoint may answer: a mistake in the path or the
    /// query; what the token does not permit; an id of nothing; a body that is not taken; a service
    /// that is away; and those that it names itself.
    pub(crate) fn problems(&self) -> BTreeSet<u16> {
        let mut statuses = BTreeSet::from([400]);
        if self.access != Access::Open {
            statuses.extend([401, 403, 429, 500, 503]);
        }
        if self.segments().next().is_some() {
            statuses.insert(404);
        }
        if self.body.is_some() {
            statuses.extend([408, 413, 415, 422]);
        }
        statuses.extend(self.refuses);
        statuses
    }

    pub(crate) const fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }
}

/// The schema of a type.
pub(crate) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
