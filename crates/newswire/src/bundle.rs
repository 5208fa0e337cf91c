//! `newswire bundle`: collects everything that helps to find a fault in one archive that can be handed to others.
//!
//! A process that is down or stuck costs its own part, with the reason in the manifest, but never the bundle. Every request
//! has a deadline and every part a size limit. Everything in the archive must pass through the [`Redactor`].

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
    doctor, logs, out,
    redact::Redactor,
};

/// Arguments of `newswire bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// How far back the journal and the log files are read, such as 30m or 2h
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = logs::since)]
    since: Duration,
    /// File to write; must not exist [default: newswire-bundle-TIME.tar.gz]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Log file to include, if the daemons do not log to the journal; may be given several times
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

pub(crate) async fn run(arguments: BundleArgs) -> anyhow::Result<Exit> {
    let now = Timestamp::from_millis(Clock::system().now_millis());
    // 20260131T093000Z: sorts by time, and is a valid file name on every system.
    let time: String = now.to_string().split('.').next().unwrap_or_default().replace(['-', ':'], "");
    let name = format!("newswire-bundle-{}Z", time.trim_end_matches('Z'));
    let output = arguments.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    if output.exists() {
        return Err(
            UsageError(format!("{} exists; name another file with --output", output.display())).into()
        );
    }
    // A wrong configuration must not prevent a bundle: then the processes are found by name.
    let config = arguments.file.load_in_part();
    let secrets = secrets::collect(&config.loaded);
    let redactor = Redactor::new(secrets.values);
    let mut archive = Archive::create(&output, &name, now, redactor)
        .with_context(|| format!("write {}", output.display()))?;

    parts::configuration(&mut archive, &config.loaded)?;
    archive.add_json("files.json", Ok(json!(secrets.files)))?;
    let (running, found) = doctor::config_of_running(&config).await;
    let mistakes: Vec<_> = config.complaints.iter().chain(&config.unreadable).cloned().chain(found).collect();
    for mistake in &mistakes {
        out::stderr_line(&format!("newswire: {mistake}"));
    }
    // The doctor runs first, before our own requests keep the processes busy.
    parts::doctor(&mut archive, &arguments.file).await?;
    let versions = parts::processes(&mut archive, &running).await?;
    parts::black_boxes(&mut archive, &running).await?;
    parts::journal(&mut archive, arguments.since).await?;
    let oldest = logs::before(now, arguments.since);
    for (n, log) in arguments.log.iter().enumerate() {
        parts::log_file(&mut archive, n + 1, log, oldest)?;
    }
    let missing = archive
        .finish(parts::machine(versions, &mistakes))
        .with_context(|| format!("write {}", output.display()))?;
    for part in missing {
        out::stderr_line(&format!("newswire: not included: {part}"));
    }
    out::stdout_line(&output.display().to_string())?;
    Ok(Exit::Ok)
}
