//! Compares our results with those of feed-rs: for our own inputs, and for the corpus named by `NEWSWIRE_CORPUS`.
//!
//! `tests/differential.txt` explains the differences: a reason in a line that begins with `#`, then the files and fields.
//! A difference that is not explained fails, and so does an explained one that no longer exists. Compared are the number of
//! items, ids, titles, links and dates.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use feed::{FeedDocument, FeedFormat, Hints};
use feed_rs::{model, parser::Builder};
use url::Url;

/// The explained differences, by file and field.
type Explained = BTreeSet<(String, String)>;

fn explained() -> Explained {
    let text = fs::read_to_string(folder().join("differential.txt")).unwrap();
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (file, field) = line.split_once(": ").unwrap_or_else(|| panic!("no field in {line:?}"));
            (file.to_owned(), field.to_owned())
        })
        .collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|p| p.extension().is_some_and(|e| e != "expected"));
    found.sort();
    found
}

/// The differences found, each with an example.
#[derive(Default)]
struct Differences(BTreeMap<(String, String), String>);

impl Differences {
    fn compare<T: PartialEq + Debug>(&mut self, file: &str, field: &str, theirs: T, ours: T) {
        if theirs != ours {
            let example = format!("{file}: {field}\n    theirs {theirs:?}\n    ours   {ours:?}");
            self.0.entry((file.to_owned(), field.to_owned())).or_insert(example);
        }
    }

    /// Fails unless these are exactly the explained differences of the given files.
    fn finish(self, is_ours: impl Fn(&str) -> bool) {
        let mut explained = explained();
        let unexplained: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| !explained.remove(*key))
            .map(|(_, example)| example.as_str())
            .collect();
        explained.retain(|(file, _)| is_ours(file));
        assert!(
            unexplained.is_empty() && explained.is_empty(),
            "{} differences are not explained:\n{}\n\nno longer a difference: {explained:?}",
            unexplained.len(),
            unexplained.join("\n")
        );
    }
}

/// The result of feed-rs; ids that it generates are left empty.
fn theirs(bytes: &[u8], url: Option<&Url>) -> Result<model::Feed, &'static str> {
    let parser = Builder::new()
        .base_uri(url.map(Url::as_str))
        .sanitize_content(false)
        .id_generator(|_, _, _| String::new())
        .build();
    match catch_unwind(AssertUnwindSafe(|| parser.parse(bytes))) {
        Ok(Ok(feed)) => Ok(feed),
        Ok(Err(_)) => Err("it refuses the feed"),
        Err(_) => Err("it panics"),
    }
}

fn compare(differences: &mut Differences, file: &str, bytes: &[u8], url: Option<&Url>) {
    let hints = Hints { url, ..Hints::default() };
    match (feed::read(bytes, &hints), theirs(bytes, url)) {
        (Ok(ours), Ok(theirs)) => compare_feeds(differences, file, &theirs, &ours),
        (Err(_), Err("it panics")) => differences.compare(file, "it panics", true, false),
        (Err(_), Err(_)) => {}
        (Err(e), Ok(_)) => differences.compare(file, "we refuse the feed", String::new(), e.to_string()),
        (Ok(_), Err(field)) => differences.compare(file, field, true, false),
    }
}

fn compare_feeds(differences: &mut Differences, file: &str, theirs: &model::Feed, ours: &FeedDocument) {
    let title = theirs.title.as_ref().map(|t| letters(&t.content)).unwrap_or_default();
    differences.compare(file, "feed title", title, letters(ours.feed.title.as_deref().unwrap_or_default()));
    differences.compare(file, "feed link", page(&theirs.links), spelled(ours.feed.link.as_deref()));
    differences.compare(file, "items", theirs.entries.len(), ours.items.len());
    // rdf:about, which it ignores, is our guid.
    let says_guid = !matches!(ours.format, FeedFormat::Rss0 | FeedFormat::Rss1);
    let is_rss = matches!(ours.format, FeedFormat::Rss0 | FeedFormat::Rss1 | FeedFormat::Rss2);
    for (theirs, ours) in theirs.entries.iter().zip(&ours.items) {
        if says_guid {
            differences.compare(
                file,
                "id",
                folded(&theirs.id),
                folded(ours.guid.as_deref().unwrap_or_default()),
            );
        }
        let title = theirs.title.as_ref().map(|t| letters(&t.content)).unwrap_or_default();
        differences.compare(file, "title", title, letters(&ours.title));
        differences.compare(file, "link", page(&theirs.links), spelled(ours.link.as_deref()));
        let date = |date: Option<DateTime<Utc>>| date.map(|d| news::Timestamp::from(d).to_string());
        differences.compare(file, "published", date(theirs.published), ours.published.map(|t| t.to_string()));
        // RSS has no such date: it uses that of the feed.
        if !is_rss {
            differences.compare(file, "updated", date(theirs.updated), ours.updated.map(|t| t.to_string()));
        }
    }
}

/// The first link to a page.
fn page(links: &[model::Link]) -> Option<String> {
    let is_page = |l: &&model::Link| matches!(l.rel.as_deref(), None | Some("alternate"));
    spelled(links.iter().find(is_page).map(|l| l.href.as_str()))
}

/// Serialised as in the URL standard.
fn spelled(link: Option<&str>) -> Option<String> {
    link.filter(|l| !l.is_empty()).map(|l| Url::parse(l).map_or_else(|_| l.to_owned(), Into::into))
}

fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Letters and digits only, without tags and references, which it keeps in HTML titles.
fn letters(text: &str) -> String {
    let (mut letters, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '<' => rest.find('>'),
            '&' => rest.find(';').filter(|end| *end < 10),
            _ => None,
        };
        letters.extend(Some(c).filter(|c| skipped.is_none() && c.is_alphanumeric()));
        rest = &rest[skipped.map_or(c.len_utf8(), |end| end + 1)..];
    }
    letters
}

/// Expected results of other projects and lists of feeds are not feeds.
fn is_feed(name: &str) -> bool {
    let answers = ["gofeed/translator/rss/", "gofeed/translator/atom/", "rss-parser/output/"];
    let is_answer = name.ends_with(".json") && answers.iter().any(|a| name.starts_with(a));
    let others = [".serde.json", "_expected.json", ".opml", ".md"];
    !is_answer && !others.iter().any(|o| name.ends_with(o))
}

#[test]
fn our_own_inputs_differ_only_as_explained() {
    let url = Url::parse("https://example.org/feeds/main.xml").unwrap();
    let mut differences = Differences::default();
    let inputs = files(&folder().join("inputs"));
    assert!(inputs.len() >= 30, "{} inputs", inputs.len());
    for path in inputs {
        let name = format!("inputs/{}", path.file_name().unwrap().to_string_lossy());
        compare(&mut differences, &name, &fs::read(&path).unwrap(), Some(&url));
    }
    differences.finish(|file| file.starts_with("inputs/"));
}

#[test]
fn the_corpus_differs_only_as_explained() {
    let Some(corpus) = std::env::var_os("NEWSWIRE_CORPUS").map(PathBuf::from) else {
        eprintln!("SKIPPED: NEWSWIRE_CORPUS is not set");
        return;
    };
    let mut differences = Differences::default();
    let mut feeds = 0;
    for path in files(&corpus) {
        let name = path.strip_prefix(&corpus).unwrap().to_string_lossy().into_owned();
        if is_feed(&name) {
            feeds += 1;
            compare(&mut differences, &name, &fs::read(&path).unwrap(), None);
        }
    }
    assert!(feeds > 150, "only {feeds} feeds in {}", corpus.display());
    differences.finish(|file| !file.starts_with("inputs/"));
}
