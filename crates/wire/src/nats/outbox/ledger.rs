//! Which ids of the log and of the stream mean the same, kept while events are confirmed.
//!
//! The stream is followed number by number from where this outbox began to fill it. What a confirmation does not tell — another
//! daemon's event, or one whose confirmation was lost — is read from the stream, a bounded part at a time. An event of
//! another log ends it: readers of this log were never shown that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use news::{Cursor, Epoch, Seq};
use serde::{Deserialize, Serialize};

use crate::aliases::IdAliases;

/// Confirmed events whose place is not known yet, because something before them in the stream is not. With more, it ends.
const CONFIRMED_MAX: usize = 64 * 1024;
/// Rows of events that the stream will never have, above one that is not confirmed yet. With more, it ends.
const HOLES_MAX: usize = 64;
/// Numbers of the stream that are read at once.
const READ_MAX: u64 = 512;

/// A number of the stream, and the origin of the event there; `None` if it has none.
pub(super) type NumberRead = (u64, Option<Cursor>);

/// The aliases, and what has to be known to add to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AliasLedger {
    aliases: IdAliases,
    /// The stream is known up to this number.
    covered: u64,
    /// The newest event of the log that the stream has up to there.
    newest: u64,
    /// Every event of the log up to this one is in the stream up to `covered`, or never will be.
    settled: u64,
    /// The events of the log above `settled` that are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    above: BTreeSet<u64>,
    /// Events of the log above `settled` that the stream will never have: from, to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    holes: BTreeMap<u64, u64>,
    /// Numbers of the stream above `covered`, and the event of the log there.
    #[serde(skip)]
    confirmed: BTreeMap<u64, u64>,
    /// The stream has, or had, a message up to this number.
    #[serde(skip)]
    last: u64,
    /// Runs that were dropped since they were last counted.
    #[serde(skip)]
    dropped: u64,
}

impl AliasLedger {
    /// Of a log that begins after `before`, and a stream that is empty, and will go on after `last`.
    pub(super) fn new(stream: Epoch, log: Epoch, last: u64, before: Seq) -> Self {
        let (runs, complete_after, head) = (Vec::new(), before, before);
        let mut aliases = IdAliases { stream, log, runs, complete_after, head, ended: false };
        aliases.push(last, before.0);
        let (newest, settled) = (before.0, before.0);
        let (above, holes, confirmed) = Default::default();
        Self { aliases, covered: last, newest, settled, above, holes, confirmed, last, dropped: 0 }
    }

    pub(super) fn aliases(&self) -> &IdAliases {
        &self.aliases
    }

    /// Whether nothing is added any more.
    pub(super) fn has_ended(&self) -> bool {
        self.aliases.ended
    }

    /// The log ends with this event by now.
    pub(super) fn note_head(&mut self, head: Seq) {
        self.aliases.head = head;
    }

    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// The stream ends with this number, or later.
    pub(super) fn note_last(&mut self, last: u64) {
        self.last = self.last.max(last);
    }

    /// The stream has an event of the log at this number.
    pub(super) fn confirm(&mut self, stream: u64, log: Seq) {
        if self.has_ended() || stream <= self.covered {
            return;
        }
        self.note_last(stream);
        self.confirmed.insert(stream, log.0);
        if self.confirmed.len() > CONFIRMED_MAX {
            return self.end();
        }
        while let Some(seq) = self.confirmed.remove(&(self.covered + 1)) {
            self.covered += 1;
            if seq <= self.settled || !self.above.insert(seq) {
                // The same event twice: no number means the same from here on.
                return self.end();
            }
            self.newest = self.newest.max(seq);
            self.settle();
        }
    }

    /// The stream will never have these events of the log.
    pub(super) fn leave_out(&mut self, events: RangeInclusive<u64>) {
        if events.is_empty() {
            return;
        }
        // Also after the end: what has an alias is still asked for.
        self.aliases.complete_after = self.aliases.complete_after.max(Seq(*events.end()));
        if self.has_ended() {
            return;
        }
        let to = self.holes.entry(*events.start()).or_default();
        *to = (*to).max(*events.end());
        self.settle();
        if self.holes.len() > HOLES_MAX {
            self.end();
        }
    }

    fn settle(&mut self) {
        loop {
            let next = self.settled.saturating_add(1);
            let hole = self.holes.first_key_value().filter(|(from, _)| **from <= next);
            if let Some((from, to)) = hole.map(|(from, to)| (*from, *to)) {
                self.holes.remove(&from);
                self.settled = self.settled.max(to);
            } else if self.above.remove(&next) {
                self.settled = next;
            } else {
                break;
            }
        }
        if self.above.is_empty() {
            self.dropped += self.aliases.push(self.covered, self.newest);
        }
    }

    /// The numbers of the stream that are to be read, because no confirmation tells what is there.
    pub(super) fn unknown(&self) -> Option<RangeInclusive<u64>> {
        let first = self.covered + 1;
        let known = self.confirmed.first_key_value().map(|(stream, _)| stream - 1);
        let last = known.unwrap_or(self.last).min(self.covered + READ_MAX);
        (!self.has_ended() && first <= last).then_some(first..=last)
    }

    /// What the stream has at these numbers; `None` where it has no event.
    pub(super) fn take_read(&mut self, read: Vec<NumberRead>) {
        for (stream, origin) in read {
            match origin {
                Some(origin) if origin.epoch == self.aliases.log => self.confirm(stream, origin.seq),
                _ if stream == self.covered + 1 => return self.end(),
                _ => {}
            }
        }
    }

    fn end(&mut self) {
        self.aliases.ended = true;
        (self.above, self.holes, self.confirmed) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aliases::IdAlias;

    fn epoch(name: &str) -> Epoch {
        Epoch::try_new(name).unwrap()
    }

    fn cursor(epoch: &str, seq: u64) -> Cursor {
        format!("{epoch}-{seq}").parse().unwrap()
    }

    /// What a reader is promised: with an alias, the same events are up to it on both sides, and none is missing after it.
    fn check(
        ledger: &AliasLedger,
        stream: &[(u64, Option<u64>)],
        left_out: &[u64],
        told: usize,
        context: &str,
    ) {
        let up_to = |end: u64| {
            let here = stream.iter().filter(|(number, _)| *number <= end);
            here.map(|(_, seq)| *seq).collect::<Vec<_>>()
        };
        let newest = stream.iter().filter_map(|(_, seq)| *seq).max().unwrap_or(0);
        for log in 0..=newest + 2 {
            let IdAlias::At(at) = ledger.aliases().in_stream(&cursor("l", log)) else { continue };
            let mut here = up_to(at.0);
            here.sort_unstable();
            let expected: Vec<_> = (1..=log).filter(|seq| !left_out.contains(seq)).map(Some).collect();
            assert_eq!(here, expected, "{context}: l-{log} is {at}");
            let is_lost = left_out[..told].iter().any(|seq| *seq > log);
            assert!(!is_lost, "{context}: l-{log} loses what was left out");
        }
        for (number, _) in stream {
            let IdAlias::At(at) = ledger.aliases().in_log(&cursor("s", *number)) else { continue };
            let mut here = up_to(*number);
            here.sort_unstable();
            let expected: Vec<_> = (1..=at.0).filter(|seq| !left_out.contains(seq)).map(Some).collect();
            assert_eq!(here, expected, "{context}: s-{number} is {at}");
        }
    }

    /// A log of which some events are displaced, some are left out, and between which another daemon may have come; confirmed
    /// in any order, some confirmations lost, the process killed now and then.
    fn run(seed: u64) -> (u64, bool) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (first, count) = (random.u64(1..5), random.u64(1..40));
        let left_out: Vec<u64> = (1..=count).filter(|_| random.u32(0..40) == 0).collect();
        let mut events: Vec<Option<u64>> = (1..=count).filter(|n| !left_out.contains(n)).map(Some).collect();
        for _ in 0..random.usize(0..6) {
            let at = random.usize(0..events.len().max(1));
            let to = (at + random.usize(0..6)).min(events.len().saturating_sub(1));
            if at < to {
                events.swap(at, to);
            }
        }
        let is_alone = random.u32(0..4) > 0;
        if !is_alone {
            let at = random.usize(0..=events.len());
            events.insert(at, None);
        }
        let stream: Vec<_> = (first..).zip(events).collect();
        let mut ledger = AliasLedger::new(epoch("s"), epoch("l"), first - 1, Seq(0));
        let mut steps = stream.clone();
        for at in 0..steps.len() {
            let to = (at + random.usize(0..9)).min(steps.len() - 1);
            steps.swap(at, to);
        }
        let mut told = 0;
        for (number, seq) in steps {
            ledger.note_last(number);
            // What is left out is known when its page of the log is read, or when the server refuses it.
            while let Some(seq) = left_out.get(told).filter(|seq| **seq <= number + 3) {
                ledger.leave_out(*seq..=*seq);
                told += 1;
            }
            match seq {
                Some(seq) if random.u32(0..6) > 0 => ledger.confirm(number, Seq(seq)),
                _ => {}
            }
            if random.u32(0..10) == 0 {
                let saved = serde_json::to_vec(&ledger).unwrap();
                ledger = serde_json::from_slice(&saved).unwrap();
                ledger.note_last(number);
            }
            check(&ledger, &stream, &left_out, told, &format!("seed {seed}"));
            if random.u32(0..4) == 0 {
                read(&mut ledger, &stream, number);
            }
            check(&ledger, &stream, &left_out, told, &format!("seed {seed}, read"));
        }
        left_out[told..].iter().for_each(|seq| ledger.leave_out(*seq..=*seq));
        ledger.note_last(stream.last().map_or(0, |(number, _)| *number));
        while ledger.unknown().is_some() {
            read(&mut ledger, &stream, u64::MAX);
        }
        check(&ledger, &stream, &left_out, left_out.len(), &format!("seed {seed}, at the end"));
        let places = ledger.aliases().runs.iter().map(|run| run.2).sum();
        (places, ledger.has_ended() != is_alone)
    }

    /// Answers what the ledger wants to know, as far as the stream is filled.
    fn read(ledger: &mut AliasLedger, stream: &[(u64, Option<u64>)], filled: u64) {
        let Some(unknown) = ledger.unknown() else { return };
        let there = stream.iter().filter(|(number, _)| unknown.contains(number) && *number <= filled);
        let origin = |seq: &Option<u64>| seq.map_or_else(|| cursor("x", 7), |seq| cursor("l", seq));
        ledger.take_read(there.map(|(number, seq)| (*number, Some(origin(seq)))).collect());
    }

    #[test]
    fn in_whatever_order_events_are_confirmed_an_alias_is_exact_or_there_is_none() {
        let mut places = 0;
        for seed in 0..500 {
            let (found, ended_rightly) = run(seed);
            places += found;
            assert!(ended_rightly, "seed {seed}: it ends with another daemon's event, and only then");
        }
        assert!(places > 4000, "most ids have one: {places}");
    }

    #[test]
    fn in_the_order_of_the_log_every_id_has_an_alias_and_all_are_one_run() {
        let mut ledger = AliasLedger::new(epoch("s"), epoch("l"), 7, Seq(100));
        for n in (1..=1000_u64).rev() {
            ledger.confirm(7 + n, Seq(100 + n));
        }
        assert_eq!(ledger.aliases().runs, [crate::aliases::AliasRun(7, 100, 1001)]);
        assert_eq!(ledger.aliases().in_stream(&cursor("l", 99)), IdAlias::None, "it has missed event 100");
        assert_eq!(ledger.unknown(), None);
        ledger.note_last(1009);
        assert_eq!(ledger.unknown(), Some(1008..=1009));
        ledger.take_read(vec![(1008, None)]);
        assert!(ledger.has_ended(), "what is missing may have been anything");
    }
}
