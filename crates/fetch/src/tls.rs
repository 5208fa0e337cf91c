//! The TLS settings of a client: whom it trusts.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::{BadPolicy, Policy};

/// The TLS settings for a policy, and for a source that trusts only the certificate authorities in `only`, in PEM.
///
/// # Errors
/// [`BadPolicy`] if certificate authorities cannot be read, or there are none.
pub(crate) fn client_config(policy: &Policy, only: Option<&str>) -> Result<ClientConfig, BadPolicy> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(ring::default_provider()));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(BadPolicy::Tls)?;
    let more = policy.authorities_pem.as_deref().map(authorities).transpose()?.unwrap_or_default();
    let pinned = only.map(authorities).transpose()?;
    let mut config = match pinned {
        Some(pinned) => builder.with_root_certificates(roots(pinned)?).with_no_client_auth(),
        // Without the certificate authorities of the machine (a container without ca-certificates) plain HTTP still
        // works, and each https visit fails with the class `tls`: more useful than a daemon that does not start.
        None => match Verifier::new_with_extra_roots(more.iter().cloned(), provider) {
            Ok(verifier) => {
                let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
                builder.with_no_client_auth()
            }
            Err(_) => builder.with_root_certificates(roots(more)?).with_no_client_auth(),
        },
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, BadPolicy> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(BadPolicy::Authorities)?;
    if found.is_empty() { Err(BadPolicy::NoAuthority) } else { Ok(found) }
}

fn roots(authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, BadPolicy> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(BadPolicy::Tls)?;
    }
    Ok(roots)
}
