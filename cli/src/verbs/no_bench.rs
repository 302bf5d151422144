//! `longshore bench` in a program that is built without the benchmark: an error names the feature.

use std::ffi::OsString;

use clap::Args;

use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// Measure what a fleet achieves on this host (this program is built without it)
///
/// Build longshore with `--features bench` to get this command.
#[derive(Args)]
pub(crate) struct Bench {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

impl Bench {
    pub(crate) async fn perform(self, _: &Settings, _: &mut Output) -> Result<(), Failure> {
        Err(Failure::usage(
            "this program is built without the benchmark; build it with `--features bench`",
        ))
    }
}
