//! The disk of the store: frozen, slow, full, failing, or gone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use e2e::{
    Binary::{self, Ingestd},
    StartOptions,
    disk::preload_library,
    log_line, wait_for,
};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::row::{Expected, Patient, SETTLED, SOON, has, is_root, run};

/// A file system of its own, in a file; taken down when dropped.
pub(crate) struct FileSystem {
    folder: TempDir,
}

impl FileSystem {
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn mount_text(&self) -> String {
        self.mount_point().display().to_string()
    }

    /// An ext4 in a file. `None`, with a printed reason, where that cannot be mounted.
    pub(crate) fn ext4() -> anyhow::Result<Option<Self>> {
        if !is_root() || !has("mkfs.ext4") {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("newswire-disk-").tempdir()?;
        let this = Self { folder };
        let image = this.image();
        fs::create_dir(this.mount_point())?;
        run("truncate", &["-s", "512M", &image])?;
        run("mkfs.ext4", &["-q", "-F", &image])?;
        if let Err(error) = this.mount() {
            log_line(&format!("SKIPPED: {error}"));
            return Ok(None);
        }
        Ok(Some(this))
    }

    fn image(&self) -> String {
        self.folder.path().join("image").display().to_string()
    }

    /// Mounts an ext4 where it was.
    pub(crate) fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "loop", &self.image(), &self.mount_text()])
    }

    /// Takes it out of the tree of files; what is open stays open.
    pub(crate) fn unmount(&self) -> anyhow::Result<()> {
        run("umount", &["-l", &self.mount_text()])
    }

    pub(crate) fn tmpfs(size: &str) -> anyhow::Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("newswire-disk-").tempdir()?;
        let this = Self { folder };
        fs::create_dir(this.mount_point())?;
        let size = format!("size={size}");
        if let Err(error) = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &this.mount_text()]) {
            log_line(&format!("SKIPPED: {error}"));
            return Ok(None);
        }
        Ok(Some(this))
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// Every write waits until it is dropped: drop it before the processes, or they cannot be ended.
    pub(crate) fn freeze(&self) -> anyhow::Result<Frozen> {
        run("fsfreeze", &["-f", &self.mount_text()])?;
        Ok(Frozen(self.mount_text()))
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Fails if the test has unmounted it.
        run("umount", &["-l", &self.mount_text()]).ok();
    }
}

pub(crate) struct Frozen(String);

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", &self.0]).ok();
    }
}

/// Both at work with the store at that path.
pub(crate) async fn with_store(path: &Path) -> anyhow::Result<Patient> {
    let mut patient = Patient::prepared(2).await?;
    patient.stack.set("store.path", &format!("{:?}", path.display().to_string()));
    patient.start().await?;
    Ok(patient)
}

async fn frozen_for(wait: Duration) -> anyhow::Result<()> {
    let Some(disk) = FileSystem::ext4()? else { return Ok(()) };
    let patient = with_store(&disk.store()).await?;
    let _frozen = disk.freeze()?;
    patient.origin.publish("feed-0", "One more to record");
    sleep(wait).await;
    let sickness = format!("fsfreeze of the store's file system, {} s", wait.as_secs());
    patient.expect(&sickness, Expected::fault(&["disk-stalled"], &[])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_file_system_soon() -> anyhow::Result<()> {
    frozen_for(Duration::from_secs(6)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_frozen_file_system_after_20_s() -> anyhow::Result<()> {
    frozen_for(Duration::from_secs(20)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_frozen_file_system_after_65_s() -> anyhow::Result<()> {
    frozen_for(Duration::from_secs(65)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_frozen_file_system_after_95_s() -> anyhow::Result<()> {
    frozen_for(Duration::from_secs(95)).await
}

/// Both at work, the disk of the ingestion daemon obeying the file that is returned.
pub(crate) async fn with_an_obedient_disk() -> anyhow::Result<Option<(Patient, PathBuf)>> {
    if !has("cc") {
        return Ok(None);
    }
    let mut patient = Patient::prepared(2).await?;
    let order = patient.stack.path("order");
    let text = |path: &Path| path.display().to_string();
    let environment = vec![
        ("LD_PRELOAD".to_owned(), text(&preload_library("stalls")?)),
        ("STALLS_ORDER".to_owned(), text(&order)),
        ("STALLS_UNDER".to_owned(), text(&fs::canonicalize(patient.stack.folder())?.join("data"))),
    ];
    patient.stack.set_start_options(Ingestd, StartOptions { environment, ..StartOptions::default() });
    patient.start().await?;
    Ok(Some((patient, order)))
}

async fn obedient(
    sickness: &str,
    order: &str,
    wait: Duration,
    runs: usize,
    expected: Expected<'_>,
) -> anyhow::Result<()> {
    let Some((patient, file)) = with_an_obedient_disk().await? else { return Ok(()) };
    fs::write(&file, order)?;
    for number in 1..=runs {
        for article in 0..3 {
            patient.origin.publish("feed-0", &format!("Number {article} of {number}"));
        }
        sleep(wait).await;
        patient.expect(&format!("{sickness}, run {number}"), expected).await?;
    }
    let log = fs::read_to_string(patient.stack.path("newswire-ingestd.log"))?;
    let blamed: Vec<_> = log.lines().filter(|line| line.contains("quarantine")).collect();
    anyhow::ensure!(blamed.is_empty(), "a good feed was blamed: {blamed:?}");
    // So that the daemon can end.
    fs::remove_file(file)?;
    Ok(())
}

/// The disk, or what is known of it from outside where the kernel does not show that it waits.
const SLOW: Expected<'static> = Expected::fault(&["disk-stalled", "store-slow"], &[]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn each_sync_takes_3_s() -> anyhow::Result<()> {
    obedient("each fdatasync 3 s", "sync 3000", Duration::from_secs(7), 3, SLOW).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_sync_takes_40_s_and_no_feed_is_blamed() -> anyhow::Result<()> {
    obedient("a fdatasync of 40 s", "sync 40000", Duration::from_secs(30), 2, SLOW).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn each_write_takes_4_s() -> anyhow::Result<()> {
    obedient("each write 4 s", "write 4000", Duration::from_secs(8), 2, SLOW).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_sync_fails() -> anyhow::Result<()> {
    let expected = Expected::fault(&["daemon-dead"], &["ingestd"]);
    obedient("fdatasync fails with EIO", "sync -5", Duration::from_secs(8), 1, expected).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_full_disk_when_the_daemon_starts() -> anyhow::Result<()> {
    let Some(disk) = FileSystem::tmpfs("6m")? else { return Ok(()) };
    let patient = with_a_full_disk(&disk).await?;
    patient.expect("disk full (tmpfs)", Expected::fault(&["disk-full"], &[])).await.map(drop)
}

/// The ingestion daemon has ended at its start, because a file `other` has all the space.
pub(crate) async fn with_a_full_disk(disk: &FileSystem) -> anyhow::Result<Patient> {
    let mut patient = Patient::prepared(2).await?;
    patient.stack.set("store.path", &format!("{:?}", disk.store().display().to_string()));
    let space = vec![0_u8; 64 << 20];
    // It ends with the space.
    fs::write(disk.mount_point().join("other"), space).ok();
    patient.stack.start(Ingestd)?;
    patient.stack.process(Ingestd)?.wait_exit(SOON).await?;
    patient.stack.start(Binary::Gateway)?;
    let gateway = patient.stack.gateway();
    let serves = async || e2e::http::fetch(&gateway, "/health", SOON).await.ok();
    wait_for("the gateway", SOON, serves).await?;
    Ok(patient)
}

/// Something happens to the folder of the store while both run, and then something is published or not.
async fn store_gone(
    sickness: &str,
    publish: bool,
    happens: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let patient = with_a_store().await?;
    happens(&patient.stack.path("data"))?;
    gone(&patient, sickness, publish).await
}

/// Both at work, and something is recorded.
pub(crate) async fn with_a_store() -> anyhow::Result<Patient> {
    let patient = Patient::well().await?;
    let store = patient.stack.path("data");
    let recorded = async || store.join("journal").exists().then_some(());
    wait_for("the store", SOON, recorded).await?;
    sleep(SETTLED).await;
    Ok(patient)
}

/// Deletes a folder in which a program is at work; what it writes meanwhile is deleted by another attempt.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    let removed = || fs::remove_dir_all(folder).is_ok() || !folder.exists();
    anyhow::ensure!((0..100).any(|_| removed()), "{} cannot be deleted", folder.display());
    Ok(())
}

async fn gone(patient: &Patient, sickness: &str, publish: bool) -> anyhow::Result<()> {
    if publish {
        patient.origin.publish("feed-0", "Where does it go?");
    }
    sleep(SETTLED).await;
    // The daemon may have ended when it had something to write; why it ended is what there is to say.
    let expected = Expected::fault(&["store-gone"], &["data"]);
    patient.expect(sickness, expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_folder_of_the_store_is_deleted() -> anyhow::Result<()> {
    store_gone("store folder deleted while running", false, remove).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_folder_of_the_store_is_renamed() -> anyhow::Result<()> {
    store_gone("store folder renamed while running", false, |store| {
        Ok(fs::rename(store, store.with_extension("old"))?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn another_folder_takes_the_place_of_the_store() -> anyhow::Result<()> {
    store_gone("store folder replaced by an empty one", false, |store| {
        fs::rename(store, store.with_extension("old"))?;
        Ok(fs::create_dir(store)?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_journal_is_deleted() -> anyhow::Result<()> {
    store_gone("journal of the store deleted", false, |store| remove(&store.join("journal"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_file_system_of_the_store_is_unmounted() -> anyhow::Result<()> {
    let Some(disk) = FileSystem::ext4()? else { return Ok(()) };
    let patient = with_store(&disk.store()).await?;
    disk.unmount()?;
    gone(&patient, "umount -l of the store while running", false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_folder_of_the_store_is_deleted_and_something_is_to_be_recorded() -> anyhow::Result<()> {
    store_gone("store folder deleted, then an article", true, remove).await
}
