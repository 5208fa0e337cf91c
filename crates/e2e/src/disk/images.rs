//! Cuts of power on a real file system: the store is on an ext4 in an image file, whose power is cut while the daemon works.
//! It is then mounted again, so that the kernel recovers its journal, and a daemon starts on it. The same store goes through
//! all cuts. Only for root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::geteuid;
use tokio::time::sleep;

use super::{
    announced::AnnouncedEvents,
    copy_folder,
    cuts::start_and_wait,
    log_check::{check_log, visit_quarantined},
    preload::program,
    workload::{Articles, StoreWorkload},
};
use crate::{Binary, TestStack, TestSubscriber, log_line};

const IMAGE_BYTES: u64 = 512 * 1024 * 1024;
/// How long the daemon works before a cut, in ms, twice.
const WORKS_MS: std::ops::Range<u64> = 200..2_500;

/// The result of [`cut_images`].
#[derive(Clone, Debug, Default)]
pub struct ImageSummary {
    /// Cuts made.
    pub cuts: usize,
    /// Cuts before which something new was announced.
    pub cuts_after_announcements: usize,
    /// Events announced before the last cut.
    pub announced: usize,
    /// Cuts after which the store did not open.
    pub refused: usize,
    /// Cuts after which the log began again, in another epoch.
    pub reset: usize,
    /// Announced events lost, over all cuts.
    pub lost: u64,
    /// Items that came twice, over all cuts.
    pub doubled: u64,
    /// Cuts with a fault, each with its image.
    pub faults: Vec<String>,
}

/// An ext4 in an image file; unmounted when dropped.
struct MountedImage {
    image: PathBuf,
    folder: PathBuf,
    cutter: PathBuf,
}

/// Cuts the power of an image `cuts` times. `None` if this process may not: it is not root, or cannot mount an image.
///
/// # Errors
/// If the tool itself does not work.
pub async fn cut_images(
    articles: Articles,
    cuts: usize,
    keep: &Path,
) -> anyhow::Result<Option<ImageSummary>> {
    if !geteuid().is_root() {
        log_line("SKIPPED: only root can mount an image");
        return Ok(None);
    }
    let workload = StoreWorkload::start(articles).await?;
    let mut summary = ImageSummary::default();
    while summary.cuts < cuts {
        let mut stack = workload.stack()?;
        let image = match MountedImage::make(stack.folder()) {
            Ok(image) => image,
            Err(error) if summary.cuts == 0 => {
                log_line(&format!("SKIPPED: {error:#}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stack.set("store.path", &format!("{:?}", image.store().display().to_string()));
        cut_until_fault(&workload, &mut stack, &image, cuts, keep, &mut summary).await?;
    }
    Ok(Some(summary))
}

/// Cuts again and again; ends after the last cut, or with the first fault, because the store is then another one.
async fn cut_until_fault(
    workload: &Arc<StoreWorkload>,
    stack: &mut TestStack,
    image: &MountedImage,
    cuts: usize,
    keep: &Path,
    summary: &mut ImageSummary,
) -> anyhow::Result<()> {
    let publishing = workload.publish();
    start_and_wait(stack).await?;
    let mut announced = AnnouncedEvents::default();
    while summary.cuts < cuts {
        let path = match announced.epoch.as_str() {
            "" => "/wire?snapshot=1000000".to_owned(),
            epoch => format!("/wire?after={epoch}-0"),
        };
        let subscriber = TestSubscriber::start(stack.wire(), &path);
        sleep(Duration::from_millis(fastrand::u64(WORKS_MS))).await;
        visit_quarantined(&stack.wire()).await;
        sleep(Duration::from_millis(fastrand::u64(WORKS_MS))).await;
        let now = AnnouncedEvents::of(&subscriber.records())?;
        image.cut()?;
        stack.process(Binary::Ingestd)?.kill();
        drop(subscriber);
        announced.epoch.clone_from(&now.epoch);
        let before = announced.events.len();
        announced.events.extend(now.events);
        summary.cuts_after_announcements += usize::from(announced.events.len() > before);
        image.remount()?;
        summary.cuts += 1;
        summary.announced = announced.events.len();

        let kept = stack.path("as-mounted");
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        copy_folder(&image.store(), &kept)?;
        let mut verdict = check_log(stack, workload, &announced, workload.events_kept()).await?;
        if verdict.missed > 0 {
            verdict.faults.push(format!("{} announced events are gone, as clients are told", verdict.missed));
        }
        summary.refused += usize::from(verdict.refused.is_some());
        summary.reset += usize::from(verdict.is_reset);
        summary.lost += verdict.lost + verdict.changed + verdict.missed;
        summary.doubled += verdict.doubled;
        if !verdict.is_right() {
            let folder = keep.join(format!("image-cut-{}", summary.cuts));
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            copy_folder(&kept, &folder.join("data"))?;
            fs::write(folder.join("daemon.log"), stack.process(Binary::Ingestd)?.log())?;
            let what = verdict.refused.iter().chain(&verdict.faults).cloned().collect::<Vec<_>>().join("; ");
            let fault = format!("cut {}: {what}; the store is in {}", summary.cuts, folder.display());
            log_line(&fault);
            summary.faults.push(fault);
            break;
        }
    }
    drop(publishing);
    stack.process(Binary::Ingestd)?.kill();
    Ok(())
}

impl MountedImage {
    fn make(folder: &Path) -> anyhow::Result<Self> {
        let mounted = Self {
            image: folder.join("ext4.image"),
            folder: folder.join("mounted"),
            cutter: program("power_cut")?,
        };
        fs::File::create(&mounted.image)?.set_len(IMAGE_BYTES)?;
        fs::create_dir(&mounted.folder)?;
        run("mkfs.ext4", &["-q".as_ref(), mounted.image.as_ref()])?;
        mounted.mount()?;
        fs::create_dir(mounted.store())?;
        // What is there before the test begins is on the disk.
        fs::File::open(&mounted.folder)?.sync_all()?;
        Ok(mounted)
    }

    fn store(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Half of the time the kernel commits its journal every 5 s, as it usually does; otherwise only when it is told to, so
    /// that names that were not synced are lost more often.
    fn mount(&self) -> anyhow::Result<()> {
        let options = if fastrand::bool() { "loop" } else { "loop,commit=300" };
        run("mount", &["-o".as_ref(), options.as_ref(), self.image.as_ref(), self.folder.as_ref()])
    }

    fn cut(&self) -> anyhow::Result<()> {
        let cutter = self.cutter.to_str().context("the folder of the build has a plain name")?;
        run(cutter, &[self.folder.as_ref()])
    }

    fn remount(&self) -> anyhow::Result<()> {
        run("umount", &[self.folder.as_ref()])?;
        self.mount()
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &["-l".as_ref(), self.folder.as_ref()]) {
            log_line(&format!("{} stays mounted: {error:#}", self.folder.display()));
        }
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
