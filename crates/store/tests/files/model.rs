//! Any history of appends, retention, ends and starts, with sled lost, cut, overwritten or put back between them, leaves the log
//! that a few lines of a model have.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use news::{Seq, VisitStatus};
use proptest::prelude::*;
use store::{LogReader, LogWriter, OpenNote, Retention, StoreOptions};

use crate::built::{copy_folder, files, news_in, read_log};
use crate::visits::{item, source, visit};

const SOURCES: u8 = 4;
/// A segment has 64 events, at least.
const KEPT: u64 = 150;

#[derive(Clone, Copy, Debug)]
enum SledDamage {
    None,
    Gone,
    /// Its largest file has so many thousandths of its bytes.
    Cut(usize),
    /// So many thousandths into its largest file, random bytes.
    Noise(usize, u64),
    /// What it was at an earlier start.
    Older,
}

#[derive(Clone, Debug)]
enum Step {
    /// A visit that finds so many new items, and a changed one.
    News(u8, usize),
    /// One that finds nothing.
    Nothing(u8),
    Retain,
    /// An end in good order or not, and a start.
    Restart {
        is_closed: bool,
        damage: SledDamage,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let damage = prop_oneof![
        2 => Just(SledDamage::None),
        1 => Just(SledDamage::Gone),
        1 => (0..1000_usize).prop_map(SledDamage::Cut),
        2 => (0..1000_usize, any::<u64>()).prop_map(|(at, seed)| SledDamage::Noise(at, seed)),
        2 => Just(SledDamage::Older),
    ];
    prop_oneof![
        12 => (0..SOURCES, 1..30_usize).prop_map(|(source, count)| Step::News(source, count)),
        3 => (0..SOURCES).prop_map(Step::Nothing),
        3 => Just(Step::Retain),
        3 => (any::<bool>(), damage).prop_map(|(is_closed, damage)| Step::Restart { is_closed, damage }),
    ]
}

fn options() -> StoreOptions {
    let retention = Retention { events: KEPT, ..StoreOptions::default().retention };
    StoreOptions { retention, ..crate::built::options(1) }
}

/// What is known of a source: all of its items, and when it was visited.
#[derive(Clone, Debug, Default)]
struct ModelSource {
    items: Vec<(String, u64)>,
    last_news: i64,
    last_visit: i64,
}

struct Model {
    folder: PathBuf,
    older: PathBuf,
    events: BTreeMap<u64, String>,
    oldest: u64,
    /// The oldest one after all that retention has removed. A start may forget what it has removed last, if sled is lost; one
    /// that gets a later sled back knows it again.
    retained: u64,
    sources: [ModelSource; SOURCES as usize],
    now: i64,
}

impl Model {
    fn visit(&mut self, (writer, reader): &mut (LogWriter, LogReader), n: u8, count: usize) {
        self.now += 1000;
        let source = source(&format!("source-{n}"));
        let known = &mut self.sources[usize::from(n)];
        let mut expected = 0;
        if count > 0 {
            let first = known.items.len();
            known.items.extend((first..first + count).map(|k| (format!("{n}/{k}"), 1)));
            // One that was there before has changed.
            let at = first.checked_sub(3);
            if let Some((_, version)) = at.map(|at| &mut known.items[at]) {
                *version += 1;
                expected = 1;
            }
            known.last_news = self.now;
        }
        known.last_visit = self.now;
        // The document has the newest ones.
        let document = known.items.iter().rev().take(40.max(count + 3)).rev();
        let mut visit =
            visit(&source, document.map(|(key, version)| item(key, *version)).collect(), self.now);
        visit.state.last_status = Some(VisitStatus::New);
        let before = reader.head();
        let appended = writer.append(vec![visit]).unwrap();
        let found = (appended[0].new as usize, appended[0].updated);
        assert_eq!(found, (count, expected), "source {n}: what is new and what has changed");
        let page = reader.page(before, usize::MAX, usize::MAX).unwrap();
        assert_eq!((page.missed, page.records.len()), (0, count + expected as usize));
        for record in page.records {
            assert!(self.events.insert(record.seq.0, record.json).is_none());
        }
    }

    fn retain(&mut self, (writer, reader): &mut (LogWriter, LogReader)) {
        while writer.retain(None).unwrap().more {}
        self.oldest = self.oldest.max((reader.head().0 + 1).saturating_sub(KEPT));
        self.retained = self.retained.max(self.oldest);
        assert_eq!(reader.oldest().0, self.oldest);
    }

    fn restart(
        &mut self,
        log: (LogWriter, LogReader),
        is_closed: bool,
        damage: SledDamage,
    ) -> (LogWriter, LogReader) {
        let (writer, reader) = log;
        let epoch = reader.epoch().clone();
        if is_closed {
            writer.close().unwrap()
        } else {
            drop(writer)
        }
        drop(reader);
        // sled's threads end a moment later.
        drop(store::open(&self.folder, &options()).unwrap());
        let sled = self.folder.join("log.sled");
        wait_for_sled(&sled);
        let before = tempfile::tempdir_in(self.folder.parent().unwrap()).unwrap();
        copy_folder(&sled, before.path());
        let is_damaged = self.damage(&sled, damage);
        if self.now % 3000 == 0 || !self.older.exists() {
            fs::remove_dir_all(&self.older).ok();
            copy_folder(before.path(), &self.older);
        }
        let (mut writer, reader) = store::open(&self.folder, &options()).unwrap();
        assert_eq!(reader.epoch(), &epoch);
        self.check(&reader, is_damaged);
        for (n, known) in self.sources.iter().enumerate().filter(|(_, known)| !known.items.is_empty()) {
            let document = known.items.iter().rev().take(40).rev().map(|(key, version)| item(key, *version));
            let visit = visit(&source(&format!("source-{n}")), document.collect(), known.last_visit);
            assert_eq!(news_in(&mut writer, vec![visit]), 0, "source {n}: known items come again");
        }
        (writer, reader)
    }

    fn check(&mut self, reader: &LogReader, is_damaged: bool) {
        assert!(reader.oldest().0 <= self.retained, "{} is kept", self.retained);
        self.oldest = reader.oldest().0;
        let expected: BTreeMap<_, _> =
            self.events.range(self.oldest..).map(|(n, json)| (*n, json.clone())).collect();
        let log = read_log(reader);
        assert!(log.events == expected, "the events from {} on", self.oldest);
        assert_eq!(log.missed, self.oldest - 1);
        assert_eq!(reader.take_damage(), []);
        let is_loss = |note: &OpenNote| !matches!(note, OpenNote::Rebuilt { .. });
        assert!(!reader.notes().iter().any(is_loss), "{:?}", reader.notes());
        for (n, known) in self.sources.iter_mut().enumerate() {
            let state = reader.state(&source(&format!("source-{n}")).id).unwrap();
            let etag = state.and_then(|state| state.etag).unwrap_or_default();
            let visited: i64 = etag.trim_matches('"').parse().unwrap_or_default();
            if is_damaged {
                assert!((known.last_news..=self.now).contains(&visited), "source {n}: {visited}, {known:?}");
                known.last_visit = visited;
            } else {
                assert_eq!(visited, known.last_visit, "source {n}");
            }
        }
    }

    fn damage(&self, sled: &Path, damage: SledDamage) -> bool {
        let db = sled.join("db");
        let length = usize::try_from(fs::metadata(&db).unwrap().len()).unwrap();
        match damage {
            SledDamage::None => return false,
            SledDamage::Gone => fs::remove_dir_all(sled).unwrap(),
            SledDamage::Cut(part) => {
                let file = fs::File::options().write(true).open(&db).unwrap();
                file.set_len((length * part / 1000) as u64).unwrap();
            }
            SledDamage::Noise(part, seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut bytes = fs::read(&db).unwrap();
                let from = length * part / 1000;
                let to = (from + random.usize(1..9000)).min(length);
                random.fill(&mut bytes[from..to]);
                fs::write(&db, bytes).unwrap();
            }
            SledDamage::Older if self.older.exists() => {
                fs::remove_dir_all(sled).unwrap();
                copy_folder(&self.older, sled);
            }
            SledDamage::Older => return false,
        }
        true
    }
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Its threads have its file until a moment after its end.
fn wait_for_sled(sled: &Path) {
    let file = fs::File::open(sled.join("db")).unwrap();
    file.lock().unwrap();
    assert!(!files(sled).is_empty());
}

proptest! {
    // A case takes some tenths of a second: PROPTEST_CASES sets more of them.
    #![proptest_config(cases())]
    #[test]
    fn whatever_happens_to_sled_the_log_is_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let mut model = Model {
            older: dir.path().join("older"),
            events: BTreeMap::new(),
            oldest: 1,
            retained: 1,
            sources: Default::default(),
            now: 0,
            folder,
        };
        let mut log = store::open(&model.folder, &options()).unwrap();
        for step in steps {
            match step {
                Step::News(n, count) => model.visit(&mut log, n, count),
                Step::Nothing(n) => model.visit(&mut log, n, 0),
                Step::Retain => model.retain(&mut log),
                Step::Restart { is_closed, damage } => log = model.restart(log, is_closed, damage),
            }
        }
        let damage = SledDamage::Gone;
        let (_, reader) = model.restart(log, true, damage);
        prop_assert_eq!(reader.head(), Seq(model.events.len() as u64));
    }
}
