//! The HTTP API of a fleet of processes.
//!
//! `longshore api`, a scheduler with `http_listen`, tokens, and services that go away.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use longshore_test_servers::{Process, Rabbit, Redis, free_port, wait_until};
use longshore_tests::Fleet;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

/// A client of a server at a port of this machine.
struct Client {
    port: u16,
    token: Option<String>,
}

/// A status and a body.
type Answer = (u16, String);

impl Client {
    fn at(port: u16) -> Self {
        Self { port, token: None }
    }

    fn with(&self, token: &str) -> Self {
        Self { port: self.port, token: Some(token.to_owned()) }
    }

    /// `None` if nothing answers.
    fn call(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let (token, length) = (token.unwrap_or_default(), body.len());
        // HTTP/1.0: the body comes as it is, and ends with the connection.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{token}Content-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    #[track_caller]
    fn expect(&self, status: u16, method: &str, path: &str, body: &str) -> String {
        let (found, text) = self.call(method, path, body).expect("an answer");
        assert_eq!(found, status, "{method} {path}: {text}");
        text
    }

    fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let text = self.expect(200, method, path, body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn await_ready(&self) {
        wait_until("the server is ready", LONG, || {
            self.call("GET", "/readyz", "").is_some_and(|(status, _)| status == 200)
        });
    }
}

/// A fleet of a scheduler and a worker, and a server of the API at a port.
fn serve(rabbit: &Rabbit, redis: &Redis) -> (Fleet, Process, Client) {
    let mut fleet = Fleet::on(rabbit, redis);
    fleet.add_scheduler();
    fleet.add_worker(&["--slots", "2"]);
    fleet.await_workers(1);
    let port = free_port().expect("a port is free");
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{port}"));
    let server = Process::start(&fleet.command(&["api"]));
    let client = Client::at(port);
    client.await_ready();
    (fleet, server, client)
}

#[test]
fn a_job_is_submitted_followed_and_read_over_http() {
    let (fleet, _server, client) = serve(Rabbit::shared(), Redis::shared());
    let document = json!({
        "task": "sleep", "params": {"ms": 1}, "split": {"by": "range", "start": 0, "end": 3_000},
    });
    let submitted = client.expect(201, "POST", "/v1/jobs", &document.to_string());
    let submitted: Value = serde_json::from_str(&submitted).expect("JSON");
    let job = submitted["id"].as_str().expect("an id");
    let results = client.expect(200, "GET", &format!("/v1/jobs/{job}/results?follow=true"), "");
    let indices: Vec<u64> = results
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["index"].as_u64())
        .map(|index| index.expect("an index"))
        .collect();
    assert_eq!(indices, (0..3_000).collect::<Vec<_>>());
    let by_http = client.json("GET", &format!("/v1/jobs/{job}"), "");
    let by_command = fleet.status(job);
    assert_eq!(by_http, by_command, "one representation");
    let again = json!({"id": job, "task": "noop", "split": {"by": "items", "items": [1]}});
    client.expect(409, "POST", "/v1/jobs", &again.to_string());
    let listed = client.json("GET", "/v1/jobs?state=succeeded", "");
    assert_eq!(listed["jobs"][0]["id"], job);
    fleet.audit(job);
}

#[test]
fn tokens_are_made_used_and_revoked() {
    let (fleet, _server, client) = serve(Rabbit::shared(), Redis::shared());
    client.expect(200, "GET", "/v1/jobs", "");
    let make = |arguments: &[&str]| {
        let arguments: Vec<&str> =
            ["token", "create", "--json"].iter().chain(arguments).copied().collect();
        fleet.longshore(&arguments).json()
    };
    let admin = make(&["root", "--role", "admin"]);
    let of_web = make(&["web", "--role", "operator", "--tenant", "web", "--expires", "1h"]);
    let secret = |token: &Value| token["secret"].as_str().expect("a secret").to_owned();
    let [admin, web] = [client.with(&secret(&admin)), client.with(&secret(&of_web))];
    wait_until("a token is needed", LONG, || {
        client.call("GET", "/v1/jobs", "").is_some_and(|(status, _)| status == 401)
    });
    client.expect(401, "POST", "/v1/jobs", "{}");
    client.expect(200, "GET", "/healthz", "");

    let document = |tenant: &str| {
        json!({"task": "noop", "tenant": tenant, "split": {"by": "items", "items": [1]}})
            .to_string()
    };
    web.expect(201, "POST", "/v1/jobs", &document("web"));
    web.expect(403, "POST", "/v1/jobs", &document("billing"));
    let foreign = admin.expect(201, "POST", "/v1/jobs", &document("billing"));
    let foreign: Value = serde_json::from_str(&foreign).expect("JSON");
    let foreign = foreign["id"].as_str().expect("an id");
    web.expect(404, "GET", &format!("/v1/jobs/{foreign}"), "");
    web.expect(404, "POST", &format!("/v1/jobs/{foreign}/cancel"), "");
    web.expect(403, "GET", "/v1/nodes", "");
    assert_eq!(web.json("GET", "/v1/jobs", "")["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(admin.json("GET", "/v1/jobs", "")["jobs"].as_array().map(Vec::len), Some(2));

    let listed = fleet.longshore(&["token", "list"]).ok();
    assert!(listed.contains("web") && listed.contains("admin"), "{listed}");
    assert!(!listed.contains("longshore_"), "no secret is listed: {listed}");
    let redis = fleet.longshore(&["token", "list", "--json"]).json();
    assert!(redis.to_string().len() < 1_000 && redis[0].get("digest").is_none(), "{redis}");
    let id = of_web["id"].as_str().expect("an id");
    fleet.longshore(&["token", "revoke", id]).ok();
    assert_eq!(fleet.longshore(&["token", "revoke", id]).code, Some(4));
    wait_until("the token is refused", LONG, || {
        web.call("GET", "/v1/jobs", "").is_some_and(|(status, _)| status == 401)
    });

    let trail = admin.json("GET", "/v1/audit", "");
    let seen: Vec<(&str, &str, &str)> = trail["actions"]
        .as_array()
        .expect("actions")
        .iter()
        .map(|action| ["who", "action", "outcome"].map(|name| action[name].as_str().expect("text")))
        .map(|[who, action, outcome]| (who, action, outcome))
        .collect();
    for wanted in [
        ("web", "submit_job", "done"),
        ("web", "submit_job", "refused"),
        ("web", "cancel_job", "refused"),
        ("root", "submit_job", "done"),
    ] {
        assert!(seen.contains(&wanted), "{wanted:?} in {seen:?}");
    }
    let by_command = |action: &str| seen.iter().filter(|(_, what, _)| *what == action).count();
    assert_eq!((by_command("create_token"), by_command("revoke_token")), (2, 1), "{seen:?}");
}

#[test]
fn a_scheduler_serves_the_api_beside_its_metrics() {
    let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
    let port = free_port().expect("a port is free");
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{port}"));
    fleet.add_scheduler();
    let client = Client::at(port);
    client.await_ready();
    assert_eq!(client.json("GET", "/v1/jobs", "")["jobs"], json!([]));
    assert!(client.expect(200, "GET", "/metrics", "").contains("longshore_active_jobs"));
}

#[test]
fn other_machines_are_not_served_without_tls() {
    let mut fleet = Fleet::on(Rabbit::shared(), Redis::shared());
    let [port, other] = [(); 2].map(|()| free_port().expect("a port is free"));
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("0.0.0.0:{port}"));
    let refused = fleet.longshore(&["api"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("http_behind_proxy = true"), "{refused:?}");
    fleet.add_scheduler();
    let client = Client::at(port);
    client.await_ready();
    client.expect(403, "GET", "/v1/jobs", "");
    client.expect(200, "GET", "/metrics", "");
    fleet.set("LONGSHORE_HTTP_LISTEN", &format!("0.0.0.0:{other}"));
    fleet.set("LONGSHORE_HTTP_BEHIND_PROXY", "true");
    let _server = Process::start(&fleet.command(&["api"]));
    let client = Client::at(other);
    client.await_ready();
    client.expect(200, "GET", "/v1/jobs", "");
}

#[test]
fn a_server_whose_services_are_away_says_so_and_comes_back() {
    let (rabbit, mut redis) = (Rabbit::shared(), Redis::start());
    let (_fleet, _server, client) = serve(rabbit, &redis);
    redis.stop();
    let (status, text) = client.call("GET", "/readyz", "").expect("an answer");
    assert_eq!((status, text.contains("Redis")), (503, true), "{text}");
    client.expect(200, "GET", "/healthz", "");
    let (status, text) = client.call("GET", "/v1/jobs?limit=1", "").expect("an answer");
    assert_eq!((status, text.contains("127.0.0.1")), (503, false), "no address is told: {text}");
    redis.restart();
    client.await_ready();
    client.expect(200, "GET", "/v1/jobs", "");
}
