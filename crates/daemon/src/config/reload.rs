//! Reloads the configuration of a running process.
//!
//! A reload is all or nothing: one complaint, and nothing changes. Keys that need a restart keep their values and are
//! logged.

use std::path::PathBuf;

use control::black_box::BlackBoxEvent;
use notation::Complaints;

use crate::black_box;

use super::{Config, ConfigChange, Loaded, environment, load};

/// Reads the configuration again, from the same file and the environment.
#[derive(Clone, Debug)]
pub struct Reloader {
    /// The file of `--config`.
    file: Option<PathBuf>,
    loaded: Loaded,
    /// The sections, and single keys of others, that this process reads.
    sections: &'static [&'static str],
}

/// A configuration that has passed its checks and is not in use yet.
#[derive(Debug)]
pub struct CheckedConfig {
    next: Loaded,
    /// What differs from the one in use.
    pub changes: Vec<ConfigChange>,
}

impl CheckedConfig {
    /// The configuration that would be used: new values of live keys, old values of the others.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.next.config
    }
}

impl Reloader {
    /// For the configuration `loaded` that was read with `file`.
    #[must_use]
    pub fn new(file: Option<PathBuf>, loaded: Loaded) -> Self {
        Self { file, loaded, sections: &[] }
    }

    /// Reports only changes in `sections`, each a section or a single key; another process reads the others.
    #[must_use]
    pub fn for_sections(self, sections: &'static [&'static str]) -> Self {
        Self { sections, ..self }
    }

    /// Reads and checks everything. Nothing is in use before [`take`](Self::take).
    ///
    /// # Errors
    /// Everything that is wrong; each complaint has been logged.
    pub fn read(&self) -> Result<CheckedConfig, Complaints> {
        let checked = self.try_read();
        if let Err(complaints) = &checked {
            black_box::record(BlackBoxEvent::Reload { taken: false });
            for complaint in complaints.list() {
                let (place, key, error) = (complaint.location(), &complaint.key, &complaint.message);
                tracing::error!(place, key, error, "kept the old configuration");
            }
        }
        checked
    }

    fn try_read(&self) -> Result<CheckedConfig, Complaints> {
        let new = load(self.file.as_deref(), environment())?;
        let mut next = self.loaded.clone();
        next.take_live(&new)?;
        let is_ours = |change: &ConfigChange| {
            let section = change.key.split('.').next().unwrap_or_default();
            let key = change.key.as_str();
            self.sections.is_empty() || self.sections.contains(&section) || self.sections.contains(&key)
        };
        let changes = self.loaded.changes(&new).into_iter().filter(is_ours).collect();
        Ok(CheckedConfig { next, changes })
    }

    /// Starts to use a checked configuration, and logs each changed key that needs a restart.
    pub fn take(&mut self, checked: CheckedConfig) -> Vec<ConfigChange> {
        for ConfigChange { key, old, new, .. } in checked.changes.iter().filter(|change| !change.live) {
            tracing::warn!(key, old, new, "old value kept until a restart");
        }
        self.loaded = checked.next;
        black_box::record(BlackBoxEvent::Reload { taken: true });
        checked.changes
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn reloader(text: &str) -> (tempfile::TempDir, PathBuf, Reloader) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("newswire.toml");
        fs::write(&file, text).unwrap();
        let loaded = load(Some(&file), []).unwrap();
        let reloader = Reloader::new(Some(file.clone()), loaded);
        (directory, file, reloader)
    }

    #[test]
    fn a_reload_applies_live_keys_and_reports_the_others_each_time() {
        let (_directory, file, mut reloader) = reloader("");
        fs::write(&file, "[gateway]\nlisten = \"127.0.0.1:9\"\nclients_max = 5\n").unwrap();
        for expected in
            [vec![("gateway.listen", false), ("gateway.clients_max", true)], vec![("gateway.listen", false)]]
        {
            let checked = reloader.read().unwrap();
            assert_eq!(checked.config().gateway.clients_max, 5);
            assert_eq!(checked.config().gateway.listen.port(), 8700);
            let changes = reloader.take(checked);
            let reported: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.live)).collect();
            assert_eq!(reported, expected, "what waits for a restart is still waiting");
        }
    }

    #[test]
    fn one_mistake_changes_nothing() {
        let (_directory, file, reloader) = reloader("");
        fs::write(&file, "[gateway]\nclients_max = 5\nheartbeet = \"1s\"\n").unwrap();
        let complaints = reloader.read().unwrap_err();
        assert_eq!(complaints.list().len(), 1);
        assert!(complaints.to_string().contains("newswire.toml:3: gateway.heartbeet"), "{complaints}");
    }

    #[test]
    fn a_process_reports_changes_of_its_own_sections_only() {
        let (_directory, file, reloader) = reloader("");
        let reloader = reloader.for_sections(&["gateway"]);
        fs::write(&file, "[fetch]\ninterval_min = \"1m\"\nin_flight = 9\n").unwrap();
        assert!(reloader.read().unwrap().changes.is_empty());
        let reloader = reloader.for_sections(&["store", "fetch.interval_min"]);
        let changes = reloader.read().unwrap().changes;
        assert_eq!(
            changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(),
            ["fetch.interval_min"]
        );
    }
}
