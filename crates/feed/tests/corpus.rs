//! Compares our results for feeds that other projects publish as test data with theirs.
//!
//! `NEWSWIRE_CORPUS` names the folder. Intended differences are listed with file, field and reason; a difference that is
//! not listed fails, and so does a listed one that no longer exists.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and reports when it is skipped"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use feed::{FeedDocument, FeedFormat, Hints};
use news::Item;
use serde_json::Value;

/// File (without folder and extension), field, reason.
type Exception = (&'static str, &'static str, &'static str);

const GOFEED: &[Exception] = &[
    ("feed_item_updated_-_atom03_feed_entry_modified", "published", "modified is not a publication date"),
    ("feed_item_fallbacks_-_rss_channel_item_extensions", "updated", "one dc:date is not two dates"),
    ("feed_item_description_-_rdf_item_description", "guid", "it ignores rdf:about, which is our guid"),
    ("feed_item_link_-_rdf_item_link", "guid", "it ignores rdf:about, which is our guid"),
    ("feed_item_title_-_rdf_item_title", "guid", "it ignores rdf:about, which is our guid"),
];
const RSS_PARSER: &[Exception] = &[
    ("craigslist", "title", "it leaves HTML in titles"),
    ("gulp-atom", "link", "it keeps relative links"),
    ("uolNoticias", "title", "its expected file lacks the accents"),
    ("uolNoticias", "isoDate", "it does not know Portuguese months"),
];
const FEED_RS: &[Exception] = &[
    ("atom_relative", "link", "it keeps relative links; we drop them if there is no base"),
    ("rss_1.0_example_1", "link", "it keeps relative links"),
    ("rss_1.0_example_1", "date", "it rejects the zone +00:0"),
    ("rss_2.0_nbcny", "date", "it rejects 12-hour times"),
];

/// rdf:about, which the others ignore, is our guid.
fn says_guid(document: &FeedDocument) -> bool {
    !matches!(document.format, FeedFormat::Rss0 | FeedFormat::Rss1)
}

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("NEWSWIRE_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: NEWSWIRE_CORPUS is not set");
    }
    folder
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
    found.sort();
    found
}

fn read(path: &Path) -> FeedDocument {
    let bytes = fs::read(path).unwrap();
    feed::read(&bytes, &Hints::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap();
    // One of them is written in Latin 1.
    let text =
        String::from_utf8(bytes).unwrap_or_else(|e| e.as_bytes().iter().map(|b| char::from(*b)).collect());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Their link as far as it should be ours: they leave the address of a proxy where the feed has the original, too, and
/// have none where the id is the only address.
fn intended(theirs: Option<String>, ours: &Item) -> Option<String> {
    match theirs {
        Some(link) if link.contains("/~r/") && !ours.link.as_ref().is_some_and(|l| l.contains("/~r/")) => {
            ours.link.clone()
        }
        None if ours.link == ours.guid => ours.link.clone(),
        other => other,
    }
}

/// Serialised as in the URL standard.
fn spelled(link: Option<String>) -> Option<String> {
    link.map(|l| url::Url::parse(&l).map_or(l, Into::into))
}

/// Folded to one line, like all our text.
fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(folded).filter(|t| !t.is_empty())
}

/// An instant in our format.
fn instant(value: &Value) -> Option<String> {
    let written = value.as_str()?;
    Some(written.parse::<news::Timestamp>().map_or_else(|_| written.to_owned(), |t| t.to_string()))
}

/// Differences found in one comparison, by file and field.
struct Differences {
    exceptions: &'static [Exception],
    met: BTreeSet<(String, String)>,
    unexpected: Vec<String>,
}

impl Differences {
    fn new(exceptions: &'static [Exception]) -> Self {
        Self { exceptions, met: BTreeSet::new(), unexpected: Vec::new() }
    }

    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, file: &str, field: &str, theirs: &T, ours: &T) {
        if theirs == ours {
            return;
        }
        self.met.insert((file.to_owned(), field.to_owned()));
        if !self.exceptions.iter().any(|(f, name, _)| *f == file && *name == field) {
            self.unexpected.push(format!("{file}: {field}:\n    theirs {theirs:?}\n    ours   {ours:?}"));
        }
    }

    fn finish(self) {
        for (file, field, why) in self.exceptions {
            assert!(
                self.met.contains(&((*file).to_owned(), (*field).to_owned())),
                "no longer a difference: {file}: {field} ({why})"
            );
        }
        assert!(
            self.unexpected.is_empty(),
            "{} differences:\n{}",
            self.unexpected.len(),
            self.unexpected.join("\n")
        );
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

#[test]
fn every_file_of_the_corpus_gives_a_result() {
    let Some(corpus) = corpus() else { return };
    let mut answers = 0;
    for path in files(&corpus) {
        let bytes = fs::read(&path).unwrap();
        match feed::read(&bytes, &Hints::default()) {
            Ok(document) => assert!(document.items.len() <= feed::limits::ITEMS_KEPT_MAX),
            Err(e) => assert!(!e.to_string().is_empty()),
        }
        answers += 1;
    }
    assert!(answers > 300, "only {answers} files in {}", corpus.display());
}

#[test]
fn gofeed_reads_the_same() {
    let Some(corpus) = corpus() else { return };
    let mut differences = Differences::new(GOFEED);
    let mut pairs = 0;
    for path in files(&corpus.join("gofeed/translator")) {
        let name = stem(&path);
        let expected = match path.extension().and_then(|e| e.to_str()) {
            Some("xml") => path.with_extension("json"),
            Some("json") => path.with_file_name(format!("{name}_expected.json")),
            _ => continue,
        };
        if !expected.exists() {
            continue;
        }
        pairs += 1;
        let bytes = fs::read(&path).unwrap();
        let document = match feed::read(&bytes, &Hints::default()) {
            Ok(document) => document,
            Err(e) => {
                differences.compare(&name, "error", &String::new(), &e.to_string());
                continue;
            }
        };
        gofeed_pair(&mut differences, &name, &json(&expected), &document);
    }
    assert!(pairs >= 97, "{pairs} pairs");
    differences.finish();
}

fn gofeed_pair(differences: &mut Differences, file: &str, theirs: &Value, document: &FeedDocument) {
    let feed = &document.feed;
    differences.compare(file, "feed title", &text(&theirs["title"]), &feed.title);
    differences.compare(file, "feed link", &text(&theirs["link"]), &feed.link);
    if text(&theirs["description"]).is_none_or(|d| !d.contains('<')) {
        differences.compare(file, "feed description", &text(&theirs["description"]), &feed.description);
    }
    differences.compare(file, "feed language", &text(&theirs["language"]), &feed.language);
    differences.compare(file, "feed image", &text(&theirs["image"]["url"]), &feed.image);
    // JSON Feed has no such date; gofeed uses that of an item.
    if theirs["feedType"] != "json" {
        let updated = instant(&theirs["updatedParsed"]).or(instant(&theirs["publishedParsed"]));
        differences.compare(file, "feed updated", &updated, &feed.updated.map(|t| t.to_string()));
    }
    let none = Vec::new();
    let items = theirs["items"].as_array().unwrap_or(&none);
    differences.compare(file, "items", &items.len(), &document.items.len());
    for (theirs, ours) in items.iter().zip(&document.items) {
        differences.compare(file, "title", &text(&theirs["title"]).unwrap_or_default(), &ours.title);
        differences.compare(file, "link", &intended(text(&theirs["link"]), ours), &ours.link);
        differences.compare(file, "guid", &text(&theirs["guid"]), &ours.guid);
        differences.compare(
            file,
            "published",
            &instant(&theirs["publishedParsed"]),
            &ours.published.map(|t| t.to_string()),
        );
        differences.compare(
            file,
            "updated",
            &instant(&theirs["updatedParsed"]),
            &ours.updated.map(|t| t.to_string()),
        );
        let list = |key: &str, of: &dyn Fn(&Value) -> Option<String>| -> Vec<String> {
            theirs[key].as_array().map(|l| l.iter().filter_map(of).collect()).unwrap_or_default()
        };
        differences.compare(file, "categories", &list("categories", &text), &ours.categories);
        let author = |a: &Value| Some(format!("{:?} {:?}", text(&a["name"]), text(&a["email"])));
        let our_authors: Vec<_> =
            ours.authors.iter().map(|a| format!("{:?} {:?}", a.name, a.email)).collect();
        differences.compare(file, "authors", &list("authors", &author), &our_authors);
        let enclosure = |e: &Value| {
            Some(format!("{:?} {:?} {:?}", text(&e["url"]), text(&e["type"]), text(&e["length"])))
        };
        let our_enclosures: Vec<_> = ours
            .enclosures
            .iter()
            .map(|e| format!("{:?} {:?} {:?}", Some(&e.url), e.media_type, e.length.map(|l| l.to_string())))
            .collect();
        differences.compare(file, "enclosures", &list("enclosures", &enclosure), &our_enclosures);
    }
}

#[test]
fn rss_parser_reads_the_same() {
    let Some(corpus) = corpus() else { return };
    let mut differences = Differences::new(RSS_PARSER);
    let mut pairs = 0;
    for path in files(&corpus.join("rss-parser/input")) {
        let name = stem(&path);
        let expected = corpus.join("rss-parser/output").join(format!("{name}.json"));
        if !expected.exists() {
            continue;
        }
        pairs += 1;
        let document = read(&path);
        let theirs = &json(&expected)["feed"];
        differences.compare(&name, "feed title", &text(&theirs["title"]), &document.feed.title);
        differences.compare(&name, "feed link", &text(&theirs["link"]), &document.feed.link);
        let items = theirs["items"].as_array().unwrap();
        differences.compare(&name, "items", &items.len(), &document.items.len());
        for (theirs, ours) in items.iter().zip(&document.items) {
            differences.compare(&name, "title", &text(&theirs["title"]).unwrap_or_default(), &ours.title);
            differences.compare(&name, "link", &intended(text(&theirs["link"]), ours), &ours.link);
            let guid = text(&theirs["guid"]).or(text(&theirs["id"]));
            if says_guid(&document) {
                differences.compare(&name, "guid", &guid, &ours.guid);
            }
            let either = ours.published.or(ours.updated).map(|t| t.to_string());
            differences.compare(&name, "isoDate", &instant(&theirs["isoDate"]), &either);
        }
    }
    assert!(pairs >= 29, "{pairs} pairs");
    differences.finish();
}

#[test]
fn feed_rs_reads_the_same() {
    let Some(corpus) = corpus() else { return };
    let mut differences = Differences::new(FEED_RS);
    let mut pairs = 0;
    for path in files(&corpus.join("feed-rs")) {
        let name = stem(&path);
        let expected = path.with_file_name(format!("{name}.serde.json"));
        if path == expected || !expected.exists() || name.ends_with(".serde") {
            continue;
        }
        pairs += 1;
        feed_rs_pair(&mut differences, &name, &json(&expected), &read(&path));
    }
    assert!(pairs >= 60, "{pairs} pairs");
    differences.finish();
}

fn feed_rs_pair(differences: &mut Differences, file: &str, theirs: &Value, document: &FeedDocument) {
    differences.compare(file, "feed title", &text(&theirs["title"]["content"]), &document.feed.title);
    let entries = theirs["entries"].as_array().unwrap();
    differences.compare(file, "items", &entries.len(), &document.items.len());
    for (theirs, ours) in entries.iter().zip(&document.items) {
        feed_rs_entry(differences, file, theirs, ours, says_guid(document));
    }
}

fn feed_rs_entry(differences: &mut Differences, file: &str, theirs: &Value, ours: &Item, says_guid: bool) {
    // It generates an id of hexadecimal digits if there is none.
    let invented = |id: &String| id.len() >= 31 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let id = text(&theirs["id"]).filter(|id| !invented(id));
    if says_guid {
        differences.compare(file, "id", &id, &ours.guid.clone().filter(|g| !invented(g)));
    }
    let title = text(&theirs["title"]["content"]).unwrap_or_default();
    differences.compare(file, "title", &title, &ours.title);
    let links = theirs["links"].as_array().unwrap();
    let page = |l: &&Value| matches!(l["rel"].as_str(), None | Some("alternate"));
    let link = links.iter().find(page).and_then(|l| text(&l["href"]));
    let link = intended(link, ours);
    differences.compare(file, "link", &spelled(link), &spelled(ours.link.clone()));
    let dates = |a: Option<String>, b: Option<String>| a.or(b);
    let their_date = dates(instant(&theirs["published"]), instant(&theirs["updated"]));
    let our_date = dates(ours.published.map(|t| t.to_string()), ours.updated.map(|t| t.to_string()));
    differences.compare(file, "date", &their_date, &our_date);
}
