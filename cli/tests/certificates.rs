//! RabbitMQ, Redis and the HTTP API with certificates of one's own, good, wrong, expired, renewed.

#[path = "cli/given.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod given;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use given::Given;
use longshore_test_servers::{
    Authority, CertificateFiles, Process, Rabbit, RabbitOptions, Redis, RedisOptions, free_port,
    wait_until,
};
use longshore_tls::{Acceptor, CertificateProblem, ServerFiles, TlsFiles};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().expect("it is UTF-8")
}

/// The settings by which clients trust an authority and present a certificate.
fn trusting(given: Given, ca: &Path, own: Option<&CertificateFiles>) -> Given {
    let given = given.variable("LONGSHORE_TLS_CA", text(ca));
    let Some(own) = own else { return given };
    given
        .variable("LONGSHORE_TLS_CERT", text(&own.cert))
        .variable("LONGSHORE_TLS_KEY", text(&own.key))
}

/// The finding of a check of `longshore doctor`.
#[track_caller]
fn finding(given: &Given, check: &str) -> Option<String> {
    let left = given.longshore(&["doctor", "--json"]);
    let findings: Value = serde_json::from_str(&left.stdout).expect("JSON");
    let all = findings.as_array().expect("a list");
    let remedies = all.iter().filter_map(|finding| finding["remedy"].as_str());
    let starts = remedies
        .filter(|remedy| remedy.contains("start Redis") || remedy.contains("start RabbitMQ"));
    assert_eq!(starts.count(), 0, "{findings:#}");
    let found = all.iter().find(|finding| finding["check"] == check && finding["severity"] != "ok");
    found.map(|finding| {
        assert_eq!(left.code, Some(3), "{findings:#}");
        finding["found"].as_str().expect("text").to_owned()
    })
}

/// A request to the API over HTTPS.
struct Request<'a> {
    ca: &'a Path,
    own: Option<&'a CertificateFiles>,
    token: &'a str,
}

impl Request<'_> {
    /// Sends it with these arguments of `curl`; the body of a good answer.
    fn send(&self, arguments: &[&str]) -> Result<String, String> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--max-time", "20", "--cacert", text(self.ca)]);
        if let Some(own) = self.own {
            curl.args(["--cert", text(&own.cert), "--key", text(&own.key)]);
        }
        curl.arg("-H").arg(format!("Authorization: Bearer {}", self.token));
        let output = curl.args(arguments).output().expect("curl runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        Err(format!("{printed}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

#[test]
fn a_job_runs_where_every_server_demands_a_certificate() {
    let authority = Authority::new("the authority");
    let tls = Some(authority.server());
    let rabbit = Rabbit::start_with(&RabbitOptions { tls: tls.clone(), ..Default::default() });
    let redis = Redis::start_with(&RedisOptions { tls, ..RedisOptions::default() });
    let amqp = format!("amqps://guest:guest@localhost:{}/%2f", rabbit.tls_port());
    let redis = format!("rediss://localhost:{}", redis.tls_port());
    let client = authority.issue("client", &[]);
    let own = authority.issue("api", &["localhost"]);
    let port = free_port().expect("a port is free");
    let given = |client: Option<&CertificateFiles>| {
        let given = Given::nothing().file("amqp", &amqp).file("redis", format!("{redis}\n"));
        trusting(given, &authority.ca(), client)
            .variable("LONGSHORE_AMQP_URL_FILE", "amqp")
            .variable("LONGSHORE_REDIS_URL_FILE", "redis")
    };
    let fleet = given(Some(&client))
        .variable("LONGSHORE_HTTP_TLS_CERT", text(&own.cert))
        .variable("LONGSHORE_HTTP_TLS_KEY", text(&own.key))
        .variable("LONGSHORE_HTTP_TLS_CLIENT_CA", text(&authority.ca()));
    let left = fleet.longshore(&["token", "create", "test", "--role", "admin"]);
    assert_eq!(left.code, Some(0), "{left:?}");
    let token = left.stdout.split_whitespace().find(|word| word.starts_with("longshore_"));
    let token = token.expect("the secret is printed");
    let mut scheduler = fleet.command(&["scheduler"]);
    scheduler.current_dir(fleet.folder());
    scheduler.env("LONGSHORE_HTTP_LISTEN", format!("127.0.0.1:{port}"));
    // A process of a test runs in a folder of its own.
    for (name, file) in [("LONGSHORE_AMQP_URL_FILE", "amqp"), ("LONGSHORE_REDIS_URL_FILE", "redis")]
    {
        scheduler.env(name, fleet.folder().join(file));
    }
    let scheduler = Process::start(&scheduler);
    let mut worker = given(Some(&client)).command(&["worker", "--slots", "2"]);
    for (name, file) in [("LONGSHORE_AMQP_URL_FILE", "amqp"), ("LONGSHORE_REDIS_URL_FILE", "redis")]
    {
        worker.env(name, fleet.folder().join(file));
    }
    let worker = Process::start(&worker);

    let (ca, api) = (authority.ca(), format!("https://localhost:{port}"));
    let request = Request { ca: &ca, own: Some(&client), token };
    wait_until("the API is ready", LONG, || request.send(&[&format!("{api}/readyz")]).is_ok());
    let document = json!({"task": "noop", "split": {"by": "range", "start": 0, "end": 50}});
    let submit = ["--json", &document.to_string(), &format!("{api}/v1/jobs")];
    let job = request.send(&submit).unwrap_or_else(|e| {
        panic!("{e}\n{}\n{}", scheduler.tail(), worker.tail());
    });
    let job: Value = serde_json::from_str(&job).expect("JSON");
    let id = job["id"].as_str().expect("an id");
    let ended = request.send(&[&format!("{api}/v1/jobs/{id}/wait?timeout=15s")]).expect("it ends");
    let ended: Value = serde_json::from_str(&ended).expect("JSON");
    assert_eq!((&ended["state"], &ended["done"]), (&json!("succeeded"), &json!(50)), "{ended:#}");

    // The same without a client certificate.
    let stranger = Request { own: None, ..request };
    let refused = stranger.send(&[&format!("{api}/healthz")]).expect_err("it needs a certificate");
    assert!(refused.contains("certificate required"), "{refused}");
    let without = given(None);
    let demands = "demands a client certificate; set tls_cert and tls_key";
    for check in ["rabbitmq.certificate", "redis.certificate"] {
        let found = finding(&without, check).expect("a certificate is demanded");
        assert!(found.contains(demands), "{check}: {found}");
    }
}

/// Starts a TLS server in front of another one, whose connections end with `stop`.
async fn in_front_of(port: u16, files: &CertificateFiles, client_ca: Option<&Path>) -> Proxy {
    let CertificateFiles { cert, key } = files.clone();
    let files = ServerFiles { cert, key, client_ca: client_ca.map(Path::to_owned) };
    let acceptor = Arc::new(Acceptor::new(files).expect("the files can be used"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
    let cutting = Arc::clone(&cut);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, cut) =
                (Arc::clone(&acceptor), cutting.lock().expect("no panic").clone());
            tokio::spawn(async move {
                let passing = async {
                    let mut outside = acceptor.accept(stream).await?;
                    let mut inside = TcpStream::connect(("127.0.0.1", port)).await?;
                    copy_bidirectional(&mut outside, &mut inside).await
                };
                tokio::select! {
                    _ = passing => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    });
    Proxy { port: own, cut }
}

struct Proxy {
    port: u16,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Proxy {
    /// Closes all connections; new ones are accepted.
    fn cut(&self) {
        let mut cut = self.cut.lock().expect("no panic");
        std::mem::take(&mut *cut).cancel();
    }
}

fn amqp_url(port: u16) -> String {
    format!("amqps://guest:guest@localhost:{port}/%2f")
}

/// Asserts what is said of a server with this certificate by those who trust `ca`, through
/// RabbitMQ, Redis and the HTTP API.
async fn says(ca: &Authority, served: &CertificateFiles, expected: &str) {
    let amqp = in_front_of(Rabbit::shared().port(), served, None).await.port;
    let redis = in_front_of(Redis::shared().port(), served, None).await.port;
    let given = trusting(Given::nothing(), &ca.ca(), None)
        .variable("LONGSHORE_AMQP_URL", &amqp_url(amqp))
        .variable("LONGSHORE_REDIS_URL", &format!("rediss://localhost:{redis}"));
    for (check, port) in [("rabbitmq.certificate", amqp), ("redis.certificate", redis)] {
        let found = tokio::task::block_in_place(|| finding(&given, check));
        let found = found.unwrap_or_else(|| panic!("{check} is not ok"));
        let server = format!("localhost:{port}");
        let expected = format!("the certificate of {server} {expected}");
        assert!(found.contains(&expected), "{check}: {found}");
    }
    // A command fails with the same text, and with the exit code of a service that can't be used.
    let left = tokio::task::block_in_place(|| given.longshore(&["list", "--json"]));
    assert_eq!(left.code, Some(3), "{left:?}");
    let problem: Value = serde_json::from_str(&left.stderr).expect("JSON");
    assert_eq!(problem["kind"], "bad_certificate", "{problem:#}");

    let http = free_port().expect("a port is free");
    let given = Given::nothing()
        .variable("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{http}"))
        .variable("LONGSHORE_HTTP_TLS_CERT", text(&served.cert))
        .variable("LONGSHORE_HTTP_TLS_KEY", text(&served.key));
    let server = Process::start(&given.command(&["dev", "--serve"]));
    let files = TlsFiles { ca: Some(ca.ca()), ..TlsFiles::default() };
    tokio::task::block_in_place(|| {
        wait_until("the API listens", LONG, || {
            std::net::TcpStream::connect(("127.0.0.1", http)).is_ok()
        });
    });
    let stream = TcpStream::connect(("127.0.0.1", http)).await.expect("it listens");
    let error = longshore_tls::connect("localhost", stream, &files).await;
    let error = error.expect_err(&server.tail());
    let problem = CertificateProblem::find(&error).unwrap_or_else(|| panic!("{error:?}"));
    let found = problem.describe(&format!("localhost:{http}"));
    assert_eq!(found, format!("the certificate of localhost:{http} {expected}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_in_a_certificate_is_named_with_what_to_do() {
    let (authority, other) = (Authority::new("the authority"), Authority::new("another one"));
    let good = authority.issue("good", &["localhost"]);
    let unsigned =
        "was not signed by a trusted authority; set tls_ca to the authority's certificate";
    says(&other, &good, unsigned).await;
    let expired = authority.issue_expired("expired", &["localhost"]);
    says(&authority, &expired, "has expired; renew it there").await;
    let elsewhere = authority.issue("elsewhere", &["rabbit.example"]);
    let names = "is for other names (rabbit.example); use one of them in the URL";
    says(&authority, &elsewhere, names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_are_taken_up_without_a_restart() {
    let (old, new) = (Authority::new("the authority"), Authority::new("its successor"));
    // The files whose contents are replaced.
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    let at = |name: &str| CertificateFiles {
        cert: folder.path().join(format!("{name}.pem")),
        key: folder.path().join(format!("{name}.key")),
    };
    let (served, presented) = (at("server"), at("client"));
    let issue = |authority: &Authority| {
        std::fs::copy(authority.ca(), &ca).expect("copied");
        served.replace_by(&authority.issue("server", &["localhost"]));
        presented.replace_by(&authority.issue("client", &[]));
    };
    issue(&old);
    let amqp = in_front_of(Rabbit::shared().port(), &served, Some(&ca)).await;
    let redis = in_front_of(Redis::shared().port(), &served, Some(&ca)).await;
    let port = free_port().expect("a port is free");
    let given = trusting(Given::nothing(), &ca, Some(&presented))
        .variable("LONGSHORE_NAMESPACE", "renewed")
        .variable("LONGSHORE_AMQP_URL", &amqp_url(amqp.port))
        .variable("LONGSHORE_REDIS_URL", &format!("rediss://localhost:{}", redis.port))
        .variable("LONGSHORE_HTTP_LISTEN", &format!("127.0.0.1:{port}"))
        .variable("LONGSHORE_HTTP_TLS_CERT", text(&served.cert))
        .variable("LONGSHORE_HTTP_TLS_KEY", text(&served.key));
    let server = Process::start(&given.command(&["api"]));
    let (old_ca, new_ca) = (old.ca(), new.ca());
    let is_ready = |ca: &Path| {
        let request = Request { ca, own: None, token: "" };
        request.send(&[&format!("https://localhost:{port}/readyz")]).is_ok()
    };
    tokio::task::block_in_place(|| {
        wait_until("the API is ready", LONG, || is_ready(&old_ca));
        assert!(!is_ready(&new_ca), "only the old authority has signed");
        issue(&new);
        // Connections from before stay; their successors are all made with the new files.
        wait_until("the API has the new certificate", LONG, || is_ready(&new_ca));
        let begun = std::time::Instant::now();
        wait_until("RabbitMQ and Redis are reached with the new certificates", LONG, || {
            // The servers read their files once a second, so some connections meet the old ones.
            let is_settled = begun.elapsed() > Duration::from_secs(2);
            if !is_settled {
                amqp.cut();
                redis.cut();
            }
            is_settled && is_ready(&new_ca)
        });
        assert!(!is_ready(&old_ca), "the new authority has signed alone");
        assert!(server.is_running(), "{}", server.tail());
    });
}

#[test]
fn an_api_for_other_machines_needs_tls_and_a_token() {
    let authority = Authority::new("the authority");
    let own = authority.issue("api", &["localhost", "127.0.0.1"]);
    let port = free_port().expect("a port is free");
    let plain = || {
        Given::nothing()
            .variable("LONGSHORE_NAMESPACE", "exposed")
            .variable("LONGSHORE_AMQP_URL", &Rabbit::shared().url())
            .variable("LONGSHORE_REDIS_URL", &Redis::shared().url())
            .variable("LONGSHORE_HTTP_LISTEN", &format!("0.0.0.0:{port}"))
    };
    let given = plain()
        .variable("LONGSHORE_HTTP_TLS_CERT", text(&own.cert))
        .variable("LONGSHORE_HTTP_TLS_KEY", text(&own.key));
    let refuses = |given: &Given, says: &str| {
        let left = given.longshore(&["api"]);
        assert_eq!(left.code, Some(2), "{left:?}");
        assert!(left.stderr.contains(says), "{left:?}");
    };
    refuses(&plain(), "set http_tls_cert and http_tls_key");
    refuses(&given, "make the first one with `longshore token create NAME --role admin`");

    // A scheduler starts all the same, and answers nobody.
    let ca = authority.ca();
    let jobs = format!("https://localhost:{port}/v1/jobs");
    let stranger = Request { ca: &ca, own: None, token: "" };
    let scheduler = Process::start(&given.command(&["scheduler"]));
    wait_until("the scheduler serves", LONG, || {
        stranger.send(&[&jobs]).is_err_and(|refused| refused.contains("\"status\":401"))
    });
    drop(scheduler);

    let left = given.longshore(&["token", "create", "test", "--role", "viewer"]);
    let token = left.stdout.split_whitespace().find(|word| word.starts_with("longshore_"));
    let token = token.expect("the secret is printed");
    let server = Process::start(&given.command(&["api"]));
    let known = Request { ca: &ca, own: None, token };
    wait_until("the API serves", LONG, || known.send(&[&jobs]).is_ok());
    let refused = stranger.send(&[&jobs]).expect_err("it needs a token");
    assert!(refused.contains("\"status\":401"), "{refused}");
    assert!(server.is_running(), "{}", server.tail());
}

#[test]
fn files_that_can_t_be_used_are_bad_settings() {
    let authority = Authority::new("the authority");
    let (one, two) = (authority.issue("one", &[]), authority.issue("two", &[]));
    let check = |variables: &[(&str, &str)], expected: &str| {
        let mut given = Given::nothing();
        for (name, value) in variables {
            given = given.variable(name, value);
        }
        let left = given.longshore(&["list", "--json"]);
        assert_eq!(left.code, Some(2), "{left:?}");
        let problem: Value = serde_json::from_str(&left.stderr).expect("JSON");
        assert_eq!(problem["kind"], "bad_config", "{problem:#}");
        assert_eq!(problem["detail"], expected);
        assert!(!left.stderr.contains("secret"), "{left:?}");
    };
    let (cert, key) = (text(&one.cert), text(&one.key));
    check(&[("LONGSHORE_TLS_CA", "/none")], "tls_ca: /none: no such file");
    check(
        &[("LONGSHORE_TLS_CA", key)],
        &format!(
            "tls_ca: {key}: holds no certificate in PEM; use one that begins with \
             -----BEGIN CERTIFICATE-----"
        ),
    );
    check(&[("LONGSHORE_TLS_CERT", cert)], "tls_cert: is set without tls_key; set both or neither");
    let foreign = text(&two.key);
    check(
        &[("LONGSHORE_TLS_CERT", cert), ("LONGSHORE_TLS_KEY", foreign)],
        &format!("tls_key: {foreign}: does not belong to the certificate in tls_cert"),
    );
    check(
        &[("LONGSHORE_HTTP_TLS_CERT", cert)],
        "http_tls_cert: is set without http_tls_key; set both or neither",
    );
    check(
        &[("LONGSHORE_HTTP_TLS_CLIENT_CA", cert)],
        "http_tls_client_ca: is set without http_tls_cert and http_tls_key; set all of them",
    );
    check(
        &[("LONGSHORE_REDIS_URL", "redis://u:secret@r"), ("LONGSHORE_REDIS_URL_FILE", cert)],
        "redis_url: redis_url_file is set as well; set one of them",
    );
    check(&[("LONGSHORE_AMQP_URL_FILE", "/none")], "amqp_url_file: /none: no such file");
    check(
        &[("LONGSHORE_REDIS_URL_FILE", key)],
        &format!("redis_url_file: {key}: has several lines; write the value alone in it"),
    );
}
