//! What is written and kept, in bytes.

use std::{fs, path::Path, time::Duration};

use store::{LogWriter, Retention, StoreOptions};

use crate::{
    built::{files, options},
    visits::{item, source, visit},
};

/// Bytes that this process has written so far. Each test is a process of its own.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn bytes_below(folder: &Path) -> u64 {
    files(folder).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// One new item, among the newest of a source.
fn one_more(writer: &mut LogWriter, n: usize) {
    let document = (n.saturating_sub(50)..=n).map(|k| item(&format!("item {k}"), 1)).collect();
    let visit = visit(&source("a"), document, i64::try_from(n).unwrap());
    assert_eq!(writer.append(vec![visit]).unwrap()[0].new, 1);
}

#[test]
fn one_item_of_a_source_with_3_000_known_keys_costs_10_kilobytes_of_writing_at_most() {
    const KNOWN: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _reader) = store::open(dir.path(), &options(10_000)).unwrap();
    let items = (0..KNOWN).map(|k| item(&format!("item {k}"), 1)).collect();
    assert_eq!(writer.append(vec![visit(&source("a"), items, 0)]).unwrap()[0].new as usize, KNOWN);
    pause();
    let mut measured = |range: std::ops::Range<usize>, after: fn()| {
        let (count, before) = (range.len() as u64, (written(), writer.journal_bytes()));
        for n in range {
            one_more(&mut writer, n);
            after();
        }
        ((written() - before.0) / count, (writer.journal_bytes() - before.1) / count)
    };
    let (in_a_row, of_journal) = measured(KNOWN..KNOWN + 260, || {});
    println!("bytes written for an item in a row: {in_a_row}, of these the journal {of_journal}");
    let (alone, of_journal) = measured(KNOWN + 260..KNOWN + 272, pause);
    println!("with a flush of sled after each: {alone}, of these the journal {of_journal}");
    assert!(in_a_row <= 10_000, "{in_a_row} bytes for each of 260 items");
    assert!(alone <= 10_000, "{alone} bytes for each of 12 items that sled writes alone");
}

#[expect(clippy::disallowed_methods, reason = "a visit comes after sled was flushed for the one before")]
fn pause() {
    std::thread::sleep(Duration::from_millis(700));
}

#[test]
fn a_log_that_turns_over_takes_four_times_what_is_kept_at_most_and_no_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { events: 2000, ..StoreOptions::default().retention };
    let options = StoreOptions { retention, ..options(1) };
    let (mut writer, reader) = store::open(dir.path(), &options).unwrap();
    let mut most = 0.0_f64;
    for n in 0..300 {
        let name = source(&format!("source-{}", n % 20));
        let with_text = |k: usize| {
            let size = if k == 0 { 24_000 } else { 2000 };
            let text = "word ".repeat(size / 5);
            news::Item { content_html: Some(text), ..item(&format!("{n}/{k}"), 1) }
        };
        writer.append(vec![visit(&name, (0..30).map(with_text).collect(), n)]).unwrap();
        while writer.retain(None).unwrap().more {}
        if n >= 100 && n % 10 == 0 {
            #[expect(clippy::cast_precision_loss, reason = "a ratio")]
            let ratio = bytes_below(dir.path()) as f64 / writer.live_bytes() as f64;
            most = most.max(ratio);
        }
    }
    assert_eq!(reader.head().0 + 1 - reader.oldest().0, 2000);
    println!("disk: at most {most:.2} times the {} bytes of events that are kept", writer.live_bytes());
    assert!(most <= 4.0, "{most} times");
    let blobs = dir.path().join("log.sled/blobs");
    assert_eq!(if blobs.exists() { files(&blobs) } else { Vec::new() }, Vec::<std::path::PathBuf>::new());
}
