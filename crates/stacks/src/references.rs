//! Which threads of another process refer to an address: the guard of a lock is a reference to it on the stack of the thread
//! that holds it.

use std::{io, ops::Range, time::Duration};

use crate::{
    copy::{STACK_MAX, copy_len},
    modules::read_memory,
    outside::{self, TraceResult, now},
    proc,
};

/// Deadline of one search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1);

/// A word on the stack or in a register of a thread that lies in a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackReference {
    /// The thread.
    pub tid: i32,
    /// The address that it has.
    pub value: u64,
    /// Bytes between the stack pointer and the word; 0 for a register.
    pub depth: u64,
}

/// Searches the stacks of all threads of another process for addresses in `ranges`. A thread that waits in a system call is
/// not stopped for it; one that runs is stopped for well under a millisecond. If only one thread refers to them, the registers of all
/// threads are searched, too, for which each is stopped. What is found may be left over from an earlier call: it is a sign
/// that the thread holds the lock, and no proof. Blocks for up to a second.
///
/// # Errors
/// If there is no such process, or it may not be examined.
pub fn references(pid: i32, ranges: &[Range<u64>]) -> io::Result<Vec<StackReference>> {
    let began = now();
    let tids = proc::tids(pid)?;
    let maps = proc::maps(pid);
    let mut found = Vec::new();
    let mut buffer = vec![0; STACK_MAX];
    let mut running = Vec::new();
    let mut waiting = Vec::new();
    for tid in tids {
        if began.elapsed() > SEARCH_TIMEOUT {
            return Ok(found);
        }
        let Some(sp) = proc::stack_pointer(pid, tid)? else {
            running.push(tid);
            continue;
        };
        waiting.push(tid);
        let target = buffer.get_mut(..copy_len(&maps, sp)).unwrap_or_default();
        let base = usize::try_from(sp).unwrap_or(usize::MAX);
        let read = read_memory(pid, base, target).unwrap_or(0);
        search(tid, buffer.get(..read).unwrap_or_default(), ranges, &mut found);
    }
    trace(pid, &running, &maps, ranges, &mut found)?;
    // The thread that waits for the lock refers to it, too.
    if found.iter().all(|reference| Some(reference.tid) == found.first().map(|first| first.tid)) {
        trace(pid, &waiting, &maps, ranges, &mut found)?;
    }
    Ok(found)
}

/// Stops threads and searches their stacks and registers.
fn trace(
    pid: i32,
    tids: &[i32],
    maps: &[proc::Mapping],
    ranges: &[Range<u64>],
    found: &mut Vec<StackReference>,
) -> io::Result<()> {
    let threads: Vec<_> = tids
        .iter()
        .filter_map(|tid| proc::thread(pid, *tid))
        // A thread that waits for a disk does not stop.
        .filter(|thread| thread.state != 'D')
        .collect();
    if threads.is_empty() {
        return Ok(());
    }
    let results = outside::trace_on_new_thread(pid, &threads, maps, now())?;
    for (thread, result) in threads.iter().zip(results) {
        let TraceResult::Copied { copied, .. } = result else { continue };
        search(thread.tid, &copied.stack, ranges, found);
        for value in copied.registers.kept {
            if ranges.iter().any(|range| range.contains(&value)) {
                found.push(StackReference { tid: thread.tid, value, depth: 0 });
            }
        }
    }
    Ok(())
}

fn search(tid: i32, stack: &[u8], ranges: &[Range<u64>], found: &mut Vec<StackReference>) {
    let (words, _) = stack.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let value = u64::from_le_bytes(*word);
        if ranges.iter().any(|range| range.contains(&value)) {
            let depth = u64::try_from(at * 8).unwrap_or(u64::MAX);
            found.push(StackReference { tid, value, depth });
        }
    }
}

/// Reads words of the memory of another process, as far as they are mapped.
///
/// # Errors
/// If the process may not be examined, or nothing is mapped there.
pub fn words(pid: i32, address: u64, count: usize) -> io::Result<Vec<u32>> {
    let base = usize::try_from(address).map_err(io::Error::other)?;
    let mut bytes = vec![0; count * 4];
    let read = read_memory(pid, base, &mut bytes).map_err(io::Error::from)?;
    let (words, _) = bytes.get(..read).unwrap_or_default().as_chunks::<4>();
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}
