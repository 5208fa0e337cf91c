//! TLS: verified, always.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fetch::{FailureClass, Policy, RequestOptions, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use crate::{NOW_MS, class, failure, full, guard::scripted, policy, visit_with};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn certificate(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

/// A server that answers one document over TLS, with a certificate of that authority or signed by itself.
pub(crate) async fn serve(params: CertificateParams, authority: Option<&Authority>) -> SocketAddr {
    serve_slowly(params, authority, Duration::ZERO).await
}

/// The same, with a pause before the handshake, before the head and within the body.
async fn serve_slowly(
    params: CertificateParams,
    authority: Option<&Authority>,
    pause: Duration,
) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let signed = match authority {
        Some(authority) => params.signed_by(&key, authority).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    serve_chain(vec![signed.der().clone()], &key, pause).await
}

/// A server that sends these certificates, the first of which has this key.
pub(crate) async fn serve_chain(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    pause: Duration,
) -> SocketAddr {
    fetch::install_tls();
    let config = ServerConfig::builder().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    serve_with(config.with_single_cert(chain, key).unwrap(), pause).await
}

pub(crate) async fn serve_with(config: ServerConfig, pause: Duration) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::time::sleep(pause).await;
            // A client that does not trust the certificate closes during the handshake, as expected.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            tokio::time::sleep(pause).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<rss").await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(pause).await;
            stream.write_all(b"/>").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    address
}

pub(crate) fn visitor(authority: &Authority) -> Visitor {
    let policy = Policy { authorities_pem: Some(authority.pem()), ..policy() };
    let resolver = scripted(vec![Ok(vec!["127.0.0.1".parse().unwrap()])]).1;
    Visitor::with_resolver(policy, resolver).unwrap()
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("https://feeds.example:{}/feed?token=SECRET", address.port())
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_is_trusted_is_accepted() {
    let authority = authority();
    let address = serve(certificate("feeds.example"), Some(&authority)).await;
    let visit = visit_with(&visitor(&authority), &url(address), None, None).await;
    assert_eq!((visit.code, visit.remote), (Some(200), Some(address)));
    assert_eq!(&full(visit).body[..], b"<rss/>");
}

#[tokio::test]
async fn connection_tls_first_byte_and_body_are_booked_apart() {
    let (authority, pause) = (authority(), Duration::from_millis(300));
    let address = serve_slowly(certificate("feeds.example"), Some(&authority), pause).await;
    let visitor = visitor(&authority);
    // The second handshake resumes the session of the first.
    for _ in 0..2 {
        let visit = visit_with(&visitor, &url(address), None, None).await;
        let spent = visit.timings;
        for part in [spent.tls, spent.first_byte, spent.body] {
            assert!(part >= pause && part > spent.connect, "{spent:?}");
        }
        let json = serde_json::to_value(&visit).unwrap();
        let ms = |name: &str| json["timings"][name].as_u64().unwrap();
        assert_eq!(ms("head_ms"), ms("first_byte_ms"));
        assert!(ms("tls_ms") >= 300 && ms("connect_ms") < ms("tls_ms"), "{json}");
    }
}

#[tokio::test]
async fn a27_no_other_certificate_is_accepted() {
    let (trusted, foreign) = (authority(), authority());
    let mut expired = certificate("feeds.example");
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let mut early = certificate("feeds.example");
    early.not_before = date_time_ymd(4000, 1, 1);
    for (name, params, authority) in [
        ("signed by itself", certificate("feeds.example"), None),
        ("of another authority", certificate("feeds.example"), Some(&foreign)),
        ("of another name", certificate("evil.example"), Some(&trusted)),
        ("expired", expired, Some(&trusted)),
        ("not valid yet", early, Some(&trusted)),
    ] {
        let address = serve(params, authority).await;
        let visit = visit_with(&visitor(&trusted), &url(address), None, None).await;
        assert_eq!((class(&visit), visit.code), (FailureClass::Tls, None), "{name}: {:?}", visit.answer);
        let message = failure(&visit).message;
        assert!(message.starts_with("no trustworthy TLS session with feeds.example: "), "{name}: {message}");
        assert!(!message.contains("SECRET"), "{message}");
    }
}

#[tokio::test]
async fn a_source_with_its_own_authorities_trusts_no_others() {
    let (trusted, own) = (authority(), authority());
    let visitor = visitor(&trusted);
    let options = RequestOptions::default().with_authorities(own.pem());
    for (signer, options, accepted) in [
        (&own, Some(&options), true),
        (&own, None, false),
        (&trusted, Some(&options), false),
        (&trusted, None, true),
    ] {
        let address = serve(certificate("feeds.example"), Some(signer)).await;
        let url = FeedUrl::try_new(&url(address)).unwrap();
        let request = VisitRequest { options, ..VisitRequest::new(&url, Timestamp::from_millis(NOW_MS)) };
        let visit = visitor.visit(&request).await;
        assert_eq!(visit.code.is_some(), accepted, "{:?}", visit.answer);
    }
    for pem in ["", "no certificate"] {
        let options = RequestOptions::default().with_authorities(pem.to_owned());
        let url = FeedUrl::try_new("https://feeds.example/").unwrap();
        let request = VisitRequest {
            options: Some(&options),
            ..VisitRequest::new(&url, Timestamp::from_millis(NOW_MS))
        };
        let visit = visitor.visit(&request).await;
        assert_eq!(class(&visit), FailureClass::Tls, "{:?}", visit.answer);
    }
}

#[tokio::test]
async fn authorities_that_cannot_be_read_are_refused() {
    for pem in ["", "no certificate"] {
        let policy = Policy { authorities_pem: Some(pem.to_owned()), ..policy() };
        let complaint = Visitor::try_new(policy).err().unwrap().to_string();
        assert!(complaint.contains("certificate authorities"), "{complaint}");
    }
}
