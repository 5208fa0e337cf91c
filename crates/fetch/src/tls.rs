//! The TLS settings of a client: whom it trusts, and when a handshake begins.
//!
//! reqwest would build the same settings, but lets no one see when the TCP connection ends and TLS begins. rustls looks
//! for an earlier session as the first step of a handshake, so the cache of sessions is where the time is noted.

use std::sync::Arc;

use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::{BadPolicy, Policy, attempt::note_handshake};

/// Maximum number of sessions that a client keeps, as by default.
const SESSIONS_MAX: usize = 256;

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
    let sessions = ClientSessionMemoryCache::new(SESSIONS_MAX);
    config.resumption = Resumption::store(Arc::new(ObservedSessions(sessions)));
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

/// The cache of sessions; notes when a handshake first asks it.
#[derive(Debug)]
struct ObservedSessions(ClientSessionMemoryCache);

impl ClientSessionStore for ObservedSessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        note_handshake();
        self.0.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        note_handshake();
        self.0.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.0.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        note_handshake();
        self.0.take_tls13_ticket(server)
    }
}
