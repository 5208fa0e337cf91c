//! Data of a process in `/proc`: threads, their state, memory mappings.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::ThreadStack;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) range: Range<u64>,
    /// Its offset in the file.
    pub(crate) offset: u64,
    pub(crate) executable: bool,
    /// `None` for anonymous memory; special names such as `[vdso]` as in the file.
    pub(crate) name: Option<String>,
}

/// The ids of all threads, sorted.
pub(crate) fn tids(pid: i32) -> io::Result<Vec<i32>> {
    let no_such = || io::Error::new(io::ErrorKind::NotFound, format!("there is no process {pid}"));
    if pid <= 0 {
        return Err(no_such());
    }
    let entries = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|error| if error.kind() == io::ErrorKind::NotFound { no_such() } else { error })?;
    let mut tids: Vec<i32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    if tids.is_empty() { Err(no_such()) } else { Ok(tids) }
}

/// The data of a thread in `/proc`; `None` if it has ended.
pub(crate) fn thread(pid: i32, tid: i32) -> Option<ThreadStack> {
    let folder = format!("/proc/{pid}/task/{tid}");
    let stat = fs::read(format!("{folder}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // `tid (comm) S ...`; comm may contain parentheses.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let state = rest.trim_start().chars().next()?;
    let wchan = fs::read_to_string(format!("{folder}/wchan")).ok().filter(|at| !at.is_empty() && at != "0");
    Some(ThreadStack { tid, name, state, wchan, frames: Vec::new(), missing: None })
}

/// Only the state of a thread.
pub(crate) fn state(pid: i32, tid: i32) -> Option<char> {
    let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    String::from_utf8_lossy(&stat).rsplit_once(')')?.1.trim_start().chars().next()
}

/// The stack pointer of a thread that is in the kernel; `None` if it runs or has ended.
pub(crate) fn stack_pointer(pid: i32, tid: i32) -> io::Result<Option<u64>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => return Ok(None),
    };
    // `NR ARGUMENTS.. SP PC`, or `running`.
    let pointer = text.trim_end().rsplit(' ').nth(1).and_then(|word| word.strip_prefix("0x"));
    Ok(pointer.and_then(|word| u64::from_str_radix(word, 16).ok()))
}

/// A field of `/proc/PID/task/TID/status`.
pub(crate) fn status(pid: i32, tid: i32, field: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// The memory mappings, by address. Empty if they cannot be read.
pub(crate) fn maps(pid: i32) -> Vec<Mapping> {
    let text = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(mapping).collect()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let offset = words.next()?;
    let name = words.nth(2).map(str::trim).filter(|name| !name.is_empty());
    Some(Mapping {
        range: u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
        offset: u64::from_str_radix(offset, 16).ok()?,
        executable: permissions.contains('x'),
        name: name.map(str::to_owned),
    })
}

/// The path at which the file of a mapping can be read: another process may have another root, and the file may have been
/// replaced since.
pub(crate) fn file_of(pid: i32, mapping: &Mapping) -> Option<PathBuf> {
    let name = mapping.name.as_deref().filter(|name| name.starts_with('/'))?;
    if !name.ends_with(" (deleted)") {
        let there = PathBuf::from(format!("/proc/{pid}/root{name}"));
        // Without permission for that link, the same path in our root is the next best.
        return [there, PathBuf::from(name)].into_iter().find(|path| path.is_file());
    }
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    if fs::read_link(&exe).is_ok_and(|target| target == Path::new(name)) {
        return Some(exe);
    }
    let Range { start, end } = mapping.range;
    let mapped = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
    fs::File::open(&mapped).is_ok().then_some(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read_with_a_path_that_holds_spaces() {
        let line = "7f00-7f10 r-xp 00001000 fe:00 12      /opt/new wire/bin (deleted)";
        let mapping = mapping(line).unwrap();
        assert_eq!(mapping.range, 0x7f00..0x7f10);
        assert_eq!(mapping.offset, 0x1000);
        assert!(mapping.executable);
        assert_eq!(mapping.name.as_deref(), Some("/opt/new wire/bin (deleted)"));
    }

    #[test]
    fn anonymous_memory_has_no_name() {
        assert_eq!(mapping("7f00-7f10 rw-p 00000000 00:00 0 ").unwrap().name, None);
    }

    #[test]
    fn the_current_thread_is_found_by_name_and_state() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        let thread = thread(pid, me).unwrap();
        assert_eq!(thread.state, 'R');
        assert!(!thread.name.is_empty());
        assert!(tids(pid).unwrap().contains(&me));
    }
}
