//! `longshore completions`: prints a completion script for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Command;
use crate::failure::Failure;
use crate::output::Output;

/// Print a completion script for a shell
#[derive(Args)]
pub(crate) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn perform(self, output: &mut Output) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Command::command(), "longshore", &mut script);
        output.text(&String::from_utf8_lossy(&script))
    }
}
