//! The fuzz targets of what an operator writes: tasks, and addresses, which hide their password.

use longshore_worker::TaskSpec;

/// The maximum length of an error, longer than any sensible address.
const LONGEST_ERROR: usize = 1_000;

/// The password, which no error may contain.
const SECRET: &str = "s3cr3t";

/// Neither an address nor its error shows the password.
pub(crate) fn addresses(bytes: &[u8]) {
    let Ok(url) = std::str::from_utf8(bytes) else { return };
    let is_password = holds_secret(url);
    for shown in [
        longshore_broker::rabbit::fuzzing::address(url).map_err(|error| error.to_string()),
        longshore_ledger::redis::fuzzing::address(url).map_err(|error| error.to_string()),
    ] {
        if let Err(error) = &shown {
            super::is_readable(error, LONGEST_ERROR.max(2 * url.len()));
        }
        let text = shown.unwrap_or_else(|error| error);
        assert!(!(is_password && text.contains(SECRET)), "{url:?} is shown as {text:?}");
    }
}

/// Whether only the password of `scheme://user:password@…`, escaped correctly or not, contains the
/// secret.
fn holds_secret(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let Some((user, rest)) = rest.split_once(':') else { return false };
    let Some((password, _)) = rest.rsplit_once('@') else { return false };
    let is_user = !user.contains(['/', '?', '#', '@', ',', '[']) && !scheme.contains("unix");
    is_user && password.contains(SECRET) && url.matches(SECRET).count() == 1
}

/// A task in the settings of a worker.
pub(crate) fn task_spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = toml::from_str::<TaskSpec>(text) {
        assert!(!error.message().is_empty());
        if let Some(span) = error.span() {
            assert!(text.get(..span.start.min(text.len())).is_some(), "a place within a character");
        }
    }
}
