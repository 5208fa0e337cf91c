//! What a look at the files that the configuration names has found.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// What stands before a line that is no complaint.
pub const WARNING: &str = "warning: ";

/// Lines for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is wrong.
    pub complaints: Vec<String>,
    /// What works, and should be otherwise.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Adds what is wrong, a line each.
    pub fn complain(&mut self, text: &str) {
        self.complaints.extend(text.lines().map(str::to_owned));
    }

    /// Warns when everybody on the machine can read a file that holds secrets; `what` names it. A group may: that is
    /// how a daemon that does not own the file gets at it.
    pub fn warn_if_world_readable(&mut self, what: &str, path: &Path) {
        // One that is not there is complained of by whoever reads it.
        let Ok(file) = fs::metadata(path) else { return };
        let mode = file.permissions().mode() & 0o7777;
        if file.is_file() && mode & 0o004 != 0 {
            let line =
                format!("{what}: everybody can read {} (mode {mode:04o}); chmod o= it", path.display());
            self.warnings.push(line);
        }
    }

    /// On stderr, since there is no log.
    #[expect(clippy::print_stderr, reason = "there is no log")]
    pub(crate) fn print(&self, name: &str) {
        for line in &self.complaints {
            eprintln!("{name}: {line}");
        }
        for line in &self.warnings {
            eprintln!("{name}: {WARNING}{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_everybody_can_read_gets_a_warning_and_no_complaint() {
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
