//! Who holds a lock: the owner that a lock of C names, else the thread whose stack refers to it.

use std::ops::Range;

use stacks::StackReference;

use super::{link::LockKind, sample::KernelCall};

/// A lock begins at most so many bytes before the word that its waiters wait for. (16 before it there may be the counters of an
/// `Arc`: every thread that shares the lock refers to them.)
const LOCK_BEFORE: u64 = 8;
/// And at most so many after.
const LOCK_AFTER: u64 = 8;
/// The second word of a lock for reading and writing, on which its writers wait.
const WRITERS_WORD: u64 = 4;
/// How far around the word of `parking_lot` the address of its lock is kept (`ThreadData`), in bytes.
const PARKED_AROUND: u64 = 64;
/// The bits of a lock's word that are the thread id of its owner (futex(2)).
const OWNER_BITS: u32 = 0x3fff_ffff;

/// What is known about a lock that a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockLook {
    pub(crate) kind: LockKind,
    /// Named by the lock itself.
    pub(crate) owner: Option<i32>,
    /// Where references to the lock point, if it begins where those of the standard library do.
    starts: Vec<u64>,
    /// Where they point otherwise.
    pub(crate) ranges: Vec<Range<u64>>,
}

/// Which functions a waiting thread is in, as far as it matters for locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LockFrames {
    pub(crate) parking_lot: bool,
    pub(crate) allocator: bool,
}

/// Examines the lock of a `futex` call. `words` reads memory of the process; `is_thread` knows its threads.
pub(crate) fn look(
    call: &KernelCall,
    frames: LockFrames,
    words: impl Fn(u64, usize) -> Vec<u32>,
    is_thread: impl Fn(i32) -> bool,
) -> LockLook {
    let [address, operation, value, ..] = call.arguments;
    // Without the flags for private memory and the clock.
    let operation = operation & 0x7f;
    let around = address.saturating_sub(LOCK_BEFORE)..address.saturating_add(LOCK_AFTER + 1);
    let starts = vec![address, address.saturating_sub(WRITERS_WORD)];
    let other = LockLook { kind: LockKind::Other, owner: None, starts, ranges: vec![around] };
    match (operation, value as u32) {
        // FUTEX_WAIT: glibc, and parking_lot with the value 1.
        (0, 1) if frames.parking_lot => {
            LockLook { kind: LockKind::ParkingLot, ranges: parked_at(address, words), ..other }
        }
        (0, _) if frames.allocator => LockLook { kind: LockKind::Allocator, ..other },
        (0 | 6, _) => {
            let words = words(address, 3);
            // A mutex that inherits priorities is its owner; another has `__owner` after its word and its depth.
            let candidates = [words.first().map(|word| word & OWNER_BITS), words.get(2).copied()];
            let owner = candidates.into_iter().flatten().map(u32::cast_signed);
            let owner = owner.filter(|tid| *tid > 2).find(|tid| is_thread(*tid));
            match owner {
                Some(_) => LockLook { kind: LockKind::Pthread, owner, ..other },
                // Locks inside glibc have no owner.
                None if value == 2 => LockLook { kind: LockKind::Mutex, ..other },
                None => other,
            }
        }
        // FUTEX_WAIT_BITSET: a mutex of the standard library that is held and waited for.
        (9, 2) => LockLook { kind: LockKind::Mutex, ..other },
        _ => other,
    }
}

/// A thread that waits for a lock of `parking_lot` sleeps on a word of its own, next to the address of the lock.
fn parked_at(address: u64, words: impl Fn(u64, usize) -> Vec<u32>) -> Vec<Range<u64>> {
    let from = address.saturating_sub(PARKED_AROUND) & !7;
    let words = words(from, usize::try_from(2 * PARKED_AROUND / 4).unwrap_or(0));
    let (pairs, _) = words.as_chunks::<2>();
    let pointers = pairs.iter().map(|[low, high]| u64::from(*low) | u64::from(*high) << 32);
    // User space begins above the pages that are never mapped.
    pointers.filter(|word| (0x1_0000..1 << 47).contains(word)).map(|lock| lock..lock + 1).collect()
}

/// How likely another thread holds a lock, the likeliest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HolderState {
    /// It rests; what its stack has is left over.
    Idle,
    Other,
    Runs,
    /// It is kept from going on.
    Held,
}

/// The thread that most likely holds a lock: it refers to it, and does not wait for it itself.
pub(crate) fn likely_holder(
    look: &LockLook,
    references: &[StackReference],
    state: impl Fn(i32) -> Option<HolderState>,
) -> Option<i32> {
    let mut best: Option<((bool, HolderState, usize), i32)> = None;
    let refers = |tid: i32| {
        let of_thread = references.iter().filter(|reference| reference.tid == tid);
        let of_lock: Vec<_> = of_thread
            .map(|found| found.value)
            .filter(|value| look.ranges.iter().any(|range| range.contains(value)))
            .collect();
        (of_lock.iter().any(|value| look.starts.contains(value)), of_lock.len())
    };
    let mut tids: Vec<_> = references.iter().map(|reference| reference.tid).collect();
    tids.sort_unstable();
    tids.dedup();
    for tid in tids {
        let (exactly, count) = refers(tid);
        let Some(state) = state(tid).filter(|state| count > 0 && *state != HolderState::Idle) else {
            continue;
        };
        let likelihood = (exactly, state, count);
        if best.is_none_or(|(least, _)| likelihood > least) {
            best = Some((likelihood, tid));
        }
    }
    best.map(|(_, tid)| tid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: u64, value: u64) -> KernelCall {
        KernelCall::futex(0x7000, operation, value)
    }

    #[test]
    fn a_mutex_of_c_names_its_owner_if_that_is_a_thread_of_the_process() {
        let words = |_, _| vec![2, 1, 4711];
        let found = look(&call(128, 2), LockFrames::default(), words, |tid| tid == 4711);
        assert_eq!((found.kind, found.owner), (LockKind::Pthread, Some(4711)));
        let found = look(&call(128, 2), LockFrames::default(), words, |tid| tid == 4712);
        assert_eq!((found.kind, found.owner), (LockKind::Mutex, None));
    }

    #[test]
    fn a_mutex_of_the_standard_library_is_told_from_a_channel() {
        let kind = |value| look(&call(137, value), LockFrames::default(), |_, _| vec![], |_| true).kind;
        assert_eq!((kind(2), kind(u64::from(u32::MAX))), (LockKind::Mutex, LockKind::Other));
    }

    #[test]
    fn the_lock_of_a_parked_thread_is_next_to_its_word() {
        let frames = LockFrames { parking_lot: true, ..LockFrames::default() };
        let found = look(&call(128, 1), frames, |_, _| vec![0, 0, 0x1234_5678, 0x7f00, 1, 0], |_| false);
        assert_eq!(found.kind, LockKind::ParkingLot);
        assert_eq!((found.ranges.len(), found.ranges[0].clone()), (1, 0x7f00_1234_5678..0x7f00_1234_5679));
    }

    #[test]
    fn the_likely_holder_is_one_that_is_kept_from_going_on_itself() {
        let lock = look(&call(137, 2), LockFrames::default(), |_, _| vec![], |_| false);
        let at = |tid, value| StackReference { tid, value, depth: 8 };
        let references =
            [at(1, 0x7000), at(2, 0x7000), at(2, 0x7000), at(3, 0x7000), at(4, 0x9000), at(5, 0x7000)];
        let state = |tid| match tid {
            1 => Some(HolderState::Idle),
            2 => Some(HolderState::Runs),
            3 | 4 | 6 => Some(HolderState::Held),
            // It waits for the lock itself.
            _ => None,
        };
        assert_eq!(likely_holder(&lock, &references, state), Some(3));
        let without = &references[..3];
        assert_eq!(likely_holder(&lock, without, state), Some(2));
        assert_eq!(likely_holder(&lock, &references[..1], state), None);
        // A reference to something beside the lock says less than one to the lock.
        assert_eq!(likely_holder(&lock, &[at(2, 0x7000), at(6, 0x7008)], state), Some(2));
        assert_eq!(likely_holder(&lock, &[at(6, 0x7008)], state), Some(6));
    }
}
