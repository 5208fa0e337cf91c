//! Millions of random mutations of feeds: each must return a result within the limits.
//!
//! The cases run in child processes (this test binary again) on threads with a stack of 2 MiB, so that an abort is detected.
//! `NEWSWIRE_FUZZ_CASES` sets the number of cases, `NEWSWIRE_FUZZ_SEED` the first one; a failure names its seed. The seed
//! documents are the small ones of our own inputs and of `NEWSWIRE_CORPUS`, if set: small documents find faults sooner.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    io::{Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use fastrand::Rng;
use feed::{FeedDocument, Hints, limits, read};
use url::Url;

/// Default of `NEWSWIRE_FUZZ_CASES`: about ten seconds in a debug build, a minute in a release build.
const CASES_DEFAULT: u64 = if cfg!(debug_assertions) { 20_000 } else { 2_000_000 };
/// Child processes that share the cases.
const CHILDREN: u64 = 2;
/// Longest mutated document, in bytes.
const BYTES_MAX: usize = 64 << 10;
/// Longest seed, in bytes.
const SEED_BYTES_MAX: usize = 8 << 10;

/// Tokens that random bytes rarely form.
const WORDS: [&str; 40] = [
    "<",
    ">",
    "</",
    "/>",
    "\"",
    "'",
    "&",
    "&amp;",
    "&#0;",
    "&#x202e;",
    "&nbsp;",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?",
    "?>",
    "<!DOCTYPE a [",
    "]>",
    "<item>",
    "</item>",
    "<entry>",
    "</entry>",
    "<title>",
    "</title>",
    "<content type=\"xhtml\">",
    "<content mode=\"base64\">",
    "</content>",
    "xml:base=\"//x/\"",
    "xmlns=\"\"",
    "xmlns:a=\"http://www.w3.org/2005/Atom\"",
    "<a:",
    "</rss>",
    "</feed>",
    "\u{feff}",
    "\u{202e}",
    "\\ud800",
    "{\"",
    "[[",
    "\0",
];

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn seeds() -> Vec<Vec<u8>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs")];
    folders.extend(env::var_os("NEWSWIRE_CORPUS").map(PathBuf::from));
    let mut seeds = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e != "expected") {
                seeds.push(fs::read(&path).unwrap());
            }
        }
    }
    seeds.retain(|s| s.len() <= SEED_BYTES_MAX);
    seeds.sort();
    seeds
}

fn range(rng: &mut Rng, len: usize) -> std::ops::Range<usize> {
    let start = rng.usize(..=len);
    let longest = if rng.bool() { 16 } else { len };
    start..(start + rng.usize(..=longest)).min(len)
}

fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.usize(..seeds.len())].clone();
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..8) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            2 => drop(bytes.drain(range(rng, bytes.len()))),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[range(rng, bytes.len())].to_vec();
                let times = rng.usize(1..200);
                bytes.splice(at..at, piece.repeat(times).into_iter().take(BYTES_MAX / 4));
            }
            5 => {
                let other = &seeds[rng.usize(..seeds.len())];
                bytes.splice(at..at, other[range(rng, other.len())].to_vec());
            }
            6 => {
                let piece = bytes.drain(range(rng, bytes.len())).collect::<Vec<_>>();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let word = WORDS[rng.usize(..WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn is_web(link: &str) -> bool {
    let lower = link.get(..8).unwrap_or(link).to_ascii_lowercase();
    (lower.starts_with("http://") || lower.starts_with("https://")) && link.len() <= limits::LINK_BYTES_MAX
}

fn check(document: &FeedDocument) {
    assert!(document.items.len() <= limits::ITEMS_KEPT_MAX);
    let mut keys = std::collections::HashSet::new();
    for item in &document.items {
        assert!(item.key.len() == 32 && keys.insert(&item.key), "key {:?}", item.key);
        assert!(
            item.title.len() <= limits::TITLE_BYTES_MAX && item.summary.len() <= limits::SUMMARY_BYTES_MAX
        );
        let links = [&item.link, &item.image, &item.comments].into_iter().flatten();
        assert!(links.chain(item.enclosures.iter().map(|e| &e.url)).all(|l| is_web(l)));
        assert!(item.content_html.as_ref().is_none_or(|h| h.len() <= 8 * limits::CONTENT_BYTES_MAX));
        let json = serde_json::to_string(item).unwrap();
        let dangerous = |c: char| {
            c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
        };
        assert!(!json.contains(dangerous), "{json}");
    }
}

/// The child: runs the cases, and records each in a file before it begins.
fn run(cases: u64, first: u64, note: &Path) {
    let seeds = seeds();
    let url = Url::parse("https://example.org/feeds/main.xml").unwrap();
    let mut note = fs::File::create(note).unwrap();
    let mut documents = 0_u64;
    for case in first..first.saturating_add(cases) {
        note.rewind().unwrap();
        note.write_all(&case.to_le_bytes()).unwrap();
        let bytes = mutated(&mut Rng::with_seed(case), &seeds);
        let hints = Hints { url: Some(&url).filter(|_| case % 2 == 0), ..Hints::default() };
        match read(&bytes, &hints) {
            Ok(document) => {
                check(&document);
                documents += 1;
            }
            // The normalised document must be parseable.
            Err(e) => {
                assert!(!e.to_string().is_empty() && !e.to_string().contains("could not be read"), "{e}")
            }
        }
    }
    // If hardly any mutation were a feed, nothing would be tested.
    assert!(documents * 10 > cases, "only {documents} of {cases} cases were feeds");
}

#[test]
fn any_broken_feed_gives_a_result() {
    let first = number("NEWSWIRE_FUZZ_SEED", 1);
    let cases = number("NEWSWIRE_FUZZ_CASES", CASES_DEFAULT);
    if let Some(note) = env::var_os("NEWSWIRE_FUZZ_CHILD") {
        let child = std::thread::Builder::new().stack_size(2 << 20);
        child.spawn(move || run(cases, first, Path::new(&note))).unwrap().join().unwrap();
        return;
    }
    let children: Vec<_> = (0..CHILDREN)
        .map(|n| {
            let begin = first + cases * n / CHILDREN;
            let end = first + cases * (n + 1) / CHILDREN;
            (begin, end, FuzzChild::begin(begin, end - begin))
        })
        .collect();
    // Wait for all children, even if one fails.
    let complaints: Vec<_> =
        children.into_iter().filter_map(|(begin, end, child)| child.complaint(begin, end)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    eprintln!("{cases} mutated feeds from seed {first} on gave a result");
}

/// A running child, and the file with its current case.
struct FuzzChild {
    child: Child,
    note: PathBuf,
}

impl FuzzChild {
    fn begin(first: u64, cases: u64) -> Self {
        let note = env::temp_dir().join(format!("newswire-fuzz-{}-{first}", std::process::id()));
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "any_broken_feed_gives_a_result", "--nocapture"])
            .env("NEWSWIRE_FUZZ_CHILD", &note)
            .env("NEWSWIRE_FUZZ_SEED", first.to_string())
            .env("NEWSWIRE_FUZZ_CASES", cases.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, note }
    }

    /// Waits for the child; returns what went wrong, if anything.
    fn complaint(self, begin: u64, end: u64) -> Option<String> {
        let child = self.child.wait_with_output().unwrap();
        let last = fs::read(&self.note).ok().and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?)));
        fs::remove_file(&self.note).unwrap();
        let well = child.status.success() && last == Some(end - 1);
        let stderr = String::from_utf8_lossy(&child.stderr);
        let at = last.unwrap_or(begin);
        (!well).then(|| format!("{}, at NEWSWIRE_FUZZ_SEED={at}\n{stderr}", child.status))
    }
}
