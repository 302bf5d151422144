//! What commands say about a URL behind which no server of Longshore answers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use longshore_test_servers::{Rabbit, Redis, free_port};
use longshore_tests::{Fleet, Run};

use super::Stage;

/// A server that gives everyone the same answer.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = BufReader::new(stream.try_clone().expect("a handle")).lines();
            while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn what_is_no_server_of_longshore_is_named_with_what_to_check() {
    let fleet = Fleet::at("amqp://127.0.0.1:1", "redis://127.0.0.1:1");
    let list = |url: &str| fleet.longshore(&["--server", url, "list"]);
    #[track_caller]
    fn says(run: &Run, code: i32, text: &str) {
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(text) && run.stderr.lines().count() == 1, "{run:?}");
    }
    let port = free_port().expect("a port is free");
    let nobody = format!("http://127.0.0.1:{port}");
    let refused = list(&nobody);
    says(&refused, 3, &format!("error: {nobody} can't be reached: "));
    says(&refused, 3, "check the URL, and that `longshore api` or `longshore dev` serves there");
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    says(&list(&answering(html)), 2, "answers 200 OK with text/html, as no Longshore server does");
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    says(&list(&answering(missing)), 2, "answers 404 Not Found with no content type");
    let away = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n";
    says(&list(&answering(away)), 3, "answers 502 Bad Gateway");
    let moved = "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://example.org/\r\n\
                 Content-Length: 0\r\n\r\n";
    says(&list(&answering(moved)), 2, "redirects (308) to `https://example.org/`");
    let older = "HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n\
                 Content-Length: 87\r\n\r\n\
                 {\"kind\":\"not_found\",\"title\":\"not found\",\"detail\":\"no such path; GET /openapi.json\"}    ";
    says(&list(&answering(older)), 1, "has no GET /v1/clock: it is older than this program");
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n\
                Retry-After: 0\r\nContent-Length: 68\r\n\r\n\
                {\"kind\":\"unreachable\",\"title\":\"service unreachable\",\"detail\":\"away\"}";
    says(&list(&answering(busy)), 3, "away");
    says(&list("example.org"), 2, "server: not a URL");
    let prefix = list("http://127.0.0.1:1/longshore");
    says(&prefix, 3, "http://127.0.0.1:1/longshore can't be reached");
}

#[test]
fn a_path_in_the_url_of_a_server_is_kept() {
    let stage = Stage::start(Rabbit::shared(), Redis::shared());
    // No path leads to the API there, so its answer names the whole path.
    let wrong = stage.fleet.longshore(&["--server", &format!("{}/below", stage.url), "list"]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains(&format!(":{}/below has no GET /v1/clock", stage.port)));
}
