//! Secrets are removed wherever they occur.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn text(text: &str) -> String {
    Redactor::default().text(text)
}

#[test]
fn a_url_keeps_its_host_its_path_and_the_names_of_its_query() {
    assert_eq!(
        text("visit of https://me:pw@feeds.example:8443/a/b?key=1&bare&x=2#frag failed"),
        "visit of https://…@feeds.example:8443/a/b?key=…&…&x=…#… failed"
    );
    assert_eq!(text("GET /news?after=k-1&limit=5 was slow"), "GET /news?after=…&limit=… was slow");
    assert_eq!(text("https://example.org/feed.xml"), "https://example.org/feed.xml");
    assert_eq!(text("why? because a=b"), "why? because a=b");
}

#[test]
fn the_value_of_a_secret_name_is_removed() {
    for (given, kept) in [
        ("token=abc next=1", "token=… next=1"),
        ("operator_token = \"a b\" next", "operator_token = \"…\" next"),
        ("Authorization: Digest a, b, c\nnext", "Authorization: …\nnext"),
        ("Set-Cookie: a=b; c=d", "Set-Cookie: …"),
        (r#"{"api_key":"a\"b","n":1}"#, r#"{"api_key":"…","n":1}"#),
        (r#"body="{\"secret\":\"abc\",\"n\":1}""#, r#"body="{\"secret\":\"…\",\"n\":1}""#),
        ("hub.secret=abc&hub.mode=x", "hub.secret=…&hub.mode=x"),
        ("sent Bearer abcdefgh.ijk to", "sent Bearer … to"),
        ("got eyJhbGciOiJub25lIn0.e30.c2ln here", "got … here"),
    ] {
        assert_eq!(text(given), kept);
    }
}

#[test]
fn text_that_is_not_a_secret_stays() {
    for harmless in [
        "operator_token_file = \"/etc/newswire/token\"",
        "newswire_gateway_readers_refused_total{reason=\"no_token\"} 3",
        "visit failed source=bbc status=error error=\"connection refused\" why=\"failed 3 times\"",
        "took 3 s: the basic test passed",
    ] {
        assert_eq!(text(harmless), harmless);
    }
}

#[test]
fn json_loses_every_value_below_a_secret_name_and_keeps_its_shape() {
    let mut value = json!({
        "url": "https://u:p@h/?k=v", "headers": [["X-Any", "abc"]], "token": {"a": 1, "b": [true, null, "x"]},
        "list": [{"name": "Cookie", "value": "abc"}], "basic_file": "bbc.key", "seq": 7,
    });
    Redactor::default().json(&mut value);
    let expected = json!({
        "url": "https://…@h/?k=…", "headers": [["…", "…"]], "token": {"a": "…", "b": [true, null, "…"]},
        "list": [{"name": "Cookie", "value": "…"}], "basic_file": "bbc.key", "seq": 7,
    });
    assert_eq!(value, expected);
}

#[test]
fn a_known_secret_is_removed_wherever_it_is() {
    let redactor = Redactor::new(["hunter22".to_owned(), "hunter2".to_owned(), "abc".to_owned()]);
    assert_eq!(redactor.text("hunter22 hunter2 abc"), "… … abc");
    assert_eq!(redactor.lines("{\"a\":\"xhunter2\"}\nplain hunter2\n"), "{\"a\":\"x…\"}\nplain …\n");
    assert!(!format!("{redactor:?}").contains("hunter"));
}

/// Shapes of text with a secret in them, `@` for the secret.
const SHAPES: [&str; 18] = [
    "https://user:@@host.example/feed",
    "see http://@:pw@host.example/feed?x=1 there",
    "https://host.example/feed?key=@",
    "https://host.example/feed?a=b&key=@&c=d#x",
    "https://host.example/feed?@",
    "https://host.example/feed#@",
    "url=\"https://host.example/feed?key=@\" status=error",
    "Authorization: Bearer @",
    "authorization=Basic @",
    "Cookie: sid=@; theme=dark",
    "X-Api-Key: @",
    "password = '@'",
    "{\"time\":\"t\",\"message\":\"https://a:@@h/\",\"token\":\"@\"}",
    "{\"nested\":{\"cookies\":[\"@\"]}}",
    "outer=\"{\\\"client_secret\\\":\\\"@\\\"}\"",
    "bearer @",
    "GET /news/stream?access_token=@ refused",
    "Proxy-Authorization: Basic @",
];

proptest! {
    #[test]
    fn no_secret_survives_in_any_shape(
        secret in "[A-Za-z0-9_~+.-]{10,40}",
        noise in "[ -~]{0,30}",
        index in 0..SHAPES.len(),
    ) {
        let secret = format!("Zq{secret}");
        prop_assume!(!noise.contains(&secret));
        let shape = SHAPES[index];
        // In URLs `@@` is the secret and the `@` after it.
        let planted = shape.replace("@@", "\0\u{1}").replacen("@:", "\0:", 1);
        let planted = if planted.contains('\0') { planted } else { planted.replace('@', "\0") };
        let planted = planted.replace('\0', &secret).replace('\u{1}', "@");
        let planted = planted.replace("\"token\":\"@\"", &format!("\"token\":\"{secret}\""));
        prop_assert!(planted.contains(&secret));
        for text in [planted.clone(), format!("{noise} {planted}\n{noise}")] {
            let shown = Redactor::default().lines(&text);
            prop_assert!(!shown.contains(&secret), "{text:?} came out as {shown:?}");
        }
    }

    #[test]
    fn no_known_secret_survives(before in ".{0,40}", secret in "[a-zA-Z0-9]{4,30}", after in ".{0,40}") {
        let redactor = Redactor::new([secret.clone()]);
        let text = format!("{before}{secret}{after}");
        prop_assert!(!redactor.lines(&text).contains(&secret));
        prop_assert!(!redactor.text(&text).contains(&secret));
    }

    #[test]
    fn any_text_is_accepted(text in "(.|[:=?&#@\"'\\\\{}\\[\\] ]|://|token|eyJ|Bearer |\n){0,60}") {
        let shown = Redactor::default().lines(&text);
        prop_assert_eq!(shown.matches('\n').count(), text.matches('\n').count());
    }
}
