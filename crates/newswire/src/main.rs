//! `newswire`: the operator's tool.

fn main() -> std::process::ExitCode {
    newswire::run(std::env::args_os())
}
