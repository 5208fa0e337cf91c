//! Lines on their way to an output that may not take them: a pipe that is not read, a stopped terminal, a full disk.
//!
//! ```text
//! any thread ── push ──► queue, bounded in bytes ──► a thread of its own ── write ──► output
//! ```
//!
//! No other thread ever waits for the output, and `push` takes no lock. A line that does not fit is dropped, counted and
//! told as soon as the output takes lines again.
//!
//! Lines of one thread keep their order. A line has the time of its event and is queued after that: if another thread runs in
//! between, the two are written in the other order. Only a lock around both, for which threads would wait, could prevent that.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What lines may wait for their output, bytes.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;
/// The same for lines of [`LineShare::Reserved`]: a dump of 500 threads has 2 MiB.
pub const RESERVED_BYTES_MAX: usize = 8 << 20;
/// What a line takes besides its text, bytes. Bounds the number of lines too.
const LINE_OVERHEAD_BYTES: usize = 64;
const LINES_MAX: usize = (QUEUE_BYTES_MAX + RESERVED_BYTES_MAX) / LINE_OVERHEAD_BYTES;
/// Lines that the thread takes at once.
const LINES_AT_ONCE: usize = 64;
/// Whole lines in one write, bytes: `PIPE_BUF` of Linux. More could be mixed with what other processes write to the same
/// pipe.
const WRITE_BYTES_MAX: usize = 4_096;
/// While lines are dropped all the time, they are told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long the last lines of a process may take to be written: standard error may be a pipe that is not read.
pub const LAST_LINES_MAX: Duration = Duration::from_secs(1);

/// Where lines are written. Only the thread of the queue calls it, so it may block.
pub trait LineSink: Send + 'static {
    /// Most bytes in one write of several lines; with 0, each line is written by itself.
    fn batch_bytes_max(&self) -> usize;

    /// Writes whole lines, or the beginning of them. Returns how many bytes it has written, at least one.
    ///
    /// # Errors
    /// If the output takes none; the lines are dropped.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize>;
}

/// Which part of the queue a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineShare {
    /// [`QUEUE_BYTES_MAX`].
    Ordinary,
    /// [`RESERVED_BYTES_MAX`], for stack dumps, and for the line that tells of dropped ones: neither displaces ordinary
    /// lines, nor the other way round.
    Reserved,
}

/// A queue with a thread that writes its lines. Cheap to clone; the thread ends, after the last line, when all clones are
/// dropped.
#[derive(Clone)]
pub struct LineQueue {
    sender: mpsc::Sender<Queued>,
    state: Arc<LineQueueState>,
}

enum Queued {
    Line(Vec<u8>, LineShare),
    /// The line before this one tells of dropped lines.
    Told,
    Flush(SyncSender<()>),
    /// Whether the thread takes what is queued.
    Probe,
}

/// Numbers only: it is read while any thread may be stuck.
struct LineQueueState {
    started: Instant,
    ordinary: AtomicUsize,
    reserved: AtomicUsize,
    dropped: AtomicU64,
    untold: AtomicU64,
    /// Since when the present write waits, in milliseconds after `started`, plus one; 0 if nothing is being written.
    writing_since: AtomicU64,
    /// The same for the oldest probe that was not taken.
    probed_since: AtomicU64,
    /// The same for the first of the writes that failed one after the other.
    failing_since: AtomicU64,
    /// Its `errno`.
    failure: AtomicI32,
}

impl fmt::Debug for LineQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineQueue").field("queued_bytes", &self.queued_bytes()).finish_non_exhaustive()
    }
}

impl LineQueue {
    /// Starts the thread and names it. `tell` is called on it with a number of dropped lines, and should push one line with
    /// [`LineShare::Reserved`] that says so.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        thread: &str,
        output: impl LineSink,
        tell: impl Fn(&LineQueue, u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let queue = Self { sender, state: Arc::new(LineQueueState::new()) };
        let (sender, state) = (queue.sender.downgrade(), Arc::clone(&queue.state));
        let writer = LineQueueWriter {
            lines,
            sender,
            state,
            output,
            tell,
            told: None,
            is_telling: false,
            is_torn: false,
        };
        std::thread::Builder::new().name(thread.to_owned()).spawn(move || writer.run())?;
        Ok(queue)
    }

    /// Queues a line, newline included; drops it if there is no room. Never waits.
    pub fn push(&self, line: Vec<u8>, share: LineShare) {
        let bytes = line.capacity() + LINE_OVERHEAD_BYTES;
        let (used, max) = self.state.share(share);
        let room = used.fetch_update(AcqRel, Acquire, |used| Some(used + bytes).filter(|used| *used <= max));
        if room.is_err() {
            self.state.count_dropped(1);
        } else if self.sender.try_send(Queued::Line(line, share)).is_err() {
            used.fetch_sub(bytes, AcqRel);
            self.state.count_dropped(1);
        }
    }

    /// Waits until everything that was queued before is written, but not longer than `within`; returns whether it is.
    #[must_use]
    pub fn flush(&self, within: Duration) -> bool {
        let (reply, written) = sync_channel(1);
        self.sender.try_send(Queued::Flush(reply)).is_ok() && written.recv_timeout(within).is_ok()
    }

    /// What waits of [`LineShare::Ordinary`], bytes.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.state.ordinary.load(Relaxed)
    }

    /// What waits of [`LineShare::Reserved`], bytes.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.state.reserved.load(Relaxed)
    }

    /// Lines that were dropped since the start: they did not fit, or the output did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Relaxed)
    }

    /// How long the present write has been waiting; `None` if nothing is being written.
    #[must_use]
    pub fn writing_for(&self) -> Option<Duration> {
        self.state.since(&self.state.writing_since)
    }

    /// Finds out whether the thread still takes what is queued, unless an earlier probe still waits: see
    /// [`LineQueue::untaken_for`].
    pub fn probe(&self) {
        let now = self.state.now();
        let is_first = self.state.probed_since.compare_exchange(0, now, AcqRel, Acquire).is_ok();
        if is_first && self.sender.try_send(Queued::Probe).is_err() {
            // A queue that is full says the same in other ways.
            self.state.probed_since.store(0, Release);
        }
    }

    /// For how long the thread has not taken a probe; `None` if none waits. It waits for the present write, too.
    #[must_use]
    pub fn untaken_for(&self) -> Option<Duration> {
        self.state.since(&self.state.probed_since)
    }

    /// The error of the last write and for how long there have been errors only; `None` if the last write succeeded.
    #[must_use]
    pub fn failing_for(&self) -> Option<(io::Error, Duration)> {
        let lasted = self.state.since(&self.state.failing_since)?;
        Some((io::Error::from_raw_os_error(self.state.failure.load(Relaxed)), lasted))
    }
}

impl LineQueueState {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            ordinary: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            writing_since: AtomicU64::new(0),
            probed_since: AtomicU64::new(0),
            failing_since: AtomicU64::new(0),
            failure: AtomicI32::new(0),
        }
    }

    /// What is used of a share, and how much may be.
    fn share(&self, share: LineShare) -> (&AtomicUsize, usize) {
        match share {
            LineShare::Ordinary => (&self.ordinary, QUEUE_BYTES_MAX),
            LineShare::Reserved => (&self.reserved, RESERVED_BYTES_MAX),
        }
    }

    fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
        self.untold.fetch_add(lines, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn since(&self, moment: &AtomicU64) -> Option<Duration> {
        let since = moment.load(Relaxed);
        (since > 0).then(|| Duration::from_millis(self.now().saturating_sub(since)))
    }
}

/// The thread of a queue.
struct LineQueueWriter<O, T> {
    lines: mpsc::Receiver<Queued>,
    /// Weak, so that the thread ends with the last [`LineQueue`].
    sender: mpsc::WeakSender<Queued>,
    state: Arc<LineQueueState>,
    output: O,
    tell: T,
    /// When dropped lines were told last.
    told: Option<Instant>,
    /// The line that tells it is still queued.
    is_telling: bool,
    /// The last write failed within a line.
    is_torn: bool,
}

/// Whole lines for one write.
#[derive(Default)]
struct LineBatch {
    bytes: Vec<u8>,
    lines: u64,
    /// What they take in the queue.
    ordinary: usize,
    reserved: usize,
}

impl<O: LineSink, T: Fn(&LineQueue, u64)> LineQueueWriter<O, T> {
    fn run(mut self) {
        let mut taken = Vec::with_capacity(LINES_AT_ONCE);
        let mut batch = LineBatch::default();
        let batch_bytes_max = self.output.batch_bytes_max();
        while self.lines.blocking_recv_many(&mut taken, LINES_AT_ONCE) > 0 {
            for queued in taken.drain(..) {
                match queued {
                    Queued::Line(line, share) => {
                        if batch.bytes.len() + line.len() > batch_bytes_max {
                            self.write(&mut batch);
                        }
                        batch.add(&line, line.capacity(), share);
                    }
                    Queued::Probe => self.state.probed_since.store(0, Release),
                    Queued::Told => {
                        self.write(&mut batch);
                        self.is_telling = false;
                    }
                    Queued::Flush(reply) => {
                        self.write(&mut batch);
                        self.answer_flush(reply);
                    }
                }
            }
            self.write(&mut batch);
        }
    }

    fn write(&mut self, batch: &mut LineBatch) {
        if batch.lines == 0 {
            return;
        }
        if self.is_torn {
            batch.bytes.insert(0, b'\n');
        }
        let result = self.write_all(&batch.bytes);
        self.state.writing_since.store(0, Relaxed);
        match result {
            Ok(()) => {
                self.is_torn = false;
                self.state.failing_since.store(0, Relaxed);
            }
            Err((written, error)) => {
                self.is_torn = written > 0 || self.is_torn;
                self.state.count_dropped(batch.lines);
                self.state.failure.store(error.raw_os_error().unwrap_or_default(), Relaxed);
                let now = self.state.now();
                // Only the first of several failures begins the time.
                self.state.failing_since.compare_exchange(0, now, Relaxed, Relaxed).ok();
            }
        }
        self.state.ordinary.fetch_sub(batch.ordinary, AcqRel);
        self.state.reserved.fetch_sub(batch.reserved, AcqRel);
        batch.clear();
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) || self.lines.is_empty() {
            self.tell_dropped();
        }
    }

    /// Returns how much was written before the error.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let all = bytes.len();
        while !bytes.is_empty() {
            self.state.writing_since.store(self.state.now(), Relaxed);
            match self.output.write(bytes) {
                Ok(0) => return Err((all - bytes.len(), io::ErrorKind::WriteZero.into())),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) => return Err((all - bytes.len(), error)),
            }
        }
        Ok(())
    }

    /// Tells of dropped lines, unless the output fails: that line would be dropped too.
    fn tell_dropped(&mut self) {
        if self.state.failing_since.load(Relaxed) > 0 {
            return;
        }
        // Without a sender there is no queue to put the line into.
        let Some(sender) = self.sender.upgrade() else { return };
        let dropped = self.state.untold.swap(0, Relaxed);
        if dropped > 0 {
            let queue = LineQueue { sender, state: Arc::clone(&self.state) };
            (self.tell)(&queue, dropped);
            self.told = Some(Instant::now());
            self.is_telling = queue.sender.try_send(Queued::Told).is_ok();
        }
    }

    /// Answers a flush; if lines have been dropped, the line that tells it comes first.
    fn answer_flush(&mut self, reply: SyncSender<()>) {
        self.tell_dropped();
        if !self.is_telling {
            // The receiver is gone if it has waited for too long.
            reply.try_send(()).ok();
        } else if let Some(sender) = self.sender.upgrade() {
            // If even this does not fit, the flush fails.
            sender.try_send(Queued::Flush(reply)).ok();
        }
    }
}

impl LineBatch {
    fn add(&mut self, line: &[u8], capacity: usize, share: LineShare) {
        self.bytes.extend_from_slice(line);
        self.lines += 1;
        let bytes = capacity + LINE_OVERHEAD_BYTES;
        match share {
            LineShare::Ordinary => self.ordinary += bytes,
            LineShare::Reserved => self.reserved += bytes,
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        (self.lines, self.ordinary, self.reserved) = (0, 0, 0);
    }
}

/// Standard error. Written without the lock of the standard library, which a thread may hold that waits in a write of its
/// own.
#[derive(Clone, Copy, Debug, Default)]
pub struct StderrOutput;

impl LineSink for StderrOutput {
    fn batch_bytes_max(&self) -> usize {
        WRITE_BYTES_MAX
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, lines) {
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                // A parent may have set the pipe to non-blocking mode.
                Err(Errno::AGAIN) => {
                    let waited = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None);
                    if let Err(error) = waited.map_err(io::Error::from)
                        && error.kind() != io::ErrorKind::Interrupted
                    {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Prints to standard error where there is no log, on a thread of its own: waits until all is written, but not longer than
/// [`LAST_LINES_MAX`].
pub fn print_last(text: &str) {
    let Ok(queue) = LineQueue::start("last-lines", StderrOutput, |_, _| {}) else { return };
    for line in text.split_inclusive('\n') {
        queue.push(line.as_bytes().to_vec(), LineShare::Reserved);
    }
    // A full pipe or disk takes no line; what the caller does next must happen all the same.
    let _is_written: bool = queue.flush(LAST_LINES_MAX);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// What was written; an `Err` in the list is what the next write returns instead.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<MemoryState>>);

    #[derive(Default)]
    struct MemoryState {
        writes: Vec<String>,
        /// The next results: how many bytes are taken, or an `errno`.
        results: Vec<Result<usize, i32>>,
        /// Each write waits until this is closed.
        gate: Option<Receiver<()>>,
    }

    impl Memory {
        fn state(&self) -> std::sync::MutexGuard<'_, MemoryState> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// Closes the output until what this returns is dropped.
        fn close(&self) -> SyncSender<()> {
            let (gate, closed) = sync_channel(1);
            self.state().gate = Some(closed);
            gate
        }

        fn text(&self) -> String {
            self.state().writes.concat()
        }
    }

    impl LineSink for Memory {
        fn batch_bytes_max(&self) -> usize {
            WRITE_BYTES_MAX
        }

        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let gate = self.state().gate.take();
            if let Some(gate) = gate {
                assert!(gate.recv().is_err(), "opened");
            }
            let mut state = self.state();
            let result = if state.results.is_empty() { Ok(lines.len()) } else { state.results.remove(0) };
            let written = result.map_err(io::Error::from_raw_os_error)?.min(lines.len());
            state.writes.push(String::from_utf8(lines[..written].to_vec()).unwrap());
            Ok(written)
        }
    }

    fn start(memory: &Memory) -> LineQueue {
        let tell = |queue: &LineQueue, dropped: u64| {
            queue.push(format!("dropped {dropped}\n").into_bytes(), LineShare::Reserved);
        };
        LineQueue::start("test", memory.clone(), tell).unwrap()
    }

    fn push(queue: &LineQueue, line: &str) {
        queue.push(format!("{line}\n").into_bytes(), LineShare::Ordinary);
    }

    #[test]
    fn an_output_that_takes_nothing_keeps_no_thread_waiting_and_what_is_dropped_is_told_in_its_place() {
        let memory = Memory::default();
        let gate = memory.close();
        let queue = start(&memory);
        let pushed = 3 * QUEUE_BYTES_MAX / 100;
        for n in 0..pushed {
            push(&queue, &format!("{n:060}"));
            assert!(queue.queued_bytes() <= QUEUE_BYTES_MAX);
        }
        // The gate is closed: only a write that takes what it should not can end this flush.
        let blocked = |queue: &LineQueue| queue.writing_for().is_some_and(|waited| !waited.is_zero());
        while !blocked(&queue) {
            assert!(!queue.flush(Duration::from_millis(10)), "nothing is written");
        }
        let dropped = queue.dropped();
        drop(gate);
        assert!(queue.flush(SOON));
        assert_eq!((queue.queued_bytes(), queue.writing_for()), (0, None));
        push(&queue, "after");
        assert!(queue.flush(SOON));
        let text = memory.text();
        let kept = pushed - usize::try_from(dropped).unwrap();
        let expected: Vec<_> = (0..kept).map(|n| format!("{n:060}")).collect();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..kept], expected, "the oldest, in their order");
        assert_eq!(lines[kept..], [format!("dropped {dropped}"), "after".to_owned()]);
    }

    #[test]
    fn a_thread_that_takes_nothing_is_found_by_a_probe() {
        let memory = Memory::default();
        let gate = memory.close();
        let queue = start(&memory);
        assert_eq!(queue.untaken_for(), None);
        push(&queue, "blocked");
        // Only once the thread is in the write, another line is not part of it.
        while queue.writing_for().is_none() {
            std::thread::yield_now();
        }
        queue.probe();
        let first = queue.untaken_for().unwrap();
        while queue.untaken_for().unwrap() == first {
            std::thread::yield_now();
        }
        queue.probe();
        assert!(queue.untaken_for().unwrap() > first, "the oldest probe counts");
        drop(gate);
        assert!(queue.flush(SOON));
        assert_eq!(queue.untaken_for(), None);
        queue.probe();
        assert!(queue.flush(SOON));
        assert_eq!(queue.untaken_for(), None);
    }

    #[test]
    fn a_dump_and_ordinary_lines_do_not_displace_each_other() {
        let memory = Memory::default();
        let gate = memory.close();
        let queue = start(&memory);
        for _ in 0..QUEUE_BYTES_MAX / 100 {
            push(&queue, &"o".repeat(60));
        }
        let dropped = queue.dropped();
        for n in 0..20_000 {
            queue.push(format!("dump {n:060}\n").into_bytes(), LineShare::Reserved);
        }
        assert_eq!(queue.dropped(), dropped, "the dump is whole");
        drop(gate);
        assert!(queue.flush(SOON));
        assert_eq!(memory.text().lines().filter(|line| line.starts_with("dump ")).count(), 20_000);
    }

    #[test]
    fn what_a_full_disk_refuses_is_counted_and_shown_and_a_torn_line_ends_before_the_next_one() {
        let memory = Memory::default();
        let no_space = Errno::NOSPC.raw_os_error();
        memory.state().results = vec![Ok(3), Err(no_space), Err(no_space)];
        let queue = start(&memory);
        for line in ["torn in the middle", "refused"] {
            push(&queue, line);
            assert!(queue.flush(SOON));
            let (error, _) = queue.failing_for().unwrap();
            assert_eq!(error.raw_os_error(), Some(no_space));
        }
        assert_eq!(queue.dropped(), 2);
        push(&queue, "written");
        assert!(queue.flush(SOON));
        assert!(queue.failing_for().is_none());
        assert_eq!(memory.text(), "tor\nwritten\ndropped 2\n");
    }

    #[test]
    fn one_write_has_whole_lines_and_no_more_than_a_pipe_takes_at_once() {
        let memory = Memory::default();
        let gate = memory.close();
        let queue = start(&memory);
        let long = "x".repeat(3 * WRITE_BYTES_MAX);
        let lines: Vec<String> =
            (0..1_000).map(|n| if n == 500 { long.clone() } else { format!("line {n}") }).collect();
        lines.iter().for_each(|line| push(&queue, line));
        drop(gate);
        assert!(queue.flush(SOON));
        let state = memory.state();
        assert!(state.writes.iter().all(|write| write.ends_with('\n')));
        assert!(
            state.writes.iter().all(|write| write.len() <= WRITE_BYTES_MAX || write.lines().count() == 1)
        );
        assert!(state.writes.len() < lines.len() / 10, "{} writes", state.writes.len());
        let written = state.writes.concat();
        assert_eq!(written.lines().collect::<Vec<_>>(), lines);
    }
}
