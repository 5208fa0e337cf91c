//! `newswire log backup` and `restore`.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use control::{ControlClient, ControlSocket, WatchReport, paths, watch::ProcessVitals};
use daemon::{Clock, Exit};
use news::{Epoch, Seq, Timestamp};
use serde_json::json;
use store::tools::{
    self, BackupManifest, BackupReport, BackupSegment, BackupTarget, DaemonLog, FolderBackup, MANIFEST,
    RestoreOptions, RestoreReport, RestoredEpoch,
};

use super::{LogFiles, failed};
use crate::{
    out::{self, safe},
    unanswered::explain,
};

/// Arguments of `newswire log backup`.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Folder of the backup, an empty or new one at first; -: a tar archive on standard output
    #[arg(value_name = "DIR|-")]
    to: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `newswire log restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Folder of a backup or of a copied store; without it, the store is a copy and stays where it is
    #[arg(value_name = "FROM")]
    from: Option<PathBuf>,
    /// Keep the epoch: right only if the original is gone and no client was ahead of the copy
    #[arg(long)]
    same_epoch: bool,
    /// Restore also a copy that is not whole, without what is missing
    #[arg(long)]
    accept_loss: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn backup(files: &LogFiles, arguments: &BackupArgs) -> anyhow::Result<Exit> {
    let daemon = if files.is_other { None } else { served(files).await };
    let made = Timestamp::from_millis(Clock::system().now_millis());
    let is_tar = arguments.to.as_os_str() == "-";
    let mut target: Box<dyn BackupTarget> = if is_tar {
        Box::new(TarBackup::new(io::stdout().lock(), made))
    } else {
        Box::new(FolderBackup::open(&arguments.to, &files.store).map_err(failed)?)
    };
    let report = tools::backup(&files.store, &mut *target, daemon, made).map_err(failed)?;
    drop(target);
    let is_right = report.damaged_places == 0;
    if arguments.json && !is_tar {
        out::stdout_line(&backup_json(&report).to_string())?;
    } else if !is_tar {
        let BackupManifest { epoch, oldest, head, segments, .. } = &report.manifest;
        out::stdout_line(&format!(
            "the backup has the events {oldest} to {head} of the epoch {epoch} in {} segments; {} copied, {} bytes",
            segments.len(),
            report.copied,
            report.copied_bytes
        ))?;
    }
    if !is_right {
        let kept = match &report.damaged_since[..] {
            [] => String::new(),
            kept => format!("; the backup has {} segments right that are damaged in the store", kept.len()),
        };
        out::stderr_line(&format!(
            "newswire: the store has {} damaged places and {} lost events{kept}; `newswire log verify` names them",
            report.damaged_places, report.lost
        ));
    }
    Ok(if is_right { Exit::Ok } else { Exit::Failure })
}

fn backup_json(report: &BackupReport) -> serde_json::Value {
    let BackupManifest { made, epoch, oldest, head, segments, .. } = &report.manifest;
    json!({
        "made": made,
        "epoch": epoch,
        "oldest": oldest,
        "head": head,
        "segments": segments.len(),
        "segment_bytes": segments.iter().map(|segment| segment.bytes).sum::<u64>(),
        "copied": report.copied,
        "copied_bytes": report.copied_bytes,
        "kept": report.kept,
        "damaged_since": report.damaged_since,
        "damaged_places": report.damaged_places,
        "lost_events": report.lost,
    })
}

/// What the daemon serves, so that the backup is known to have all of it; `None` if it does not run.
async fn served(files: &LogFiles) -> Option<DaemonLog> {
    let client = ControlClient::new(files.config.socket(ControlSocket::IngestdAdmin));
    let report: WatchReport<ProcessVitals> = match client.get(paths::WATCH).await {
        Ok(report) => report,
        Err(error) if error.is_absent() => return None,
        Err(error) => {
            let why = explain(&error, "ingestd");
            out::stderr_line(&format!("newswire: the daemon does not say what it serves: {why}"));
            return None;
        }
    };
    let Some(ProcessVitals::Ingest(vitals)) = report.vitals else { return None };
    Some(DaemonLog { epoch: Epoch::try_new(&vitals.epoch).ok()?, head: Seq(vitals.head) })
}

/// A backup as a tar archive, which is whole each time.
struct TarBackup<W: Write> {
    archive: tar::Builder<W>,
    made: Timestamp,
}

impl<W: Write> TarBackup<W> {
    fn new(output: W, made: Timestamp) -> Self {
        Self { archive: tar::Builder::new(output), made }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.made.millis() / 1000).unwrap_or(0));
        self.archive.append_data(&mut header, name, bytes)
    }
}

impl<W: Write> BackupTarget for TarBackup<W> {
    fn before(&self) -> Option<&BackupManifest> {
        None
    }

    fn has(&self, _: &BackupSegment) -> io::Result<bool> {
        Ok(false)
    }

    fn put(&mut self, segment: &BackupSegment, bytes: &[u8]) -> io::Result<()> {
        self.append(&segment.path(), bytes)
    }

    fn finish(&mut self, manifest: &BackupManifest) -> io::Result<()> {
        self.append(MANIFEST, manifest.to_json().as_bytes())?;
        self.archive.finish()?;
        self.archive.get_mut().flush()
    }

    fn name(&self) -> PathBuf {
        "standard output".into()
    }
}

pub(super) fn restore(files: &LogFiles, arguments: &RestoreArgs) -> anyhow::Result<Exit> {
    let epoch = if arguments.same_epoch { RestoredEpoch::Same } else { RestoredEpoch::New };
    let options = RestoreOptions { epoch, accept_loss: arguments.accept_loss };
    let report = match &arguments.from {
        Some(from) => tools::restore(from, &files.store, options),
        None => tools::restore_in_place(&files.store, options),
    }
    .map_err(failed)?;
    let RestoreReport { epoch, oldest, head, lost, damaged_places, before } = report;
    if arguments.json {
        let report = json!({
            "store": files.store, "epoch": epoch, "oldest": oldest, "head": head, "lost_events": lost,
            "damaged_places": damaged_places, "before": before,
        });
        out::stdout_line(&report.to_string())?;
    } else {
        let store = safe(&files.store.display().to_string());
        out::stdout_line(&format!("{store} has the events {oldest} to {head}; its epoch is {epoch}"))?;
        if let Some(before) = &before {
            out::stdout_line(&format!("what was there before is in {}", shown(before)))?;
        }
    }
    if damaged_places > 0 {
        let from = shown(arguments.from.as_ref().or(before.as_ref()).unwrap_or(&files.store));
        out::stderr_line(&format!(
            "newswire: of {from}, {lost} events could not be restored, and {damaged_places} places were not as written; \
             `newswire log verify --store {from}` names them"
        ));
    }
    Ok(Exit::Ok)
}

fn shown(path: &Path) -> String {
    safe(&path.display().to_string())
}
