//! Builds the C programs of `preload/` and says how a daemon is started with them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::StartOptions;

/// Compiles `preload/NAME.c` into the folder of the running program, and returns the path. Tests run at the same time:
/// each compiles a draft of its own and renames it.
fn compile(name: &str, suffix: &str, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("preload").join(format!("{name}.c"));
    let folder = std::env::current_exe()?.parent().context("a program is in a folder")?.to_owned();
    let target = folder.join(format!("preload-{name}{suffix}"));
    let draft = folder.join(format!("preload-{name}{suffix}.{}", std::process::id()));
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-pthread"])
        .args(arguments)
        .arg("-o")
        .args([&draft, &source])
        .output()
        .context("run cc; install a C compiler")?;
    anyhow::ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&draft, &target)?;
    Ok(target)
}

/// Compiles a program of `preload/`.
pub(super) fn program(name: &str) -> anyhow::Result<PathBuf> {
    compile(name, "", &[])
}

/// Compiles `preload/NAME.c` as a library for `LD_PRELOAD`.
///
/// # Errors
/// If there is no C compiler, or it refuses the file.
pub fn preload_library(name: &str) -> anyhow::Result<PathBuf> {
    compile(name, ".so", &["-shared", "-fPIC"])
}

/// The library between a daemon and its disk.
#[derive(Clone, Debug)]
pub(super) struct Preload {
    library: PathBuf,
}

impl Preload {
    pub(super) fn build() -> anyhow::Result<Self> {
        Ok(Self { library: preload_library("faults")? })
    }

    fn options(&self, under: &Path, variable: &str, value: &str) -> anyhow::Result<StartOptions> {
        let under = std::fs::canonicalize(under)?;
        let text = |path: &Path| path.display().to_string();
        let environment = vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("FAULTS_UNDER".to_owned(), text(&under)),
            (variable.to_owned(), value.to_owned()),
        ];
        Ok(StartOptions { environment, ..StartOptions::default() })
    }

    /// Appends to `record` what is done below the folder `under`, which exists.
    pub(super) fn recording(&self, under: &Path, record: &Path) -> anyhow::Result<StartOptions> {
        self.options(under, "FAULTS_RECORD", &record.display().to_string())
    }

    /// Makes calls below `under` fail as `plan` says (see `faults.c`), and names each in the file `fired`. The notes about
    /// what is being parsed are not the store; they may fail.
    pub(super) fn failing(&self, under: &Path, plan: &str, fired: &Path) -> anyhow::Result<StartOptions> {
        let mut options = self.options(under, "FAULTS_FAIL", plan)?;
        let spared = std::fs::canonicalize(under)?.join("parsing");
        for (name, path) in [("FAULTS_FIRED", fired), ("FAULTS_SPARED", &*spared)] {
            options.environment.push((name.to_owned(), path.display().to_string()));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::{
        files_of,
        rebuild::{rebuild_after_cut, rebuild_everything},
        record::{DiskRecord, DiskStep},
    };

    /// Runs a shell in `folder` with the library.
    fn shell(script: &str, folder: &Path, options: &StartOptions) -> std::process::Output {
        let environment = options.environment.iter().map(|(name, value)| (name, value));
        Command::new("sh").args(["-c", script]).current_dir(folder).envs(environment).output().unwrap()
    }

    #[test]
    fn a_record_leads_to_the_folder_as_the_program_left_it() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, file) = (scratch.path().join("data"), scratch.path().join("record"));
        fs::create_dir(&folder).unwrap();
        let mut options = Preload::build().unwrap().recording(&folder, &file).unwrap();
        options.environment.push(("OUT".to_owned(), scratch.path().join("out").display().to_string()));
        let script = "echo one > a; echo two >> a; mkdir -p sub/inner; mv a sub/b; echo x > c; rm c; cp sub/b d; \
                      echo three > sub/inner/e; dd if=sub/b of=f conv=fsync 2>&1; mv sub moved; echo outside > \"$OUT\"";
        let output = shell(script, &folder, &options);
        assert!(output.status.success(), "{output:?}");
        let record = DiskRecord::read(&file, &folder).unwrap();
        let rebuilt = scratch.path().join("rebuilt");
        rebuild_everything(&record, &rebuilt).unwrap();
        let content = |folder: &Path| -> Vec<(PathBuf, String)> {
            let of = |file: PathBuf| {
                (file.strip_prefix(folder).unwrap().to_owned(), fs::read_to_string(file).unwrap())
            };
            files_of(folder).unwrap().into_iter().map(of).collect()
        };
        assert_eq!(content(&rebuilt), content(&folder));
        assert_eq!(content(&folder).len(), 4, "d f moved/b moved/inner/e");
        let syncs =
            |steps: &[DiskStep]| steps.iter().filter(|s| matches!(s, DiskStep::SyncEnd { .. })).count();
        assert_eq!(syncs(&record.steps), 1, "{:?}", record.steps);

        // Nothing but f was synced, and not its name: any cut may lose everything, and none invents anything.
        let mut sizes: Vec<usize> = (0..40)
            .map(|seed| {
                let target = scratch.path().join(format!("cut-{seed}"));
                rebuild_after_cut(&record, record.steps.len(), seed, &target).unwrap();
                files_of(&target).unwrap().len()
            })
            .collect();
        sizes.sort_unstable();
        assert!(sizes[0] == 0 && sizes[39] >= 4, "{sizes:?}");
    }

    #[test]
    fn the_nth_call_of_a_kind_fails_and_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, fired) = (scratch.path().join("data"), scratch.path().join("fired"));
        fs::create_dir(&folder).unwrap();
        let preload = Preload::build().unwrap();
        for (plan, message, left) in [
            ("write 2 28", "I/O error", "one\nthree\n"),
            ("write 2 28 on", "I/O error", "one\n"),
            ("write 9 28", "", "one\ntwo\nthree\n"),
            ("short 2 5", "I/O error", "one\ntw"),
            ("create 1 5", "a", ""),
        ] {
            let _absent = fs::remove_file(folder.join("a"));
            let _absent = fs::remove_file(&fired);
            let options = preload.failing(&folder, plan, &fired).unwrap();
            let output = shell("echo one > a; echo two >> a; echo three >> a", &folder, &options);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains(message), "{plan}: {said}");
            let content = fs::read_to_string(folder.join("a")).unwrap_or_default();
            assert!(content.starts_with(left) || plan.starts_with("create"), "{plan}: {content:?}");
            let named = fs::read_to_string(&fired).unwrap();
            assert_eq!(named.contains("/data/a"), plan != "write 9 28", "{plan}: {named:?}");
        }
    }
}
