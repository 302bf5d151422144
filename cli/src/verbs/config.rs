//! `longshore config`: prints the built-in defaults of all settings with comments, for a new file.

use clap::Args;

use crate::failure::Failure;
use crate::output::Output;
use crate::settings::DEFAULTS;

/// Print all settings with their defaults and comments, as a template for longshore.toml
#[derive(Args)]
pub(crate) struct Config {}

impl Config {
    pub(crate) fn perform(self, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() {
            let defaults: toml::Table = toml::from_str(DEFAULTS).map_err(Failure::other)?;
            return output.json(&defaults);
        }
        output.text(DEFAULTS)
    }
}
