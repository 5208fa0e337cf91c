//! JSON Web Tokens: `gateway.jwks_file` has the issuers' public keys (RFC 7517), and this file the rules by which a
//! token is accepted (RFC 7519, RFC 8725).
//!
//! The key decides which algorithms it may be used with, the token only which key: `none`, a shared secret and a key
//! inside a token are never accepted. Nothing is fetched. Claims are read after the signature was verified.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk},
};
use news::Timestamp;
use notation::Complaint;
use serde_json::{Map, Value};

use super::{
    bearer::TokenHash,
    credential_changes::CredentialMap,
    error::AuthError,
    files::AuthFile,
    scope::CategoryScope,
    signatures,
    token_grant::{CATEGORIES_MAX, TokenGrant, is_category},
};

/// Maximum number of keys in the file.
const KEYS_MAX: usize = 64;
/// Largest file.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// How far the clocks of issuer and gateway may be apart.
const LEEWAY: Duration = Duration::from_secs(60);
/// Key sizes that ring accepts, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What a token must claim, in addition to its signature.
#[derive(Clone, Debug)]
pub(super) struct ClaimRules {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    /// The claim with the categories: by this name, else by its parts between the dots.
    pub(super) categories: String,
    /// The public categories, added to those.
    pub(super) public: Vec<String>,
}

/// The keys of the file, and the rules for claims.
#[derive(Clone, Debug)]
pub(super) struct JwtKeys {
    keys: Vec<JwtKey>,
    claims: ClaimRules,
    /// Of the file and the rules.
    config_hash: u64,
}

#[derive(Clone, Debug)]
struct JwtKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    /// Of the JWK.
    hash: u64,
}

impl JwtKeys {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn load(file: AuthFile<'_>, claims: ClaimRules) -> Result<Self, Vec<Complaint>> {
        let text = file.text(FILE_BYTES_MAX).map_err(|complaint| vec![complaint])?;
        let keys = parse(&text).map_err(|complaints| {
            let complaint = |(line, message)| file.complaint(line, message);
            complaints.into_iter().map(complaint).collect::<Vec<_>>()
        })?;
        let config_hash = TokenHash::of(format!("{text}{claims:?}").as_bytes()).prefix();
        Ok(Self { config_hash, ..Self::new(keys, claims) })
    }

    fn new(keys: Vec<JwtKey>, claims: ClaimRules) -> Self {
        signatures::install();
        Self { keys, claims, config_hash: 0 }
    }

    /// The keys; what their tokens grant is not in the file.
    pub(super) fn key_hashes(&self) -> CredentialMap<()> {
        self.keys.iter().map(|key| (key.hash, ())).collect()
    }

    /// Changes whenever other tokens may be accepted.
    pub(super) fn config_hash(&self) -> u64 {
        self.config_hash
    }

    /// What a token grants.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(super) fn verify(&self, token: &[u8], now: Timestamp) -> Result<TokenGrant, AuthError> {
        let header = decode_header(token).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            // An extension that must be understood, and is not (RFC 7515 §4.1.11).
            return Err(AuthError::Malformed);
        }
        let key = self.key(header.kid.as_deref()).ok_or(AuthError::Unknown)?;
        if !key.algorithms.contains(&header.alg) {
            return Err(AuthError::Algorithm);
        }
        let validation = self.validation(header.alg);
        let token =
            decode::<Map<String, Value>>(token, &key.key, &validation).map_err(|e| auth_error(e.kind()))?;
        let expires = instant(&token.claims, "exp")?.ok_or(AuthError::Malformed)?.plus(LEEWAY);
        if expires <= now {
            return Err(AuthError::Expired);
        }
        // `jsonwebtoken` would accept a list with our issuer among others (RFC 7519 §4.1.1 allows one).
        if token.claims.get("iss").is_some_and(|issuer| !issuer.is_string()) {
            return Err(AuthError::Issuer);
        }
        if instant(&token.claims, "nbf")?.is_some_and(|not_before| not_before > now.plus(LEEWAY)) {
            return Err(AuthError::NotYet);
        }
        Ok(TokenGrant { scope: self.scope(&token.claims)?, expires: Some(expires) })
    }

    /// By its id; a token without a key id means the only key.
    fn key(&self, id: Option<&str>) -> Option<&JwtKey> {
        match (id, &*self.keys) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// What `jsonwebtoken` checks. Times are left out: it would use the system's clock.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let ClaimRules { issuer, audience, .. } = &self.claims;
        let mut validation = Validation::new(algorithm);
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let mut required = vec!["exp"];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        // If none is configured, a token with an audience is for another service (RFC 7519 §4.1.3).
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// `None` for everything.
    fn scope(&self, claims: &Map<String, Value>) -> Result<Option<Arc<CategoryScope>>, AuthError> {
        match claim(claims, &self.claims.categories) {
            Some(Value::String(all)) if all == "all" => Ok(None),
            Some(Value::Array(list)) if (1..=CATEGORIES_MAX).contains(&list.len()) => {
                let listed = list.iter().map(|entry| entry.as_str().filter(is_category));
                let listed = listed.collect::<Option<Vec<_>>>().ok_or(AuthError::NoCategories)?;
                let public = self.claims.public.iter().map(String::as_str);
                Ok(Some(Arc::new(CategoryScope::new(listed.into_iter().chain(public)))))
            }
            _ => Err(AuthError::NoCategories),
        }
    }
}

/// Whether it is three parts of base64url between dots (RFC 7515 §7.1), whatever they are.
pub(super) fn has_jwt_form(token: &[u8]) -> bool {
    let is_part = |part: &[u8]| part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    token.split(|b| *b == b'.').count() == 3 && token.split(|b| *b == b'.').all(is_part)
}

fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, AuthError> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let seconds = claim.as_f64().ok_or(AuthError::Malformed)?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and a timestamp is clamped further")]
    let ms = (seconds * 1000.0) as i64;
    Ok(Some(Timestamp::from_millis(ms)))
}

fn auth_error(error: &ErrorKind) -> AuthError {
    match error {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::Issuer,
        _ => AuthError::Malformed,
    }
}

/// The usable keys, or complaints, each with a line if one is known.
fn parse(text: &str) -> Result<Vec<JwtKey>, Vec<(Option<usize>, String)>> {
    let document: Value = serde_json::from_str(text)
        .map_err(|error| vec![(Some(error.line()), "not valid JSON".to_owned())])?;
    let whole = |message: String| vec![(None, message)];
    let listed = document.get("keys").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| whole("not a JWK set; expected {\"keys\":[…]}".to_owned()))?;
    if listed.len() > KEYS_MAX {
        return Err(whole(format!("has {} keys, more than {KEYS_MAX}", listed.len())));
    }
    let (mut keys, mut complaints, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
    for (n, jwk) in listed.iter().enumerate() {
        match key(jwk) {
            Ok(Some(key)) => {
                if key.id.as_ref().is_some_and(|id| !ids.insert(id.clone())) {
                    complaints.push((None, format!("keys[{n}]: another key has the same `kid`")));
                }
                keys.push(key);
            }
            Ok(None) => {
                tracing::warn!(key = n, "ignored a key of gateway.jwks_file that cannot verify tokens")
            }
            Err(message) => complaints.push((None, format!("keys[{n}]: {message}"))),
        }
    }
    if keys.len() > 1 && keys.iter().any(|key| key.id.is_none()) {
        complaints.push((None, "with several keys, each needs a `kid`".to_owned()));
    }
    if keys.is_empty() && complaints.is_empty() {
        complaints
            .push((None, "has no key that verifies signatures (RSA, P-256, P-384, Ed25519)".to_owned()));
    }
    if complaints.is_empty() { Ok(keys) } else { Err(complaints) }
}

/// One key; `None` if it is for another purpose than verifying, or of an unknown kind.
fn key(jwk: &Value) -> Result<Option<JwtKey>, &'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("kty") == Some("oct") || jwk.get("k").is_some() {
        return Err("a shared secret is not allowed: anyone who can read it could issue tokens");
    }
    if jwk.get("d").is_some() {
        return Err("is a private key; put only its public half here");
    }
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    let verifies = operations.is_none_or(|all| all.iter().any(|operation| operation == "verify"));
    if text("use").is_some_and(|purpose| purpose != "sig") || !verifies {
        return Ok(None);
    }
    let known: Jwk = serde_json::from_value(jwk.clone()).map_err(|_| "not a JWK")?;
    let (algorithms, length) = match &known.algorithm {
        AlgorithmParameters::RSA(_) => (&RSA[..], 0),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (&[Algorithm::ES256][..], 65)
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            (&[Algorithm::ES384][..], 97)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (&[Algorithm::EdDSA][..], 32)
        }
        _ => return Ok(None),
    };
    let algorithms = match text("alg") {
        None => algorithms.to_vec(),
        Some(alg) => match alg.parse() {
            Ok(alg) if algorithms.contains(&alg) => vec![alg],
            _ => return Err("its `alg` does not match its `kty`"),
        },
    };
    let key = DecodingKey::from_jwk(&known).map_err(|_| "its parameters are not base64url")?;
    let key = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let n = &n[n.iter().take_while(|byte| **byte == 0).count()..];
            let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
            if !RSA_BITS.contains(&bits) {
                return Err("an RSA key must have 2048 to 8192 bits");
            }
            DecodingKey::from_rsa_raw_components(n, e)
        }
        DecodingKeyKind::SecretOrDer(point) if point.len() == length => key,
        DecodingKeyKind::SecretOrDer(_) => {
            return Err("its parameters are too short or too long for its curve");
        }
    };
    let hash = TokenHash::of(jwk.to_string().as_bytes()).prefix();
    Ok(Some(JwtKey { id: known.common.key_id, algorithms, key, hash }))
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

#[cfg(test)]
mod tests;
