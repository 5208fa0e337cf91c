//! Interpretation and display: formatting of frames and threads, the frame to blame, idle threads.

use std::fmt;

use crate::{StackFrame, ThreadStack};

/// The crates of this workspace, as function names begin.
const OUR_CRATES: &[&str] = &[
    "control",
    "daemon",
    "feed",
    "fetch",
    "gateway",
    "newswire_gateway",
    "ingestd",
    "newswire_ingestd",
    "newswire",
    "news",
    "notation",
    "seen",
    "store",
    "wire",
];

/// Workspace functions that only call others and are never to blame: `main`, the runners of a process, the wrapper that
/// records the task of a future.
const WRAPPERS: &[&str] = &["main", "run", "daemon::process::", "daemon::work::"];

/// Low-level crates, which lock, wait and allocate on behalf of their callers. `__rustc` has the allocator's entry points.
const SYSTEM: &[&str] = &[
    "std",
    "core",
    "alloc",
    "libc",
    "parking_lot",
    "parking_lot_core",
    "lock_api",
    "__rustc",
    "hashbrown",
    "tikv_jemallocator",
];

/// Functions in which an idle thread waits for work.
const WAITERS: &[&str] = &[
    "mio::",
    "tokio::runtime::io::driver::",
    "tokio::runtime::time::",
    "tokio::runtime::driver::",
    "tokio::runtime::park::",
    "tokio::runtime::scheduler::",
    "tokio::runtime::blocking::pool::",
    "sled::threadpool::Queue::",
    "sled::threadpool::recv_timeout", // the same in an optimised build, without the type's name
    "sled::flusher::run",
    // Threads of our own that wait for an order.
    "store::flush::FlushOrders::next",
    "store::flush::next", // the same in an optimised build
    "newswire_ingestd::visit::crash_guard::Marks::write_all",
];

/// Where a background thread of jemalloc waits.
const JEMALLOC_WAIT: &str = "background_work_sleep_once";

impl ThreadStack {
    /// The frame to blame: the innermost of the workspace, else the innermost outside libc and the standard library.
    #[must_use]
    pub fn culprit(&self) -> Option<&StackFrame> {
        let ours = |frame: &&StackFrame| is_ours(frame) && !is_wrapper(frame);
        self.frames.iter().find(ours).or_else(|| self.frames.iter().find(|frame| !is_system(frame)))
    }

    /// Whether the thread waits for work: an event loop for events, a pool thread for its next job, a dedicated thread for
    /// messages.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let has = |part: &str| self.frames.iter().any(|frame| function(frame).contains(part));
        // A waiting job is not an idle thread. (Runtime workers are pool jobs themselves.)
        let at_work = has("tokio::runtime::blocking::task::") && !has("multi_thread::worker::");
        let innermost = self.frames.first().map(function).unwrap_or_default();
        if at_work || self.state == 'D' || !waits(innermost) {
            return false;
        }
        let waiter = self
            .frames
            .iter()
            .find(|frame| !is_system(frame))
            .map_or("", |frame| strip_prefixes(function(frame)));
        let for_events = WAITERS.iter().any(|known| waiter.starts_with(known));
        // Waiting for a channel blocks an event loop or task; a dedicated thread is idle there.
        let for_messages = has("std::sync::mpsc::") && has("recv") && !has("tokio::runtime::");
        // The allocator's own threads, in C: names without a crate.
        let for_free_memory = self.frames.iter().any(|frame| function(frame) == JEMALLOC_WAIT);
        for_events || for_messages || for_free_memory
    }
}

/// Whether a libc function waits without using the CPU.
fn waits(innermost: &str) -> bool {
    ["epoll_wait", "epoll_pwait", "syscall", "futex", "pthread_cond"]
        .iter()
        .any(|part| innermost.contains(part))
}

fn function(frame: &StackFrame) -> &str {
    frame.function.as_deref().unwrap_or_default()
}

/// `crate_name::Type as Trait>::function` of `<&mut crate_name::Type as Trait>::function`.
fn strip_prefixes(function: &str) -> &str {
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
    let rest = strip_prefixes(function);
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(rest, |end| &rest[..end])
}

fn is_ours(frame: &StackFrame) -> bool {
    let name = function(frame);
    name.contains("::") && OUR_CRATES.contains(&crate_of(name))
}

fn is_wrapper(frame: &StackFrame) -> bool {
    let name = strip_prefixes(function(frame));
    // `run` is the function itself and its closures.
    let within = name.split("::").nth(1).unwrap_or_default();
    WRAPPERS
        .iter()
        .any(|wrapper| if wrapper.ends_with("::") { name.starts_with(wrapper) } else { within == *wrapper })
}

/// Whether the frame belongs to libc, the standard library, a lock implementation, or is unknown.
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

/// Displays the name of a function, or its address if unknown.
struct Function<'a>(&'a StackFrame);

impl fmt::Display for Function<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.function {
            Some(function) => f.write_str(function),
            None => write!(f, "{:#x}", self.0.address),
        }
    }
}

/// In the format of a JVM thread dump: a header line, then one line per frame.
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

/// A path in debug information, without the prefix of the build machine.
pub(crate) fn shorten_path(path: &str) -> String {
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
    // Otherwise the last folders are enough.
    let from = path.rsplit_once("/src/").map_or(path, |(head, _)| head);
    let start = from.rfind('/').map_or(0, |slash| slash + 1);
    path.get(start..).unwrap_or(path).to_owned()
}

/// Whether a name includes its module or type.
pub(crate) fn is_qualified(function: &str) -> bool {
    function.starts_with('<') || function.split(['<', '{']).next().is_some_and(|head| head.contains("::"))
}

/// Adds the module path of the file to an unqualified name: `recv<u32>` in `library/std/src/sync/mpsc.rs` becomes
/// `std::sync::mpsc::recv<u32>`.
pub(crate) fn qualify(function: &str, file: &str) -> String {
    let modules = || {
        let file = file.strip_suffix(".rs")?;
        // Tests and examples are separate crates.
        let Some((folder, within)) = file.split_once("/src/") else {
            return file.rsplit_once('/').map(|(_, name)| name.replace('-', "_"));
        };
        let name = folder.rsplit('/').next()?;
        // The folder of a registry crate ends in its version.
        let name =
            name.rsplit_once('-').filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
        let name = name.map_or_else(|| folder.rsplit('/').next(), |(name, _)| Some(name))?;
        let within = within.trim_end_matches("mod").trim_end_matches('/');
        let within = if matches!(within, "lib" | "main") { "" } else { within };
        let parts = std::iter::once(name).chain(within.split('/')).filter(|part| !part.is_empty());
        Some(parts.map(|part| part.replace('-', "_")).collect::<Vec<_>>().join("::"))
    };
    match modules() {
        Some(modules) if !is_qualified(function) => format!("{modules}::{function}"),
        _ => function.to_owned(),
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
