//! Removes secrets from everything that leaves the machine: every part of a bundle passes through here.
//!
//! Two independent filters. By shape: the value of a name such as `token` or `Cookie`, what follows `Bearer`, and user
//! name, password, query values and fragment of a URL. By value: the secrets in the configuration, in the list of sources
//! and in the files that they name, wherever they occur. An ellipsis replaces each secret, so that a reader sees that
//! something was removed.

use serde_json::Value;

/// What replaces a secret.
const REDACTED: &str = "…";
/// A name that contains one of these is that of a secret.
const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "cookie",
    "credential",
    "api_key",
    "api-key",
    "apikey",
    "private_key",
    "access_key",
];
/// Names whose value extends to the end of the line.
const WHOLE_LINE: [&str; 2] = ["authorization", "cookie"];
/// A name with one of these endings is that of a file, not of a secret.
const FILE_ENDINGS: [&str; 3] = ["_file", "_files", "_path"];
/// Shorter secrets are not searched for by value: they are too common, in bytes.
const KNOWN_BYTES_MIN: usize = 4;

/// Removes secrets from texts.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    /// Known secrets, the longest first: one may be part of another.
    known: Vec<String>,
}

/// Does not print the secrets themselves.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("known", &self.known.len()).finish()
    }
}

impl Redactor {
    /// Removes these values, in addition to what is recognised by shape.
    pub(crate) fn new(known: impl IntoIterator<Item = String>) -> Self {
        let long = |secret: &String| secret.len() >= KNOWN_BYTES_MIN;
        let plain = known.into_iter().map(|secret| secret.trim().to_owned()).filter(long);
        let mut known: Vec<_> = plain.flat_map(forms).collect();
        known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self { known }
    }

    /// Redacts lines of any kind; a line that is a JSON object is treated as JSON.
    pub(crate) fn lines(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
            match serde_json::from_str::<Value>(body) {
                Ok(mut value @ Value::Object(_)) => {
                    self.json(&mut value);
                    out.push_str(&value.to_string());
                }
                _ => out.push_str(&self.text(body)),
            }
            out.push_str(end);
        }
        out
    }

    /// Redacts plain text of one or more lines.
    pub(crate) fn text(&self, text: &str) -> String {
        let text = self.without_known(text);
        let text = without_addresses(&text);
        let text = without_schemes(&text);
        text.split_inclusive('\n').map(without_named).collect()
    }

    /// Redacts a JSON document in place.
    pub(crate) fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.json(value)),
            Value::Object(fields) => {
                let pair = fields.get("name").and_then(Value::as_str).is_some_and(is_secret);
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(name, mut value)| {
                        if is_secret(&name) || name == "headers" || (pair && name == "value") {
                            erase(&mut value);
                        } else {
                            self.json(&mut value);
                        }
                        (self.text(&name), value)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn without_known(&self, text: &str) -> String {
        self.known.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), REDACTED) } else { text }
        })
    }
}

/// A secret as it is, as escaped in JSON, and as encoded in a URL.
fn forms(secret: String) -> [String; 3] {
    let json = Value::String(secret.clone()).to_string();
    let address = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    [json.trim_matches('"').to_owned(), address, secret]
}

/// Whether the value of this name is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|word| name.contains(word)) && !FILE_ENDINGS.iter().any(|end| name.ends_with(end))
}

/// Replaces every text and number; names, lengths and shape stay.
fn erase(value: &mut Value) {
    match value {
        Value::String(_) | Value::Number(_) => *value = Value::String(REDACTED.to_owned()),
        Value::Array(list) => list.iter_mut().for_each(erase),
        Value::Object(fields) => fields.values_mut().for_each(erase),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether a URL in running text ends here. A single quote may be part of it.
fn ends_address(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`')
}

/// Removes user, password, query values and fragment from URLs, and the values of queries without a URL.
fn without_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let scheme = rest.find("://").map(|at| (at + 3, true));
        let query = lone_query(rest).map(|at| (at, false));
        let next = [scheme, query].into_iter().flatten().min();
        let Some((at, has_authority)) = next else { return out + rest };
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let length = after.find(ends_address).unwrap_or(after.len());
        let (address, behind) = after.split_at(length);
        push_address(&mut out, address, has_authority);
        rest = behind;
    }
}

/// The position of the `?` of `?name=`.
fn lone_query(text: &str) -> Option<usize> {
    text.match_indices('?').map(|(at, _)| at).find(|at| {
        let after = &text[at + 1..];
        let name = after.find(|c: char| !is_name(c) && c != '%').unwrap_or(after.len());
        name > 0 && after[name..].starts_with('=')
    })
}

fn push_address(out: &mut String, address: &str, has_authority: bool) {
    let (address, fragment) = match address.split_once('#') {
        Some((address, _)) => (address, true),
        None => (address, false),
    };
    let (path, query) = match address.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (address, None),
    };
    match path.rsplit_once('@').filter(|_| has_authority) {
        // A password may contain an unescaped slash, so the last `@` counts, wherever it is.
        Some((_, host)) => out.extend([REDACTED, "@", host]),
        None => out.push_str(path),
    }
    for (n, pair) in query.into_iter().flat_map(|query| query.split(['&', ';'])).enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) => out.extend([name, "=", REDACTED]),
            None if pair.is_empty() => {}
            None => out.push_str(REDACTED),
        }
    }
    if fragment {
        out.extend(["#", REDACTED]);
    }
}

/// Removes what follows `Bearer` or `Basic`, and JSON Web Tokens wherever they are.
fn without_schemes(text: &str) -> String {
    const SECRET_CHARS_MIN: usize = 6;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // ASCII lower case does not move positions.
    let lower = text.to_ascii_lowercase();
    loop {
        let from = text.len() - rest.len();
        let found = [("bearer ", 7), ("basic ", 6), ("eyj", 0)]
            .into_iter()
            .filter_map(|(word, skip)| lower[from..].find(word).map(|at| at + skip))
            .min();
        let Some(at) = found else { return out + rest };
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let length = after.find(|c| !is_part(c)).unwrap_or(after.len());
        let (secret, behind) = after.split_at(length);
        let token = secret.starts_with("eyJ") && secret.contains('.');
        let after_scheme = before.ends_with(' ') && secret.len() >= SECRET_CHARS_MIN;
        if token || after_scheme {
            out.push_str(REDACTED);
            rest = behind;
        } else {
            // Not a secret: continue at least one character further, so that the loop ends.
            let step = after.chars().next().map_or(0, char::len_utf8);
            out.push_str(&after[..step]);
            rest = &after[step..];
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Removes the value after `name=`, `name: ` and `"name":` if the name is that of a secret.
fn without_named(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find([':', '=']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let name = before[..at].trim_end_matches(['"', '\'', '\\', ' ']);
        let name = &name[name.rfind(|c| !is_name(c)).map_or(0, |at| at + last_len(name, at))..];
        rest = if is_secret(name) { push_value(&mut out, name, after) } else { after };
    }
    out + rest
}

/// The length of the character at `at`.
fn last_len(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

/// Appends the replacement of a value; returns the text after it.
fn push_value<'a>(out: &mut String, name: &str, after: &'a str) -> &'a str {
    let blank = after.len() - after.trim_start_matches([' ', '\t']).len();
    let (blank, value) = after.split_at(blank);
    out.push_str(blank);
    let escapes = value.len() - value.trim_start_matches('\\').len();
    let (opening, inner) = value.split_at(escapes);
    let lower = name.to_ascii_lowercase();
    let end = match inner.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            out.push_str(opening);
            out.push(quote);
            let inner = &inner[1..];
            let end = closing_quote(inner, quote, escapes);
            out.push_str(REDACTED);
            return &inner[end..];
        }
        // A list or an object: the whole rest of the line.
        Some('[' | '{') => value.trim_end_matches('\n').len(),
        _ if WHOLE_LINE.iter().any(|word| lower.contains(word)) => {
            value.find(['"', '\n', '\r']).unwrap_or(value.len())
        }
        _ => value.find(|c: char| c.is_whitespace() || ",;&\"'})]".contains(c)).unwrap_or(value.len()),
    };
    if end > 0 {
        out.push_str(REDACTED);
    }
    &value[end..]
}

/// Where a quoted value ends whose opening quote has this many backslashes before it.
fn closing_quote(inner: &str, quote: char, escapes: usize) -> usize {
    let mut backslashes = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '\\' => backslashes += 1,
            c if c == quote && backslashes <= escapes => return at - backslashes,
            _ => backslashes = 0,
        }
    }
    inner.trim_end_matches('\n').len()
}

#[cfg(test)]
mod tests;
