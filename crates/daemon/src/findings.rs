//! The result of `--check`: what is wrong with the configuration and with the files that it names.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde::{Deserialize, Serialize};

use crate::{line_queue::print_last, program::CheckOutput};

/// Complaints and warnings, one line each. As JSON, it is what `--check --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Mistakes; the check fails.
    pub complaints: Vec<String>,
    /// What works but should be changed; the check succeeds.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Adds a complaint per line of `text`.
    pub fn complain(&mut self, text: &str) {
        self.complaints.extend(text.lines().map(str::to_owned));
    }

    /// Warns if every user of the machine can read a file with secrets; `what` names it. The group may read it: that is how
    /// a daemon reads a file that it does not own.
    pub fn warn_if_world_readable(&mut self, what: &str, path: &Path) {
        // A missing file is reported by the code that reads it.
        let Ok(file) = fs::metadata(path) else { return };
        let mode = file.permissions().mode() & 0o7777;
        if file.is_file() && mode & 0o004 != 0 {
            let line = format!(
                "{what}: every user can read {} (mode {mode:04o}); run `chmod o=` on it",
                path.display()
            );
            self.warnings.push(line);
        }
    }

    /// Prints them, since there is no log.
    #[expect(clippy::print_stdout, reason = "there is no log")]
    pub(crate) fn print(&self, name: &str, output: CheckOutput) {
        if output == CheckOutput::Json {
            println!("{}", serde_json::to_string(self).expect("lines of text are JSON"));
            return;
        }
        let mut text = String::new();
        for line in &self.complaints {
            writeln!(text, "{name}: {line}").expect("a String takes every write");
        }
        for line in &self.warnings {
            writeln!(text, "{name}: warning: {line}").expect("a String takes every write");
        }
        print_last(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_readable_secret_is_a_warning_and_not_a_complaint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "0123456789abcdef").unwrap();
        for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let mut findings = Findings::default();
            findings.warn_if_world_readable("gateway.operator_token_file", &path);
            findings.warn_if_world_readable("gateway.operator_token_file", &directory.path().join("missing"));
            assert_eq!((findings.complaints.len(), findings.warnings.len()), (0, warnings), "{mode:o}");
        }
    }
}
