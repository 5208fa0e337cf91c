//! Checks that a push was signed with the secret that only we and the hub know (WebSub, section 7).

use ring::hmac;

/// Longest `X-Hub-Signature`, in bytes: the name of a hash function and 128 digits.
const HEADER_BYTES_MAX: usize = 160;

/// Whether `header`, such as `sha256=5d41…`, is the signature of `body`. The bytes are compared in constant time.
pub(crate) fn is_valid_signature(secret: &str, header: &str, body: &[u8]) -> bool {
    let Some((hash, digits)) = header.trim().split_once('=') else { return false };
    let algorithm = match hash.to_ascii_lowercase().as_str() {
        // Broken for signatures, but not as an HMAC; most hubs know no other.
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        "sha384" => hmac::HMAC_SHA384,
        "sha512" => hmac::HMAC_SHA512,
        _ => return false,
    };
    let Some(signature) = from_hex(digits).filter(|_| header.len() <= HEADER_BYTES_MAX) else { return false };
    hmac::verify(&hmac::Key::new(algorithm, secret.as_bytes()), body, &signature).is_ok()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2202, section 3, and RFC 4231, section 4.3: the key `Jefe`.
    const SIGNATURES: [&str; 4] = [
        "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "sha384=af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        "sha512=164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
         caeab1a34d4a6b4b636e070a38bce737",
    ];
    const BODY: &[u8] = b"what do ya want for nothing?";

    #[test]
    fn a_signature_with_each_of_the_four_hash_functions_is_valid() {
        for signature in SIGNATURES {
            assert!(is_valid_signature("Jefe", signature, BODY), "{signature}");
            assert!(is_valid_signature("Jefe", &signature.to_uppercase(), BODY), "{signature}");
        }
    }

    #[test]
    fn anything_else_is_invalid() {
        for signature in SIGNATURES {
            assert!(!is_valid_signature("jefe", signature, BODY), "another secret: {signature}");
            assert!(
                !is_valid_signature("Jefe", signature, b"what do ya want for something?"),
                "another body: {signature}"
            );
            assert!(!is_valid_signature("Jefe", &signature[..signature.len() - 2], BODY), "cut: {signature}");
            assert!(!is_valid_signature("Jefe", &format!("{signature}00"), BODY), "longer: {signature}");
        }
        let (_, digits) = SIGNATURES[1].split_once('=').unwrap();
        for header in
            ["", "=", "sha256", "sha256=", "sha256=zz", "sha256=a", digits, &format!("md5={digits}")]
        {
            assert!(!is_valid_signature("Jefe", header, BODY), "{header}");
        }
    }
}
