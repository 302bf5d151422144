//! Which certificates of a TLS server `connect` accepts, and which it refuses.
//!
//! The client runs in a process of its own, because the environment of a process decides which root
//! certificates are the system's: `SSL_CERT_FILE`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use longshore_tls::TlsFiles;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const PING: &[u8] = b"ping";

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// Starts a server that sends back what it receives.
async fn start_server() -> SocketAddr {
    longshore_tls::install_crypto_provider();
    let chain = CertificateDer::from_pem_file(certificate("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![chain], key).expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut received = vec![0; PING.len()];
                stream.read_exact(&mut received).await?;
                stream.write_all(&received).await?;
                stream.shutdown().await
            });
        }
    });
    address
}

/// Runs `client` below in a process that trusts the certificates in `roots` and asks for `host`.
async fn run_client(roots: &str, host: &str) -> Output {
    let address = start_server().await;
    let mut command = Command::new(std::env::current_exe().expect("it is known"));
    command
        .args(["--exact", "client", "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", certificate(roots))
        .env_remove("SSL_CERT_DIR")
        .env("SERVER", address.to_string())
        .env("SERVER_NAME", host);
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.expect("no panic").expect("it starts")
}

#[tokio::test]
#[ignore = "the other tests run it in a process of its own"]
async fn client() {
    let address = std::env::var("SERVER").expect("given");
    let host = std::env::var("SERVER_NAME").expect("given");
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let mut stream = match longshore_tls::connect(&host, stream, &TlsFiles::default()).await {
        Ok(stream) => stream,
        Err(error) => panic!("{:?}: {error}", error.kind()),
    };
    stream.write_all(PING).await.expect("sent");
    let mut echo = vec![0; PING.len()];
    stream.read_exact(&mut echo).await.expect("received");
    assert_eq!(echo, PING);
}

#[track_caller]
fn accepts(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn refuses(output: &Output, reason: &str) {
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(reason), "{said}");
}

#[tokio::test]
async fn a_certificate_that_leads_to_a_system_root_is_accepted_for_its_names() {
    for host in ["localhost", "127.0.0.1", "::1", "[::1]"] {
        accepts(&run_client("ca.pem", host).await);
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    refuses(&run_client("other-ca.pem", "localhost").await, "UnknownIssuer");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    refuses(&run_client("ca.pem", "rabbit").await, "not valid for name \"rabbit\"");
}

#[tokio::test]
async fn a_host_that_is_no_name_is_refused() {
    refuses(&run_client("ca.pem", "no name").await, "InvalidInput");
}
