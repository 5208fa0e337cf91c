//! `newswire config`: checks the configuration and all files that it names, or shows the values in force.

use std::{
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use anyhow::Context as _;

use clap::{Args, Subcommand};
use daemon::{
    Exit,
    findings::Findings,
    program::{GATEWAY, INGESTD, Program},
};
use news::Catalogue;
use serde_json::json;
use sources::ListOnDisk;

use crate::{
    config_file::{ConfigFile, UsageError},
    out,
    up::sibling_program,
};

/// Arguments of `newswire config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration, the list of sources and every file that they name; reports all mistakes at once
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// List of sources to check [default: ingestd.sources]
        #[arg(long, value_name = "FILE")]
        sources: Option<PathBuf>,
    },
    /// Show every value in force, where it comes from, and whether a reload or a restart applies a change
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the default configuration with comments
    Default,
}

pub(crate) fn run(arguments: ConfigArgs) -> anyhow::Result<Exit> {
    match arguments.command {
        ConfigCommand::Check { file, sources } => check(&file, sources),
        ConfigCommand::Show { file, json } => show(&file, json),
        ConfigCommand::Default => {
            out::stdout_line(daemon::config::default_file().trim_end())?;
            Ok(Exit::Ok)
        }
    }
}

fn check(file: &ConfigFile, sources: Option<PathBuf>) -> anyhow::Result<Exit> {
    let loaded = file.load();
    // The sources are checked even if the configuration is wrong: one run reports everything. Its mistakes cost only their
    // own values, so the list is the one that it names.
    let named = || file.load_in_part().loaded.config.ingestd.sources;
    let list = match (&sources, &loaded) {
        // The default, if what is wrong is the name of the list.
        (None, Err(_)) => Some(named()).filter(|list| list.exists()),
        _ => Some(sources.clone().unwrap_or_else(named)),
    };
    let read = list.as_deref().map(read_list);
    let mut findings = Findings::default();
    if let Err(error) = &loaded {
        findings.complain(&error.to_string());
    }
    // With a wrong configuration the daemons would not get as far as their files.
    if loaded.is_ok() {
        run_check(INGESTD, file, sources.as_deref(), &mut findings)?;
    }
    // The ingestion daemon reports mistakes in the list itself, unless it could not be run.
    if let Some(Err(UsageError(error))) = &read
        && (loaded.is_err() || findings.complaints.is_empty())
    {
        findings.complain(error);
    }
    if loaded.is_ok() {
        run_check(GATEWAY, file, sources.as_deref(), &mut findings)?;
    }
    for warning in &findings.warnings {
        out::stderr_line(&format!("newswire: warning: {warning}"));
    }
    if !findings.complaints.is_empty() {
        return Err(UsageError(findings.complaints.join("\n")).into());
    }
    if let Ok(loaded) = loaded {
        let file = loaded.file.map_or("built-in defaults".to_owned(), |file| file.display().to_string());
        out::stdout_line(&format!("{file}: ok"))?;
    }
    if let (Some(path), Some(Ok(list))) = (list, read) {
        let included = match list.parts.len() - 1 {
            0 => String::new(),
            1 => " in 1 included file and this one".to_owned(),
            more => format!(" in {more} included files and this one"),
        };
        let described = describe(&list.into_catalogue());
        out::stdout_line(&format!("{}: ok, {described}{included}", path.display()))?;
    }
    Ok(Exit::Ok)
}

/// Runs `DAEMON --check --json`, which also reads the files that only this daemon reads, and adds what is new to the findings.
fn run_check(
    daemon: Program,
    file: &ConfigFile,
    sources: Option<&Path>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let name = daemon.name;
    let path = match sibling_program(name) {
        Ok(path) => path,
        Err(error) => {
            out::stderr_line(&format!("newswire: the files of {name} were not checked: {error:#}"));
            return Ok(());
        }
    };
    let mut process = Process::new(&path);
    process.args(["--check", "--json"]).stdin(Stdio::null());
    if let Some(file) = &file.config {
        process.arg("--config").arg(file);
    }
    if let Some(sources) = sources {
        process.env("NEWSWIRE_INGESTD__SOURCES", sources);
    }
    let output = process.output().with_context(|| format!("start {}", path.display()))?;
    match serde_json::from_slice(&output.stdout) {
        Ok(of_daemon) => merge(of_daemon, findings),
        Err(_) => {
            // Another version, or a crash: what it printed explains more.
            findings.complain(&format!("{name} --check --json: unexpected output, {}", output.status));
            findings.complain(&String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}

/// Adds the findings of a daemon that are not in the list yet: both daemons check the configuration itself.
fn merge(of_daemon: Findings, findings: &mut Findings) {
    let add = |list: &mut Vec<String>, lines: Vec<String>| {
        for line in lines {
            if !list.contains(&line) {
                list.push(line);
            }
        }
    };
    add(&mut findings.complaints, of_daemon.complaints);
    add(&mut findings.warnings, of_daemon.warnings);
}

fn describe(catalogue: &Catalogue) -> String {
    let distinct = |values: Vec<&str>| values.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    let sources = &catalogue.sources;
    let enabled = sources.iter().filter(|s| s.enabled).count();
    let countries = distinct(sources.iter().filter_map(|s| s.country.as_deref()).collect());
    let languages = distinct(sources.iter().filter_map(|s| s.language.as_deref()).collect());
    let categories = distinct(sources.iter().map(|s| s.category.as_str()).collect());
    let lists = match catalogue.lists.len() {
        0 => String::new(),
        1 => " and those of 1 list of feeds".to_owned(),
        more => format!(" and those of {more} lists of feeds"),
    };
    format!(
        "{} sources ({enabled} enabled){lists}, {countries} countries, {languages} languages, {categories} categories",
        sources.len()
    )
}

/// Reads a list of sources.
///
/// # Errors
/// [`UsageError`] with every complaint about its files.
pub(crate) fn read_list(path: &Path) -> Result<ListOnDisk, UsageError> {
    ListOnDisk::read(path).map_err(|complaints| UsageError(complaints.to_string()))
}

/// The sources of a list.
///
/// # Errors
/// As [`read_list`].
pub(crate) fn read_catalogue(path: &Path) -> Result<Catalogue, UsageError> {
    read_list(path).map(ListOnDisk::into_catalogue)
}

fn show(file: &ConfigFile, as_json: bool) -> anyhow::Result<Exit> {
    let loaded = file.load()?;
    let shown = loaded.show();
    if as_json {
        let value = |s: &daemon::config::EffectiveValue| {
            (s.key.clone(), json!({ "value": s.value, "origin": s.origin, "live": s.live }))
        };
        let all: serde_json::Map<_, _> = shown.iter().map(value).collect();
        out::stdout_line(&serde_json::to_string_pretty(&all)?)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = shown
        .into_iter()
        .map(|s| vec![s.key, s.value, s.origin, (if s.live { "reload" } else { "restart" }).to_owned()])
        .collect();
    for line in out::table(&rows) {
        out::stdout_line(&line)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_of_both_daemons_is_added_once() {
        let mut findings = Findings::default();
        let found = Findings {
            complaints: vec![
                "sources.toml: cannot read the list of sources; create one".to_owned(),
                "sources.toml: source a: cookie_file: missing".to_owned(),
            ],
            warnings: vec!["secret: readable by every user".to_owned()],
        };
        merge(found.clone(), &mut findings);
        merge(found.clone(), &mut findings);
        assert_eq!(findings, found);
    }
}
