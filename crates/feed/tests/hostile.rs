//! Hostile documents, each with limits of time and memory.
//!
//! Each case runs in a child process (this test binary again) on a thread with a stack of 2 MiB: an abort, a stack overflow,
//! excessive memory or an endless loop is then a failed test.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fmt::Write as _, process::Command, time::Duration};

use feed::{FeedDocument, FeedError, Hints, read};

/// Stack of the parsing thread, in bytes: that of a runtime worker.
const STACK_BYTES: usize = 2 << 20;
/// Limit of the processor time of a case, which other processes do not lengthen; anything that is not linear takes many
/// times that.
const CPU_TIME_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 5 });
/// Limit of the resident set of a case, in KiB.
const MEMORY_KIB_MAX: u64 = 192 << 10;

/// Runs a case in a child process; in the child, runs its body.
fn in_child(name: &str, case: fn()) {
    if std::env::var("NEWSWIRE_HOSTILE_CASE").is_ok_and(|c| c == name) {
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(case).unwrap().join().unwrap();
        assert!(peak_kib() < MEMORY_KIB_MAX, "{} KiB", peak_kib());
        assert!(cpu_time() < CPU_TIME_MAX, "it used a processor for {:?}", cpu_time());
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env("NEWSWIRE_HOSTILE_CASE", name)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{name}: {}\n{stderr}", child.status);
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{name}: did not run\n{stderr}");
}

/// The peak resident set; `None` if the system does not report it.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The processor time of this process so far: `utime` and `stime` in ticks of 10 ms (`proc_pid_stat(5)`).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    Duration::from_millis(10 * fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
}

fn get(text: &str) -> Result<FeedDocument, FeedError> {
    read(text.as_bytes(), &Hints::default())
}

fn class(text: &str) -> &'static str {
    get(text).map_or_else(|e| e.class().as_str(), |_| "ok")
}

fn rss(items: &str) -> String {
    format!(
        "<rss version=\"2.0\"><channel><title>t</title><link>http://x.example/</link>{items}</channel></rss>"
    )
}

/// The only item of a feed. An element that means nothing is there, because an empty item is none.
fn one(item: &str) -> news::Item {
    let mut document = get(&rss(&format!("<item>{item}<nothing/></item>"))).unwrap();
    assert_eq!(document.items.len(), 1);
    document.items.remove(0)
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn a40_nesting_is_refused_past_128_levels_everywhere() {
    in_child("a40_nesting_is_refused_past_128_levels_everywhere", || {
        // rss, channel and item are three levels.
        for (depth, expected) in [
            (1, "ok"),
            (124, "ok"),
            (125, "ok"),
            (126, "too-complex"),
            (2_600, "too-complex"),
            (100_000, "too-complex"),
        ] {
            for (open, close) in [("<x:a>", "</x:a>"), ("<a>", "</a>"), ("<media:group>", "</media:group>")] {
                let text = rss(&format!("<item>{}</item>", nested(depth, open, close)));
                assert_eq!(class(&text), expected, "{depth} of {open}");
                // Never closed: truncated or rejected, but never recursed into.
                let cut = rss(&format!("<item>{}", open.repeat(depth)));
                assert_ne!(class(&cut), "", "{depth} of {open}");
                // Nothing is inside elements without end tag.
                let tags = if *open == *"<media:group>" { "<font>" } else { open };
                let tags = tags.repeat(depth.min(2_600));
                let item = one(&format!("<description>a {tags} b</description>{tags}<title>t</title>"));
                assert_eq!((&*item.title, item.summary.ends_with('b')), ("t", true), "{depth} of {tags}");
            }
        }
        let atom = |depth| {
            format!(
                "<feed xmlns='http://www.w3.org/2005/Atom'><entry>{}</entry></feed>",
                nested(depth, "<x:a>", "</x:a>")
            )
        };
        assert_eq!(
            (class(&atom(126)), class(&atom(127)), class(&atom(100_000))),
            ("ok", "too-complex", "too-complex")
        );
        let xhtml = |depth| {
            format!(
                "<feed xmlns='http://www.w3.org/2005/Atom'><entry><content type='xhtml'>{}</content></entry></feed>",
                nested(depth, "<div>", "</div>")
            )
        };
        assert_eq!((class(&xhtml(125)), class(&xhtml(126))), ("ok", "too-complex"));
        assert_eq!(class(&nested(100_000, "<rss>", "</rss>")), "too-complex");
        assert_eq!(class(&format!("{{\"items\":{}}}", nested(100_000, "[", "]"))), "too-complex");
        assert_eq!(class(&"[".repeat(1_000_000)), "too-complex");
    });
}

#[test]
fn a41_entities_of_a_dtd_are_never_expanded_nor_fetched() {
    in_child("a41_entities_of_a_dtd_are_never_expanded_nor_fetched", || {
        let mut laughs = String::from("<!DOCTYPE rss [<!ENTITY l0 \"lol\">");
        for n in 1..10 {
            let _infallible = write!(laughs, "<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10));
        }
        laughs.push_str("]>");
        for dtd in [
            laughs.as_str(),
            "<!DOCTYPE rss [<!ENTITY l9 SYSTEM 'file:///etc/passwd'>]>",
            "<!DOCTYPE rss SYSTEM 'http://127.0.0.1:9/evil.dtd'>",
            "<!DOCTYPE rss [<!ENTITY % p SYSTEM 'http://127.0.0.1:9/p'> %p;]>",
        ] {
            let text = format!("<?xml version='1.0'?>{dtd}{}", rss("<item><title>a &l9; b</title></item>"));
            assert_eq!(get(&text).unwrap().items[0].title, "a &l9; b");
        }
        let big = "&a;".repeat(100_000);
        let quadratic = format!(
            "<!DOCTYPE rss [<!ENTITY a '{}'>]>{}",
            "x".repeat(4000),
            rss(&format!("<item><title>{big}</title></item>"))
        );
        assert!(get(&quadratic).unwrap().items[0].title.len() <= 1024);
        let long = format!("<!DOCTYPE rss [{}]>{}", "<!ENTITY a 'b'>".repeat(1000), rss(""));
        assert_eq!(class(&long), "too-complex");
    });
}

#[test]
fn a42_attributes_and_namespaces_are_counted_before_they_are_read() {
    in_child("a42_attributes_and_namespaces_are_counted_before_they_are_read", || {
        for n in [80_000, 800_000] {
            let mut attributes = String::new();
            let mut namespaces = String::new();
            for i in 0..n {
                let _infallible = write!(attributes, " a{i}=''");
                let _infallible = write!(namespaces, " xmlns:a{i}='u'");
            }
            assert_eq!(class(&rss(&format!("<item{attributes}/>"))), "too-complex");
            assert_eq!(class(&format!("<rss{namespaces}><channel/></rss>")), "too-complex");
            assert_eq!(class(&rss(&format!("<item {}/>", "a ".repeat(n)))), "ok");
        }
        // Nested declarations, each used by many.
        let open: String = (0..100).map(|i| format!("<x:a xmlns:x='u{i}'>")).collect();
        assert_eq!(class(&rss(&format!("<item>{open}{}</item>", "</x:a>".repeat(100)))), "too-complex");
        // Without end tags nothing is inside them.
        assert_eq!(class(&rss(&format!("<item>{open}</item>"))), "ok");
    });
}

#[test]
fn a43_numbers_and_lengths_are_bounded() {
    in_child("a43_numbers_and_lengths_are_bounded", || {
        let items = |n: usize| rss(&"<item/>".repeat(n));
        let numbered = |n: usize| -> String {
            rss(&(0..n).map(|i| format!("<item><guid>{i}</guid></item>")).collect::<String>())
        };
        for (n, kept, dropped) in
            [(999, 999, 0), (1_000, 1_000, 0), (1_001, 1_000, 1), (10_001, 1_000, 9_001)]
        {
            let document = get(&numbered(n)).unwrap();
            assert_eq!((document.items.len(), document.dropped), (kept, dropped), "{n}");
        }
        assert_eq!(class(&items(1_000_000)), "too-complex");
        let categories =
            one(&(0..200_000).map(|i| format!("<category>c{i}</category>")).collect::<String>()).categories;
        assert_eq!(categories.len(), 64);
        let title = |n: usize| one(&format!("<title>{}</title>", "x".repeat(n))).title.len();
        assert_eq!((title(1_023), title(1_024), title(1_025), title(20 << 20)), (1_023, 1_024, 1_024, 1_024));
        let link = |n: usize| {
            one(&format!("<link>http://x.example/{}</link>", "a".repeat(n - 17))).link.map(|l| l.len())
        };
        assert_eq!(
            (link(8_191), link(8_192), link(8_193), link(1 << 20)),
            (Some(8_191), Some(8_192), None, None)
        );
        let guid = |n: usize| one(&format!("<guid>{}</guid>", "g".repeat(n))).guid.unwrap().len();
        assert_eq!((guid(1_023), guid(1_024), guid(1_025)), (1_023, 1_024, 1_024));
        let summary = |n: usize| one(&format!("<description>{}</description>", "s".repeat(n))).summary.len();
        assert_eq!((summary(65_535), summary(65_536), summary(65_537)), (65_535, 65_536, 65_536));
        let content = |n: usize| {
            let item = one(&format!("<content:encoded>{}</content:encoded>", "c".repeat(n)));
            (item.content_html.unwrap().len(), item.warnings.len())
        };
        let description = format!("<description>{}end</description>", "one line ".repeat(10_000));
        let excerpt = "<content:encoded>one line</content:encoded>";
        for (body, warnings) in [(description.clone(), 0), (format!("{description}{excerpt}"), 1)] {
            let item = one(&body);
            let content = item.content_html.unwrap();
            assert!(content.len() > 90_000 && content.ends_with("line end</p>"), "{}", content.len());
            assert_eq!(item.warnings.len(), warnings, "{:?}", item.warnings);
        }
        let title = |n: usize| one(&format!("<title>{}</title>", "t".repeat(n))).warnings.len();
        assert_eq!((title(1_024), title(1_025)), (0, 1));
        let max = 256 << 10;
        let paragraph = |text: usize| text + "<p></p>".len();
        assert_eq!((content(max - 1), content(max)), ((paragraph(max - 1), 0), (paragraph(max), 0)));
        assert_eq!(content(max + 1), (paragraph(max + 1), 1));
        let warnings = "one warning for what was read, one for what was kept";
        assert_eq!(content(2 << 20), (paragraph(max + 1), 2), "{warnings}");
        assert_eq!(class(&rss(&"<!-- c -->".repeat(1_000_000))), "ok");
        let authors = one(&"<author>a</author><dc:creator>b</dc:creator>".repeat(100_000)).authors.len();
        assert!(authors <= 32);
        let enclosures: String =
            (0..1000).map(|i| format!("<enclosure url='http://x.example/{i}'/>")).collect();
        assert!(one(&enclosures).enclosures.len() <= 32);
    });
}

#[test]
fn a44_any_encoding_whole_or_truncated_gives_a_result() {
    in_child("a44_any_encoding_whole_or_truncated_gives_a_result", || {
        let names = [
            "utf-8",
            "utf-16",
            "utf-32",
            "latin1",
            "windows-1251",
            "shift_jis",
            "euc-jp",
            "iso-2022-jp",
            "gb2312",
            "gb18030",
            "big5",
            "euc-kr",
            "koi8-r",
            "utf-7",
            "hz-gb-2312",
            "x-user-defined",
            "nonsense",
            "",
        ];
        for name in names {
            let text =
                format!("<?xml version='1.0' encoding='{name}'?>{}", rss("<item><title>é</title></item>"));
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            let latin1: Vec<u8> = text.chars().map(|c| c as u8).collect();
            for bytes in [text.as_bytes(), &utf16, &utf32, &latin1] {
                for cut in 0..bytes.len().min(64) {
                    let header = format!("text/xml; charset={name}");
                    for content_type in [None, Some(header.as_str())] {
                        let hints = Hints { content_type, ..Hints::default() };
                        let _any = read(&bytes[..bytes.len() - cut], &hints);
                        let _any = read(&bytes[cut..], &hints);
                    }
                }
            }
        }
        assert_eq!(
            read(b"<?xml version='1.0' encoding='UTF-7'?><rss/>", &Hints::default())
                .unwrap_err()
                .class()
                .as_str(),
            "bad-encoding"
        );
    });
}

#[test]
fn a45_no_text_contains_terminal_escapes_or_bidi_overrides() {
    in_child("a45_no_text_contains_terminal_escapes_or_bidi_overrides", || {
        let evil = "a\0b\u{1b}[31m\u{7f}\u{85}\u{9b}c&#0;&#x1b;&#27;&#x9b;&#x202e;&#8233;\u{202e}d\u{2066}\u{2028}e\u{200f}&#xd800;&#xfffe;f\nz";
        let item = one(&format!(
            "<title>{evil}</title><description>{evil}&lt;p>{evil}</description><category>{evil}</category><dc:creator>{evil}</dc:creator>\
             <guid isPermaLink='false'>{evil}</guid><link>http://x.example/{evil}</link><enclosure url='http://x.example/{evil}' type='{evil}'/>"
        ));
        let json = serde_json::to_string(&item).unwrap();
        let shown: String =
            serde_json::from_str::<serde_json::Value>(&json).unwrap().to_string().replace("\\n", "");
        let bad = |c: char| {
            c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}')
        };
        assert!(!json.contains(bad), "{json}");
        assert!(!shown.contains("\\u"), "{shown}");
        assert!(item.title.starts_with("ab[31m") && item.title.ends_with('z'), "{:?}", item.title);
    });
}

#[test]
fn a46_dates_are_exact_or_absent() {
    in_child("a46_dates_are_exact_or_absent", || {
        let long = "2".repeat(100 << 10);
        for date in [
            "Mon, 01 Jan 99999 00:00:00 GMT",
            "1601-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "0",
            "-1",
            "soon",
            &long,
            &"(".repeat(100_000),
            "9223372036854775807",
        ] {
            assert_eq!(
                one(&format!("<pubDate>{date}</pubDate>")).published,
                None,
                "{}",
                &date[..date.len().min(40)]
            );
        }
        assert_eq!(one("").published, None);
        assert_eq!(
            one("<pubDate>Sat, 31 Dec 2016 23:59:60 GMT</pubDate>").published.unwrap().to_string(),
            "2017-01-01T00:00:00Z"
        );
    });
}

#[test]
fn a47_an_item_that_is_repeated_is_one_item() {
    in_child("a47_an_item_that_is_repeated_is_one_item", || {
        let item = "<item><guid>g</guid><link>http://x.example/1</link><title>first</title></item>";
        let document =
            get(&rss(&format!("{item}{}", item.replace("first", "second").repeat(5_000)))).unwrap();
        let titles: Vec<_> = document.items.iter().map(|item| item.title.as_str()).collect();
        assert_eq!(titles, ["first", "second"]);
    });
}

#[test]
fn a49_links_are_http_or_absent() {
    in_child("a49_links_are_http_or_absent", || {
        let schemes = [
            "javascript:alert(1)",
            "JAVASCRIPT:alert(1)",
            "jAvAsCrIpT:alert(1)",
            " javascript:alert(1)",
            "\tjavascript:alert(1)",
            "java\tscript:alert(1)",
            "java\nscript:alert(1)",
            "java&#10;script:alert(1)",
            "&#106;avascript:alert(1)",
            "&#x6A;avascript:alert(1)",
            "javascript&colon;alert(1)",
            "javascript&#58;alert(1)",
            "javascript://x.example/%0Aalert(1)",
            "javascript:///x",
            "&#1;javascript:alert(1)",
            "data:text/html,x",
            "data:text/html;base64,PHN2Zz4=",
            "DATA:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "ftp://x.example/",
            "blob:https://x.example/1",
            "view-source:http://x.example/",
            "about:blank",
            "chrome://settings",
            "jar:http://x.example!/",
            "mailto:a@x.example",
            "tel:1",
            "intent://x#Intent;end",
            "ws://x.example/",
        ];
        assert_eq!(schemes.len(), 30);
        for scheme in schemes {
            let item = one(&format!(
                "<link>{scheme}</link><guid>{scheme}</guid><comments>{scheme}</comments><enclosure url='{scheme}'/><media:thumbnail url='{scheme}'/>\
                 <description>&lt;a href='{scheme}'>x&lt;/a>&lt;img src='{scheme}'></description><author><name>n</name><uri>{scheme}</uri></author>"
            ));
            let links =
                [&item.link, &item.comments, &item.image, &item.authors.first().and_then(|a| a.url.clone())];
            for link in links.into_iter().flatten() {
                assert!(link.starts_with("http://") || link.starts_with("https://"), "{scheme}: {link}");
            }
            assert!(item.enclosures.iter().all(|e| e.url.starts_with("http")), "{scheme}");
            let html = item.content_html.unwrap_or_default();
            assert!(!html.contains("href") || html.contains("href=\"http"), "{scheme}: {html}");
        }
    });
}

/// Markup that runs a script in some parser; combined with surrounding markup.
const PAYLOADS: [&str; 26] = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<body onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<object data='javascript:alert(1)'>",
    "<embed src='javascript:alert(1)'>",
    "<math><mi xlink:href='javascript:alert(1)'>x",
    "<form action='javascript:alert(1)'><button>",
    "<base href='javascript:alert(1)//'>",
    "<link rel=stylesheet href='javascript:alert(1)'>",
    "<meta http-equiv=refresh content='0;javascript:alert(1)'>",
    "<style>@import 'javascript:alert(1)'</style>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<x onclick=alert(1)>y",
    "<div style='background:url(javascript:alert(1))'>",
    "<svg><animate onbegin=alert(1) attributeName=x>",
    "<table background='javascript:alert(1)'>",
    "<isindex type=image src=1 onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><img src=x onerror=alert(1)>",
    "<template><script>alert(1)</script></template>",
];
const FRAMES: [(&str, &str); 10] = [
    ("", ""),
    ("<p>", "</p>"),
    ("<math><mtext><table><mglyph><style><!--</style>", ""),
    ("<svg><p>", "</p></svg>"),
    ("<noscript>", "</noscript>"),
    ("<xmp>", "</xmp>"),
    ("<title>", "</title>"),
    ("<select><option>", ""),
    ("<table><tr><td>", ""),
    ("<a title=\"", "\">"),
];

#[test]
fn a50_no_script_survives() {
    in_child("a50_no_script_survives", || {
        let mut cases = 0;
        for payload in PAYLOADS {
            for (before, after) in FRAMES {
                let raw = format!("{before}{payload}{after}");
                let escaped = raw.replace('&', "&amp;").replace('<', "&lt;");
                for field in [escaped, format!("<![CDATA[{raw}]]>")] {
                    let item = one(&format!(
                        "<title>{field}</title><description>{field}</description><dc:creator>{field}</dc:creator><category>{field}</category>"
                    ));
                    let html = item.content_html.unwrap_or_default();
                    assert_safe(&html, &raw);
                    let title = item.title.to_ascii_lowercase();
                    assert!(
                        !title.contains("<script") && !title.contains("<img") && !title.contains("<svg"),
                        "{raw} -> {title}"
                    );
                    cases += 1;
                }
            }
        }
        assert!(cases >= 200, "{cases}");
    });
}

/// Every tag is allowed and has no attributes except those of links.
fn assert_safe(html: &str, from: &str) {
    for tag in html.split('<').skip(1) {
        let tag = &tag[..tag.find('>').unwrap()];
        let name = tag.trim_start_matches('/').split(' ').next().unwrap();
        assert!(name.len() <= 10 && name.bytes().all(|b| b.is_ascii_alphanumeric()), "{from} -> {html}");
        assert!(
            !["script", "img", "svg", "math", "style", "iframe", "form", "object", "embed"].contains(&name),
            "{from} -> {html}"
        );
        assert!(name == "a" || !tag.contains(' '), "{from} -> {html}");
        assert!(!tag.contains("javascript:") && !tag.contains(" on"), "{from} -> {html}");
    }
}

#[test]
fn a51_sanitising_is_idempotent() {
    in_child("a51_sanitising_is_idempotent", || {
        for payload in PAYLOADS {
            for (before, after) in FRAMES {
                let html = |raw: &str| {
                    let escaped = raw.replace('&', "&amp;").replace('<', "&lt;");
                    one(&format!("<content:encoded>{escaped}</content:encoded>"))
                        .content_html
                        .unwrap_or_default()
                };
                let once = html(&format!("{before}{payload}{after}"));
                assert_eq!(html(&once), once);
            }
        }
    });
}

#[test]
fn sanitising_is_linear_in_depth_attributes_and_misnesting() {
    in_child("sanitising_is_linear_in_depth_attributes_and_misnesting", || {
        let big = |open: &str, n: usize| {
            format!("<item><description><![CDATA[{}]]></description></item>", open.repeat(n))
        };
        for open in [
            "<div>",
            "<ul><li>",
            "<blockquote>",
            "<b>",
            "<a href=x>",
            "<p><b>",
            "<b a=1><p>",
            "<h1>",
            "<i><table><tr><td>",
            "<a ",
            "<",
            "</p>",
            "<!--",
            "<![",
            "&",
            "&amp",
            "<script>",
            "<script></script",
            "<svg>",
            "<font><p>x</p>",
            "<b><p>x</p></i>",
            "<img src=a alt=b>",
            "<img srcset='a 1x, b(' ",
            "<a href=x><img src=a><img src=b>",
            "<iframe src=a>",
            "<iframe src=a></iframe",
            "<video><source src=a><source src=b>",
            "<object data=a><param name=movie value=b>",
            "<style></script>",
            "<!-- --",
            "<!-- -->",
            "a\n",
            "\n\n",
        ] {
            let text = rss(&big(open, 200_000 / open.len()));
            assert_eq!(class(&text), "ok", "{open}");
        }
        let mut attributes = String::new();
        for i in 0..40_000 {
            let _infallible = write!(attributes, " a{i}=b");
        }
        assert_eq!(
            class(&rss(&format!("<item><description><![CDATA[<p{attributes}>x]]></description></item>"))),
            "ok"
        );
        // Many such fields in one document.
        assert_eq!(class(&rss(&big("<p><b><i>x", 400).repeat(60))), "ok");
    });
}

#[test]
fn repairs_are_linear_in_what_is_repaired() {
    in_child("repairs_are_linear_in_what_is_repaired", || {
        let n = 60_000;
        for (text, expected) in [
            // End tags without a start tag, within many elements without an end tag.
            (rss(&format!("{}{}", "<a>".repeat(n), "</b>".repeat(n))), "ok"),
            (rss(&format!("<item>{}</item>", "<title>".repeat(n))), "ok"),
            (rss(&format!("<item>{}</item>", "<media:x><category>".repeat(n))), "ok"),
            (rss(&"<item><title>t".repeat(n)), "ok"),
            (rss(&"<!--".repeat(n)), "ok"),
            (rss(&format!("<item><description>{}</description></item>", "<![CDATA[".repeat(n))), "ok"),
            (format!("<html>{}", "<rss ><!-- ".repeat(n)), "not-a-feed"),
            (format!("<html><body>{}", "&lt;rss ".repeat(n)), "not-a-feed"),
        ] {
            assert_eq!(class(&text), expected, "{}…", &text[..text.len().min(120)]);
        }
    });
}

#[test]
fn repairs_of_json_are_linear_in_what_is_repaired() {
    in_child("repairs_of_json_are_linear_in_what_is_repaired", || {
        for item in [
            "{\"id\":1,,}",
            "{\"id\" 1},",
            "{\"id\":1 x},",
            "{\"id\":\"a\"b\"},",
            "{\"id\":\"a\"b},{\"id\":",
            "{\"id\":[",
            "{\"id\":{\"a\":[},{\"b\":\"",
            "{},[",
            ",",
            "/*",
            "/**/",
            "//",
            "// \n",
            "'",
            "\"",
            "\"\\",
            "x:",
            "[,",
            "} , {\"",
            "{\"id\":1},\"\n\"a\":",
        ] {
            let items = item.repeat(900_000 / item.len());
            let text = format!(
                "{{\"version\":\"https://jsonfeed.org/version/1\",\"items\":[{{\"id\":0,\"title\":\"a\"}},{items}"
            );
            assert!(["ok", "too-complex"].contains(&class(&text)), "{item}: {}", class(&text));
        }
    });
}

#[test]
fn memory_stays_within_bounds_while_reading() {
    in_child("memory_stays_within_bounds_while_reading", || {
        let base = format!("xml:base='http://x.example/{}/'", "b".repeat(1_000));
        let atom = |body: &str| format!("<feed xmlns='http://www.w3.org/2005/Atom' {base}>{body}</feed>");
        let links = atom(
            &format!("<entry>{}</entry>", "<link href='a'/><link rel='enclosure' href='b'/>".repeat(64))
                .repeat(300),
        );
        assert_eq!(class(&links), "ok");
        let hrefs = format!("<entry><content type='xhtml'>{}</content></entry>", "<a href='x'/>".repeat(125));
        assert_eq!(class(&atom(&hrefs.repeat(300))), "ok");
        // Every character double-escaped.
        for text in ["&amp;", "\"", "&lt;"] {
            let item = format!("<item><atom:summary>{}</atom:summary></item>", text.repeat(100_000));
            assert_eq!(class(&rss(&item.repeat(8))), "ok");
        }
    });
}

#[test]
fn what_is_cut_or_dropped_of_an_item_is_named_in_a_warning() {
    let long = "word ".repeat(1_000);
    let many = |n: usize, element: &dyn Fn(usize) -> String| (0..n).map(element).collect::<String>();
    let category = |n: usize| format!("<category>c{n}</category>");
    let author = |n: usize| format!("<author>a{n}</author>");
    let file = |n: usize| format!("<enclosure url='http://e.example/{n}.mp3'/>");
    for (elements, warning) in [
        (format!("<category>{long}</category>").repeat(2), "the category was too long and was truncated"),
        (
            format!("<link>http://e.example/{}</link>", "x".repeat(9_000)),
            "the link was too long and was dropped",
        ),
        (many(65, &category), "categories after the first 64 were dropped"),
        (many(33, &author), "authors after the first 32 were dropped"),
        (many(33, &file), "enclosures after the first 32 were dropped"),
    ] {
        let item = one(&format!("<title>a</title>{elements}"));
        assert_eq!(item.warnings, [warning]);
    }
    let fits = many(64, &category) + &many(32, &author) + &many(32, &file);
    assert_eq!(one(&format!("<title>a</title>{fits}")).warnings, [""; 0]);
}
