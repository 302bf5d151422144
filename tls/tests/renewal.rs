//! Certificates that change are used by the next connection, on both sides.

use std::io;
use std::time::Duration;

use longshore_test_servers::{Authority, CertificateFiles};
use longshore_tls::{Acceptor, CertificateProblem, ServerFiles, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Shakes hands, and passes a byte in both directions.
async fn meet(server: &Acceptor, client: &TlsFiles) -> io::Result<()> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (connected, accepted) = tokio::join!(
        async {
            let mut stream = longshore_tls::connect("localhost", near, client).await?;
            stream.write_all(b"x").await?;
            // With TLS 1.3, a server that refuses the client's certificate says so here.
            stream.read_u8().await
        },
        async {
            let mut stream = server.accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.shutdown().await
        }
    );
    connected?;
    accepted
}

fn server(own: &CertificateFiles, client_ca: Option<&Authority>) -> ServerFiles {
    let client_ca = client_ca.map(Authority::ca);
    ServerFiles { cert: own.cert.clone(), key: own.key.clone(), client_ca }
}

fn client(ca: &Authority, own: Option<&CertificateFiles>) -> TlsFiles {
    let (cert, key) = own.map(|own| (own.cert.clone(), own.key.clone())).unzip();
    TlsFiles { ca: Some(ca.ca()), cert, key }
}

#[track_caller]
fn problem(met: &io::Result<()>) -> CertificateProblem {
    let error = met.as_ref().expect_err("it fails");
    CertificateProblem::find(error).unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test(start_paused = true)]
async fn a_server_uses_the_new_certificate_after_a_second() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let own = old.issue("server", &["localhost"]);
    let acceptor = Acceptor::new(server(&own, None)).expect("the files can be used");
    meet(&acceptor, &client(&old, None)).await.expect("the old certificate is served");
    let next = new.issue("server", &["localhost"]);

    // Between the two files they don't belong together, and the old ones stay in force.
    std::fs::copy(&next.cert, &own.cert).expect("copied");
    tokio::time::advance(Duration::from_secs(1)).await;
    meet(&acceptor, &client(&old, None)).await.expect("the old certificate is served");
    std::fs::copy(&next.key, &own.key).expect("copied");
    tokio::time::advance(Duration::from_secs(1)).await;
    meet(&acceptor, &client(&new, None)).await.expect("the new certificate is served");
    let met = meet(&acceptor, &client(&old, None)).await;
    assert_eq!(problem(&met), CertificateProblem::UnknownAuthority);
    std::fs::remove_file(&own.key).expect("removed");
    tokio::time::advance(Duration::from_secs(1)).await;
    meet(&acceptor, &client(&new, None)).await.expect("the last certificate is served");
}

#[tokio::test]
async fn a_client_presents_what_is_in_its_files_now() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let own = ours.issue("server", &["localhost"]);
    let acceptor = Acceptor::new(server(&own, Some(&ours))).expect("the files can be used");
    let presented = theirs.issue("client", &[]);
    let files = client(&ours, Some(&presented));
    let met = meet(&acceptor, &files).await;
    assert!(matches!(problem(&met), CertificateProblem::Refused(_)), "{met:?}");
    presented.replace_by(&ours.issue("client", &[]));
    meet(&acceptor, &files).await.expect("the new certificate is presented");
    let met = meet(&acceptor, &client(&ours, None)).await;
    assert_eq!(problem(&met), CertificateProblem::Demanded);
    std::fs::remove_file(&presented.key).expect("removed");
    let met = meet(&acceptor, &files).await;
    assert!(matches!(problem(&met), CertificateProblem::File(_)), "{met:?}");
}

#[tokio::test]
async fn what_is_wrong_with_the_certificate_of_a_server_is_named() {
    let authority = Authority::new("ours");
    let trusting = client(&authority, None);
    let with = async |own: CertificateFiles| {
        let acceptor = Acceptor::new(server(&own, None)).expect("the files can be used");
        problem(&meet(&acceptor, &trusting).await).describe("localhost:1")
    };
    assert_eq!(
        with(authority.issue_expired("expired", &["localhost"])).await,
        "the certificate of localhost:1 has expired; renew it there"
    );
    let found = with(authority.issue("elsewhere", &["redis.example"])).await;
    assert!(found.contains("is for other names (redis.example)"), "{found}");
    let theirs = Authority::new("theirs");
    let unknown = theirs.issue("unknown", &["localhost"]);
    assert_eq!(
        with(unknown).await,
        "the certificate of localhost:1 was not signed by a trusted authority; set tls_ca to the \
         authority's certificate"
    );
}

#[test]
fn files_that_can_t_be_used_are_named_with_their_setting() {
    let authority = Authority::new("ours");
    let (one, two) = (authority.issue("one", &[]), authority.issue("two", &[]));
    let check = |files: TlsFiles, expected: &str| {
        assert_eq!(files.check().expect_err("it is refused").to_string(), expected);
    };
    let swapped = TlsFiles {
        cert: Some(one.cert.clone()),
        key: Some(two.key.clone()),
        ..TlsFiles::default()
    };
    let key = two.key.display();
    check(swapped, &format!("tls_key: {key}: does not belong to the certificate in tls_cert"));
    let no_key = TlsFiles {
        cert: Some(one.cert.clone()),
        key: Some(one.cert.clone()),
        ..TlsFiles::default()
    };
    let cert = one.cert.display();
    check(
        no_key,
        &format!(
            "tls_key: {cert}: holds no private key in PEM; use one that begins with \
             -----BEGIN PRIVATE KEY----- and has no password"
        ),
    );
    let folder = TlsFiles { ca: one.cert.parent().map(Into::into), ..TlsFiles::default() };
    let path = folder.ca.clone().expect("given");
    check(folder, &format!("tls_ca: {}: is a directory; name a file", path.display()));
    let bad = server(&CertificateFiles { cert: one.cert.clone(), key: two.key }, None);
    let error = Acceptor::new(bad).expect_err("they don't belong together").to_string();
    assert!(error.starts_with("http_tls_key: "), "{error}");
    client(&authority, Some(&one)).check().expect("these belong together");
}
