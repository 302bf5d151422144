//! Decides how the commands of a client reach jobs: through a server, or straight in the services.

use clap::Args;
use longshore_producer::check_server_url;
use longshore_protocol::ApiSecret;

use super::{Flags, Layer};
use crate::failure::Failure;

/// What is said of a text that is not an API token. The text itself may be another secret.
pub(crate) const NO_TOKEN: &str =
    "not an API token; use what `longshore token create` printed: longshore_ and 64 hex digits";

/// The flag that names a server.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ServerFlag {
    /// The URL of a server of the HTTP API, to use in place of RabbitMQ and Redis
    /// [env: LONGSHORE_SERVER]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        conflicts_with_all = ["amqp_url", "redis_url"],
        help_heading = "Settings"
    )]
    server: Option<String>,
}

impl ServerFlag {
    pub(super) fn url(&self) -> Option<&String> {
        self.server.as_ref()
    }
}

/// How the commands of a client reach jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Through the server at this URL.
    Server(String),
    /// Straight in RabbitMQ and Redis, which some source names.
    Services,
    /// Nothing says how: through a `longshore dev` of this user, or else the default services.
    Unsaid,
}

impl Reach {
    /// Checks the URL of a server.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Server(url) => check_server_url(url).map_err(Failure::usage),
            Self::Services | Self::Unsaid => Ok(()),
        }
    }
}

/// What the first source says that says anything; `layers` begins with the one that wins.
pub(super) fn of(layers: &[Layer]) -> Reach {
    layers.iter().find_map(of_layer).unwrap_or(Reach::Unsaid)
}

fn of_layer(layer: &Layer) -> Option<Reach> {
    if let Some(url) = &layer.server {
        return Some(Reach::Server(url.clone()));
    }
    let names = [&layer.amqp_url, &layer.redis_url, &layer.namespace];
    let files = [&layer.amqp_url_file, &layer.redis_url_file];
    let is_said = names.into_iter().any(Option::is_some) || files.into_iter().any(Option::is_some);
    is_said.then_some(Reach::Services)
}

/// Reads an API token from the environment.
pub(super) fn token(text: &str) -> Result<ApiSecret, Failure> {
    let token = ApiSecret::parse(text.trim());
    token.ok_or_else(|| Failure::usage(format_args!("LONGSHORE_TOKEN: {NO_TOKEN}")))
}

impl Flags {
    /// Refuses `--server` for a verb that is not a client's.
    pub(crate) fn check_no_server(&self, verb: &str) -> Result<(), Failure> {
        match self.server.url() {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format_args!(
                "--server is for commands that submit, read and control jobs; `longshore {verb}` \
                 does its own work, so leave it out"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> Layer {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_first_source_that_names_a_server_or_services_says_how_jobs_are_reached() {
        let of = |texts: &[&str]| of(&texts.iter().map(|text| layer(text)).collect::<Vec<_>>());
        let server = |url: &str| Reach::Server(url.to_owned());
        let [services, both] =
            ["redis_url = \"redis://r\"", "server = \"http://f\"\nredis_url = \"redis://r\""];
        assert_eq!(of(&["", "slots = 2"]), Reach::Unsaid);
        assert_eq!(of(&["", services, both]), Reach::Services);
        assert_eq!(of(&["slots = 2", both]), server("http://f"), "a server wins within a source");
        assert_eq!(of(&["server = \"http://e\"", services]), server("http://e"));
        assert_eq!(of(&["amqp_url_file = \"/f\"", both]), Reach::Services);
        assert_eq!(of(&["namespace = \"n\"", both]), Reach::Services);
    }

    #[test]
    fn a_token_is_never_read_from_the_settings_nor_shown() {
        let secret = ApiSecret::from_bytes([7; 32]);
        assert_eq!(token(&format!(" {}\n", secret.as_str())).unwrap(), secret);
        let error = token("hunter2").unwrap_err().to_string();
        assert!(error.starts_with("LONGSHORE_TOKEN: ") && !error.contains("hunter2"), "{error}");
        let in_file = toml::from_str::<Layer>(&format!("token = \"{}\"", secret.as_str()));
        assert!(in_file.unwrap_err().message().contains("unknown field `token`"));
        let layer = Layer { token: Some(secret.clone()), ..Layer::default() };
        assert!(!format!("{layer:?}").contains(secret.as_str()));
    }
}
