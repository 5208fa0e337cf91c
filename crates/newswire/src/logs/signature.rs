//! The signature of a line: what lines with the same message about different things have in common.

/// Longest signature, in characters.
pub(super) const CHARS_MAX: usize = 240;
/// Fields whose quoted value says what went wrong: it is kept, with numbers and names in it replaced.
const MESSAGE_FIELDS: [&str; 7] = ["error", "reason", "why", "panic", "blame", "what", "location"];

/// The line with numbers, ids, URLs, quoted texts and source ids replaced.
pub(super) fn signature(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(CHARS_MAX * 2));
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if out.len() >= CHARS_MAX * 4 {
            break; // four bytes make a character at most: enough for what is cut below
        }
        if first == '"' {
            let inner = &rest[1..];
            let end = closing_quote(inner);
            push_quoted(&mut out, &inner[..end]);
            rest = inner.get(end + 1..).unwrap_or_default();
        } else if first.is_whitespace() {
            out.push(' ');
            rest = rest.trim_start();
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
            push_word(&mut out, &rest[..end]);
            rest = &rest[end..];
        }
    }
    let out = out.trim_end();
    match out.char_indices().nth(CHARS_MAX - 1) {
        Some((at, _)) if out.chars().nth(CHARS_MAX).is_some() => format!("{}…", &out[..at]),
        _ => out.to_owned(),
    }
}

/// Where a quoted text ends: at the first quote that is not escaped.
fn closing_quote(inner: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            '"' if !escaped => return at,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    inner.len()
}

fn push_quoted(out: &mut String, inner: &str) {
    let field = out.strip_suffix('=').map(|before| before.rsplit(' ').next().unwrap_or_default());
    match field {
        Some(field) if MESSAGE_FIELDS.contains(&field) => {
            let inner = inner.replace("\\\"", "'");
            let words: Vec<_> = inner
                .split_whitespace()
                .map(|word| {
                    let mut shown = String::new();
                    push_word(&mut shown, word);
                    shown
                })
                .collect();
            out.extend(["\"", &words.join(" "), "\""]);
        }
        _ => out.push_str("\"*\""),
    }
}

/// Appends one word: `name=value` keeps its name, a URL becomes `URL`, a source `*`, an id `ID`, a number `N`.
fn push_word(out: &mut String, word: &str) {
    if let Some((name, value)) = word.split_once('=') {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if plain && !value.is_empty() {
            out.extend([name, "="]);
            return if name == "source" { out.push('*') } else { push_word(out, value) };
        }
    }
    if word.contains("://") {
        let tail = word.trim_end_matches(|c: char| !matches!(c, ':' | ',' | ';' | ')'));
        let tail = if word.ends_with([':', ',', ';', ')']) { &tail[tail.len() - 1..] } else { "" };
        return out.extend(["URL", tail]);
    }
    for part in word.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
        let end = part.len() - part.chars().next_back().filter(|c| !is_part(*c)).map_or(0, char::len_utf8);
        let (part, sign) = part.split_at(end);
        push_part(out, part);
        out.push_str(sign);
    }
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn push_part(out: &mut String, part: &str) {
    const HEX_CHARS_MIN: usize = 8;
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let hex = part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let cursor = part.rsplit_once('-').is_some_and(|(epoch, seq)| {
        let alphanumeric = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        epoch.bytes().any(|b| b.is_ascii_digit())
            && alphanumeric(epoch)
            && !seq.is_empty()
            && seq.bytes().all(|b| b.is_ascii_digit())
            && epoch.bytes().any(|b| b.is_ascii_lowercase())
    });
    if digits == 0 {
        out.push_str(part);
    } else if cursor {
        out.push_str("ID");
    } else if part.starts_with("0x") || (hex && part.len() >= HEX_CHARS_MIN && digits < part.len()) {
        out.push_str("HEX");
    } else {
        let mut in_number = false;
        for c in part.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !in_number {
                out.push('N');
            }
            in_number = c.is_ascii_digit();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_with_the_same_message_have_one_signature() {
        for (line, expected) in [
            (
                "visit failed source=bbc status=error error=\"no answer within 30s from 10.0.0.1\" why=\"failed 3 times\"",
                "visit failed source=* status=error error=\"no answer within Ns from N.N.N.N\" why=\"failed N times\"",
            ),
            ("sent title=\"Any 5 words\" seq=412", "sent title=\"*\" seq=N"),
            ("cursor k3v9q2-412 from 127.0.0.1:55044, took 12.5ms", "cursor ID from N.N.N.N:N, took N.Nms"),
            ("at 0x7f2a and deadbeef01 of https://a.example/?x=1: refused", "at HEX and HEX of URL: refused"),
            (
                "a thread panicked thread=worker-3 location=crates/gateway/src/x.rs:12:5 panic=\"index 7\"",
                "a thread panicked thread=worker-N location=crates/gateway/src/x.rs:N:N panic=\"index N\"",
            ),
            ("an   open \"quote", "an open \"*\""),
        ] {
            assert_eq!(signature(line), expected);
        }
    }

    proptest! {
        #[test]
        fn a_signature_is_bounded_and_the_same_for_other_numbers(text in ".{0,400}", a in 0_u32..9_999, b in 0_u32..9_999) {
            prop_assert!(signature(&text).chars().count() <= CHARS_MAX);
            let line = |n: u32| format!("waited {n} ms after {text}");
            prop_assert_eq!(signature(&line(a)), signature(&line(b)));
        }
    }
}
