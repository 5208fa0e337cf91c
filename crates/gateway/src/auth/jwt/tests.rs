//! Tokens signed with keys of the test's own: valid ones, and every invalid one we could think of.

#[path = "../../../tests/support/issuer.rs"]
mod issuer;

use ring::signature::KeyPair as _;
use serde_json::json;

use self::issuer::{Issuer, base64};
use super::*;
use crate::auth::bearer::TOKEN_BYTES_MAX;

const NOW_S: i64 = 1_800_000_000;
/// The modulus of an RSA key is just a number; no private key belongs to this one.
const RSA_N_BYTES: usize = 256;

fn claims() -> ClaimRules {
    ClaimRules {
        issuer: Some("https://login.example".to_owned()),
        audience: Some("newswire".to_owned()),
        categories: "newswire.categories".to_owned(),
        public: Vec::new(),
    }
}

fn body() -> Value {
    json!({
        "iss": "https://login.example", "aud": "newswire", "exp": NOW_S + 600, "newswire.categories": ["sport"],
    })
}

/// The same with one claim changed; null removes it.
fn with(name: &str, value: Value) -> Value {
    let mut body = body();
    match value {
        Value::Null => body.as_object_mut().unwrap().remove(name),
        value => body.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    body
}

fn keys(listed: Value, claims: ClaimRules) -> JwtKeys {
    JwtKeys::new(parse(&json!({ "keys": listed }).to_string()).unwrap(), claims)
}

fn verify(keys: &JwtKeys, token: &str) -> Result<Option<Arc<CategoryScope>>, AuthError> {
    keys.verify(token.as_bytes(), Timestamp::from_millis(NOW_S * 1000)).map(|grant| grant.scope)
}

fn sport() -> Option<Arc<CategoryScope>> {
    Some(Arc::new(CategoryScope::new(["sport"])))
}

#[test]
fn the_key_that_the_token_names_verifies_it() {
    let (one, other) = (Issuer::new(), Issuer::new());
    let keys = keys(json!([one.p256_jwk("a"), other.p256_jwk("b"), one.ed25519_jwk("c")]), claims());
    let es = |issuer: &Issuer, kid: &str| issuer.sign(&json!({"alg": "ES256", "kid": kid}), &body());
    assert_eq!(verify(&keys, &es(&one, "a")), Ok(sport()));
    assert_eq!(verify(&keys, &es(&other, "b")), Ok(sport()));
    assert_eq!(verify(&keys, &one.sign(&json!({"alg": "EdDSA", "kid": "c"}), &body())), Ok(sport()));
    assert_eq!(verify(&keys, &es(&one, "b")), Err(AuthError::Signature));
    assert_eq!(verify(&keys, &es(&one, "z")), Err(AuthError::Unknown));
    assert_eq!(verify(&keys, &one.sign(&json!({"alg": "ES256"}), &body())), Err(AuthError::Unknown));
    assert_eq!(verify(&keys, &es(&one, "c")), Err(AuthError::Algorithm));
}

#[test]
fn a_single_key_needs_no_id() {
    let issuer = Issuer::new();
    let mut jwk = issuer.p256_jwk("a");
    jwk.as_object_mut().unwrap().remove("kid");
    let keys = keys(json!([jwk]), claims());
    assert_eq!(verify(&keys, &issuer.sign(&json!({"alg": "ES256"}), &body())), Ok(sport()));
    let named = issuer.sign(&json!({"alg": "ES256", "kid": "a"}), &body());
    assert_eq!(verify(&keys, &named), Err(AuthError::Unknown), "a key without an id does not match");
}

#[test]
fn no_algorithm_makes_a_token_valid_that_its_key_did_not_sign() {
    let issuer = Issuer::new();
    let rsa = json!({"kty": "RSA", "kid": "r", "n": base64(&[0xc1; RSA_N_BYTES]), "e": "AQAB"});
    let keys = keys(json!([issuer.p256_jwk("a"), rsa]), claims());
    // The public key as it is written in the file, as a point and as JSON, taken for a shared secret.
    let jwk = issuer.p256_jwk("a");
    let secrets = [issuer.p256.public_key().as_ref().to_vec(), jwk.to_string().into_bytes(), Vec::new()];
    for alg in ["HS256", "HS384", "HS512"] {
        for kid in ["a", "r"] {
            let header = json!({"alg": alg, "kid": kid});
            let unsigned = issuer.sign(&header, &body());
            let message = unsigned.trim_end_matches('.');
            for secret in &secrets {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                let tag = ring::hmac::sign(&key, message.as_bytes());
                let token = format!("{message}.{}", base64(tag.as_ref()));
                assert_eq!(verify(&keys, &token), Err(AuthError::Algorithm), "{alg} {kid}");
            }
        }
    }
    for alg in ["none", "None", "NONE", "", "ES512", "RS1", "es256"] {
        let unsigned = issuer.sign(&json!({"alg": alg, "kid": "a"}), &body());
        assert_eq!(verify(&keys, &unsigned), Err(AuthError::Malformed), "{alg:?}");
    }
    for (alg, kid) in [("ES384", "a"), ("RS256", "a"), ("EdDSA", "a"), ("ES256", "r")] {
        let crossed = issuer.sign(&json!({"alg": alg, "kid": kid}), &body());
        assert_eq!(verify(&keys, &crossed), Err(AuthError::Algorithm), "{alg} {kid}");
    }
    for alg in ["RS256", "PS512"] {
        let unsigned = issuer.sign(&json!({"alg": alg, "kid": "r"}), &body());
        assert_eq!(verify(&keys, &unsigned), Err(AuthError::Signature), "{alg}");
    }
    // A key inside the token is never used.
    let own = Issuer::new();
    let header =
        json!({"alg": "ES256", "kid": "a", "jwk": own.p256_jwk("a"), "jku": "https://evil.example/"});
    assert_eq!(verify(&keys, &own.sign(&header, &body())), Err(AuthError::Signature));
    let critical = json!({"alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false});
    assert_eq!(verify(&keys, &issuer.sign(&critical, &body())), Err(AuthError::Malformed));
}

#[test]
fn claims_are_checked_with_a_minute_of_leeway_and_by_their_exact_text() {
    let issuer = Issuer::new();
    let keys = keys(json!([issuer.p256_jwk("a")]), claims());
    for (claim, value, expected) in [
        ("exp", json!(NOW_S - 59), Ok(sport())),
        ("exp", json!(NOW_S - 60), Err(AuthError::Expired)),
        ("exp", json!(NOW_S as f64 - 59.5), Ok(sport())),
        ("exp", json!(0), Err(AuthError::Expired)),
        ("exp", json!(1e300), Err(AuthError::Malformed)),
        ("exp", json!("9999999999"), Err(AuthError::Malformed)),
        ("exp", json!(null), Err(AuthError::Malformed)),
        ("exp", json!(-1), Err(AuthError::Malformed)),
        ("nbf", json!(NOW_S + 60), Ok(sport())),
        ("nbf", json!(NOW_S + 61), Err(AuthError::NotYet)),
        ("nbf", json!("0"), Err(AuthError::Malformed)),
        ("aud", json!(["other", "newswire"]), Ok(sport())),
        ("aud", json!(["other"]), Err(AuthError::Audience)),
        ("aud", json!("newswire2"), Err(AuthError::Audience)),
        ("aud", json!(null), Err(AuthError::Audience)),
        ("aud", json!(5), Err(AuthError::Audience)),
        ("iss", json!("https://login.example/"), Err(AuthError::Issuer)),
        ("iss", json!(null), Err(AuthError::Issuer)),
        ("iss", json!({}), Err(AuthError::Issuer)),
        ("iss", json!(["https://login.example"]), Err(AuthError::Issuer)),
        ("iss", json!(["https://evil.example", "https://login.example"]), Err(AuthError::Issuer)),
        ("newswire.categories", json!("all"), Ok(None)),
        ("newswire.categories", json!("sport"), Err(AuthError::NoCategories)),
        ("newswire.categories", json!([]), Err(AuthError::NoCategories)),
        ("newswire.categories", json!(["sport", 5]), Err(AuthError::NoCategories)),
        ("newswire.categories", json!(["a b"]), Err(AuthError::NoCategories)),
        ("newswire.categories", json!(vec!["a"; CATEGORIES_MAX + 1]), Err(AuthError::NoCategories)),
        ("newswire.categories", json!(null), Err(AuthError::NoCategories)),
    ] {
        let token = issuer.sign(&json!({"alg": "ES256", "kid": "a"}), &with(claim, value.clone()));
        assert_eq!(verify(&keys, &token), expected, "{claim} {value}");
    }
}

#[test]
fn unconfigured_claims_are_not_required_but_a_token_for_another_audience_is_refused() {
    let issuer = Issuer::new();
    let rules = ClaimRules {
        issuer: None,
        audience: None,
        categories: "realm.groups".to_owned(),
        public: vec!["general".to_owned()],
    };
    let keys = keys(json!([issuer.p256_jwk("a")]), rules);
    let sign = |claims: &Value| issuer.sign(&json!({"alg": "ES256", "kid": "a"}), claims);
    let nested = json!({"exp": NOW_S + 1, "realm": {"groups": ["sport"]}});
    let listed = json!({"iss": ["https://any.example"], "exp": NOW_S + 1, "realm": {"groups": ["sport"]}});
    assert_eq!(verify(&keys, &sign(&listed)), Err(AuthError::Issuer), "an issuer is one text");
    let both = Some(Arc::new(CategoryScope::new(["general", "sport"])));
    assert_eq!(verify(&keys, &sign(&nested)), Ok(both), "with what is public");
    let whole = json!({"exp": NOW_S + 1, "realm.groups": "all", "realm": {"groups": ["sport"]}});
    assert_eq!(verify(&keys, &sign(&whole)), Ok(None));
    let foreign = json!({"exp": NOW_S + 1, "aud": "another", "realm.groups": "all"});
    assert_eq!(verify(&keys, &sign(&foreign)), Err(AuthError::Audience));
}

#[test]
fn garbage_and_a_token_with_a_changed_byte_are_refused() {
    let issuer = Issuer::new();
    let keys = keys(json!([issuer.p256_jwk("a")]), claims());
    let good = issuer.sign(&json!({"alg": "ES256", "kid": "a"}), &body());
    assert_eq!(verify(&keys, &good), Ok(sport()));
    for (n, _) in good.char_indices() {
        let mut changed = good.clone().into_bytes();
        changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        // The last letter of a signature has four unused bits, which must be zero.
        assert!(verify(&keys, &changed).is_err(), "{n}: {changed}");
    }
    let nested = format!("{}.{}.x", base64(b"{\"alg\":\"ES256\"}"), base64("[".repeat(3000).as_bytes()));
    for garbage in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "\u{0}.\u{0}.\u{0}",
        "e30.e30.e30",
        &"a".repeat(TOKEN_BYTES_MAX),
        &nested,
    ] {
        assert!(verify(&keys, garbage).is_err(), "{garbage}");
    }
    for (from, to) in [(0, good.len() - 1), (1, good.len()), (0, good.rfind('.').unwrap() + 1)] {
        assert!(verify(&keys, &good[from..to]).is_err());
    }
    assert!(verify(&keys, &format!("{good}.")).is_err() && verify(&keys, &format!("{good}=")).is_err());
}

proptest::proptest! {
    #[test]
    fn any_other_token_is_refused_without_a_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        text in "[ -~]{0,60}",
        alg in "(ES256|EdDSA|RS256|HS256|none|[A-Z]{0,4})",
    ) {
        thread_local! {
            static KEYS: JwtKeys = keys(json!([Issuer::new().p256_jwk("a"), Issuer::new().ed25519_jwk("b")]), claims());
        }
        let header = base64(json!({"alg": alg, "kid": "a", "x": text}).to_string().as_bytes());
        let claims = base64(body().to_string().as_bytes());
        for token in [
            bytes.clone(),
            format!("{header}.{}.{}", base64(&bytes), base64(&bytes)).into_bytes(),
            format!("{header}.{claims}.{}", base64(&bytes)).into_bytes(),
            format!("{}.{}.{}", base64(text.as_bytes()), base64(&bytes), text).into_bytes(),
        ] {
            KEYS.with(|keys| assert!(keys.verify(&token, Timestamp::from_millis(NOW_S * 1000)).is_err()));
        }
    }
}

#[test]
fn a_file_of_keys_is_accepted_as_a_whole_or_not_at_all() {
    let issuer = Issuer::new();
    let complaints = |text: &str| parse(text).map(|_| ()).unwrap_err();
    let of = |listed: Value| {
        let messages = complaints(&json!({ "keys": listed }).to_string());
        messages.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(complaints("{\n\"keys\": [}\n")[0].0, Some(2));
    assert!(complaints("[]")[0].1.contains("not a JWK set"));
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"});
    assert!(of(json!([issuer.p256_jwk("a"), secret])).contains("keys[1]: a shared secret"));
    let mut private = issuer.ed25519_jwk("a");
    private["d"] = json!("c2VjcmV0");
    assert!(of(json!([private])).contains("keys[0]: is a private key"));
    let short = json!({"kty": "RSA", "n": base64(&[0xc1; 128]), "e": "AQAB"});
    assert!(of(json!([short])).contains("2048"));
    let mut cut = issuer.p256_jwk("a");
    cut["x"] = json!("AAAA");
    assert!(of(json!([cut])).contains("too short"));
    let mut other = issuer.p256_jwk("a");
    other["alg"] = json!("HS256");
    assert!(of(json!([other])).contains("`alg`"));
    assert!(of(json!([issuer.p256_jwk("a"), issuer.ed25519_jwk("a")])).contains("same `kid`"));
    let mut nameless = issuer.p256_jwk("a");
    nameless.as_object_mut().unwrap().remove("kid");
    assert!(of(json!([nameless, issuer.ed25519_jwk("b")])).contains("each needs a `kid`"));
    let mut encrypts = issuer.p256_jwk("a");
    encrypts["use"] = json!("enc");
    assert!(of(json!([encrypts.clone()])).contains("has no key"));
    assert!(of(json!([{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}])).contains("has no key"));
    assert!(of(json!([5])).contains("not a JWK"));
    let many: Vec<_> = (0..=KEYS_MAX).map(|n| issuer.p256_jwk(&n.to_string())).collect();
    assert!(of(json!(many)).contains("more than 64"));
    // Issuers publish keys of other kinds in the same set.
    let mixed = json!([encrypts, issuer.ed25519_jwk("b"), {"kty": "future", "x": 1}]);
    assert_eq!(parse(&json!({ "keys": mixed }).to_string()).unwrap().len(), 1);
    let padded = [vec![0], vec![0xc1; RSA_N_BYTES]].concat();
    let padded = json!({"keys": [{"kty": "RSA", "n": base64(&padded), "e": "AQAB"}]}).to_string();
    assert_eq!(parse(&padded).unwrap().len(), 1, "some issuers write a leading zero");
    assert!(!format!("{:?}", keys(json!([issuer.p256_jwk("a")]), claims())).contains("AQAB"));
}

#[test]
fn a_token_of_an_rsa_key_is_accepted() {
    // RFC 7515, appendix A.2: a token made by another implementation.
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ\
             S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2\
             R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD\
             TW9gb54h4FRWyuXpoQ";
    let token = "eyJhbGciOiJSUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_\
                 O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIA\
                 RNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPq\
                 vhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77\
                 Rw";
    let rules = ClaimRules {
        issuer: Some("joe".to_owned()),
        audience: None,
        categories: "groups".to_owned(),
        public: Vec::new(),
    };
    let keys = keys(json!([{"kty": "RSA", "n": n, "e": "AQAB"}]), rules);
    let at = |seconds: i64| keys.verify(token.as_bytes(), Timestamp::from_millis(seconds * 1000)).map(|_| ());
    assert_eq!(at(1_300_819_380), Err(AuthError::NoCategories), "valid but for its categories");
    assert_eq!(at(1_300_819_441), Err(AuthError::Expired));
}

#[test]
fn a_replaced_key_is_another_one_and_a_reordered_file_is_the_same() {
    let (one, other) = (Issuer::new(), Issuer::new());
    let hashes = |jwks: Value| keys(jwks, claims()).key_hashes();
    let before = hashes(json!([one.p256_jwk("a"), one.ed25519_jwk("b")]));
    assert_eq!(before, hashes(json!([one.ed25519_jwk("b"), one.p256_jwk("a")])));
    let after = hashes(json!([other.p256_jwk("a"), one.ed25519_jwk("b")]));
    assert_eq!(before.keys().filter(|hash| !after.contains_key(hash)).count(), 1, "the same id, another key");
}
