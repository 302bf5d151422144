//! TLS connections to RabbitMQ, Redis, an HTTPS endpoint and S3 trust the roots of `SSL_CERT_FILE`.
//!
//! A proxy of this file speaks TLS in front of servers that don't.

#[path = "cli/given.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod given;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use given::Given;
use longshore_test_servers::{Rabbit, Redis};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn certificate(name: &str) -> PathBuf {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tls");
    tls.join("tests/certificates").join(name)
}

/// Starts a TLS server on a free port that passes everything on to `port`, for the life of the
/// runtime, and gives its port. Its certificate is one for `localhost`.
async fn with_tls(port: u16) -> u16 {
    longshore_tls::install_crypto_provider();
    let chain = CertificateDer::from_pem_file(certificate("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![chain], key).expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut outside = acceptor.accept(stream).await?;
                let mut inside = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    own
}

/// The port at the end of a URL's authority.
fn port_of(url: &str) -> u16 {
    let (_, authority) = url.rsplit_once('@').or(url.split_once("://")).expect("a URL");
    let authority = authority.split('/').next().expect("there is a first part");
    authority.rsplit_once(':').expect("a port").1.parse().expect("a number")
}

/// Starts an HTTP server that knows one object and answers each POST with `"posted"`.
fn start_http() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _hung_up = answer(&mut stream);
        }
    });
    port
}

fn answer(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let body = if first.starts_with("POST") { "\"posted\"" } else { "" };
    let length = if body.is_empty() { 5 } else { body.len() };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"e\"\r\nConnection: close\r\n\
         Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n{body}"
    )
}

fn given(roots: &str) -> Given {
    Given::nothing()
        .variable("SSL_CERT_FILE", certificate(roots).to_str().expect("it is UTF-8"))
        .variable("LONGSHORE_NAMESPACE", "tls")
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_and_redis_are_reached_with_tls() {
    let (plain_amqp, plain_redis) = (Rabbit::shared().url(), Redis::shared().url());
    let amqp = with_tls(port_of(&plain_amqp)).await;
    let redis = with_tls(port_of(&plain_redis)).await;
    let amqp = plain_amqp
        .replace("amqp://", "amqps://")
        .replace(&format!("127.0.0.1:{}", port_of(&plain_amqp)), &format!("localhost:{amqp}"));
    let redis = format!("rediss://localhost:{redis}");
    let with = |roots| {
        given(roots).variable("LONGSHORE_AMQP_URL", &amqp).variable("LONGSHORE_REDIS_URL", &redis)
    };

    let left = with("ca.pem").longshore(&["doctor", "--json"]);
    let findings: Value = serde_json::from_str(&left.stdout).expect("JSON");
    let severity = |check: &str| {
        let list = findings.as_array().expect("a list");
        let found = list.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("{findings:#}"))["severity"].clone()
    };
    assert_eq!(severity("rabbitmq.login"), "ok", "{findings:#}");
    assert_eq!(severity("redis.reachable"), "ok", "{findings:#}");

    let left = with("other-ca.pem").longshore(&["doctor", "--json"]);
    assert_eq!(left.code, Some(3), "{left:?}");
    let unsigned = "was not signed by a trusted authority; set tls_ca";
    assert_eq!(left.stdout.matches(unsigned).count(), 2, "{left:?}");
    // One line of JSON, and no log line of the verifier before it.
    let left = with("other-ca.pem").longshore(&["list", "--json"]);
    let problem: Value = serde_json::from_str(&left.stderr).expect("JSON");
    assert_eq!(problem["kind"], "bad_certificate", "{problem:#}");
}

#[test]
fn an_https_endpoint_runs_a_subtask_of_an_object_that_is_read_over_https() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let port = runtime.block_on(with_tls(start_http()));
    let settings = format!("[task.post]\nhttp = \"https://localhost:{port}/\"\n");
    let with = |roots| {
        given(roots)
            .file("longshore.toml", &settings)
            .variable("AWS_ENDPOINT", &format!("https://localhost:{port}"))
            .variable("AWS_ACCESS_KEY_ID", "id")
            .variable("AWS_SECRET_ACCESS_KEY", "secret")
            .variable("AWS_REGION", "here")
    };
    let run = ["run", "--task", "post", "--files", "s3://harbour/a"];

    let left = with("ca.pem").longshore(&run);
    assert_eq!(left.code, Some(0), "{left:?}");
    assert!(left.stdout.contains("posted"), "{left:?}");
}
