//! A request of the API, before it is sent.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use url::Url;

/// The time for an answer that a server gives at once; it gives up after 30 s itself.
const WITHIN: Duration = Duration::from_secs(40);

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    pub(super) body: Option<Bytes>,
    /// The longest time until the answer, or of a stream its beginning.
    pub(super) within: Duration,
    /// Whether the request may be made again if its outcome is unknown.
    pub(super) is_repeatable: bool,
}

impl Request {
    fn new(method: Method, path: &[&(dyn Display + Sync)]) -> Self {
        let path = ["v1".to_owned()].into_iter().chain(path.iter().map(ToString::to_string));
        let is_repeatable = method == Method::GET;
        let (path, query) = (path.collect(), Vec::new());
        Self { method, path, query, body: None, within: WITHIN, is_repeatable }
    }

    /// Reads `/v1/` and this path.
    pub(super) fn get(path: &[&(dyn Display + Sync)]) -> Self {
        Self::new(Method::GET, path)
    }

    /// Changes something.
    pub(super) fn post(path: &[&(dyn Display + Sync)]) -> Self {
        Self::new(Method::POST, path)
    }

    /// Deletes something.
    pub(super) fn delete(path: &[&(dyn Display + Sync)]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// With a parameter.
    pub(super) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// With a parameter, if there is a value.
    pub(super) fn with_some(self, name: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With this JSON as its body.
    pub(super) fn json(self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("requests are JSON");
        Self { body: Some(body.into()), ..self }
    }

    /// With this time for the answer.
    pub(super) fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The whole URL for a server at `base`, whose path comes first.
    pub(super) fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&self.path);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        url
    }

    /// The method and the path, for people.
    pub(super) fn what(&self) -> String {
        format!("{} /{}", self.method, self.path.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_added_to_the_path_of_the_server_and_values_are_escaped() {
        let request = Request::post(&[&"nodes", &"a/b c?", &"drain"]).with("label", "a=b&c");
        let at = |base: &str| request.url(&base.parse().expect("a URL")).to_string();
        let rest = "v1/nodes/a%2Fb%20c%3F/drain?label=a%3Db%26c";
        assert_eq!(at("http://h"), format!("http://h/{rest}"));
        assert_eq!(at("https://h:1/longshore"), format!("https://h:1/longshore/{rest}"));
        assert_eq!(at("https://h/longshore/"), format!("https://h/longshore/{rest}"));
    }
}
