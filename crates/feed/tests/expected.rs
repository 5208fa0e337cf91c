//! Our own inputs, one per rule, next to their expected results.
//!
//! `tests/inputs/NAME.xml` (or `.json`, `.html`) is parsed as if fetched from `https://example.org/feeds/main.xml`, and the
//! result compared with `NAME.expected`. `NEWSWIRE_BLESS=1` writes the results instead; review them before committing.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fs, path::Path};

use feed::{Hints, read};
use serde_json::{Value, json};
use url::Url;

fn answer(bytes: &[u8]) -> Value {
    let url = Url::parse("https://example.org/feeds/main.xml").unwrap();
    let hints = Hints { url: Some(&url), ..Hints::default() };
    match read(bytes, &hints) {
        Err(e) => json!({ "error": { "class": e.class(), "message": e.to_string() } }),
        Ok(document) => json!({
            "format": document.format,
            "encoding": document.encoding,
            "decided_by": document.encoding.decided_by,
            "feed": document.feed,
            "rhythm": document.rhythm,
            "damaged": document.damaged,
            "dropped": document.dropped,
            "items": document.items,
            "warnings": document.warnings,
        }),
    }
}

#[test]
fn every_input_matches_its_expected_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs");
    let bless = std::env::var_os("NEWSWIRE_BLESS").is_some();
    let mut inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    inputs.retain(|p| p.extension().is_some_and(|e| e != "expected"));
    inputs.sort();
    assert!(inputs.len() >= 30, "{} inputs", inputs.len());
    let mut wrong = Vec::new();
    for input in inputs {
        let text =
            format!("{}\n", serde_json::to_string_pretty(&answer(&fs::read(&input).unwrap())).unwrap());
        let expected = input.with_extension("expected");
        if bless {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", input.display()));
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
}
