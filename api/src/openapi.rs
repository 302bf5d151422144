//! Makes the OpenAPI 3.1 document.
//!
//! It comes from the table of endpoints and from the schemas of the types that requests and answers
//! have; `docs/adr/0047` says why.

use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::endpoint::{Access, Endpoint, MakeSchema, Scope, of};
use crate::endpoints::endpoints;
use crate::refusal::{HttpProblem, PROBLEM_JSON};

/// The document as JSON with line breaks, kept as `docs/openapi.json`.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&build()).expect("the document is JSON");
        text.push('\n');
        text
    });
    &DOCUMENT
}

fn build() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for endpoint in endpoints() {
        let methods = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        let method = endpoint.verb.as_str().to_ascii_lowercase();
        methods[method] = operation(endpoint, &mut generator);
    }
    let problem = json!({
        "description": "The request was not carried out: problem details (RFC 9457)",
        "content": content(&[(PROBLEM_JSON, of::<HttpProblem<'static>>)], &mut generator),
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Longshore",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": { "Problem": problem },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, made by `longshore token create`. On a loopback \
                                    address a fleet without tokens needs none.",
                },
            },
        },
    })
}

const DESCRIPTION: &str = "Runs large jobs on a fleet of workers. Every answer has the header \
    `x-request-id`. Requests that are not carried out are answered with problem details.";

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let segment = |name: &str| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": format!("The {name}'s id"),
            "schema": match name {
                "job" => json!({ "type": "string", "format": "uuid" }),
                _ => json!({ "type": "string" }),
            },
        })
    };
    let mut parameters: Vec<Value> = endpoint.segments().map(segment).collect();
    for parameter in endpoint.query() {
        let schema = (parameter.schema)(generator);
        let schema = match parameter.may_repeat {
            true => json!({ "type": "array", "items": schema }),
            false => json!(schema),
        };
        parameters.push(json!({
            "name": parameter.name,
            "in": "query",
            "required": false,
            "description": parameter.description,
            "schema": schema,
        }));
    }
    let mut responses = Map::new();
    for answer in endpoint.answers {
        let mut described = json!({ "description": answer.description });
        if !answer.content.is_empty() {
            described["content"] = content(answer.content, generator);
        }
        responses.insert(answer.status.to_string(), described);
    }
    for status in endpoint.problems() {
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        responses.insert(status.to_string(), problem);
    }
    let mut operation = json!({
        "operationId": endpoint.id,
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = endpoint.body {
        operation["requestBody"] =
            json!({ "required": body.is_required, "content": content(body.content, generator) });
    }
    if let Access::Needs(role, scope) = endpoint.access {
        let bound = match scope {
            Scope::Tenant => "A token that is bound to tenants reaches theirs alone.",
            Scope::Fleet => "A token that is bound to tenants is refused.",
        };
        operation["description"] = json!(format!("Needs the role `{role}`. {bound}"));
        operation["security"] = json!([{ "token": [] }]);
        operation["x-longshore-role"] = json!(role);
    }
    operation
}

fn content(kinds: &[(&str, MakeSchema)], generator: &mut SchemaGenerator) -> Value {
    let kinds = kinds.iter().map(|(kind, make)| {
        let schema = make(generator);
        ((*kind).to_owned(), json!({ "schema": schema }))
    });
    Value::Object(kinds.collect())
}
