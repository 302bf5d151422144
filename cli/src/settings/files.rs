//! Reads settings that are in files of their own: URLs, and the certificate of the HTTP API.

use std::path::PathBuf;

use longshore_tls::ServerFiles;

use crate::failure::Failure;

/// A URL, given as it is or in a file. One of both is given, because the defaults have URLs.
pub(super) fn url(
    setting: &str,
    given: Option<String>,
    file: Option<PathBuf>,
) -> Result<String, Failure> {
    match (given, file) {
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "{setting}: {setting}_file is set as well; set one of them"
        ))),
        (url, None) => Ok(url.expect("defaults.toml has a value for it")),
        (None, Some(file)) => longshore_storage::read_setting(&file)
            .map_err(|reason| Failure::usage(format!("{setting}_file: {reason}"))),
    }
}

/// The files of the server of the HTTP API, if it speaks TLS.
pub(super) fn server_files(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<ServerFiles>, Failure> {
    let alone = |setting, missing| {
        Err(Failure::usage(format!("{setting}: is set without {missing}; set both or neither")))
    };
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(ServerFiles { cert, key, client_ca })),
        (Some(_), None) => alone("http_tls_cert", "http_tls_key"),
        (None, Some(_)) => alone("http_tls_key", "http_tls_cert"),
        (None, None) if client_ca.is_some() => Err(Failure::usage(
            "http_tls_client_ca: is set without http_tls_cert and http_tls_key; set all of them",
        )),
        (None, None) => Ok(None),
    }
}
