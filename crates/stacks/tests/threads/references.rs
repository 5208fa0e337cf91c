//! Who holds a lock, by the references on the stacks of another process.

use crate::busy::BusyProcess;

/// Thread ids by name, and the lock that the thread `lock` waits for.
fn lock_of(pid: i32) -> (i32, u64) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let waiting = threads.filter_map(Result::ok).find_map(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let call = std::fs::read_to_string(thread.path().join("syscall")).ok()?;
        let tid = thread.file_name().to_str()?.parse().ok()?;
        (name.trim() == "lock").then_some((tid, call))
    });
    let (tid, call) = waiting.unwrap();
    let futex = call.split(' ').nth(1).and_then(|word| word.strip_prefix("0x")).unwrap();
    (tid, u64::from_str_radix(futex, 16).unwrap())
}

#[test]
fn the_thread_that_holds_a_mutex_refers_to_it() {
    let busy = BusyProcess::start("spin");
    let (waiter, lock) = lock_of(busy.pid());
    let found = stacks::references(busy.pid(), &[lock..lock + 1, 1 << 62..(1 << 62) + 8]).unwrap();
    let mut tids: Vec<_> = found.iter().map(|reference| reference.tid).collect();
    tids.dedup();
    assert!(tids.contains(&waiter), "{found:?}");
    // The guard is on the stack of the thread that runs the child's work, and on no other.
    let holders: Vec<_> = tids.into_iter().filter(|tid| *tid != waiter).collect();
    assert_eq!(holders.len(), 1, "{found:?}");
    let name = std::fs::read_to_string(format!("/proc/{}/task/{}/comm", busy.pid(), holders[0])).unwrap();
    assert!("busy::busy_process".starts_with(name.trim()), "{name}");
    // A lock of the standard library that is held and waited for has the value 2.
    assert_eq!(stacks::words(busy.pid(), lock, 1).unwrap(), [2]);
    let nothing = stacks::references(busy.pid(), &[1 << 62..(1 << 62) + 8, 1 << 61..(1 << 61) + 8]).unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
}
