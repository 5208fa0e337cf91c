//! Static tokens: `gateway.read_tokens_file`.
//!
//! ```toml
//! [[token]]
//! name = "desk"                       # required: for people, and for messages
//! sha256 = "9f9f5111f7b2…"            # of the token: printf %s "$TOKEN" | sha256sum
//! # token = "…"                       # or the token itself
//! categories = ["sport", "culture"]   # required: a list, or "all"
//! expires = 2027-01-01T00:00:00Z      # optional
//! ```

use std::{collections::HashMap, sync::Arc};

use news::Timestamp;
use notation::Complaint;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    bearer::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, TokenHash},
    credential_changes::CredentialMap,
    error::AuthError,
    files::AuthFile,
    scope::CategoryScope,
    token_grant::{CATEGORIES_MAX, TokenGrant, is_category},
};

/// Maximum number of tokens in the file.
const TOKENS_MAX: usize = 10_000;
/// Largest file: as many tokens with a few categories each.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// All static tokens, sorted by hash.
#[derive(Clone, Debug, Default)]
pub(super) struct StaticTokens(Vec<StaticToken>);

/// The hash of a scope, `None` for everything; and when the token expires.
pub(super) type StaticGrant = (Option<u64>, Option<Timestamp>);

#[derive(Clone, Debug)]
struct StaticToken {
    hash: TokenHash,
    /// `None` for everything.
    scope: Option<Arc<CategoryScope>>,
    expires: Option<Timestamp>,
}

impl StaticTokens {
    /// Reads the file; each scope includes the `public` categories.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn load(file: AuthFile<'_>, public: &[String]) -> Result<Self, Vec<Complaint>> {
        let text = file.text(FILE_BYTES_MAX).map_err(|complaint| vec![complaint])?;
        Self::parse(&text, public).map_err(|complaints| {
            complaints.into_iter().map(|(line, message)| file.complaint(Some(line), message)).collect()
        })
    }

    fn parse(text: &str, public: &[String]) -> Result<Self, Vec<(usize, String)>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        let mut parser = FileParser {
            breaks,
            public,
            complaints: Vec::new(),
            names: HashMap::new(),
            lines: HashMap::new(),
        };
        for error in &errors {
            let at = error.span().map_or(text.len(), |span| span.start);
            parser.complain(at, format!("not valid TOML: {}", error.message()));
        }
        let mut tokens = if errors.is_empty() { parser.document(document.get_ref()) } else { Vec::new() };
        if parser.complaints.is_empty() {
            tokens.sort_unstable_by_key(|token| token.hash.prefix());
            Ok(Self(tokens))
        } else {
            parser.complaints.sort_by_key(|(line, _)| *line);
            Err(parser.complaints)
        }
    }

    /// Whether the token with this hash prefix still grants exactly this.
    pub(super) fn still_grant(
        &self,
        prefix: u64,
        scope: Option<&Arc<CategoryScope>>,
        expires: Option<Timestamp>,
    ) -> bool {
        let first = self.0.partition_point(|token| token.hash.prefix() < prefix);
        let mut alike = self.0[first..].iter().take_while(|token| token.hash.prefix() == prefix);
        alike.any(|token| token.scope.as_ref() == scope && token.expires == expires)
    }

    /// What each token grants, and until when.
    pub(super) fn grants(&self) -> CredentialMap<StaticGrant> {
        let grant = |token: &StaticToken| (token.scope.as_ref().map(|scope| scope.hash()), token.expires);
        self.0.iter().map(|token| (token.hash.prefix(), grant(token))).collect()
    }

    /// What each token grants that does not grant everything.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &CategoryScope> {
        self.0.iter().filter_map(|token| token.scope.as_deref())
    }

    /// What a token grants; `None` if the file does not have it.
    pub(super) fn find(&self, presented: &[u8], now: Timestamp) -> Option<Result<TokenGrant, AuthError>> {
        let presented = TokenHash::of(presented);
        let first = self.0.partition_point(|token| token.hash.prefix() < presented.prefix());
        let alike = self.0[first..].iter().take_while(|token| token.hash.prefix() == presented.prefix());
        let token =
            alike.fold(None, |found, token| if token.hash.is(&presented) { Some(token) } else { found })?;
        // The file and the clock are those of one machine, so there is no leeway.
        if token.expires.is_some_and(|expires| expires <= now) {
            return Some(Err(AuthError::Expired));
        }
        Some(Ok(TokenGrant { scope: token.scope.clone(), expires: token.expires }))
    }
}

struct FileParser<'p> {
    /// Offsets of the line ends.
    breaks: Vec<usize>,
    public: &'p [String],
    complaints: Vec<(usize, String)>,
    /// The names so far, and their lines.
    names: HashMap<String, usize>,
    /// The tokens so far, and their lines.
    lines: HashMap<u64, usize>,
}

/// The fields of one `[[token]]` so far.
#[derive(Default)]
struct TokenFields {
    named: bool,
    hash: Option<TokenHash>,
    /// `Some(None)` for all.
    categories: Option<Option<Vec<String>>>,
    expires: Option<Timestamp>,
}

impl FileParser<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.breaks.partition_point(|end| *end < at)
    }

    fn complain(&mut self, at: usize, message: impl Into<String>) {
        self.complaints.push((self.line(at), message.into()));
    }

    fn document(&mut self, document: &DeTable<'_>) -> Vec<StaticToken> {
        let mut tokens = Vec::new();
        for (key, value) in document {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("token", DeValue::Array(list)) if list.len() > TOKENS_MAX => {
                    self.complain(key.span().start, format!("more than {TOKENS_MAX} tokens"));
                }
                ("token", DeValue::Array(list)) => {
                    tokens.extend(list.iter().filter_map(|entry| self.entry(entry)));
                }
                ("token", _) => self.complain(key.span().start, "write [[token]], with two brackets"),
                _ => self.complain(key.span().start, "unknown key; this file holds [[token]] tables only"),
            }
        }
        tokens
    }

    /// Parses one `[[token]]`; `None` if something is wrong with it, which is then among the complaints.
    fn entry(&mut self, entry: &Spanned<DeValue<'_>>) -> Option<StaticToken> {
        let at = entry.span().start;
        let DeValue::Table(table) = entry.get_ref() else {
            self.complain(at, "expected a table; write [[token]]");
            return None;
        };
        let before = self.complaints.len();
        let mut fields = TokenFields::default();
        for (key, value) in table {
            self.field(&mut fields, key, value);
        }
        match (table.contains_key("sha256"), table.contains_key("token")) {
            (false, false) => self.complain(at, "this token has neither `sha256` nor `token`"),
            (true, true) => self.complain(at, "this token has both `sha256` and `token`; keep one of them"),
            _ => {}
        }
        for required in ["name", "categories"] {
            if !table.contains_key(required) {
                self.complain(at, format!("this token has no `{required}`"));
            }
        }
        if self.complaints.len() > before || !fields.named {
            return None;
        }
        let hash = fields.hash?;
        let line = self.line(at);
        if let Some(first) = self.lines.insert(hash.prefix(), line) {
            self.complain(at, format!("this token is the one of line {first}"));
            return None;
        }
        let public = self.public.iter().map(String::as_str);
        let scope = fields
            .categories?
            .map(|list| Arc::new(CategoryScope::new(public.chain(list.iter().map(String::as_str)))));
        Some(StaticToken { hash, scope, expires: fields.expires })
    }

    fn field(&mut self, fields: &mut TokenFields, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        let at = value.span().start;
        let text = value.get_ref().as_str();
        match key.get_ref().as_ref() {
            "name" => fields.named = self.name(at, text),
            "sha256" => {
                fields.hash = text.and_then(TokenHash::from_hex);
                if fields.hash.is_none() {
                    self.complain(at, "sha256: expected 64 hexadecimal digits in quotes");
                }
            }
            "token" => {
                let token = text.filter(|token| is_token(token));
                fields.hash = token.map(|token| TokenHash::of(token.as_bytes()));
                if token.is_none() {
                    self.complain(
                        at,
                        format!(
                            "token: expected {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and -._~+/="
                        ),
                    );
                }
            }
            "categories" => {
                fields.categories = categories(value.get_ref());
                if fields.categories.is_none() {
                    self.complain(
                        at,
                        format!("categories: expected \"all\" or a list of 1 to {CATEGORIES_MAX} categories"),
                    );
                }
            }
            "expires" => {
                let written = value.get_ref().as_datetime().map(ToString::to_string);
                let written = written.as_deref().or(text);
                fields.expires = written.and_then(|written| written.parse().ok());
                if fields.expires.is_none() {
                    self.complain(at, "expires: expected a time such as 2027-01-01T00:00:00Z");
                }
            }
            _ => self.complain(
                key.span().start,
                "unknown key; a token has: name, sha256 or token, categories, expires",
            ),
        }
    }

    fn name(&mut self, at: usize, text: Option<&str>) -> bool {
        let fits =
            |name: &&str| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        let Some(name) = text.filter(fits) else {
            let message = format!("name: expected 1 to {NAME_BYTES_MAX} bytes of text in quotes");
            self.complain(at, message);
            return false;
        };
        let line = self.line(at);
        if let Some(first) = self.names.insert(name.to_owned(), line) {
            self.complain(at, format!("name: already used by the token of line {first}"));
            return false;
        }
        true
    }
}

/// `b64token` of RFC 6750 §2.1, which fits into a header and a cookie.
fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// `Some(None)` for all; `None` if it is neither all nor a list of categories.
fn categories(value: &DeValue<'_>) -> Option<Option<Vec<String>>> {
    match value {
        DeValue::String(all) if all.as_ref() == "all" => Some(None),
        DeValue::Array(list) if (1..=CATEGORIES_MAX).contains(&list.len()) => {
            let word = |entry: &Spanned<DeValue<'_>>| {
                entry.get_ref().as_str().filter(is_category).map(str::to_owned)
            };
            list.iter().map(word).collect::<Option<Vec<_>>>().map(Some)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "desk-token-0123456789";

    fn parse(text: &str) -> Result<StaticTokens, Vec<(usize, String)>> {
        StaticTokens::parse(text, &["general".to_owned()])
    }

    #[test]
    fn a_token_is_found_by_its_text_or_its_hash_until_it_expires() {
        let tokens = parse(
            "[[token]]\nname = \"desk\"\ntoken = \"desk-token-0123456789\"\ncategories = [\"sport\"]\n\
             expires = 1970-01-01T00:01:40Z\n\
             [[token]]\nname = \"all\"\ncategories = \"all\"\nexpires = \"1970-01-01T01:00:00+01:00\"\n\
             sha256 = \"9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f\"\n",
        )
        .unwrap();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let find = |token: &str, seconds| tokens.find(token.as_bytes(), at(seconds));
        let grant = find(SECRET, 99).unwrap().ok().unwrap();
        assert_eq!(grant.expires, Some(at(100)));
        assert_eq!(*grant.scope.unwrap(), CategoryScope::new(["sport", "general"]), "with what is public");
        assert!(matches!(find(SECRET, 100), Some(Err(AuthError::Expired))), "without leeway");
        assert!(matches!(find("0123456789abcdef", 0), Some(Err(AuthError::Expired))));
        assert!(find("0123456789abcdef", -1).unwrap().ok().unwrap().scope.is_none(), "everything");
        for other in ["", "0123456789abcde", "0123456789abcdef0", "desk-token-012345678"] {
            assert!(find(other, 0).is_none(), "{other}");
        }
        assert!(!format!("{tokens:?}").contains("9f"), "{tokens:?}");
    }

    #[test]
    fn every_mistake_is_reported_with_its_line_and_without_anything_that_may_be_a_token() {
        let text = "secret = \"desk-token-0123456789\"\n\
                    [[token]]\nname = \"\"\nsha256 = \"desk-token-0123456789\"\ncategories = []\n\
                    [[token]]\ntoken = \"desk-token 0123456789\"\ncategories = \"desk-token-0123456789\"\n\
                    [[token]]\nname = \"a\"\ntoken = \"short\"\nsha256 = 5\ncategories = [\"a b\"]\n\
                    expires = 2027-01-01\ndesk-token-0123456789 = 1\n";
        let complaints = parse(text).unwrap_err();
        let lines: Vec<_> = complaints.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15], "{complaints:#?}");
        let again = "token = \"desk-token-0123456789\"\n";
        let broken = "[[token]]\ntoken = desk-token-0123456789\nname = 'desk-token-0123456789\n";
        let all = [complaints, parse(again).unwrap_err(), parse(broken).unwrap_err()].concat();
        assert!(all.iter().all(|(_, message)| !message.contains("desk")), "{all:#?}");
    }

    #[test]
    fn a_name_and_a_token_may_be_there_only_once() {
        let entry = "[[token]]\nname = \"a\"\ntoken = \"desk-token-0123456789\"\ncategories = \"all\"\n";
        assert!(parse(entry).is_ok());
        let twice = parse(&entry.repeat(2)).unwrap_err();
        assert_eq!(twice, [(6, "name: already used by the token of line 2".to_owned())]);
        let twice = parse(&[entry, &entry.replace("\"a\"", "\"b\"")].concat()).unwrap_err();
        assert_eq!(twice, [(5, "this token is the one of line 1".to_owned())]);
        assert!(parse("").unwrap().0.is_empty());
    }
}
