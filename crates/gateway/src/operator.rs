//! Who may give orders: whoever shows the operator's token, in `Authorization: Bearer` and nowhere else.

use std::{fs, io::Read as _, path::Path};

use actix_web::HttpRequest;
use anyhow::Context as _;

use crate::{
    bearer::{Shown, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, TokenHash},
    problem::Problem,
};

/// The token, as its hash.
#[derive(Clone, Debug)]
pub(crate) struct Operator(Option<TokenHash>);

impl Operator {
    /// Reads the token from its file; without a file nobody may give orders.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no token.
    #[expect(clippy::disallowed_methods, reason = "before the loops begin")]
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
            "gateway.operator_token_file {}: a token has at least {TOKEN_BYTES_MIN} characters",
            file.display()
        );
        Ok(Self(Some(TokenHash::of(token.as_bytes()))))
    }

    /// Lets the operator pass.
    ///
    /// # Errors
    /// 403 when there is no operator, 401 when this is not the operator.
    pub(crate) fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        let token = self.0.ok_or_else(Problem::no_operator)?;
        let shown = match Shown::in_authorization(request.headers()) {
            Shown::Token(shown) => shown,
            Shown::Nothing | Shown::Several => b"",
        };
        if TokenHash::of(shown).is(&token) { Ok(()) } else { Err(Problem::not_the_operator()) }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{ResponseError as _, test::TestRequest};

    use super::*;

    #[test]
    fn only_the_whole_token_in_the_right_place_passes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let operator = Operator::load(Some(&file)).unwrap();
        let status = |header: Option<&str>, uri: &str| {
            let mut request = TestRequest::with_uri(uri);
            if let Some(header) = header {
                request = request.insert_header(("authorization", header));
            }
            operator.check(&request.to_http_request()).err().map(|p| p.status_code().as_u16())
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
    fn without_a_token_there_is_no_operator_and_a_short_one_is_none() {
        let nobody = Operator::load(None).unwrap();
        let problem = nobody.check(&TestRequest::default().to_http_request()).unwrap_err();
        assert_eq!(problem.status_code().as_u16(), 403);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "short").unwrap();
        assert!(Operator::load(Some(&file)).unwrap_err().to_string().contains("at least 16"));
        assert!(Operator::load(Some(&directory.path().join("nope"))).is_err());
    }
}
