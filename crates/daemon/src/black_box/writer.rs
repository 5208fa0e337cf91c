//! The thread of the black box: it takes what is queued and writes it, and nothing that fails here stops anything.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use control::black_box::layout::BlackBoxWrite;
use control::black_box::{BlackBoxEvent, BlackBoxHeader, BlackBoxPulse, BlackBoxRing, FORMAT};

use super::file::{BlackBoxFile, ring_bytes};
use super::{BlackBox, BlackBoxOptions, QUEUE_RECORDS, QueuedRecord, boot_ms};
use crate::clock::Clock;

/// How late a record is written at most, if the disk takes it.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// How often a sign of life is written.
const PULSE_EVERY_MS: u64 = 500;
/// How often counts are recorded.
const COUNT_EVERY_MS: u64 = 5_000;
/// How often the thread makes sure that the file is still there, and tries again to make it if it is not.
const LOOK_EVERY_MS: u64 = 1_000;
/// How long the file may be missing at the start: the sockets make its directory, and a process that shares it with another
/// one ends soon, with an error of its own.
const START_MS_MAX: u64 = 10_000;

pub(super) struct BlackBoxWriter {
    black_box: BlackBox,
    path: PathBuf,
    header: BlackBoxHeader,
    ring: BlackBoxRing,
    file: Option<BlackBoxFile>,
    /// Whether the current failure was told.
    is_told: bool,
    last_error: Option<Arc<str>>,
    dropped_told: u64,
    pulse_due_ms: u64,
    count_due_ms: u64,
    look_due_ms: u64,
}

impl BlackBoxWriter {
    pub(super) fn new(black_box: BlackBox, options: BlackBoxOptions) -> Self {
        let (started_boot_ms, started_wall_ms) = (boot_ms(), Clock::system().now_millis());
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let header = BlackBoxHeader {
            format: FORMAT,
            program: options.program,
            version: env!("CARGO_PKG_VERSION").to_owned(), // one version for the whole workspace
            pid,
            started_wall_ms,
            started_boot_ms,
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map_or_else(|_| String::new(), |id| id.trim().to_owned()),
            run: started_wall_ms.cast_unsigned() << 22 ^ u64::from(pid.unsigned_abs()),
            ring_bytes: ring_bytes(options.bytes),
            ready: false,
        };
        let ring = BlackBoxRing::new(&header);
        Self {
            black_box,
            path: options.path,
            header,
            ring,
            file: None,
            is_told: false,
            last_error: None,
            dropped_told: 0,
            pulse_due_ms: 0,
            count_due_ms: started_boot_ms + COUNT_EVERY_MS,
            look_due_ms: 0,
        }
    }

    pub(super) fn run(&mut self, beat: impl Fn()) {
        loop {
            beat();
            let is_ending = self.black_box.0.is_ending.load(Acquire);
            match self.write_all() {
                Ok(()) => self.succeeded(),
                Err(error) => self.failed(&error),
            }
            if is_ending {
                self.black_box.0.has_ended.store(true, Release);
                return;
            }
            std::thread::park_timeout(WRITE_EVERY);
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        let now = boot_ms();
        if now >= self.look_due_ms {
            self.look_due_ms = now + LOOK_EVERY_MS;
            match &self.file {
                Some(file) => {
                    if let Err(error) = file.check() {
                        self.file = None;
                        return Err(error);
                    }
                }
                None => self.open(now)?,
            }
        }
        if self.file.is_none() && self.is_told {
            // There is no place for them, and the queue must not be full of old ones when there is.
            self.black_box.0.dropped.fetch_add(self.discard(), Relaxed);
        }
        let Some(file) = &self.file else { return Ok(()) };
        let is_ready = self.black_box.0.is_ready.load(Relaxed);
        if is_ready != self.header.ready {
            self.header.ready = is_ready;
            BlackBoxRing::header(&self.header).iter().try_for_each(|copy| file.write(copy))?;
        }
        let mut writes = self.encode_queued(now);
        if !writes.is_empty() || now >= self.pulse_due_ms {
            self.pulse_due_ms = now + PULSE_EVERY_MS;
            writes.push(self.pulse());
        }
        let Some(file) = &self.file else { return Ok(()) };
        writes.iter().try_for_each(|write| file.write(write))
    }

    /// A missing directory at the start is no failure: the sockets make it.
    fn open(&mut self, now: u64) -> io::Result<()> {
        if self.is_young(now) && self.path.parent().is_some_and(|directory| !directory.exists()) {
            self.look_due_ms = 0;
            return Ok(());
        }
        let file = BlackBoxFile::create(&self.path, self.header.ring_bytes)?;
        self.ring = BlackBoxRing::new(&self.header);
        self.header.ready = self.black_box.0.is_ready.load(Relaxed);
        BlackBoxRing::header(&self.header).iter().try_for_each(|copy| file.write(copy))?;
        self.file = Some(file);
        Ok(())
    }

    fn is_young(&self, now: u64) -> bool {
        now < self.header.started_boot_ms + START_MS_MAX
    }

    fn succeeded(&mut self) {
        if self.file.is_some() && std::mem::take(&mut self.is_told) {
            tracing::info!(place = %self.path.display(), "the black box is written again");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.black_box.0.failed_writes.fetch_add(1, Relaxed);
        let is_starting = !self.black_box.0.is_ready.load(Relaxed) && self.is_young(boot_ms());
        if !is_starting && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                place = %self.path.display(), %error,
                "the black box cannot be written: after a crash, newswire doctor cannot say what happened before"
            );
        }
    }

    /// What is queued, as neighbouring bytes where possible.
    fn encode_queued(&mut self, now: u64) -> Vec<BlackBoxWrite> {
        let mut writes: Vec<BlackBoxWrite> = Vec::new();
        if now >= self.count_due_ms {
            self.count_due_ms = now + COUNT_EVERY_MS;
            self.count();
        }
        let dropped = self.black_box.dropped();
        if dropped > self.dropped_told {
            let records = dropped - std::mem::replace(&mut self.dropped_told, dropped);
            let event = BlackBoxEvent::Dropped { records };
            writes.extend(self.ring.record(Clock::system().now_millis(), now, &event));
        }
        // No more than the queue holds: others fill it meanwhile.
        for _ in 0..=QUEUE_RECORDS {
            let Some(QueuedRecord { wall_ms, boot_ms, mut event }) = self.black_box.0.queue.pop() else {
                break;
            };
            self.follow(&mut event);
            let Some(write) = self.ring.record(wall_ms, boot_ms, &event) else { continue };
            match writes.last_mut() {
                Some(last) if last.offset + last.bytes.len() as u64 == write.offset => {
                    last.bytes.extend(write.bytes);
                }
                _ => writes.push(write),
            }
        }
        writes
    }

    /// The end of the process has the last error line, which only this thread knows.
    fn follow(&mut self, event: &mut BlackBoxEvent) {
        match event {
            BlackBoxEvent::Log { level, text } if level == "ERROR" => {
                self.last_error = Some(Arc::clone(text))
            }
            BlackBoxEvent::Ended { error: error @ None, exit } if *exit != 0 => {
                error.clone_from(&self.last_error);
            }
            _ => {}
        }
    }

    fn count(&self) {
        if let Some(read) = self.black_box.0.counts.get() {
            let counts = read().into_iter().map(|(name, value)| (name.into(), value)).collect();
            self.black_box.record(BlackBoxEvent::Counts { counts });
        }
    }

    fn discard(&self) -> u64 {
        let mut records = 0;
        while records <= QUEUE_RECORDS as u64 && self.black_box.0.queue.pop().is_some() {
            records += 1;
        }
        records
    }

    fn pulse(&mut self) -> BlackBoxWrite {
        let state = &self.black_box.0;
        let watchdog = state.watchdog_boot_ms.load(Relaxed);
        self.ring.pulse(&BlackBoxPulse {
            wall_ms: Clock::system().now_millis(),
            boot_ms: boot_ms(),
            watchdog_boot_ms: (watchdog > 0).then_some(watchdog),
            dropped: state.dropped.load(Relaxed),
            failed_writes: state.failed_writes.load(Relaxed),
        })
    }
}
