//! Which certificates of servers are trusted, and words for those that are not.
//!
//! A source may have certificates of its own ([`tls_ca_file`]). Each of them is trusted in two ways: as an authority, which
//! may have signed the certificate of the server, and as that certificate itself. Then names and dates do not matter, only
//! that the server has its key. No other certificate with the same name is trusted.
//!
//! [`tls_ca_file`]: crate::RequestOptions::with_authorities

use std::sync::Arc;

use news::{Escaped, Timestamp};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::ParsedCertificate,
};
use webpki::RawPublicKeyEntity;

use crate::{cause::WantsClientCertificate, certificate::CertificateFields};

/// Shortest RSA key whose signatures are accepted, in bits.
const RSA_BITS_MIN: usize = 2048;
/// Maximum number of names of a certificate that are shown.
const NAMES_MAX: usize = 5;

/// Decides whether the certificate of a server is trusted.
#[derive(Debug)]
pub(crate) struct CertificateVerifier {
    /// `None`: the machine has no certificate authorities.
    authorities: Option<Arc<dyn ServerCertVerifier>>,
    /// The certificates of the source.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl CertificateVerifier {
    /// Trusts the certificates that these authorities have signed.
    pub(crate) fn new(
        authorities: Option<Arc<dyn ServerCertVerifier>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { authorities, pinned: Vec::new(), algorithms }
    }

    /// Trusts exactly these certificates, too.
    pub(crate) fn pinning(self, pinned: Vec<CertificateDer<'static>>) -> Self {
        Self { pinned, ..self }
    }

    /// The public key of a pinned certificate. webpki would read no certificates of version 1.
    fn pinned_key(&self, certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
        let pinned = self.pinned.iter().find(|pinned| *pinned == certificate)?;
        CertificateFields::read(pinned).map(|fields| fields.key.to_vec().into())
    }

    fn explain(
        &self,
        error: Error,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Error {
        let Error::InvalidCertificate(error) = error else { return error };
        let others = others.iter().filter_map(|der| CertificateFields::read(der)).collect();
        let other_name = other_name(server, name);
        let sent = CertificateFields::read(server);
        let sent = sent.map(|server| SentCertificates { server, others, other_name });
        let untrusted = sent.and_then(|sent| UntrustedCertificate::new(&error, sent, self));
        let error = untrusted.map_or(error, |why| CertificateError::Other(OtherError(Arc::new(why))));
        Error::InvalidCertificate(error)
    }
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned_key(server).is_some() {
            return Ok(ServerCertVerified::assertion());
        }
        let Some(authorities) = &self.authorities else {
            let why = OtherError(Arc::new(UntrustedCertificate::NoAuthorities));
            return Err(Error::InvalidCertificate(CertificateError::Other(why)));
        };
        let verified = authorities.verify_server_cert(server, others, name, ocsp_response, now);
        verified.map_err(|error| self.explain(error, server, others, name))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = match self.pinned_key(server) {
            Some(key) => verify_tls12_signature_with_raw_key(message, &key, signed, &self.algorithms),
            None => verify_tls12_signature(message, server, signed, &self.algorithms),
        };
        verified.map_err(|error| explain_signature(error, server))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = match self.pinned_key(server) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms),
            None => verify_tls13_signature(message, server, signed, &self.algorithms),
        };
        verified.map_err(|error| explain_signature(error, server))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A signature that fails because the key is too short to be tried.
fn explain_signature(error: Error, server: &CertificateDer<'_>) -> Error {
    let bits = CertificateFields::read(server).and_then(|server| server.rsa_bits());
    match bits.filter(|bits| *bits < RSA_BITS_MIN) {
        Some(bits) => {
            let why = OtherError(Arc::new(UntrustedCertificate::ShortKey(bits)));
            Error::InvalidCertificate(CertificateError::Other(why))
        }
        None => error,
    }
}

/// As rustls does it with a certificate: TLS 1.2 leaves open which algorithm of a scheme it is.
fn verify_tls12_signature_with_raw_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
    let key = RawPublicKeyEntity::try_from(key).map_err(|_| bad())?;
    let possible = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
    let (_, possible) = possible.ok_or_else(bad)?;
    let is_valid = possible.iter().any(|by| key.verify_signature(*by, message, signed.signature()).is_ok());
    if is_valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad()) }
}

/// Why a certificate is not trusted, and what helps. All names are escaped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UntrustedCertificate {
    #[error(
        "this machine has no certificate authorities; install them (the package ca-certificates), or set tls_ca_file"
    )]
    NoAuthorities,
    #[error("its certificate is self-signed; put it into tls_ca_file of the source to trust exactly it")]
    SelfSigned,
    #[error(
        "its certificate is self-signed and not the one in tls_ca_file; if it is a new one, replace it there"
    )]
    OtherSelfSigned,
    #[error(
        "its certificate comes from {0}, whose own it does not send; if that is an intermediate authority, the operator of \
         the server must add it; if it is a private one, put its certificate into tls_ca_file of the source"
    )]
    IssuerNotSent(String),
    #[error(
        "its certificate comes from {0}, which is not a trusted authority; to trust it, put the certificate of this \
         authority into tls_ca_file of the source"
    )]
    UnknownAuthority(String),
    #[error(
        "{untrusted}; besides, it is for {names} and no other name: correct the address, or put the certificate of the \
         server itself into tls_ca_file"
    )]
    AlsoOtherName { untrusted: Box<UntrustedCertificate>, names: String },
    #[error("its certificate, or one that it depends on, expired at {0}; its operator must renew it")]
    Expired(Timestamp),
    #[error(
        "its certificate, or one that it depends on, is not valid before {0}; if that is in the past, correct the clock"
    )]
    NotValidYet(Timestamp),
    #[error(
        "its certificate is for {0} and no other name; correct the address, or its operator the certificate"
    )]
    OtherName(String),
    #[error("its certificate is not signed by the authority that it names, so it may be a forgery")]
    BadSignature,
    #[error(
        "its certificate, or one that it depends on, has a signature or a key that is too weak or not supported, such as \
         SHA-1 or RSA with 1024 bits; its operator must renew it"
    )]
    Weak,
    #[error("its certificate is not one for servers; its operator must replace it")]
    OtherPurpose,
    #[error(
        "its certificate is that of an authority (CA:TRUE), which is not one for servers; its operator must replace it, or \
         you put it into tls_ca_file of the source to trust exactly it"
    )]
    AuthorityAsServer,
    #[error(
        "its certificate has an RSA key of {0} bits, and keys shorter than {RSA_BITS_MIN} bits are not accepted; its \
         operator must make a new one"
    )]
    ShortKey(usize),
}

/// What a server has sent.
struct SentCertificates<'a> {
    server: CertificateFields<'a>,
    /// Those that may have signed it.
    others: Vec<CertificateFields<'a>>,
    /// The names that its own is for, if that in the address is none of them.
    other_name: Option<String>,
}

impl UntrustedCertificate {
    /// `None`: the error says it all.
    fn new(
        error: &CertificateError,
        sent: SentCertificates<'_>,
        verifier: &CertificateVerifier,
    ) -> Option<Self> {
        if let Some(bits) = sent.server.rsa_bits().filter(|bits| *bits < RSA_BITS_MIN) {
            return Some(Self::ShortKey(bits));
        }
        if is_self_signed(&sent.server, &verifier.algorithms) {
            let is_pinning = !verifier.pinned.is_empty();
            return Some(if is_pinning { Self::OtherSelfSigned } else { Self::SelfSigned });
        }
        Some(match error {
            CertificateError::UnknownIssuer => Self::unknown_issuer(sent),
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(timestamp(*not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotValidYet(timestamp(*not_before))
            }
            CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName(names(presented)),
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::Weak,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::OtherPurpose
            }
            CertificateError::Other(OtherError(why)) if is_ca_as_server(&**why) => Self::AuthorityAsServer,
            _ => return None,
        })
    }

    /// Follows the issuers among the certificates that the server sent, as far as they go.
    fn unknown_issuer(sent: SentCertificates<'_>) -> Self {
        let SentCertificates { server: mut last, mut others, other_name } = sent;
        let mut is_alone = true;
        while let Some(issuer) = others.iter().position(|other| other.subject == last.issuer) {
            last = others.swap_remove(issuer);
            is_alone = false;
            if last.is_self_issued() {
                break;
            }
        }
        let issuer = Escaped(&last.issuer.shown()).to_string();
        let untrusted = if is_alone { Self::IssuerNotSent(issuer) } else { Self::UnknownAuthority(issuer) };
        match other_name {
            Some(names) => Self::AlsoOtherName { untrusted: Box::new(untrusted), names },
            None => untrusted,
        }
    }
}

/// The names that a certificate is for, if it is for others than this one.
fn other_name(server: &CertificateDer<'_>, name: &ServerName<'_>) -> Option<String> {
    let parsed = ParsedCertificate::try_from(server).ok()?;
    match verify_server_name(&parsed, name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })) => {
            Some(names(&presented))
        }
        _ => None,
    }
}

/// rustls has no word of its own for this error of webpki.
fn is_ca_as_server(why: &(dyn std::error::Error + 'static)) -> bool {
    matches!(why.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Whether a certificate is signed with its own key. One whose signature cannot be verified is if it says so.
fn is_self_signed(fields: &CertificateFields<'_>, algorithms: &WebPkiSupportedAlgorithms) -> bool {
    let mut by =
        algorithms.all.iter().filter(|by| by.signature_alg_id().as_ref() == fields.algorithm).peekable();
    let key = SubjectPublicKeyInfoDer::from(fields.key);
    let is_verified = match (by.peek(), RawPublicKeyEntity::try_from(&key)) {
        (Some(_), Ok(key)) => by.any(|by| key.verify_signature(*by, fields.signed, fields.signature).is_ok()),
        _ => true,
    };
    fields.is_self_issued() && is_verified
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}

/// The names in a certificate, of which webpki writes each like `DnsName("example.org")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').and_then(|(_, name)| name.strip_suffix(')')).unwrap_or(name);
        Escaped(name.trim_matches('"')).to_string()
    };
    let shown = presented.iter().take(NAMES_MAX).map(bare).collect::<Vec<_>>().join(", ");
    match presented.len().saturating_sub(NAMES_MAX) {
        _ if presented.is_empty() => "no server at all".to_owned(),
        0 => shown,
        more => format!("{shown}, {more} more"),
    }
}

/// One sentence about a failed handshake, escaped.
pub(crate) fn in_words(error: &Error) -> String {
    let words = match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            let untrusted = other.0.downcast_ref::<UntrustedCertificate>().map(ToString::to_string);
            return untrusted.unwrap_or_else(|| Escaped(&other.0.to_string()).to_string());
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => {
            "it speaks only an old version such as TLS 1.0 or 1.1; its operator must enable TLS 1.2 or 1.3; until then only a \
             reverse proxy of your own that speaks the old one helps"
        }
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity)
        | Error::PeerIncompatible(_) => {
            "it accepts no key exchange or cipher that is still safe, probably only an old one such as RSA key exchange; its \
             operator must enable ECDHE with AES-GCM; until then only a reverse proxy of your own that speaks the old one helps"
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "it does not know the name in the address; correct the address"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            return WantsClientCertificate.to_string();
        }
        Error::InvalidCertificate(why) => {
            return format!(
                "its certificate or its key is not acceptable ({}); its operator must replace it",
                Escaped(&why.to_string())
            );
        }
        Error::InvalidMessage(_) => {
            "what it sends is not TLS; if the server speaks plain HTTP at this port, write http:// in the address"
        }
        _ => return Escaped(&error.to_string()).to_string(),
    };
    words.to_owned()
}
