//! `newswire config`: everything that is wrong with the configuration, or what it comes to.

use std::{
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use anyhow::Context as _;

use clap::{Args, Subcommand};
use daemon::{
    Exit,
    findings::{Findings, WARNING},
    program::{GATEWAY, INGESTD, Program},
};
use news::Catalogue;
use serde_json::json;

use crate::{
    cli::{ConfigFile, UsageError},
    out,
    up::beside_us,
};

/// Arguments of `newswire config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration, the list of sources and the files that both name; every complaint at once
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

pub(crate) fn run(arguments: ConfigArgs) -> anyhow::Result<Exit> {
    match arguments.command {
        ConfigCommand::Check { file, sources } => check(&file, sources),
        ConfigCommand::Show { file, json } => show(&file, json),
        ConfigCommand::Default => {
            out::line(daemon::config::default_file().trim_end())?;
            Ok(Exit::Ok)
        }
    }
}

fn check(file: &ConfigFile, sources: Option<PathBuf>) -> anyhow::Result<Exit> {
    let loaded = file.load();
    // The sources are looked at even when the configuration is wrong: one run names everything.
    let named = sources.clone().or_else(|| loaded.as_ref().ok().map(|l| l.config.ingestd.sources.clone()));
    let catalogue = named.as_deref().map(read_catalogue);
    let mut findings = Findings::default();
    if let Err(error) = &loaded {
        findings.complain(&error.to_string());
    }
    if let Some(Err(UsageError(error))) = &catalogue {
        findings.complain(error);
    }
    // Under a configuration that is wrong they would not come to their files.
    if loaded.is_ok() {
        for daemon in [INGESTD, GATEWAY] {
            ask(daemon, file, sources.as_deref(), &mut findings)?;
        }
    }
    for warning in &findings.warnings {
        out::complain(&format!("newswire: {WARNING}{warning}"));
    }
    if !findings.complaints.is_empty() {
        return Err(UsageError(findings.complaints.join("\n")).into());
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

/// Has a daemon look at the files that only it reads, and adds what it finds that was not known.
fn ask(
    daemon: Program,
    file: &ConfigFile,
    sources: Option<&Path>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let name = daemon.name;
    let path = match beside_us(name) {
        Ok(path) => path,
        Err(error) => {
            out::complain(&format!("newswire: what {name} reads was not checked: {error:#}"));
            return Ok(());
        }
    };
    let mut process = Process::new(&path);
    process.arg("--check").stdin(Stdio::null());
    if let Some(file) = &file.config {
        process.arg("--config").arg(file);
    }
    if let Some(sources) = sources {
        process.env("NEWSWIRE_INGESTD__SOURCES", sources);
    }
    let output = process.output().with_context(|| format!("start {}", path.display()))?;
    merge(name, &String::from_utf8_lossy(&output.stderr), findings);
    if !matches!(output.status.code(), Some(0 | 78)) {
        findings.complain(&format!("{name} --check: {}", output.status));
    }
    Ok(())
}

/// Takes what a daemon said, except for what is known: it may say the same with a hint after it.
fn merge(name: &str, said: &str, findings: &mut Findings) {
    for line in said.lines() {
        let line = line.strip_prefix(name).and_then(|line| line.strip_prefix(": ")).unwrap_or(line);
        let (list, line) = match line.strip_prefix(WARNING) {
            Some(line) => (&mut findings.warnings, line),
            None => (&mut findings.complaints, line),
        };
        if !list.iter().any(|known| line.starts_with(known.as_str())) {
            list.push(line.to_owned());
        }
    }
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
pub(crate) fn read_catalogue(path: &Path) -> Result<Catalogue, UsageError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        UsageError(format!("{}: cannot read the list of sources: {error}", path.display()))
    })?;
    Catalogue::parse(&text).map_err(|complaints| {
        let line = |c: &news::Complaint| format!("{}:{}: {}", path.display(), c.line, c.message);
        UsageError(complaints.iter().map(line).collect::<Vec<_>>().join("\n"))
    })
}

fn show(file: &ConfigFile, as_json: bool) -> anyhow::Result<Exit> {
    let loaded = file.load()?;
    let shown = loaded.show();
    if as_json {
        let value = |s: &daemon::config::EffectiveValue| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_says_is_added_once_and_without_its_name() {
        let mut findings = Findings::default();
        findings.complain("sources.toml: cannot read the list of sources");
        let said = "newswire-ingestd: sources.toml: cannot read the list of sources; make one\n\
                    newswire-ingestd: sources.toml: source a: cookie_file: missing\n\
                    newswire-ingestd: warning: secret: everybody can read it\n";
        merge("newswire-ingestd", said, &mut findings);
        merge("newswire-ingestd", said, &mut findings);
        assert_eq!(findings.complaints.len(), 2, "{findings:?}");
        assert_eq!(findings.complaints[1], "sources.toml: source a: cookie_file: missing");
        assert_eq!(findings.warnings, ["secret: everybody can read it"]);
    }
}
