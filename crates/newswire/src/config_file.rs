//! `--config`, and the error that ends a command with exit code 2.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use daemon::config::Loaded;

use crate::within::within;

/// How long reading the configuration may take where a broken one takes no tool away.
const READ_WITHIN: Duration = Duration::from_secs(3);

/// `--config`, for every command that reads the configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// A configuration as far as it can be read, for the commands that must work with a broken one.
#[derive(Clone, Debug)]
pub(crate) struct ConfigInPart {
    /// What is wrong costs only its own value, which then is the default.
    pub(crate) loaded: Loaded,
    /// What is wrong, one line each.
    pub(crate) complaints: Vec<String>,
    /// Why this user may not read the file. Then nothing is known about it, and nothing is wrong with it.
    pub(crate) unreadable: Option<String>,
}

impl ConfigInPart {
    /// Whether its values can be relied on.
    pub(crate) fn is_whole(&self) -> bool {
        self.complaints.is_empty() && self.unreadable.is_none()
    }
}

impl ConfigFile {
    /// Loads the configuration.
    ///
    /// # Errors
    /// [`UsageError`] with every complaint about it, one per line.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        daemon::config::load(self.config.as_deref(), daemon::config::environment())
            .map_err(|complaints| UsageError(complaints.to_string()).into())
    }

    /// A file that `--config` names and that does not exist is a mistake on the command line.
    ///
    /// # Errors
    /// [`UsageError`] if that is so.
    pub(crate) fn refuse_missing(&self) -> Result<(), UsageError> {
        let is_missing = |file: &PathBuf| {
            std::fs::metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let file = self.config.clone();
        let missing = within(READ_WITHIN, move || file.filter(is_missing)).flatten();
        match missing {
            Some(file) => Err(UsageError(format!("--config: there is no file {}", file.display()))),
            None => Ok(()),
        }
    }

    /// Loads what can be read of the configuration, in [`READ_WITHIN`] at most.
    pub(crate) fn load_in_part(&self) -> ConfigInPart {
        let file = self.clone();
        within(READ_WITHIN, move || file.read_in_part()).unwrap_or_else(|| self.unread())
    }

    /// What counts if the file cannot be read in time.
    fn unread(&self) -> ConfigInPart {
        let nothing = Some(Path::new("/dev/null"));
        let (mut loaded, _) = daemon::config::load_in_part(nothing, daemon::config::environment());
        loaded.file.clone_from(&self.config);
        let named = match &self.config {
            Some(file) => file.display().to_string(),
            None => "the configuration file".to_owned(),
        };
        let complaint = format!(
            "{named}: it cannot be read within {} s; it is no regular file, or its file system does not answer",
            READ_WITHIN.as_secs()
        );
        ConfigInPart { loaded, complaints: vec![complaint], unreadable: None }
    }

    fn read_in_part(&self) -> ConfigInPart {
        let (loaded, complaints) =
            daemon::config::load_in_part(self.config.as_deref(), daemon::config::environment());
        let denied = |file: &PathBuf| {
            File::open(file).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        let denied = loaded.file.clone().filter(denied).map(|file| file.display().to_string());
        let (mut lines, mut unreadable) = (Vec::new(), None);
        for complaint in complaints {
            let is_about_the_file = complaint.line.is_none() && complaint.key.is_empty();
            match is_about_the_file && denied.as_ref() == Some(&complaint.place) {
                true => unreadable = Some(complaint.to_string()),
                false => lines.push(complaint.to_string()),
            }
        }
        ConfigInPart { loaded, complaints: lines, unreadable }
    }
}

/// The command line, the configuration or a file that it names is wrong. The text is printed as it is, and the command
/// ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn what_is_wrong_costs_only_its_own_value_and_a_missing_file_is_a_mistake_on_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("newswire.toml");
        let named = ConfigFile { config: Some(file.clone()) };
        assert!(named.refuse_missing().is_err());
        std::fs::write(&file, "[daemon]\nrun_dir = \"/run/here\"\n[gateway]\nlisten = 17\nno_such = \n")
            .unwrap();
        assert!(named.load().is_err());
        assert!(named.refuse_missing().is_ok());
        let part = named.load_in_part();
        assert_eq!(part.loaded.config.daemon.run_dir, PathBuf::from("/run/here"));
        assert_eq!(part.complaints.len(), 2, "{:?}", part.complaints);
        assert!(!part.is_whole() && part.unreadable.is_none());
    }

    #[test]
    fn a_file_that_cannot_be_read_in_time_takes_no_tool_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("newswire.toml");
        // To open a pipe waits for its other end, as a network disk waits for its server.
        rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let named = ConfigFile { config: Some(file.clone()) };
        let part = named.load_in_part();
        assert_eq!(part.loaded.file, Some(file));
        assert!(part.complaints[0].contains("cannot be read within 3 s"), "{:?}", part.complaints);
    }
}
