//! JSON Web Tokens: `gateway.jwks_file`, the public keys of whoever issues them (RFC 7517), and what of a token is
//! believed (RFC 7519, RFC 8725).
//!
//! The key decides which algorithms it is good for, the token only which key: `none`, a shared secret and a key inside
//! a token are no way in. Nothing is fetched. Claims are looked at once the signature is right, and not before.

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
    Refusal,
    files::File,
    scope::Scope,
    signatures,
    tokens::{CATEGORIES_MAX, Grant, is_category},
};
use crate::bearer::TokenHash;

/// Most keys in the file.
const KEYS_MAX: usize = 64;
/// Largest file.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// How far the clocks of issuer and gateway may be apart.
const LEEWAY: Duration = Duration::from_secs(60);
/// What ring verifies with, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What is asked of a token beside its signature.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    /// The claim with the categories: by this name, else by its parts between the dots.
    pub(super) categories: String,
    /// Everybody's, added to those.
    pub(super) public: Vec<String>,
}

/// The keys of the file, and how tokens are judged.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    claims: Claims,
    /// Of the file and the claims.
    mark: u64,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn load(file: File<'_>, claims: Claims) -> Result<Self, Vec<Complaint>> {
        let text = file.text(FILE_BYTES_MAX).map_err(|complaint| vec![complaint])?;
        let keys = parse(&text).map_err(|complaints| {
            let complaint = |(line, message)| file.complaint(line, message);
            complaints.into_iter().map(complaint).collect::<Vec<_>>()
        })?;
        let mark = TokenHash::of(format!("{text}{claims:?}").as_bytes()).prefix();
        Ok(Self { mark, ..Self::new(keys, claims) })
    }

    fn new(keys: Vec<Key>, claims: Claims) -> Self {
        signatures::install();
        Self { keys, claims, mark: 0 }
    }

    /// Another one, where another token may be believed.
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    /// What a token grants.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(super) fn verify(&self, token: &[u8], now: Timestamp) -> Result<Grant, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        if header.crit.is_some() {
            // Something that must be understood, and is not (RFC 7515 §4.1.11).
            return Err(Refusal::Malformed);
        }
        let key = self.key(header.kid.as_deref()).ok_or(Refusal::Unknown)?;
        if !key.algorithms.contains(&header.alg) {
            return Err(Refusal::Algorithm);
        }
        let wanted = self.validation(header.alg);
        let token = decode::<Map<String, Value>>(token, &key.key, &wanted).map_err(|e| refusal(e.kind()))?;
        let until = instant(&token.claims, "exp")?.ok_or(Refusal::Malformed)?.plus(LEEWAY);
        if until <= now {
            return Err(Refusal::Expired);
        }
        if instant(&token.claims, "nbf")?.is_some_and(|not_before| not_before > now.plus(LEEWAY)) {
            return Err(Refusal::NotYet);
        }
        Ok(Grant { scope: self.scope(&token.claims)?, until: Some(until) })
    }

    /// By its id; a token that names none can only mean the only one.
    fn key(&self, id: Option<&str>) -> Option<&Key> {
        match (id, &*self.keys) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// What `jsonwebtoken` is to look at. Times are not its business: it would ask the system's clock.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let Claims { issuer, audience, .. } = &self.claims;
        let mut wanted = Validation::new(algorithm);
        (wanted.validate_exp, wanted.validate_nbf) = (false, false);
        let mut required = vec!["exp"];
        if let Some(issuer) = issuer {
            wanted.set_issuer(&[issuer]);
            required.push("iss");
        }
        // Without one of ours, a token that names an audience is for somebody else (RFC 7519 §4.1.3).
        if let Some(audience) = audience {
            wanted.set_audience(&[audience]);
            required.push("aud");
        }
        wanted.set_required_spec_claims(&required);
        wanted
    }

    /// Nothing for everything.
    fn scope(&self, claims: &Map<String, Value>) -> Result<Option<Arc<Scope>>, Refusal> {
        match claim(claims, &self.claims.categories) {
            Some(Value::String(all)) if all == "all" => Ok(None),
            Some(Value::Array(list)) if (1..=CATEGORIES_MAX).contains(&list.len()) => {
                let listed = list.iter().map(|entry| entry.as_str().filter(is_category));
                let listed = listed.collect::<Option<Vec<_>>>().ok_or(Refusal::NoCategories)?;
                let public = self.claims.public.iter().map(String::as_str);
                Ok(Some(Arc::new(Scope::new(listed.into_iter().chain(public)))))
            }
            _ => Err(Refusal::NoCategories),
        }
    }
}

fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let seconds = claim.as_f64().ok_or(Refusal::Malformed)?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and a timestamp is clamped further")]
    let ms = (seconds * 1000.0) as i64;
    Ok(Some(Timestamp::from_millis(ms)))
}

fn refusal(error: &ErrorKind) -> Refusal {
    match error {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Refusal::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Refusal::Issuer,
        _ => Refusal::Malformed,
    }
}

/// The keys that can be used; each complaint with a line, if one is known.
fn parse(text: &str) -> Result<Vec<Key>, Vec<(Option<usize>, String)>> {
    let document: Value = serde_json::from_str(text)
        .map_err(|error| vec![(Some(error.line()), "is not JSON here".to_owned())])?;
    let whole = |message: String| vec![(None, message)];
    let listed = document.get("keys").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| whole("is no JWK set: {\"keys\":[…]} is wanted".to_owned()))?;
    if listed.len() > KEYS_MAX {
        return Err(whole(format!("{} keys are more than {KEYS_MAX}", listed.len())));
    }
    let (mut keys, mut complaints, mut met) = (Vec::new(), Vec::new(), HashSet::new());
    for (n, jwk) in listed.iter().enumerate() {
        match key(jwk) {
            Ok(Some(key)) => {
                if key.id.as_ref().is_some_and(|id| !met.insert(id.clone())) {
                    complaints.push((None, format!("keys[{n}]: its `kid` is taken by another key")));
                }
                keys.push(key);
            }
            Ok(None) => {
                tracing::warn!(key = n, "passed over a key of gateway.jwks_file that is of no use here")
            }
            Err(message) => complaints.push((None, format!("keys[{n}]: {message}"))),
        }
    }
    if keys.len() > 1 && keys.iter().any(|key| key.id.is_none()) {
        complaints.push((None, "of several keys each needs a `kid`".to_owned()));
    }
    if keys.is_empty() && complaints.is_empty() {
        complaints
            .push((None, "has no key that verifies signatures (RSA, P-256, P-384, Ed25519)".to_owned()));
    }
    if complaints.is_empty() { Ok(keys) } else { Err(complaints) }
}

/// One key; nothing when it is for something else than verifying, or of a kind that we do not know.
fn key(jwk: &Value) -> Result<Option<Key>, &'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("kty") == Some("oct") || jwk.get("k").is_some() {
        return Err("a shared secret has no place here: whoever can read it could write tokens");
    }
    if jwk.get("d").is_some() {
        return Err("is a private key; only its public half belongs here");
    }
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    let verifies = operations.is_none_or(|all| all.iter().any(|operation| operation == "verify"));
    if text("use").is_some_and(|purpose| purpose != "sig") || !verifies {
        return Ok(None);
    }
    let known: Jwk = serde_json::from_value(jwk.clone()).map_err(|_| "is no JWK")?;
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
            _ => return Err("its `alg` does not go with its `kty`"),
        },
    };
    let key = DecodingKey::from_jwk(&known).map_err(|_| "its numbers are not base64url")?;
    let key = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let n = &n[n.iter().take_while(|byte| **byte == 0).count()..];
            let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
            if !RSA_BITS.contains(&bits) {
                return Err("an RSA key has 2048 to 8192 bits here");
            }
            DecodingKey::from_rsa_raw_components(n, e)
        }
        DecodingKeyKind::SecretOrDer(point) if point.len() == length => key,
        DecodingKeyKind::SecretOrDer(_) => return Err("its numbers are too short or too long for its curve"),
    };
    Ok(Some(Key { id: known.common.key_id, algorithms, key }))
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
