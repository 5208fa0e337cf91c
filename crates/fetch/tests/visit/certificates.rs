//! Certificates that are not trusted are named in words with the remedy, and those of a source are trusted exactly.

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use fetch::{FailureClass, FetchReport, RequestOptions, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PublicKeyData as _, SigningKey as _, date_time_ymd,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};
use tokio_rustls::rustls::{
    self, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::{
    NOW_MS, class, failure, full,
    guard::scripted,
    policy,
    tls::{Authority, authority, certificate, serve, serve_chain, serve_with, url, visitor},
    visit_with,
};

/// The end of the message of a visit that failed for its certificate.
fn why(visit: &FetchReport) -> String {
    let failure = failure(visit);
    assert_eq!(failure.class, FailureClass::Tls, "{}", failure.message);
    let start = "no trustworthy TLS session with feeds.example: ";
    failure.message.strip_prefix(start).unwrap_or_else(|| panic!("{}", failure.message)).to_owned()
}

async fn visit(visitor: &Visitor, address: SocketAddr) -> FetchReport {
    visit_with(visitor, &url(address), None, None).await
}

/// A visit to a source with its own `tls_ca_file`.
async fn visit_trusting(pem: &str, address: SocketAddr) -> FetchReport {
    visit_trusting_at(NOW_MS, pem, address).await
}

async fn visit_trusting_at(now_ms: i64, pem: &str, address: SocketAddr) -> FetchReport {
    let resolver = scripted(vec![Ok(vec!["127.0.0.1".parse().unwrap()])]).1;
    let visitor = Visitor::with_resolver(policy(), resolver).unwrap();
    let options = RequestOptions::default().with_authorities(pem.to_owned());
    let url = FeedUrl::try_new(&url(address)).unwrap();
    let request = VisitRequest::new(&url, Timestamp::from_millis(now_ms));
    visitor.visit(&VisitRequest { options: Some(&options), ..request }).await
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn pem(der: &CertificateDer<'_>) -> String {
    use std::fmt::Write as _;
    let (mut text, alphabet) =
        (String::new(), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    for chunk in der.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let letter = char::from(alphabet[(bits >> (18 - 6 * n) & 63) as usize]);
            write!(text, "{}", if n <= chunk.len() { letter } else { '=' }).unwrap();
        }
    }
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn a_missing_intermediate_is_named_with_its_issuer_and_cured_by_sending_or_trusting_it() {
    let root = CertifiedIssuer::self_signed(named("The root"), KeyPair::generate().unwrap()).unwrap();
    let middle =
        CertifiedIssuer::signed_by(named("The middle"), KeyPair::generate().unwrap(), &root).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = certificate("feeds.example").signed_by(&key, &middle).unwrap().der().clone();
    let (middle_der, root_der) = (middle.der().clone(), root.der().clone());

    let visitor = visitor(&root);
    let whole = vec![leaf.clone(), middle_der.clone()];
    let address = serve_chain(whole, &key, Duration::ZERO).await;
    full(visit(&visitor, address).await);
    for incomplete in [vec![leaf.clone()], vec![leaf.clone(), root_der.clone()]] {
        let address = serve_chain(incomplete, &key, Duration::ZERO).await;
        assert_eq!(
            why(&visit(&visitor, address).await),
            "its certificate comes from The middle, whose own it does not send; if that is an intermediate authority, the \
             operator of the server must add it; if it is a private one, put its certificate into tls_ca_file of the source"
        );
        full(visit_trusting(&middle.pem(), address).await);
        full(visit_trusting(&pem(&leaf), address).await);
    }
}

#[tokio::test]
async fn an_unknown_authority_is_named() {
    let (trusted, root) = (
        authority(),
        CertifiedIssuer::self_signed(named("Root of Ex\u{202e}ample"), KeyPair::generate().unwrap()).unwrap(),
    );
    let key = KeyPair::generate().unwrap();
    let leaf = certificate("feeds.example").signed_by(&key, &root).unwrap().der().clone();
    let address = serve_chain(vec![leaf, root.der().clone()], &key, Duration::ZERO).await;
    let why = why(&visit(&visitor(&trusted), address).await);
    assert!(why.starts_with("its certificate comes from Root of Ex"), "{why}");
    assert!(why.contains("which is not a trusted authority") && !why.contains('\u{202e}'), "{why}");
    full(visit_trusting(&root.pem(), address).await);
}

#[tokio::test]
async fn an_unknown_authority_is_the_issuer_of_the_last_certificate_that_was_sent() {
    let root = CertifiedIssuer::self_signed(named("The root"), KeyPair::generate().unwrap()).unwrap();
    let middle =
        CertifiedIssuer::signed_by(named("The middle"), KeyPair::generate().unwrap(), &root).unwrap();
    let key = KeyPair::generate().unwrap();
    let trusted = visitor(&authority());
    let unknown = "its certificate comes from The root, which is not a trusted authority; to trust it, put the certificate \
                   of this authority into tls_ca_file of the source";
    let besides = "; besides, it is for nas.local and no other name: correct the address, or put the certificate of the \
                   server itself into tls_ca_file";
    for (name, more) in [("feeds.example", ""), ("nas.local", besides)] {
        let leaf = certificate(name).signed_by(&key, &middle).unwrap().der().clone();
        let (middle_der, root_der) = (middle.der().clone(), root.der().clone());
        for chain in [vec![leaf.clone(), middle_der.clone()], vec![leaf.clone(), middle_der, root_der]] {
            let address = serve_chain(chain, &key, Duration::ZERO).await;
            assert_eq!(why(&visit(&trusted, address).await), format!("{unknown}{more}"));
            full(visit_trusting(&pem(&leaf), address).await);
            if more.is_empty() {
                full(visit_trusting(&root.pem(), address).await);
            }
        }
        let address = serve_chain(vec![leaf], &key, Duration::ZERO).await;
        let alone = why(&visit(&trusted, address).await);
        assert!(
            alone.starts_with("its certificate comes from The middle, whose own it does not send; "),
            "{alone}"
        );
        assert_eq!(alone.ends_with(besides), !more.is_empty(), "{alone}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let trusted = authority();
    let mut expired = certificate("feeds.example");
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let mut early = certificate("feeds.example");
    early.not_before = date_time_ymd(4000, 1, 1);
    let many: Vec<String> = (1..8).map(|n| format!("{n}.example")).collect();
    let mut client = certificate("feeds.example");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (params, expected) in [
        (
            expired,
            "its certificate, or one that it depends on, expired at 2002-01-01T00:00:00Z; its operator must renew it",
        ),
        (
            early,
            "its certificate, or one that it depends on, is not valid before 4000-01-01T00:00:00Z; if that is in the past, \
             correct the clock",
        ),
        (
            certificate("*.evil.example"),
            "its certificate is for *.evil.example and no other name; correct the address, or its operator the certificate",
        ),
        (
            CertificateParams::new(many).unwrap(),
            "its certificate is for 1.example, 2.example, 3.example, 4.example, 5.example, 2 more and no other name; \
             correct the address, or its operator the certificate",
        ),
        (
            certificate("10.0.0.1"),
            "its certificate is for 10.0.0.1 and no other name; correct the address, or its operator the certificate",
        ),
    ] {
        let address = serve(params, Some(&trusted)).await;
        assert_eq!(why(&visit(&visitor(&trusted), address).await), expected);
        assert_eq!(why(&visit_trusting(&trusted.pem(), address).await), expected);
    }
    let address = serve(client, Some(&trusted)).await;
    let expected = "its certificate is not one for servers; its operator must replace it";
    assert_eq!(why(&visit_trusting(&trusted.pem(), address).await), expected);
}

/// A self-signed certificate of version 1, as `openssl x509 -req` makes it: without extensions and even without a version.
fn version_1(key: &KeyPair) -> CertificateDer<'static> {
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let head = match content.len() {
            ..128 => vec![tag, low],
            128..256 => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [&head[..], content].concat()
    }
    // ecdsa-with-SHA256
    let algorithm = element(0x30, &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
    let name = element(0x30, &element(0x31, &element(0x30, b"\x06\x03\x55\x04\x03\x0c\x03old")));
    let validity = element(0x30, b"\x17\x0d010101000000Z\x17\x0d020101000000Z");
    let key_info = key.subject_public_key_info();
    let signed = [&[2, 1, 1][..], &algorithm, &name, &validity, &name, &key_info].concat();
    let signed = element(0x30, &signed);
    let signature = [&[0][..], &key.sign(&signed).unwrap()].concat();
    let whole = [&signed[..], &algorithm, &element(3, &signature)].concat();
    CertificateDer::from(element(0x30, &whole))
}

/// Self-signed certificates of all kinds, with their keys.
fn self_signed() -> Vec<(&'static str, CertificateDer<'static>, KeyPair)> {
    let signed = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().clone(), key)
    };
    let mut as_openssl = certificate("feeds.example");
    as_openssl.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut expired = certificate("feeds.example");
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let plain = [
        ("for a server", certificate("feeds.example")),
        ("for an authority, as OpenSSL makes them", as_openssl),
        ("for another name", certificate("nas.local")),
        ("for no name at all", named("feeds.example")),
        ("without extensions", CertificateParams::new([]).unwrap()),
        ("expired", expired),
    ];
    let mut all: Vec<_> = plain
        .into_iter()
        .map(|(kind, params)| {
            let (der, key) = signed(params);
            (kind, der, key)
        })
        .collect();
    let key = KeyPair::generate().unwrap();
    all.push(("of version 1", version_1(&key), key));
    all
}

#[tokio::test]
async fn a_self_signed_certificate_given_as_its_own_authority_is_trusted_and_no_other() {
    let advice = "its certificate is self-signed; put it into tls_ca_file of the source to trust exactly it";
    let other =
        "its certificate is self-signed and not the one in tls_ca_file; if it is a new one, replace it there";
    let trusted = authority();
    for ((kind, der, key), (_, twin, twin_key)) in self_signed().into_iter().zip(self_signed()) {
        for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
            let serve = async |der: &CertificateDer<'static>, key: &KeyPair| {
                fetch::install_tls();
                let config = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
                // Not checked: rustls cannot read all that servers send.
                let sent = rustls::sign::CertifiedKey::new(vec![der.clone()], key);
                let sent = rustls::sign::SingleCertAndKey::from(sent);
                serve_with(config.with_cert_resolver(std::sync::Arc::new(sent)), Duration::ZERO).await
            };
            let address = serve(&der, &key).await;
            assert_eq!(why(&visit(&visitor(&trusted), address).await), advice, "{kind}");
            let visit = visit_trusting(&pem(&der), address).await;
            assert_eq!(visit.code, Some(200), "{kind}: {:?}", visit.answer);
            assert_eq!(visit.certificate_expired, None, "not yet, by the clock of the visit");
            let several = [trusted.pem(), pem(&twin), pem(&der)].concat();
            full(visit_trusting(&several, address).await);
            // The same in everything but the key.
            let visit = visit_trusting(&pem(&twin), address).await;
            assert_eq!(why(&visit), other, "{kind}");
            // The certificate alone is not enough: it is public.
            let thief = serve(&der, &twin_key).await;
            assert_eq!(class(&visit_trusting(&pem(&der), thief).await), FailureClass::Tls, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_pinned_certificate_that_has_expired_is_told_with_its_date() {
    let mut expired = certificate("feeds.example");
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    for (params, expected) in [(expired, Some("2002-01-01T00:00:00Z")), (certificate("feeds.example"), None)]
    {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        let address = serve_chain(vec![der.clone()], &key, Duration::ZERO).await;
        for (now_ms, expected) in [(1_800_000_000_000, expected), (NOW_MS, None)] {
            let visit = visit_trusting_at(now_ms, &pem(&der), address).await;
            let told = visit.certificate_expired.map(|at| at.to_string());
            assert_eq!((visit.code, told.as_deref()), (Some(200), expected));
        }
    }
}

/// A server that answers a `ClientHello` with these bytes.
async fn answering(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 4096];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            // The client closes when it has read enough.
            if stream.write_all(bytes).await.is_ok() {
                while stream.read(&mut hello).await.is_ok_and(|n| n > 0) {}
            }
        }
    });
    address
}

const OLD_VERSION: &str = "it speaks only an old version such as TLS 1.0 or 1.1; its operator must enable TLS 1.2 or 1.3; \
                           until then only a reverse proxy of your own that speaks the old one helps";
const OLD_KEY_EXCHANGE: &str = "it accepts no key exchange or cipher that is still safe, probably only an old one such as RSA \
                                key exchange; its operator must enable ECDHE with AES-GCM; until then only a reverse proxy \
                                of your own that speaks the old one helps";

/// A `ServerHello` of TLS 1.0 with `TLS_RSA_WITH_AES_128_CBC_SHA`, whose random number is zeros.
const SERVER_HELLO_1_0: [u8; 47] = {
    let mut hello = [0; 47];
    let head = [0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
    let mut n = 0;
    while n < head.len() {
        hello[n] = head[n];
        n += 1;
    }
    hello[45] = 0x2f;
    hello
};

/// What a server trusts and shows whose certificate is signed by this authority.
fn trusted_by(
    trusted: &Authority,
) -> (rustls::RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let signed = certificate("feeds.example").signed_by(&key, trusted).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap()).unwrap();
    (roots, vec![signed.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

const CLIENT_CERTIFICATE: &str = "it wants a client certificate, which newswire does not have";

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_named_so() {
    fetch::install_tls();
    let trusted = authority();
    let (roots, chain, key) = trusted_by(&trusted);
    for (versions, expected) in [
        (&[&rustls::version::TLS12][..], Some(CLIENT_CERTIFICATE)),
        (&[&rustls::version::TLS13], Some(CLIENT_CERTIFICATE)),
        (&[&rustls::version::TLS12, &rustls::version::TLS13], None),
    ] {
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots.clone()));
        // The counterpart is served without one.
        let verifier = if expected.is_some() { verifier } else { verifier.allow_unauthenticated() };
        let config = ServerConfig::builder_with_protocol_versions(versions)
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain.clone(), key.clone_key())
            .unwrap();
        let address = serve_with(config, Duration::ZERO).await;
        let visit = visit(&visitor(&trusted), address).await;
        match expected {
            Some(expected) => assert_eq!(why(&visit), expected, "{versions:?}"),
            None => assert_eq!(&full(visit).body[..], b"<rss/>"),
        }
    }
}

/// A server that speaks TLS, and closes its connections without a word of TLS when it has read a request.
async fn closing(config: ServerConfig, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_tls_session_that_ends_without_a_word_is_told_in_words() {
    fetch::install_tls();
    let trusted = authority();
    let (roots, chain, key) = trusted_by(&trusted);
    let ended = "the connection ended in the middle of the TLS session";
    for (wants, answer, expected) in [
        (
            true,
            &b""[..],
            "tls: no trustworthy TLS session with feeds.example: it asked for a client certificate, which newswire does not \
             have, and closed the connection before it answered"
                .to_owned(),
        ),
        (false, b"", format!("truncated: feeds.example closed the connection before it answered: {ended}")),
        (
            false,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
            format!("truncated: the body ended too early: {ended}"),
        ),
    ] {
        let config = ServerConfig::builder();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots.clone())).allow_unauthenticated();
        let config = if wants {
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        let config = config.with_single_cert(chain.clone(), key.clone_key()).unwrap();
        let address = closing(config, answer).await;
        let visit = visit(&visitor(&trusted), address).await;
        assert_eq!(failure(&visit).to_string(), expected);
    }
}

#[tokio::test]
async fn a_server_that_closes_during_the_handshake_may_know_no_safe_cipher() {
    let start = "it closed the connection during the TLS handshake; it may know no TLS version or cipher that newswire \
                 accepts; ";
    for is_reset in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                if is_reset {
                    stream.set_zero_linger().unwrap();
                }
            }
        });
        let visit = visit(&visitor(&authority()), address).await;
        assert!(why(&visit).starts_with(start), "{}", why(&visit));
    }
}

#[tokio::test]
async fn an_authority_that_serves_is_named_so() {
    let trusted = authority();
    let mut params = certificate("feeds.example");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let address = serve(params, Some(&trusted)).await;
    let start = "its certificate is that of an authority (CA:TRUE), which is not one for servers; ";
    let visit = visit(&visitor(&trusted), address).await;
    assert!(why(&visit).starts_with(start), "{}", why(&visit));
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_said_in_words() {
    let trusted = authority();
    for (bytes, expected) in [
        (&[0x15, 3, 1, 0, 2, 2, 70][..], OLD_VERSION),
        (&SERVER_HELLO_1_0, OLD_VERSION),
        (&[0x15, 3, 3, 0, 2, 2, 40], OLD_KEY_EXCHANGE),
        (&[0x15, 3, 3, 0, 2, 2, 71], OLD_KEY_EXCHANGE),
        (&[0x15, 3, 3, 0, 2, 2, 112], "it does not know the name in the address; correct the address"),
        // It has not asked for one.
        (&[0x15, 3, 3, 0, 2, 2, 42], "received fatal alert: BadCertificate"),
        (&[0x15, 3, 3, 0, 2, 2, 49], "received fatal alert: AccessDenied"),
        (&[0x15, 3, 3, 0, 2, 2, 116], CLIENT_CERTIFICATE),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "what it sends is not TLS; if the server speaks plain HTTP at this port, write http:// in the address",
        ),
    ] {
        let address = answering(bytes).await;
        assert_eq!(why(&visit(&visitor(&trusted), address).await), expected);
    }
}

/// The server of OpenSSL, until it is dropped.
struct OpenSsl {
    address: SocketAddr,
    _process: Child,
}

/// Runs `openssl` in a folder; `None` if this machine does not have it.
async fn openssl(folder: &Path, arguments: &str) -> Option<()> {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split(' ')).current_dir(folder).output().await.ok()?;
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

impl OpenSsl {
    async fn start(folder: &Path, arguments: &str) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-key", "key.pem", "-cert"]);
        command.args(arguments.split(' ')).current_dir(folder).kill_on_drop(true);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                return Self { address: address.parse().unwrap(), _process: process };
            }
        }
    }
}

#[tokio::test]
async fn what_openssl_serves_is_trusted_when_pinned_and_named_when_it_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The certificates that people make: `req -x509` has CA:TRUE, `x509 -req` had version 1 for decades.
    let made =
        openssl(folder, "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out own.pem -subj /CN=nas").await;
    if made.is_none() {
        println!("openssl is not installed: the certificates of rcgen and the bytes above stand for it");
        return;
    }
    openssl(folder, "req -new -key key.pem -out request.pem -subj /CN=nas").await;
    openssl(folder, "x509 -req -in request.pem -signkey key.pem -out old.pem").await;
    let trusted = authority();
    for certificate in ["own.pem", "old.pem"] {
        let pem = std::fs::read_to_string(folder.join(certificate)).unwrap();
        for version in ["-tls1_2", "-tls1_3", "-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305"] {
            let server = OpenSsl::start(folder, &format!("{certificate} {version}")).await;
            let advice =
                "its certificate is self-signed; put it into tls_ca_file of the source to trust exactly it";
            assert_eq!(why(&visit(&visitor(&trusted), server.address).await), advice);
            let visit = visit_trusting(&pem, server.address).await;
            assert_eq!(visit.code, Some(200), "{certificate} {version}: {:?}", visit.answer);
        }
    }
    for (old, expected) in [
        ("-tls1 -cipher DEFAULT@SECLEVEL=0", OLD_VERSION),
        ("-tls1_1 -cipher DEFAULT@SECLEVEL=0", OLD_VERSION),
        ("-tls1_2 -cipher AES128-GCM-SHA256", OLD_KEY_EXCHANGE),
        ("-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256", OLD_KEY_EXCHANGE),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-SHA", OLD_KEY_EXCHANGE),
        ("-groups P-521", OLD_KEY_EXCHANGE),
    ] {
        let server = OpenSsl::start(folder, &format!("own.pem {old}")).await;
        assert_eq!(why(&visit(&visitor(&trusted), server.address).await), expected, "{old}");
    }
    let pem = std::fs::read_to_string(folder.join("own.pem")).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let server = OpenSsl::start(folder, &format!("own.pem -Verify 1 {version}")).await;
        assert_eq!(why(&visit_trusting(&pem, server.address).await), CLIENT_CERTIFICATE, "{version}");
    }
    openssl(folder, "req -x509 -newkey rsa:1024 -nodes -keyout key.pem -out short.pem -subj /CN=nas").await;
    let pem = std::fs::read_to_string(folder.join("short.pem")).unwrap();
    let expected = "its certificate has an RSA key of 1024 bits, and keys shorter than 2048 bits are not accepted; its operator must \
                    make a new one";
    for version in ["-tls1_2", "-tls1_3"] {
        let server = OpenSsl::start(folder, &format!("short.pem {version} -cipher DEFAULT@SECLEVEL=0")).await;
        for visit in
            [visit(&visitor(&trusted), server.address).await, visit_trusting(&pem, server.address).await]
        {
            assert_eq!(why(&visit), expected, "{version}");
        }
    }
}
