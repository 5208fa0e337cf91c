//! Authorises the operator: only a client that sends the operator's token, in `Authorization: Bearer`, may send orders.

use std::{fs, io::Read as _, path::Path};

use actix_web::http::header::HeaderMap;
use anyhow::Context as _;
use control::CredentialChanges;

use super::{
    bearer::{PresentedToken, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, TokenHash},
    credential_changes::{CredentialMap, difference},
};

/// The hash of the operator's token, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct OperatorToken(Option<TokenHash>);

impl OperatorToken {
    /// Reads the token from its file; without a file no client may send orders.
    ///
    /// # Errors
    /// If the file cannot be read, or has no token.
    #[expect(clippy::disallowed_methods, reason = "before the event loops start")]
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else { return Ok(Self(None)) };
        let mut token = String::new();
        let opened = fs::File::open(file)
            .with_context(|| format!("gateway.operator_token_file {}", file.display()))?;
        opened
            .take(TOKEN_BYTES_MAX as u64)
            .read_to_string(&mut token)
            .with_context(|| format!("gateway.operator_token_file {}", file.display()))?;
        let token = token.trim();
        anyhow::ensure!(
            token.len() >= TOKEN_BYTES_MIN,
            "gateway.operator_token_file {}: the token must have at least {TOKEN_BYTES_MIN} characters",
            file.display()
        );
        Ok(Self(Some(TokenHash::of(token.as_bytes()))))
    }

    /// Whether the token differs from an earlier one.
    pub(crate) fn changes_since(&self, old: &Self) -> Option<CredentialChanges> {
        let hash = |operator: &Self| {
            operator.0.iter().map(|token| (token.prefix(), ())).collect::<CredentialMap<_>>()
        };
        difference("gateway.operator_token_file", &hash(old), &hash(self))
    }

    /// Checks that a request presents the operator's token.
    ///
    /// # Errors
    /// If there is no operator, or this is not the operator.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), OperatorError> {
        let token = self.0.ok_or(OperatorError::NotConfigured)?;
        let presented = match PresentedToken::from_authorization(headers) {
            PresentedToken::One(presented) => presented,
            PresentedToken::Missing | PresentedToken::Several => b"",
        };
        if TokenHash::of(presented).is(&token) { Ok(()) } else { Err(OperatorError::WrongToken) }
    }
}

/// Why an order is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperatorError {
    /// No operator token is configured.
    NotConfigured,
    /// The token is missing, or another one.
    WrongToken,
}

#[cfg(test)]
mod tests {
    use actix_web::{ResponseError as _, test::TestRequest};

    use super::*;
    use crate::http::problem::HttpProblem;

    #[test]
    fn only_the_whole_token_in_the_right_header_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let operator = OperatorToken::load(Some(&file)).unwrap();
        let status = |header: Option<&str>, uri: &str| {
            let mut request = TestRequest::with_uri(uri);
            if let Some(header) = header {
                request = request.insert_header(("authorization", header));
            }
            let error = operator.check(request.to_http_request().headers()).err();
            error.map(|error| HttpProblem::from(error).status_code().as_u16())
        };
        assert_eq!(status(Some("Bearer 0123456789abcdef"), "/"), None);
        assert_eq!(status(Some("bearer 0123456789abcdef"), "/"), None);
        for header in [
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "0123456789abcdef",
            "Basic x",
            "Bearer ",
            "",
        ] {
            assert_eq!(status(Some(header), "/"), Some(401), "{header:?}");
        }
        assert_eq!(status(None, "/?token=0123456789abcdef"), Some(401));
        assert!(!format!("{operator:?}").contains("0123"));
    }

    #[test]
    fn without_a_token_there_is_no_operator_and_a_short_token_is_refused() {
        let operator = OperatorToken::load(None).unwrap();
        let error = operator.check(TestRequest::default().to_http_request().headers()).unwrap_err();
        assert_eq!(HttpProblem::from(error).status_code().as_u16(), 403);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "short").unwrap();
        assert!(OperatorToken::load(Some(&file)).unwrap_err().to_string().contains("at least 16"));
        assert!(OperatorToken::load(Some(&directory.path().join("nope"))).is_err());
    }
}
