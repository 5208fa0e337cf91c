//! Verifies the signatures of JWTs with ring: the part that `jsonwebtoken` leaves to its user.
//!
//! Asymmetric algorithms only, and no signing. There is no HMAC here, so a public key can never be used as a shared
//! secret, whatever algorithm a token names.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result, new_error},
    signature::{Error as BadSignature, Verifier},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: verifier,
    // Only for private keys and thumbprints, which are not used here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` use ring, for the whole process.
pub(super) fn install() {
    // An error means that it is installed already.
    RING.install_default().ok();
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let method = RingAlgorithm::of(*algorithm).ok_or_else(|| new_error(ErrorKind::UnsupportedAlgorithm))?;
    Ok(Box::new(RingVerifier { algorithm: *algorithm, method, key: key.clone() }))
}

/// An algorithm as ring has it.
#[derive(Clone, Copy)]
enum RingAlgorithm {
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

impl RingAlgorithm {
    /// The asymmetric algorithms of RFC 7518 §3.1 and RFC 8037 §3.1.
    fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::RS256 => Some(Self::Rsa(&RSA_PKCS1_2048_8192_SHA256)),
            Algorithm::RS384 => Some(Self::Rsa(&RSA_PKCS1_2048_8192_SHA384)),
            Algorithm::RS512 => Some(Self::Rsa(&RSA_PKCS1_2048_8192_SHA512)),
            Algorithm::PS256 => Some(Self::Rsa(&RSA_PSS_2048_8192_SHA256)),
            Algorithm::PS384 => Some(Self::Rsa(&RSA_PSS_2048_8192_SHA384)),
            Algorithm::PS512 => Some(Self::Rsa(&RSA_PSS_2048_8192_SHA512)),
            Algorithm::ES256 => Some(Self::Curve(&ECDSA_P256_SHA256_FIXED)),
            Algorithm::ES384 => Some(Self::Curve(&ECDSA_P384_SHA384_FIXED)),
            Algorithm::EdDSA => Some(Self::Curve(&ED25519)),
            _ => None,
        }
    }
}

/// Verifies with one key.
struct RingVerifier {
    algorithm: Algorithm,
    method: RingAlgorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), BadSignature> {
        let result = match (self.method, self.key.kind()) {
            (RingAlgorithm::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (RingAlgorithm::Curve(method), DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(method, point).verify(message, signature)
            }
            _ => return Err(BadSignature::new()),
        };
        result.map_err(|_| BadSignature::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
