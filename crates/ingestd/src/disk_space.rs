//! Pauses recording before the disk of the store is full, and resumes it when there is space again.
//!
//! ```text
//! every 2 s, in the pool: statvfs ─► free < bound ─► pause   free < bound/2, at most 64 MiB ─► nothing is written either
//!                                    free ≥ bound + a tenth ─► resume, and the ballast of the store is written again
//! ```
//!
//! A system call on a file system that is gone never returns: then the state stays as it is, and nothing waits for it.

use std::{io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use news::RecordingPauseReason;
use notation::humanize_bytes;
use store::{
    StoreOpenError,
    space::{self, BALLAST_BYTES, BALLAST_INODES, FileSystemInodes, FileSystemSpace},
};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::recording::{PausedWork, Recording};

/// How often the space is read.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// With less free space than this, and less than half the bound, nothing is written: the rest is for opening the store.
const WRITES_MIN_BYTES: u64 = 64 << 20;
/// Fewer free inodes are too few whatever the file system has: the store creates some, and so does each document.
const INODES_MIN: u64 = 64;

/// Below one of these bounds recording pauses; 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceBounds {
    /// `store.free_bytes_min`
    pub(crate) bytes_min: u64,
    /// `store.free_percent_min`: of the bytes, and of the inodes.
    pub(crate) percent_min: u64,
}

/// Reads the space of the file system of the store. May block.
pub(crate) type SpaceProbe = Arc<dyn Fn() -> io::Result<FileSystemSpace> + Send + Sync>;

/// How much is free of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    free: u64,
    /// The bound; with less, recording pauses.
    min: u64,
    /// With less, nothing is written.
    writes_min: u64,
}

impl Level {
    /// With that much, a pause ends.
    fn enough(self) -> u64 {
        self.min.saturating_add(self.min / 10)
    }

    /// What a pause keeps from happening; `None` if there is no need for one.
    fn paused_work(self, is_paused: bool) -> Option<PausedWork> {
        match self.free {
            free if free < self.writes_min => Some(PausedWork::AllWrites),
            free if free < if is_paused { self.enough() } else { self.min } => Some(PausedWork::NewVisits),
            _ => None,
        }
    }
}

impl SpaceBounds {
    fn percent_of(self, all: u64) -> u64 {
        u64::try_from(u128::from(all) * u128::from(self.percent_min) / 100).unwrap_or(u64::MAX)
    }

    fn bytes(self, space: FileSystemSpace) -> Level {
        let min = self.bytes_min.max(self.percent_of(space.bytes));
        Level { free: space.free_bytes, min, writes_min: (min / 2).min(WRITES_MIN_BYTES) }
    }

    fn inodes(self, inodes: FileSystemInodes) -> Level {
        let min = match self {
            Self { bytes_min: 0, percent_min: 0 } => 0,
            _ => self.percent_of(inodes.all).max(INODES_MIN),
        };
        Level { free: inodes.free, min, writes_min: (min / 2).min(INODES_MIN / 2) }
    }

    /// Which key the bound of the bytes comes from.
    fn key_of_bytes(self, space: FileSystemSpace) -> String {
        match self.percent_of(space.bytes) {
            percent if percent > self.bytes_min => {
                format!("{} % of it (store.free_percent_min)", self.percent_min)
            }
            _ => format!("{} (store.free_bytes_min)", humanize_bytes(self.bytes_min)),
        }
    }
}

/// Whether the store has its ballast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ballast {
    /// Or perhaps not there.
    Missing,
    Kept,
    /// It could not be written; the next attempt is when there was too little room in the meantime.
    Failed,
}

/// Whether the ballast would fit, without a pause because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BallastRoom {
    Enough,
    TooLittle,
    Unknown,
}

/// Watches the space of one file system.
pub(crate) struct DiskSpace {
    path: PathBuf,
    probe: SpaceProbe,
    bounds: watch::Receiver<SpaceBounds>,
    recording: Recording,
    ballast: Ballast,
    /// The last attempt to read the space failed.
    is_unreadable: bool,
}

impl DiskSpace {
    /// Of the store in `path`; nothing is read yet.
    pub(crate) fn new(
        path: PathBuf,
        probe: SpaceProbe,
        bounds: watch::Receiver<SpaceBounds>,
        recording: Recording,
    ) -> Self {
        Self { path, probe, bounds, recording, ballast: Ballast::Missing, is_unreadable: false }
    }

    /// Reads the space now and then, and at once when the bounds change. Does not end.
    pub(crate) async fn run(mut self) {
        let mut interval = tokio::time::interval(CHECK_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                Ok(()) = self.bounds.changed() => {}
            }
            let room = self.check().await;
            self.keep_ballast(room).await;
        }
    }

    /// Reads the space, and pauses or resumes recording. Returns whether there is room for the ballast.
    pub(crate) async fn check(&mut self) -> BallastRoom {
        let probe = Arc::clone(&self.probe);
        let read = tokio::task::spawn_blocking(move || probe()).await;
        match read.map_err(io::Error::other).flatten() {
            Ok(space) => {
                self.is_unreadable = false;
                self.apply(space)
            }
            Err(error) => {
                let of = self.path.display();
                if std::mem::replace(&mut self.is_unreadable, true) {
                    return BallastRoom::Unknown;
                }
                if error.kind() == io::ErrorKind::NotFound {
                    tracing::warn!(
                        %of,
                        "the store is not in its folder any more: it was deleted, renamed or unmounted, and no start will find \
                         what is recorded from now on; put it back before this process is restarted; `newswire doctor` says how"
                    );
                } else {
                    tracing::warn!(
                        %error, %of,
                        "the free space of the disk cannot be read; until it can, recording does not pause before it is full"
                    );
                }
                BallastRoom::Unknown
            }
        }
    }

    fn apply(&mut self, space: FileSystemSpace) -> BallastRoom {
        let bounds = *self.bounds.borrow_and_update();
        let bytes = bounds.bytes(space);
        let of_bytes = || {
            format!(
                "{} of {} are free on the disk of {}, less than {}; free some space, and recording resumes by itself at {}",
                humanize_bytes(space.free_bytes),
                humanize_bytes(space.bytes),
                self.path.display(),
                bounds.key_of_bytes(space),
                humanize_bytes(bytes.enough()),
            )
        };
        self.decide(RecordingPauseReason::DiskSpace, bytes, of_bytes);
        let inodes = space.inodes.map(|inodes| bounds.inodes(inodes));
        if let (Some(level), Some(FileSystemInodes { all, .. })) = (inodes, space.inodes) {
            let of_inodes = || {
                format!(
                    "{} of {all} inodes are free on the disk of {}, less than {} (store.free_percent_min, at least \
                     {INODES_MIN}); remove some files, and recording resumes by itself at {}",
                    level.free,
                    self.path.display(),
                    level.min,
                    level.enough(),
                )
            };
            self.decide(RecordingPauseReason::DiskInodes, level, of_inodes);
        }
        let has_room = bytes.free >= bytes.enough().saturating_add(BALLAST_BYTES)
            && inodes.is_none_or(|level| level.free >= level.enough().saturating_add(BALLAST_INODES));
        if has_room { BallastRoom::Enough } else { BallastRoom::TooLittle }
    }

    fn decide(&self, reason: RecordingPauseReason, level: Level, detail: impl Fn() -> String) {
        match level.paused_work(self.recording.is_paused_by(reason)) {
            Some(work) => self.recording.pause(reason, work, detail()),
            None => self.recording.resume(reason),
        }
    }

    /// Writes the ballast if it is missing and there is room for it.
    async fn keep_ballast(&mut self, room: BallastRoom) {
        match (room, self.ballast) {
            (BallastRoom::Enough, Ballast::Missing) => {}
            // A second daemon, which finds the store locked, has removed it before on a full disk.
            (BallastRoom::TooLittle, _) => return self.ballast = Ballast::Missing,
            _ => return,
        }
        let path = self.path.clone();
        let kept = tokio::task::spawn_blocking(move || space::keep_ballast(&path)).await;
        self.ballast = match kept {
            Ok(Ok(_)) => Ballast::Kept,
            Ok(Err(error)) => {
                tracing::warn!(%error, "ballast not written; on a full disk the store could not be opened");
                Ballast::Failed
            }
            Err(_) => Ballast::Failed,
        };
    }
}

/// Opens the store. If the disk is full, with the space of its ballast. Blocks.
pub(crate) fn open_on_full_disk<T>(
    path: &Path,
    open: impl Fn() -> Result<T, StoreOpenError>,
) -> Result<T, StoreOpenError> {
    // Before the first attempt: sled can hang when it fails.
    let is_full = space::of_file_system(path).is_ok_and(|space| {
        space.free_bytes < BALLAST_BYTES || space.inodes.is_some_and(|inodes| inodes.free < BALLAST_INODES)
    });
    if is_full {
        release(path);
        return open();
    }
    match open() {
        Err(StoreOpenError::Io { source, .. })
            if source.kind() == io::ErrorKind::StorageFull && release(path) =>
        {
            open()
        }
        opened => opened,
    }
}

/// Returns whether there is more space now.
fn release(path: &Path) -> bool {
    match space::release_ballast(path) {
        Ok(false) => false,
        Ok(true) => {
            tracing::info!("ballast released; the disk is full, and the store needs some space to open");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "ballast not released; the disk is full");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::{
        PausedWork::{AllWrites, NewVisits},
        RecordingPauseReason::{DiskInodes, DiskSpace as TooFewBytes},
        *,
    };
    use crate::recording::tests::recording;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn bounds(bytes_min: u64, percent_min: u64) -> SpaceBounds {
        SpaceBounds { bytes_min, percent_min }
    }

    fn space(free_bytes: u64, bytes: u64) -> FileSystemSpace {
        FileSystemSpace { free_bytes, bytes, inodes: None }
    }

    fn paused(bounds: SpaceBounds, free: u64, all: u64, is_paused: bool) -> Option<PausedWork> {
        bounds.bytes(space(free, all)).paused_work(is_paused)
    }

    #[test]
    fn recording_pauses_below_either_bound_and_resumes_with_a_tenth_more() {
        let default = bounds(256 * MIB, 5);
        for (free, all, before, after) in [
            (256 * MIB, GIB, None, Some(NewVisits)),
            (256 * MIB - 1, GIB, Some(NewVisits), Some(NewVisits)),
            (281 * MIB, GIB, None, Some(NewVisits)),
            (282 * MIB, GIB, None, None),
            // 5 % of 100 GiB are more than 256 MiB.
            (5 * GIB, 100 * GIB, None, Some(NewVisits)),
            (5 * GIB - 1, 100 * GIB, Some(NewVisits), Some(NewVisits)),
            (5 * GIB + GIB / 2, 100 * GIB, None, None),
            // Half of the bound, at most 64 MiB.
            (64 * MIB, GIB, Some(NewVisits), Some(NewVisits)),
            (64 * MIB - 1, GIB, Some(AllWrites), Some(AllWrites)),
            (0, GIB, Some(AllWrites), Some(AllWrites)),
        ] {
            assert_eq!(paused(default, free, all, false), before, "{free} of {all}, not paused before");
            assert_eq!(paused(default, free, all, true), after, "{free} of {all}, paused before");
        }
        assert_eq!(paused(bounds(MIB, 0), MIB / 2, 20 * MIB, false), Some(NewVisits));
        assert_eq!(paused(bounds(MIB, 0), MIB / 2 - 1, 20 * MIB, false), Some(AllWrites));
    }

    #[test]
    fn a_bound_of_zero_is_off() {
        assert_eq!(paused(bounds(0, 0), 0, GIB, false), None);
        assert_eq!(paused(bounds(0, 5), 52 * MIB, GIB, false), None);
        assert_eq!(paused(bounds(0, 5), 51 * MIB, GIB, false), Some(NewVisits));
        assert_eq!(paused(bounds(256 * MIB, 0), GIB, 100 * GIB, false), None);
    }

    #[test]
    fn inodes_count_in_percent_and_a_few_are_always_too_few() {
        let paused =
            |bounds: SpaceBounds, free, all| bounds.inodes(FileSystemInodes { free, all }).paused_work(false);
        assert_eq!(paused(bounds(MIB, 5), 500, 10_000), None);
        assert_eq!(paused(bounds(MIB, 5), 499, 10_000), Some(NewVisits));
        assert_eq!(paused(bounds(MIB, 5), 64, 100), None);
        assert_eq!(paused(bounds(MIB, 0), 63, 10_000), Some(NewVisits));
        assert_eq!(paused(bounds(MIB, 5), 31, 10_000), Some(AllWrites));
        assert_eq!(paused(bounds(0, 0), 0, 10_000), None);
    }

    /// A file system whose space the test sets, and its watch.
    struct Disk {
        space: Arc<Mutex<FileSystemSpace>>,
        bounds: watch::Sender<SpaceBounds>,
        recording: Recording,
        watch: DiskSpace,
        store: tempfile::TempDir,
    }

    fn disk(space: FileSystemSpace) -> Disk {
        let (store, space) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(space)));
        let (bounds, current) = watch::channel(bounds(256 * MIB, 5));
        let (read, recording) = (Arc::clone(&space), recording());
        let probe: SpaceProbe = Arc::new(move || Ok(*read.lock().unwrap()));
        let watch = DiskSpace::new(store.path().to_owned(), probe, current, recording.clone());
        Disk { space, bounds, recording, watch, store }
    }

    impl Disk {
        fn set(&self, space: FileSystemSpace) {
            *self.space.lock().unwrap() = space;
        }

        async fn check(&mut self) {
            let room = self.watch.check().await;
            self.watch.keep_ballast(room).await;
        }

        fn has_ballast(&self) -> bool {
            self.store.path().join("ballast").exists()
        }
    }

    #[tokio::test]
    async fn the_reason_names_what_is_free_the_key_and_when_recording_resumes() {
        let mut disk = disk(space(100 * MIB, GIB));
        disk.check().await;
        let [pause] = &disk.recording.pauses()[..] else { panic!("{:?}", disk.recording.pauses()) };
        let path = disk.store.path().display();
        assert_eq!(
            pause.detail,
            format!(
                "100 MiB of 1.0 GiB are free on the disk of {path}, less than 256 MiB (store.free_bytes_min); free some \
                 space, and recording resumes by itself at 281 MiB"
            )
        );
        disk.set(space(GIB, 100 * GIB));
        disk.check().await;
        let pauses = disk.recording.pauses();
        assert!(pauses[0].detail.contains("less than 5 % of it (store.free_percent_min)"), "{pauses:?}");
        let inodes = Some(FileSystemInodes { free: 40, all: 1000 });
        disk.set(FileSystemSpace { inodes, ..space(GIB, GIB) });
        disk.check().await;
        let pauses = disk.recording.pauses();
        assert_eq!((pauses.len(), pauses[0].reason), (1, DiskInodes));
        assert!(pauses[0].detail.starts_with("40 of 1000 inodes are free"), "{pauses:?}");
    }

    #[tokio::test]
    async fn bytes_and_inodes_are_two_reasons_and_a_resumed_one_needs_the_other_too() {
        let inodes = |free| Some(FileSystemInodes { free, all: 1000 });
        let mut disk = disk(FileSystemSpace { inodes: inodes(0), ..space(MIB, GIB) });
        disk.check().await;
        let reasons =
            |disk: &Disk| disk.recording.pauses().iter().map(|pause| pause.reason).collect::<Vec<_>>();
        assert_eq!(reasons(&disk), [TooFewBytes, DiskInodes]);
        assert!(disk.recording.holds_writes() && !disk.has_ballast());
        disk.set(FileSystemSpace { inodes: inodes(0), ..space(GIB, GIB) });
        disk.check().await;
        assert_eq!((reasons(&disk), disk.has_ballast()), (vec![DiskInodes], false));
        disk.set(FileSystemSpace { inodes: inodes(500), ..space(GIB, GIB) });
        disk.check().await;
        assert_eq!((reasons(&disk), disk.has_ballast()), (vec![], true));
    }

    #[tokio::test(start_paused = true)]
    async fn other_bounds_apply_at_once_and_space_that_comes_back_within_seconds() {
        let disk = disk(space(100 * MIB, GIB));
        let Disk { space: of_disk, bounds: set, recording, watch, store } = disk;
        let running = tokio::spawn(watch.run());
        let until = async |paused: bool| {
            while recording.paused_by().is_some() != paused {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        until(true).await;
        set.send_replace(bounds(MIB, 0));
        until(false).await;
        set.send_replace(bounds(256 * MIB, 0));
        until(true).await;
        let started = tokio::time::Instant::now();
        *of_disk.lock().unwrap() = space(300 * MIB, GIB);
        until(false).await;
        assert!(started.elapsed() <= 2 * CHECK_EVERY, "{:?}", started.elapsed());
        running.abort();
        drop(store);
    }

    #[tokio::test]
    async fn no_ballast_is_written_where_it_would_lead_to_a_pause() {
        let mut disk = disk(space(285 * MIB, GIB));
        disk.check().await;
        assert_eq!((disk.recording.paused_by(), disk.has_ballast()), (None, false));
        disk.set(space(290 * MIB, GIB));
        disk.check().await;
        assert!(disk.has_ballast());
    }

    #[tokio::test]
    async fn a_ballast_that_went_on_a_full_disk_is_written_again_when_there_is_room() {
        let mut disk = disk(space(GIB, GIB));
        disk.check().await;
        assert!(disk.has_ballast());
        disk.set(space(MIB, GIB));
        disk.check().await;
        // A second daemon does so before it finds the store locked.
        space::release_ballast(disk.store.path()).unwrap();
        disk.check().await;
        assert!(!disk.has_ballast());
        disk.set(space(GIB, GIB));
        disk.check().await;
        assert!(disk.has_ballast());
    }

    #[tokio::test]
    async fn a_space_that_cannot_be_read_changes_nothing_and_is_told_once_each_time() {
        let mut disk = disk(space(MIB, GIB));
        disk.check().await;
        let paused = disk.recording.pauses();
        let read = Arc::clone(&disk.watch.probe);
        let (subscriber, log) = daemon::logs::capture("info", daemon::Clock::system()).unwrap();
        let _captured = tracing::subscriber::set_default(subscriber);
        for _ in 0..2 {
            disk.watch.probe = Arc::new(|| Err(io::ErrorKind::PermissionDenied.into()));
            for _ in 0..3 {
                disk.check().await;
            }
            assert_eq!(disk.recording.pauses(), paused);
            disk.watch.probe = Arc::clone(&read);
            disk.check().await;
        }
        let text = log.text();
        assert_eq!(text.matches("the free space of the disk cannot be read").count(), 2, "{text}");
    }

    #[tokio::test]
    async fn a_store_that_is_deleted_or_renamed_while_it_is_open_is_told_once_with_its_path() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let _open = store::open(&path, &store::StoreOptions::default()).unwrap();
        let mut disk = disk(space(GIB, GIB));
        let of_store = path.clone();
        disk.watch.path.clone_from(&path);
        disk.watch.probe = Arc::new(move || space::of_open_store(&of_store));
        let (subscriber, log) = daemon::logs::capture("info", daemon::Clock::system()).unwrap();
        let _captured = tracing::subscriber::set_default(subscriber);
        disk.watch.check().await;
        assert_eq!(log.text(), "");
        std::fs::rename(&path, parent.path().join("moved")).unwrap();
        // As the crash guard does for its marks.
        std::fs::create_dir_all(path.join("parsing")).unwrap();
        for _ in 0..3 {
            assert_eq!(disk.watch.check().await, BallastRoom::Unknown);
        }
        let text = log.text();
        let told = text.matches("the store is not in its folder any more").count();
        assert!(told == 1 && text.contains(&path.display().to_string()), "{text}");
    }

    fn full() -> StoreOpenError {
        let source = io::ErrorKind::StorageFull.into();
        StoreOpenError::Io { path: "/store".into(), source }
    }

    #[test]
    fn a_store_that_cannot_be_opened_on_a_full_disk_is_tried_once_more_without_its_ballast() {
        let store = tempfile::tempdir().unwrap();
        let attempts = AtomicUsize::new(0);
        let open = || {
            attempts.fetch_add(1, Relaxed);
            if store.path().join("ballast").exists() { Err(full()) } else { Ok(()) }
        };
        space::keep_ballast(store.path()).unwrap();
        open_on_full_disk(store.path(), open).unwrap();
        assert_eq!(attempts.swap(0, Relaxed), 2);
        let never = || {
            attempts.fetch_add(1, Relaxed);
            Err::<(), _>(full())
        };
        open_on_full_disk(store.path(), never).unwrap_err();
        assert_eq!(attempts.load(Relaxed), 1, "there is no ballast to release");
    }

    #[test]
    fn the_ballast_stays_when_something_else_keeps_the_store_from_opening() {
        let store = tempfile::tempdir().unwrap();
        space::keep_ballast(store.path()).unwrap();
        let locked = || {
            let (path, holder) = ("/store".into(), "another process".into());
            Err::<(), _>(StoreOpenError::Locked { path, holder })
        };
        open_on_full_disk(store.path(), locked).unwrap_err();
        assert!(store.path().join("ballast").exists());
    }
}
