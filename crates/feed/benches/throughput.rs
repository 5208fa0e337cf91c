//! Parsing speed compared with feed-rs: `cargo bench -p feed`.
//!
//! Both parse every document many times, alternating, and each pair yields a ratio, so that other load on the machine affects
//! both. The median of the ratios is reported; above 1 we are faster. `parse` is everything except sanitising, on both
//! sides; `read` is everything. `NEWSWIRE_CORPUS` adds the largest feeds of a folder; `-- WORD` selects documents by name.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints results"
)]

use std::{
    env, fs,
    hint::black_box,
    path::PathBuf,
    time::{Duration, Instant},
};

use feed::Hints;
use feed_rs::parser::Builder;

#[path = "throughput/documents.rs"]
mod documents;

/// Pairs of measurements per row.
const PAIRS: usize = 21;
/// Minimum duration of one measurement.
const TURN: Duration = Duration::from_millis(25);
/// How many of the largest feeds of the corpus are used.
const CORPUS_FEEDS: usize = 6;

/// Runs `work` `times` times.
fn turn(times: u32, work: &mut dyn FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..times {
        work();
    }
    began.elapsed()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints one row: both speeds and their ratio.
fn row(name: &str, what: &str, bytes: usize, ours: &mut dyn FnMut(), theirs: &mut dyn FnMut()) {
    let mut times = 1;
    while turn(times, ours) < TURN {
        times *= 2;
    }
    let (mut our_speed, mut their_speed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let (a, b) = (turn(times, ours).as_secs_f64(), turn(times, theirs).as_secs_f64());
        let megabytes = bytes as f64 * f64::from(times) / 1e6;
        our_speed.push(megabytes / a);
        their_speed.push(megabytes / b);
        ratios.push(b / a);
    }
    let (ours, theirs, ratio) = (median(our_speed), median(their_speed), median(ratios));
    println!("{name:<34} {what:<6} {:>7} kB {ours:>8.1} {theirs:>8.1} {ratio:>7.2}", bytes / 1000);
}

fn measure(name: &str, bytes: &[u8]) {
    let hints = Hints::default();
    let parser = Builder::new().sanitize_content(false).build();
    let items = feed::read(bytes, &hints).unwrap().items.len();
    assert!(items > 0 && !parser.parse(bytes).unwrap().entries.is_empty(), "{name}");
    row(
        name,
        "parse",
        bytes.len(),
        &mut || drop(black_box(feed::read_without_html(black_box(bytes), &hints))),
        &mut || drop(black_box(parser.parse(black_box(bytes)))),
    );
    let parser = Builder::new().sanitize_content(true).build();
    row(
        name,
        "read",
        bytes.len(),
        &mut || drop(black_box(feed::read(black_box(bytes), &hints))),
        &mut || drop(black_box(parser.parse(black_box(bytes)))),
    );
}

/// The largest feeds of the corpus that both can parse.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let Some(folder) = env::var_os("NEWSWIRE_CORPUS") else {
        println!("SKIPPED: NEWSWIRE_CORPUS is not set");
        return Vec::new();
    };
    let mut folders = vec![PathBuf::from(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "xml" || e == "rss" || e == "atom") {
                found.push((
                    path.file_name().unwrap().to_string_lossy().into_owned(),
                    fs::read(path).unwrap(),
                ));
            }
        }
    }
    found.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
    let read_by_both = |bytes: &[u8]| {
        feed::read(bytes, &Hints::default()).is_ok_and(|d| !d.items.is_empty())
            && feed_rs::parser::parse(bytes).is_ok_and(|f| !f.entries.is_empty())
    };
    found.into_iter().filter(|(_, bytes)| read_by_both(bytes)).take(CORPUS_FEEDS).collect()
}

fn main() {
    println!("{:<34} {:<6} {:>10} {:>8} {:>8} {:>7}", "document", "what", "size", "feed", "feed-rs", "ratio");
    let made = [
        ("RSS 2.0, content:encoded, CDATA", documents::rss(2 << 20, documents::Html::CData)),
        ("RSS 2.0, content:encoded, escaped", documents::rss(2 << 20, documents::Html::Escaped)),
        ("Atom 1.0, html", documents::atom(2 << 20, documents::Html::Escaped)),
        ("Atom 1.0, xhtml", documents::atom(2 << 20, documents::Html::Inline)),
        ("RSS 2.0, 25 items", documents::rss(160 << 10, documents::Html::CData)),
    ];
    let made = made.into_iter().map(|(name, document)| (name.to_owned(), document.into_bytes()));
    let wanted = env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    for (name, bytes) in made.chain(corpus()).filter(|(name, _)| name.contains(&wanted)) {
        measure(&name, &bytes);
    }
}
