//! `newswire config`: everything that is wrong with the configuration, or what it comes to.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use daemon::Exit;
use news::Catalogue;
use serde_json::json;

use crate::{
    cli::{ConfigFile, Misconfigured},
    out,
};

/// Arguments of `newswire config`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and the list of sources; every complaint at once
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// List of sources to check instead of the one configured
        #[arg(long, value_name = "FILE")]
        sources: Option<PathBuf>,
    },
    /// Show every effective value and where it came from
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the commented file with every default
    Default,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    match arguments.command {
        Command::Check { file, sources } => check(&file, sources),
        Command::Show { file, json } => show(&file, json),
        Command::Default => {
            out::line(daemon::config::default_file().trim_end())?;
            Ok(Exit::Ok)
        }
    }
}

fn check(file: &ConfigFile, sources: Option<PathBuf>) -> anyhow::Result<Exit> {
    let loaded = file.load();
    // The sources are looked at even when the configuration is wrong: one run names everything.
    let named = sources.or_else(|| loaded.as_ref().ok().map(|l| l.config.ingestd.sources.clone()));
    let catalogue = named.as_deref().map(read_catalogue);
    let mut complaints = Vec::new();
    if let Err(error) = &loaded {
        complaints.push(error.to_string());
    }
    if let Some(Err(Misconfigured(error))) = &catalogue {
        complaints.push(error.clone());
    }
    if !complaints.is_empty() {
        return Err(Misconfigured(complaints.join("\n")).into());
    }
    if let Ok(loaded) = loaded {
        let file = loaded.file.map_or("built-in defaults".to_owned(), |file| file.display().to_string());
        out::line(&format!("{file}: fine"))?;
    }
    if let (Some(path), Some(Ok(catalogue))) = (named, catalogue) {
        out::line(&format!("{}: fine, {}", path.display(), describe(&catalogue)))?;
    }
    Ok(Exit::Ok)
}

fn describe(catalogue: &Catalogue) -> String {
    let distinct = |values: Vec<&str>| values.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    let sources = &catalogue.sources;
    let enabled = sources.iter().filter(|s| s.enabled).count();
    let countries = distinct(sources.iter().filter_map(|s| s.country.as_deref()).collect());
    let languages = distinct(sources.iter().filter_map(|s| s.language.as_deref()).collect());
    let categories = distinct(sources.iter().map(|s| s.category.as_str()).collect());
    format!(
        "{} sources ({enabled} enabled), {countries} countries, {languages} languages, {categories} categories",
        sources.len()
    )
}

/// Reads a list of sources, with every complaint about it.
pub(crate) fn read_catalogue(path: &Path) -> Result<Catalogue, Misconfigured> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Misconfigured(format!("{}: cannot read the list of sources: {error}", path.display()))
    })?;
    Catalogue::parse(&text).map_err(|complaints| {
        let line = |c: &news::Complaint| format!("{}:{}: {}", path.display(), c.line, c.message);
        Misconfigured(complaints.iter().map(line).collect::<Vec<_>>().join("\n"))
    })
}

fn show(file: &ConfigFile, as_json: bool) -> anyhow::Result<Exit> {
    let loaded = file.load()?;
    let shown = loaded.show();
    if as_json {
        let value = |s: &daemon::config::Shown| {
            (s.key.clone(), json!({ "value": s.value, "origin": s.origin, "live": s.live }))
        };
        let all: serde_json::Map<_, _> = shown.iter().map(value).collect();
        out::line(&serde_json::to_string_pretty(&all)?)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = shown
        .into_iter()
        .map(|s| vec![s.key, s.value, s.origin, (if s.live { "reload" } else { "restart" }).to_owned()])
        .collect();
    for line in out::table(&rows) {
        out::line(&line)?;
    }
    Ok(Exit::Ok)
}
