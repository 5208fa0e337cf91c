//! Words for people: how a frame and a thread are written, which frame is to blame, who merely idles.

use std::fmt;

use crate::{StackFrame, ThreadStack};

/// How the functions of this project begin.
pub const OUR_CRATES: &[&str] = &[
    "daemon",
    "feed",
    "fetch",
    "gateway",
    "newswire_gateway",
    "ingestd",
    "newswire_ingestd",
    "newswire",
    "news",
    "store",
    "wire",
];

/// Functions of ours that only run what others are to blame for: `main`, the runners of a process, the wrapper of a
/// future that notes what it is for.
const WRAPPERS: &[&str] = &["main", "run", "daemon::process::", "daemon::work::"];

/// Crates below everybody: they lock and wait for whoever called them.
const SYSTEM: &[&str] = &["std", "core", "alloc", "libc", "parking_lot", "parking_lot_core", "lock_api"];

/// Functions in which a thread waits until there is something to do.
const WAITERS: &[&str] = &[
    "mio::",
    "tokio::runtime::io::driver::",
    "tokio::runtime::time::",
    "tokio::runtime::driver::",
    "tokio::runtime::park::",
    "tokio::runtime::scheduler::",
    "tokio::runtime::blocking::pool::",
    "sled::threadpool::Queue::",
    "sled::threadpool::recv_timeout", // the same in an optimised build, which leaves the type's name out
    "sled::flusher::run",
];

impl ThreadStack {
    /// The frame to blame: the innermost of our own crates, else the innermost that is not of libc or the standard
    /// library.
    #[must_use]
    pub fn culprit(&self) -> Option<&StackFrame> {
        let ours = |frame: &&StackFrame| is_ours(frame) && !is_wrapper(frame);
        self.frames.iter().find(ours).or_else(|| self.frames.iter().find(|frame| !is_system(frame)))
    }

    /// Whether it waits for work: an event loop for events, a thread of a pool for its next job, a thread with an
    /// inbox for what comes in.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let has = |part: &str| self.frames.iter().any(|frame| function(frame).contains(part));
        // A job that waits is not a thread that waits for a job. (Workers of a runtime are such jobs themselves.)
        let at_work = has("tokio::runtime::blocking::task::") && !has("multi_thread::worker::");
        let innermost = self.frames.first().map(function).unwrap_or_default();
        if at_work || self.state == 'D' || !waits(innermost) {
            return false;
        }
        let waiter =
            self.frames.iter().find(|frame| !is_system(frame)).map_or("", |frame| plain(function(frame)));
        let for_events = WAITERS.iter().any(|known| waiter.starts_with(known));
        // An event loop or a task that waits for a channel blocks others; a thread of its own waits for work.
        let for_inbox = has("std::sync::mpsc::") && has("recv") && !has("tokio::runtime::");
        for_events || for_inbox
    }
}

/// Whether a function of libc is one that waits for others without using the processor.
fn waits(innermost: &str) -> bool {
    ["epoll_wait", "epoll_pwait", "syscall", "futex", "pthread_cond"]
        .iter()
        .any(|part| innermost.contains(part))
}

fn function(frame: &StackFrame) -> &str {
    frame.function.as_deref().unwrap_or_default()
}

/// `crate_name::Type as Trait>::function` of `<&mut crate_name::Type as Trait>::function`.
fn plain(function: &str) -> &str {
    let mut rest = function;
    while let Some(shorter) = ["<", "&", "*const ", "*mut ", "mut ", "dyn ", "(", "["]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))
    {
        rest = shorter;
    }
    rest
}

fn crate_of(function: &str) -> &str {
    let rest = plain(function);
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(rest, |end| &rest[..end])
}

fn is_ours(frame: &StackFrame) -> bool {
    let name = function(frame);
    name.contains("::") && OUR_CRATES.contains(&crate_of(name))
}

fn is_wrapper(frame: &StackFrame) -> bool {
    let name = plain(function(frame));
    // `run` stands for the function itself and for the closures in it.
    let within = name.split("::").nth(1).unwrap_or_default();
    WRAPPERS
        .iter()
        .any(|wrapper| if wrapper.ends_with("::") { name.starts_with(wrapper) } else { within == *wrapper })
}

/// Of libc, of the standard library, of the locks beneath everything, or of nothing known.
fn is_system(frame: &StackFrame) -> bool {
    let name = function(frame);
    let libc = ["libc.", "libc-", "ld-", "libpthread", "[vdso]"];
    !name.contains("::")
        || SYSTEM.contains(&crate_of(name))
        || name.starts_with("tokio::loom::")
        || libc.iter().any(|start| frame.module.starts_with(start))
}

impl fmt::Display for StackFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = Function(self);
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{what} at {file}:{line}"),
            (Some(file), None) => write!(f, "{what} at {file}"),
            (None, _) => write!(f, "{what} in {}", self.module),
        }
    }
}

/// The name, or the address of what has none.
struct Function<'a>(&'a StackFrame);

impl fmt::Display for Function<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.function {
            Some(function) => f.write_str(function),
            None => write!(f, "{:#x}", self.0.address),
        }
    }
}

/// As a dump of a JVM shows it: a head line, then one line a frame.
impl fmt::Display for ThreadStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} tid={} state={}", self.name, self.tid, self.state)?;
        if let Some(wchan) = &self.wchan {
            write!(f, " wchan={wchan}")?;
        }
        for frame in &self.frames {
            let what = Function(frame);
            match (&frame.file, frame.line) {
                (Some(file), Some(line)) => write!(f, "\n    at {what} ({file}:{line})")?,
                (Some(file), None) => write!(f, "\n    at {what} ({file})")?,
                (None, _) => write!(f, "\n    at {what} ({})", frame.module)?,
            }
        }
        match &self.missing {
            Some(missing) if self.frames.is_empty() => write!(f, "\n    no stack: {missing}"),
            Some(missing) => write!(f, "\n    ... {missing}"),
            None => Ok(()),
        }
    }
}

/// A path as the compiler wrote it, without the machine it was compiled on.
pub(crate) fn shortened(path: &str) -> String {
    let after = |part: &str| path.rsplit_once(part).map(|(_, rest)| rest);
    let past_first = |rest: &str| rest.split_once('/').map(|(_, rest)| rest.to_owned());
    // .../registry/src/HOST-HASH/CRATE-VERSION/..., /rustc/HASH/library/...
    if let Some(short) = after("/registry/src/").and_then(past_first) {
        return short;
    }
    if let Some(short) = path.strip_prefix("/rustc/").and_then(past_first) {
        return short;
    }
    for (part, kept) in
        [("/rustlib/src/rust/", ""), ("/rust/deps/", ""), ("/git/checkouts/", ""), ("/crates/", "crates/")]
    {
        if let Some(rest) = after(part) {
            return format!("{kept}{rest}");
        }
    }
    if !path.starts_with('/') {
        return path.trim_start_matches("./").to_owned();
    }
    // Something else: the last folders of its name say enough.
    let from = path.rsplit_once("/src/").map_or(path, |(head, _)| head);
    let start = from.rfind('/').map_or(0, |slash| slash + 1);
    path.get(start..).unwrap_or(path).to_owned()
}

/// Whether a name says what it is in.
pub(crate) fn is_whole(function: &str) -> bool {
    function.starts_with('<') || function.split(['<', '{']).next().is_some_and(|head| head.contains("::"))
}

/// The name with the modules that its file stands for, where it has none: `recv<u32>` of
/// `library/std/src/sync/mpsc.rs` is `std::sync::mpsc::recv<u32>`.
pub(crate) fn whole(function: &str, file: &str) -> String {
    let modules = || {
        let file = file.strip_suffix(".rs")?;
        // Tests and examples are crates of their own.
        let Some((folder, within)) = file.split_once("/src/") else {
            return file.rsplit_once('/').map(|(_, name)| name.replace('-', "_"));
        };
        let name = folder.rsplit('/').next()?;
        // A crate of a registry has its version there.
        let name =
            name.rsplit_once('-').filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
        let name = name.map_or_else(|| folder.rsplit('/').next(), |(name, _)| Some(name))?;
        let within = within.trim_end_matches("mod").trim_end_matches('/');
        let within = if matches!(within, "lib" | "main") { "" } else { within };
        let parts = std::iter::once(name).chain(within.split('/')).filter(|part| !part.is_empty());
        Some(parts.map(|part| part.replace('-', "_")).collect::<Vec<_>>().join("::"))
    };
    match modules() {
        Some(modules) if !is_whole(function) => format!("{modules}::{function}"),
        _ => function.to_owned(),
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
