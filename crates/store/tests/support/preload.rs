//! A test that runs again in a process whose calls a C library intercepts.

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs the test `name` of this program with a library of this C file between it and the system.
pub(crate) fn run_with(source: &str, name: &str, environment: &[(&str, &Path)]) -> Output {
    let tools = tempfile::tempdir().unwrap();
    let library = tools.path().join("preload.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(source);
    assert!(compiler.status().unwrap().success(), "install a C compiler");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env("LD_PRELOAD", library);
    child.envs(environment.iter().copied()).output().unwrap()
}
