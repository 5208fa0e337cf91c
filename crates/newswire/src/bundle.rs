//! `newswire bundle`: everything that helps to find a fault, in one archive that can be given away.
//!
//! Whatever is down or stuck costs its part and a line in the manifest, never the bundle; every question has a deadline
//! and every part a bound. Nothing gets into the archive but through the [`Redactor`].

mod archive;
mod parts;
mod secrets;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use daemon::{Clock, Exit};
use news::Timestamp;
use serde_json::json;

use self::archive::Archive;
use crate::{
    config_file::{ConfigFile, UsageError},
    logs, out,
    redact::Redactor,
};

/// Arguments of `newswire bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// How far back the journal and the logs go, such as 30m or 2h
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = logs::since)]
    since: Duration,
    /// Where to write it; must not exist [default: newswire-bundle-TIME.tar.gz]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A log to take along (repeatable), where the daemons do not write to the journal
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

pub(crate) async fn run(arguments: BundleArgs) -> anyhow::Result<Exit> {
    let now = Timestamp::from_millis(Clock::system().now_millis());
    // 2026-01-31T09:30:00Z as 20260131T093000Z: sorts, and is a name on every system.
    let time: String = now.to_string().split('.').next().unwrap_or_default().replace(['-', ':'], "");
    let name = format!("newswire-bundle-{}Z", time.trim_end_matches('Z'));
    let output = arguments.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    if output.exists() {
        return Err(UsageError(format!("{} exists: name another file", output.display())).into());
    }
    // A configuration that is wrong is a reason to make a bundle: the sockets are looked for in the default place then.
    let loaded = arguments.file.load();
    let secrets = loaded.as_ref().map(secrets::find).unwrap_or_default();
    let redactor = Redactor::new(secrets.values);
    let mut archive = Archive::create(&output, &name, now, redactor)
        .with_context(|| format!("write {}", output.display()))?;

    parts::configuration(&mut archive, &loaded)?;
    archive.add_json("files.json", Ok(json!(secrets.files)))?;
    let config = loaded.map(|loaded| loaded.config).unwrap_or_default();
    // The doctor first: it looks at the processes before our own questions keep them busy.
    parts::doctor(&mut archive, &arguments.file).await?;
    let versions = parts::processes(&mut archive, &config).await?;
    parts::journal(&mut archive, arguments.since).await?;
    let oldest = logs::before(now, arguments.since);
    for (n, log) in arguments.log.iter().enumerate() {
        parts::log_file(&mut archive, n + 1, log, oldest)?;
    }
    let missing =
        archive.finish(parts::machine(versions)).with_context(|| format!("write {}", output.display()))?;
    for part in missing {
        out::stderr_line(&format!("newswire: without {part}"));
    }
    out::stdout_line(&output.display().to_string())?;
    Ok(Exit::Ok)
}
