//! One's own certificates reach every connection to Redis: one server, sentinels, a cluster.

use std::time::Duration;

use longshore_ledger::redis::{Config, RedisLedger};
use longshore_ledger::{Admission, Error, Ledger, Topic};
use longshore_protocol::{ErrorKind, JobId};
use longshore_test_servers::{
    Authority, CertificateFiles, Redis, RedisCluster, RedisOptions, RedisSentinel,
};
use longshore_tls::TlsFiles;

fn files(ca: &Authority, own: Option<&CertificateFiles>) -> TlsFiles {
    let (cert, key) = own.map(|own| (own.cert.clone(), own.key.clone())).unzip();
    TlsFiles { ca: Some(ca.ca()), cert, key }
}

fn ledger(url: &str, tls: TlsFiles) -> RedisLedger {
    let config = Config { tls, ..Config::new(url, "certificates") };
    // Handshakes are slow without optimisation, on a machine that is busy.
    let patient = Config { connect_timeout: Duration::from_secs(10), ..config };
    RedisLedger::connect(patient).expect("the files can be used")
}

/// Uses each kind of connection, then fails with the wrong certificates.
async fn check(url: &str, authority: &Authority) {
    let client = authority.issue("client", &[]);
    let trusted = ledger(url, files(authority, Some(&client)));
    let job: JobId = "0190b0a2-0000-7000-8000-000000000001".parse().expect("an id");
    trusted.admit(&Admission::plain(job, 3)).await.expect("functions are loaded and called");
    trusted.events(Topic::Clients).await.expect("hints are followed");
    trusted.connection_watch().disconnected(&[]).await.expect("connections are watched");
    let found = trusted.separate().job(job).await.expect("read over a connection of its own");
    assert_eq!(found.expect("it was admitted").counts.total, 3);

    let refused = async |tls: TlsFiles, says: &str| {
        let ledger = ledger(url, tls);
        let errors = [
            ledger.now().await.expect_err("it is refused"),
            ledger.events(Topic::Clients).await.err().expect("it is refused"),
        ];
        for error in errors {
            let Error::Unavailable { kind: ErrorKind::BadCertificate, .. } = &error else {
                panic!("{error:?}");
            };
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains("start Redis"), "{text}");
        }
    };
    let unsigned =
        "was not signed by a trusted authority; set tls_ca to the authority's certificate";
    let other = Authority::new("another authority");
    refused(files(&other, Some(&client)), unsigned).await;
    // One that has the name of the right one, as after a change of its key.
    let same_name = Authority::new("the authority");
    refused(files(&same_name, Some(&client)), unsigned).await;
    let demanded = "demands a client certificate; set tls_cert and tls_key";
    refused(files(authority, None), demanded).await;
    let foreign = other.issue("client", &[]);
    refused(files(authority, Some(&foreign)), "refused the client certificate in tls_cert").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_is_reached_with_certificates_of_one_s_own() {
    let authority = Authority::new("the authority");
    let tls = Some(authority.server());
    let redis = Redis::start_with(&RedisOptions { tls, ..RedisOptions::default() });
    check(&format!("rediss://localhost:{}", redis.tls_port()), &authority).await;
}

#[tokio::test]
async fn a_server_without_tls_1_3_that_demands_a_certificate_is_told_from_one_that_is_away() {
    let authority = Authority::new("the authority");
    let (tls, lines) = (Some(authority.server()), vec!["tls-protocols TLSv1.2".into()]);
    let redis = Redis::start_with(&RedisOptions { tls, lines, ..RedisOptions::default() });
    let url = format!("rediss://localhost:{}", redis.tls_port());
    let client = authority.issue("client", &[]);
    ledger(&url, files(&authority, Some(&client))).now().await.expect("it is reached");
    let error = ledger(&url, files(&authority, None)).now().await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::BadCertificate);
    let text = error.to_string();
    assert!(text.contains("set tls_cert and tls_key"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_their_master_are_reached_with_certificates_of_one_s_own() {
    let authority = Authority::new("the authority");
    let sentinel = RedisSentinel::start_with_tls(&authority.server());
    check(&sentinel.tls_url(), &authority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_reached_with_certificates_of_one_s_own() {
    let authority = Authority::new("the authority");
    let cluster = RedisCluster::start_with(3, Some(&authority.server()));
    check(&cluster.tls_url(), &authority).await;
}

#[tokio::test]
async fn files_that_can_t_be_used_are_refused_before_anything_connects() {
    let refused = |tls: TlsFiles| {
        let config = Config { tls, ..Config::new("rediss://localhost:1", "certificates") };
        let error = RedisLedger::connect(config).err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::BadConfig);
        error.to_string()
    };
    let missing = TlsFiles { ca: Some("/none/ca.pem".into()), ..TlsFiles::default() };
    assert_eq!(refused(missing), "tls_ca: /none/ca.pem: no such file");
    let alone = TlsFiles { cert: Some("/none/a.pem".into()), ..TlsFiles::default() };
    assert_eq!(refused(alone), "tls_cert: is set without tls_key; set both or neither");
}
