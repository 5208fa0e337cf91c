//! Large realistic feeds, identical in every run.

use std::fmt::Write as _;

use fastrand::Rng;

/// How the HTML of an article is encoded in its feed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Html {
    /// In CDATA, as WordPress does.
    CData,
    /// Escaped, as Blogger does.
    Escaped,
    /// As elements of XHTML.
    Inline,
}

const WORDS: [&str; 32] = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "with",
    "as",
    "news",
    "which",
    "committee",
    "yesterday",
    "government",
    "announced",
    "results",
    "market",
    "between",
    "because",
    "Zürich",
    "season",
    "report",
    "million",
    "café",
    "system",
    "quarter",
    "understand",
];

fn words(rng: &mut Rng, count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        text.push_str(if n == 0 { "" } else { " " });
        text.push_str(rng.choice(WORDS).unwrap_or("word"));
    }
    text
}

/// An article of about 6 kB: paragraphs, links, emphasis, an image, a list.
fn article(rng: &mut Rng) -> String {
    let mut html = String::new();
    let image = rng.u32(1000..);
    let _infallible = writeln!(
        html,
        "<p><img class=\"wp-image-{image}\" src=\"https://img.example.org/2024/05/{image}-1024x683.jpg\" alt=\"{}\" \
         width=\"1024\" height=\"683\" /></p>",
        words(rng, 6)
    );
    for _ in 0..9 {
        let (number, length) = (rng.u32(..100_000), rng.usize(30..60));
        let (a, b, c, d) = (words(rng, length), words(rng, 4), words(rng, 30), words(rng, 3));
        let _infallible = writeln!(
            html,
            "<p>{a}, <a href=\"https://www.example.org/articles/{number}?a=1&amp;b=2\" rel=\"nofollow\">{b}</a> &#8211; \
             {c}. <strong>{d}</strong>, it&#8217;s &#8220;{b}&#8221;.</p>"
        );
    }
    let _infallible = write!(
        html,
        "<ul class=\"more\">\n<li>{}</li>\n<li><em>{}</em></li>\n</ul>",
        words(rng, 8),
        words(rng, 5)
    );
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// RSS 2.0 of at least `bytes` bytes.
pub(crate) fn rss(bytes: usize, html: Html) -> String {
    let rng = &mut Rng::with_seed(7);
    let put = |text: &str| match html {
        Html::CData => format!("<![CDATA[{text}]]>"),
        Html::Escaped | Html::Inline => escaped(text),
    };
    let mut feed = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rss version=\"2.0\" xmlns:content=\"http://purl.org/rss/1.0/modules/content/\" \
         xmlns:dc=\"http://purl.org/dc/elements/1.1/\" xmlns:atom=\"http://www.w3.org/2005/Atom\">\n<channel>\n\
         <title>Example</title>\n<atom:link href=\"https://www.example.org/feed/\" rel=\"self\" type=\"application/rss+xml\" />\n\
         <link>https://www.example.org</link>\n<description>Everything</description>\n<language>en-US</language>\n",
    );
    let mut n = 0;
    while feed.len() < bytes {
        n += 1;
        let article = article(rng);
        let _infallible = write!(
            feed,
            "<item>\n<title>{}</title>\n<link>https://www.example.org/2024/05/{n}/</link>\n<dc:creator>{}</dc:creator>\n\
             <pubDate>Mon, {:02} May 2024 12:{:02}:00 +0000</pubDate>\n<category>{}</category>\n<category>{}</category>\n\
             <guid isPermaLink=\"false\">https://www.example.org/?p={n}</guid>\n<description>{}</description>\n\
             <content:encoded>{}</content:encoded>\n</item>\n",
            words(rng, 8),
            put(&words(rng, 2)),
            n % 28 + 1,
            n % 60,
            put(&words(rng, 1)),
            put(&words(rng, 2)),
            put(&format!("<p>{} [&#8230;]</p>\n", words(rng, 50))),
            put(&article),
        );
    }
    feed.push_str("</channel>\n</rss>\n");
    feed
}

/// Atom 1.0 of at least `bytes` bytes.
pub(crate) fn atom(bytes: usize, html: Html) -> String {
    let rng = &mut Rng::with_seed(8);
    let mut feed = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\" xml:lang=\"en\">\n\
         <title type=\"html\">Example</title>\n<link href=\"https://www.example.org/\" />\n\
         <link rel=\"self\" href=\"https://www.example.org/atom.xml\" />\n<updated>2024-05-20T12:00:00Z</updated>\n\
         <id>https://www.example.org/</id>\n",
    );
    let mut n = 0;
    while feed.len() < bytes {
        n += 1;
        let article = article(rng);
        let content = match html {
            Html::CData => format!("<content type=\"html\"><![CDATA[{article}]]></content>"),
            Html::Escaped => format!("<content type=\"html\">{}</content>", escaped(&article)),
            Html::Inline => format!(
                "<content type=\"xhtml\"><div xmlns=\"http://www.w3.org/1999/xhtml\">{article}</div></content>"
            ),
        };
        let _infallible = write!(
            feed,
            "<entry>\n<title type=\"html\">{}</title>\n<link href=\"https://www.example.org/2024/05/{n}/\" />\n\
             <id>tag:example.org,2024:{n}</id>\n<published>2024-05-{:02}T12:{:02}:00+02:00</published>\n\
             <updated>2024-05-{:02}T13:00:00+02:00</updated>\n<author><name>{}</name></author>\n<category term=\"{}\" />\n\
             <summary>{}</summary>\n{content}\n</entry>\n",
            words(rng, 8),
            n % 28 + 1,
            n % 60,
            n % 28 + 1,
            words(rng, 2),
            words(rng, 1),
            words(rng, 50),
        );
    }
    feed.push_str("</feed>\n");
    feed
}
