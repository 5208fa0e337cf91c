//! Prints the stacks of all threads of a process: `stacks PID`.
#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::io;

fn main() -> io::Result<()> {
    let pid = std::env::args().nth(1).and_then(|pid| pid.parse().ok());
    let pid = pid.ok_or_else(|| io::Error::other("usage: stacks PID"))?;
    let capture = stacks::of_process(pid)?;
    for thread in &capture.threads {
        let idle = if thread.is_idle() { "  (idle)" } else { "" };
        println!("{thread}{idle}");
        if let Some(culprit) = thread.culprit() {
            println!("    to blame: {culprit}");
        }
        println!();
    }
    let stacks::StackDump { took, longest_pause, threads, .. } = capture;
    println!("{} threads, {took:?} in all, longest pause {longest_pause:?}", threads.len());
    Ok(())
}
