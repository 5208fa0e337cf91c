//! Why a reader is not authorised: a stable code and a message for the client, a label for the metrics.

/// Why a reader is not authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    Missing,
    Several,
    TooLong,
    Malformed,
    Algorithm,
    Signature,
    Unknown,
    Expired,
    NotYet,
    Audience,
    Issuer,
    NoCategories,
}

impl AuthError {
    /// Every reason.
    pub(crate) const ALL: [Self; 12] = [
        Self::Missing,
        Self::Several,
        Self::TooLong,
        Self::Malformed,
        Self::Algorithm,
        Self::Signature,
        Self::Unknown,
        Self::Expired,
        Self::NotYet,
        Self::Audience,
        Self::Issuer,
        Self::NoCategories,
    ];

    /// The label of the metric.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Several => "several",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::NoCategories => "no_categories",
        }
    }

    /// For the client: a stable code, and a message that repeats nothing of the token.
    pub(crate) fn client_message(self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => (
                "token-required",
                "a read token is required: send it as `Authorization: Bearer` or in the cookie newswire_read",
            ),
            Self::Several => ("token-invalid", "more than one token was sent"),
            Self::TooLong => ("token-invalid", "the token is longer than 4096 bytes"),
            Self::Malformed => ("token-invalid", "the token is malformed"),
            Self::Algorithm => ("token-invalid", "the token's algorithm does not match its key"),
            Self::Signature => ("token-invalid", "the token's signature is wrong"),
            Self::Unknown => ("token-unknown", "the token is unknown"),
            Self::Expired => ("token-expired", "the token has expired"),
            Self::NotYet => ("token-not-yet-valid", "the token is not valid yet"),
            Self::Audience => ("token-wrong-audience", "the token is for another audience"),
            Self::Issuer => ("token-wrong-issuer", "the token is from another issuer"),
            Self::NoCategories => ("token-without-categories", "the token does not name valid categories"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_auth_error_has_a_code_of_the_openapi_document() {
        for error in AuthError::ALL {
            let (code, detail) = error.client_message();
            assert!(include_str!("../openapi.json").contains(&format!("\"{code}\"")), "{code}");
            assert!(
                !detail.is_empty() && error.reason().bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            );
        }
    }
}
