//! The TLS settings of a client: whom it trusts.

use std::{cell::Cell, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use rustls_platform_verifier::Verifier;

use crate::{
    BadPolicy, Policy,
    cause::{WantsClientCertificate, is_alert, is_closed},
    stream::BoxError,
    verifier::CertificateVerifier,
};

/// Certificates of a source, in PEM. Those that they have signed are trusted, and they themselves.
#[derive(Clone, Copy)]
pub(crate) enum OwnCertificates<'a> {
    /// It has none.
    Absent,
    /// Trusted instead of all others: for the server of the feed.
    Only(&'a str),
    /// Trusted besides all others: for a proxy, which is mostly not the server's.
    Besides(&'a str),
}

/// The TLS settings for a policy, and for a source with certificates of its own.
///
/// # Errors
/// [`BadPolicy`] if certificates cannot be read, or there are none.
pub(crate) fn client_config(policy: &Policy, own: OwnCertificates<'_>) -> Result<ClientConfig, BadPolicy> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(BadPolicy::Tls)?;
    let mut more = policy.authorities_pem.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let pinned = match own {
        OwnCertificates::Absent => Vec::new(),
        OwnCertificates::Only(pem) | OwnCertificates::Besides(pem) => certificates(pem)?,
    };
    let verifier = if let OwnCertificates::Only(_) = own {
        CertificateVerifier::new(of_roots(pinned.clone(), provider)?, algorithms)
    } else {
        more.extend(pinned.iter().cloned());
        // Without the certificate authorities of the machine (a container without ca-certificates) plain HTTP still
        // works, and each https visit fails with the class `tls`: more useful than a daemon that does not start.
        match Verifier::new_with_extra_roots(more.iter().cloned(), Arc::clone(&provider)) {
            Ok(verifier) => CertificateVerifier::new(Some(Arc::new(verifier)), algorithms),
            Err(_) => CertificateVerifier::new(of_roots(more, provider)?, algorithms),
        }
    };
    let verifier = verifier.pinning(pinned);
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.client_auth_cert_resolver = Arc::new(NoClientCertificate);
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, BadPolicy> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(BadPolicy::Authorities)?;
    if found.is_empty() { Err(BadPolicy::NoAuthority) } else { Ok(found) }
}

/// A verifier that trusts these authorities; `None` if there are none.
fn of_roots(
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>, BadPolicy> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(BadPolicy::Tls)?;
    }
    // Fails without authorities, and for revocation lists, of which there are none.
    match WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() {
        Ok(verifier) => Ok(Some(verifier)),
        Err(_) => Ok(None),
    }
}

tokio::task_local! {
    /// The server of the handshake that this task makes has asked for a certificate.
    static IS_CERTIFICATE_WANTED: Cell<bool>;
}

/// Has no certificate, and notes that one was asked for.
#[derive(Debug)]
struct NoClientCertificate;

impl ResolvesClientCert for NoClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Fails outside of a handshake only.
        IS_CERTIFICATE_WANTED.try_with(|wanted| wanted.set(true)).ok();
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Runs a handshake, and returns whether a certificate was asked for. If its server ends it after it has asked for a certificate of the client, that is the reason: it had
/// agreed to everything else before.
///
/// # Errors
/// [`WantsClientCertificate`], or that of the handshake.
pub(crate) async fn noting_certificate_requests<T>(
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<(T, bool), BoxError> {
    let noted = async {
        let session = handshake.await;
        (session, IS_CERTIFICATE_WANTED.with(Cell::get))
    };
    match IS_CERTIFICATE_WANTED.scope(Cell::new(false), noted).await {
        (Ok(session), is_wanted) => Ok((session, is_wanted)),
        (Err(error), true) if is_closed(&error) || is_alert(&error) => Err(WantsClientCertificate.into()),
        (Err(error), _) => Err(error.into()),
    }
}
