//! The server on a socket: what clients that keep no rules get, and that they cost others nothing.

use std::net::SocketAddr;

use longshore_api::{Exposure, ServerFiles};
use longshore_test_servers::Authority;
use longshore_tls::TlsFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::noop;
use crate::stage::{PATIENCE, Stage};

/// Serves the API of a stage at a free port.
async fn serve(stage: &Stage) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("an address");
    let api = stage.api();
    (address, tokio::spawn(async move { api.serve(listener).await }))
}

/// Sends bytes and reads until the server closes the connection.
async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn begins(answer: &str, status: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}

#[tokio::test]
async fn a_plain_client_is_served() {
    let stage = Stage::idle(Exposure::Loopback);
    let (address, _) = serve(&stage).await;
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = talk(address, get.as_bytes()).await;
    begins(&answer, "200");
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn header_bombs_and_nonsense_are_refused() {
    let stage = Stage::idle(Exposure::Loopback);
    let (address, _) = serve(&stage).await;
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    begins(&talk(address, long.as_bytes()).await, "431");
    let many: String = (0..500).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    begins(&talk(address, many.as_bytes()).await, "431");
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    let answer = talk(address, path.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    begins(&talk(address, b"nonsense\r\n\r\n").await, "400");
    begins(&talk(address, b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n").await, "400");
    let lies = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n{}";
    begins(&talk(address, lies.as_bytes()).await, "400");
    let both = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\
                Content-Length: 3\r\n\r\n{}";
    begins(&talk(address, both.as_bytes()).await, "400");
}

#[tokio::test]
async fn clients_that_send_too_slowly_are_dropped() {
    let stage = Stage::idle(Exposure::Loopback);
    let (address, _) = serve(&stage).await;
    for begun in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nX: y\r\n"] {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(begun.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
        let _ = read.await.expect("the connection is closed");
    }
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let slow = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{";
    stream.write_all(slow.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    let _ = read.await.expect("the connection is closed");
    begins(&String::from_utf8_lossy(&answer), "408");
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_up_no_other() {
    let stage = Stage::new();
    let path = stage.http().finish(&noop(200_000), "succeeded").await;
    let (address, _) = serve(&stage).await;
    let get = format!("GET {path}/results HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(get.as_bytes()).await.expect("it reads");
        idle.push(stream);
    }
    let close = get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answer = talk(address, close.as_bytes()).await;
    begins(&answer, "200");
    assert!(answer.contains("{\"index\":199999,\"result\":null}\n"), "the last result is there");
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_and_its_listener() {
    let stage = Stage::idle(Exposure::Loopback);
    let (address, task) = serve(&stage).await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let get = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(get.as_bytes()).await.expect("it reads");
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    stage.stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.expect("it ends").expect("without a panic");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = end.expect("the stream is closed");
    assert!(TcpStream::connect(address).await.is_err(), "nothing listens");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_dropped_and_holds_up_nobody() {
    let authority = Authority::new("the authority");
    let own = authority.issue("api", &["localhost"]);
    let files = ServerFiles { cert: own.cert, key: own.key, client_ca: None };
    let stage = Stage::with_tls(Exposure::Loopback, files);
    let (address, _) = serve(&stage).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // The first bytes of a handshake, and no more.
        stream.write_all(b"\x16\x03\x01").await.expect("sent");
        silent.push(stream);
    }
    let trusted = TlsFiles { ca: Some(authority.ca()), ..TlsFiles::default() };
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut stream = longshore_tls::connect("localhost", stream, &trusted).await.expect("secured");
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("received");
    begins(&answer, "200");
    for mut stream in silent {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        let _ = read.expect("the connection is closed");
    }
    // Without TLS there is no answer at all.
    assert_eq!(talk(address, get.as_bytes()).await.find("HTTP/1.1"), None);
}
