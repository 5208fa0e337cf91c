//! Secrets out of whatever leaves the machine: one place that every part of a bundle passes through.
//!
//! Two nets, each of which would do alone. By shape: what stands under a name such as `token` or `Cookie`, after
//! `Bearer`, in the user name, password, query or fragment of an address. By value: the secrets that the configuration
//! and the list of sources lead to, wherever they turn up. What is taken out leaves an ellipsis behind, so that a reader
//! sees that something was there.

use serde_json::Value;

/// What stands where a secret was.
const GONE: &str = "…";
/// A name that has one of these in it names a secret.
const NAMES: [&str; 13] = [
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
/// Names whose value goes on to the end of the line.
const WHOLE_LINE: [&str; 2] = ["authorization", "cookie"];
/// A name that ends like this names a place.
const PLACES: [&str; 3] = ["_file", "_files", "_path"];
/// Shorter values are too common to be looked for everywhere, in bytes.
const KNOWN_BYTES_MIN: usize = 4;

/// Takes secrets out of texts.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    /// The longest first: one may be part of another.
    known: Vec<String>,
}

/// Without the secrets themselves.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("known", &self.known.len()).finish()
    }
}

impl Redactor {
    /// Looks for these values besides the shapes.
    pub(crate) fn new(known: impl IntoIterator<Item = String>) -> Self {
        let long = |secret: &String| secret.len() >= KNOWN_BYTES_MIN;
        let plain = known.into_iter().map(|secret| secret.trim().to_owned()).filter(long);
        let mut known: Vec<_> = plain.flat_map(forms).collect();
        known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self { known }
    }

    /// Lines of any kind; those that are JSON are taken as such.
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

    /// A text of one line or more, which is not taken for JSON.
    pub(crate) fn text(&self, text: &str) -> String {
        let text = self.without_known(text);
        let text = without_addresses(&text);
        let text = without_schemes(&text);
        text.split_inclusive('\n').map(without_named).collect()
    }

    /// A JSON document, in place.
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
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), GONE) } else { text }
        })
    }
}

/// A secret as it is, as JSON writes it, and as an address does.
fn forms(secret: String) -> [String; 3] {
    let json = Value::String(secret.clone()).to_string();
    let address = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    [json.trim_matches('"').to_owned(), address, secret]
}

/// Whether what stands under this name is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|word| name.contains(word)) && !PLACES.iter().any(|end| name.ends_with(end))
}

/// Every text and number below; names, lengths and shape stay.
fn erase(value: &mut Value) {
    match value {
        Value::String(_) | Value::Number(_) => *value = Value::String(GONE.to_owned()),
        Value::Array(list) => list.iter_mut().for_each(erase),
        Value::Object(fields) => fields.values_mut().for_each(erase),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Where an address in running text ends. Quotes of the other kind may be part of it.
fn ends_address(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`')
}

/// Addresses without user, password, values of the query, and fragment; and queries that stand alone.
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

/// The place of a `?` that begins `?name=`.
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
        // A password may hold an unescaped slash, so the last `@` counts, wherever it stands.
        Some((_, host)) => out.extend([GONE, "@", host]),
        None => out.push_str(path),
    }
    for (n, pair) in query.into_iter().flat_map(|query| query.split(['&', ';'])).enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) => out.extend([name, "=", GONE]),
            None if pair.is_empty() => {}
            None => out.push_str(GONE),
        }
    }
    if fragment {
        out.extend(["#", GONE]);
    }
}

/// What follows `Bearer` or `Basic`, and JSON Web Tokens wherever they are.
fn without_schemes(text: &str) -> String {
    const SECRET_CHARS_MIN: usize = 6;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Lower case of ASCII alone keeps every place where it is.
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
            out.push_str(GONE);
            rest = behind;
        } else {
            // Nothing here; at least one character on, so that the same place is not met again.
            let step = after.chars().next().map_or(0, char::len_utf8);
            out.push_str(&after[..step]);
            rest = &after[step..];
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// One line without what stands after `name=`, `name: `, `"name":` where the name is that of a secret.
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

/// Writes what stands in the place of a value; gives what follows it.
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
            let end = closing(inner, quote, escapes);
            out.push_str(GONE);
            return &inner[end..];
        }
        // A list or an object under such a name, on one line: all of it.
        Some('[' | '{') => value.trim_end_matches('\n').len(),
        _ if WHOLE_LINE.iter().any(|word| lower.contains(word)) => {
            value.find(['"', '\n', '\r']).unwrap_or(value.len())
        }
        _ => value.find(|c: char| c.is_whitespace() || ",;&\"'})]".contains(c)).unwrap_or(value.len()),
    };
    if end > 0 {
        out.push_str(GONE);
    }
    &value[end..]
}

/// Where a quoted value ends that was opened by a quote with so many backslashes before it.
fn closing(inner: &str, quote: char, escapes: usize) -> usize {
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
