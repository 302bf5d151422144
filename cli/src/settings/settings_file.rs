//! Reads the layer of settings that a TOML file gives.

use std::path::{Path, PathBuf};

use super::Layer;
use crate::failure::Failure;

/// The file that is read if it exists and no other is named.
const USUAL_FILE: &str = "longshore.toml";

/// The file that was read, if there is one, and its layer. Only a file that was named has to exist.
pub(super) fn read_file(named: Option<&Path>) -> Result<(Option<PathBuf>, Layer), Failure> {
    let path = named.unwrap_or(Path::new(USUAL_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((Some(path.to_owned()), parse(&text, &path.display().to_string())?)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok((None, Layer::default()))
        }
        Err(error) => Err(Failure::unreadable(path, &error)),
    }
}

/// Reads TOML; an error names the file, the line and the column.
pub(super) fn parse(text: &str, name: &str) -> Result<Layer, Failure> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = &text[..error.span().map_or(0, |span| span.start).min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Failure::usage(format!("{name}:{line}:{column}: {message}"))
    })
}
