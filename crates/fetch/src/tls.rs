//! The TLS settings of a client: whom it trusts.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::{BadPolicy, Policy, verifier::CertificateVerifier};

/// The TLS settings for a policy, and for a source that trusts only the certificates in `only`, in PEM: those that they
/// have signed, and themselves.
///
/// # Errors
/// [`BadPolicy`] if certificates cannot be read, or there are none.
pub(crate) fn client_config(policy: &Policy, only: Option<&str>) -> Result<ClientConfig, BadPolicy> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(BadPolicy::Tls)?;
    let more = policy.authorities_pem.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let verifier = match only.map(certificates).transpose()? {
        Some(own) => CertificateVerifier::new(of_roots(own.clone(), provider)?, algorithms).pinning(own),
        // Without the certificate authorities of the machine (a container without ca-certificates) plain HTTP still
        // works, and each https visit fails with the class `tls`: more useful than a daemon that does not start.
        None => match Verifier::new_with_extra_roots(more.iter().cloned(), Arc::clone(&provider)) {
            Ok(verifier) => CertificateVerifier::new(Some(Arc::new(verifier)), algorithms),
            Err(_) => CertificateVerifier::new(of_roots(more, provider)?, algorithms),
        },
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
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
