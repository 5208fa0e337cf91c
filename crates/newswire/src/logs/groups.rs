//! Groups of lines with the same message: how often, since when, about which sources. Memory is bounded, however long the
//! log is.

use std::collections::{BTreeSet, HashMap};

use news::Timestamp;
use serde::Serialize;

use super::{log_line::LogLine, severity::Severity, signature::signature};
use crate::redact::Redactor;

/// Groups kept; lines that would need another one are only counted.
const SIGNATURES_MAX: usize = 1000;
/// Sources named per group.
const SOURCES_MAX: usize = 5;
/// Longest sample, in characters.
const SAMPLE_CHARS_MAX: usize = 1000;

/// All groups, while lines are read.
#[derive(Debug, Default)]
pub(super) struct LineGroups {
    lines: u64,
    warnings: u64,
    errors: u64,
    ungrouped: u64,
    all: HashMap<(Severity, String), LineGroup>,
}

#[derive(Debug)]
struct LineGroup {
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    sources: BTreeSet<String>,
    more_sources: bool,
    sample: String,
}

/// The result, the worst and most frequent groups first.
#[derive(Debug, Serialize)]
pub(super) struct TriageSummary {
    /// Lines read.
    pub(super) lines: u64,
    /// Errors and panics among them.
    pub(super) errors: u64,
    pub(super) warnings: u64,
    /// Warnings and errors in groups that are not shown.
    pub(super) unshown: u64,
    /// Warnings and errors beyond the limit of groups.
    pub(super) ungrouped: u64,
    pub(super) groups: Vec<GroupSummary>,
    /// Inputs that could not be read, or not to their end.
    pub(super) unread: Vec<UnreadInput>,
}

/// An input that could not be read.
#[derive(Debug, Serialize)]
pub(super) struct UnreadInput {
    /// A path, `-` or `the journal`.
    pub(super) input: String,
    /// Why, and the remedy.
    pub(super) error: String,
}

/// One group.
#[derive(Debug, Serialize)]
pub(super) struct GroupSummary {
    pub(super) level: Severity,
    pub(super) signature: String,
    pub(super) count: u64,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    pub(super) sources: Vec<String>,
    /// Whether there are more sources than those named.
    pub(super) more_sources: bool,
    /// The first line of the group, with secrets removed.
    pub(super) sample: String,
}

impl LineGroups {
    /// Counts a line that was read.
    pub(super) fn count_line(&mut self) {
        self.lines += 1;
    }

    /// Lines read so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Adds a record to its group if it is a warning or worse.
    pub(super) fn add(&mut self, line: &LogLine) {
        let Some(level) = line.level else { return };
        match level {
            Severity::Warn => self.warnings += 1,
            Severity::Error | Severity::Panic => self.errors += 1,
        }
        let key = (level, signature(&line.text));
        if self.all.len() >= SIGNATURES_MAX && !self.all.contains_key(&key) {
            self.ungrouped += 1;
            return;
        }
        let group = self.all.entry(key).or_insert_with(|| LineGroup {
            count: 0,
            first: None,
            last: None,
            sources: BTreeSet::new(),
            more_sources: false,
            sample: line.text.chars().take(SAMPLE_CHARS_MAX).collect(),
        });
        group.count += 1;
        group.first = [group.first, line.time].into_iter().flatten().min();
        group.last = [group.last, line.time].into_iter().flatten().max();
        if let Some(source) = line.source.as_ref().filter(|source| !group.sources.contains(*source)) {
            if group.sources.len() < SOURCES_MAX {
                group.sources.insert(source.clone());
            } else {
                group.more_sources = true;
            }
        }
    }

    /// The first `top` groups.
    pub(super) fn summary(self, top: usize, redactor: &Redactor) -> TriageSummary {
        let mut groups: Vec<_> = self.all.into_iter().collect();
        groups.sort_by(|((a_level, a), x), ((b_level, b), y)| {
            b_level.cmp(a_level).then(y.count.cmp(&x.count)).then(a.cmp(b))
        });
        let unshown = groups.iter().skip(top).map(|(_, group)| group.count).sum();
        let shown = |((level, signature), group): ((Severity, String), LineGroup)| GroupSummary {
            level,
            signature: redactor.text(&signature),
            count: group.count,
            first: group.first,
            last: group.last,
            sources: group.sources.into_iter().collect(),
            more_sources: group.more_sources,
            sample: redactor.text(&group.sample),
        };
        TriageSummary {
            lines: self.lines,
            errors: self.errors,
            warnings: self.warnings,
            unshown,
            ungrouped: self.ungrouped,
            groups: groups.into_iter().take(top).map(shown).collect(),
            unread: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(lines: impl IntoIterator<Item = String>, top: usize) -> TriageSummary {
        let mut groups = LineGroups::default();
        let now = "2026-01-03T00:00:00Z".parse().unwrap();
        for line in lines {
            groups.count_line();
            groups.add(&LogLine::parse(&line, now));
        }
        groups.summary(top, &Redactor::default())
    }

    #[test]
    fn a_group_has_its_count_its_times_and_its_sources() {
        let line = |n: u32, source: &str| {
            format!("2026-01-02T03:04:{n:02}Z WARN  visit failed source={source} error=\"took {n} s\"")
        };
        let lines = (0..7).map(|n| line(n, &format!("s{n}")));
        let panic = "2026-01-02T03:04:09Z ERROR a thread panicked panic=\"token=abc\"".to_owned();
        let found = summary(lines.chain([panic, "2026-01-02T03:04:09Z INFO  fine".to_owned()]), 50);
        assert_eq!((found.lines, found.errors, found.warnings), (9, 1, 7));
        assert_eq!(found.groups[0].level, Severity::Panic, "the worst comes first");
        assert!(!found.groups[0].sample.contains("abc"), "samples are shown without secrets");
        let group = &found.groups[1];
        assert_eq!(group.signature, "visit failed source=* error=\"took N s\"");
        assert_eq!((group.count, group.sources.len(), group.more_sources), (7, 5, true));
        assert_eq!(group.first.unwrap().to_string(), "2026-01-02T03:04:00Z");
        assert_eq!(group.last.unwrap().to_string(), "2026-01-02T03:04:06Z");
        assert!(group.sample.contains("took 0 s"));
    }

    #[test]
    fn lines_beyond_the_limit_of_groups_are_counted() {
        let word = |n: usize| n.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect::<String>();
        let lines = (0..SIGNATURES_MAX + 10).map(|n| format!("WARN about {}", word(n)));
        let found = summary(lines, 7);
        assert_eq!((found.groups.len(), found.ungrouped), (7, 10));
        assert_eq!(found.unshown as usize, SIGNATURES_MAX - 7);
    }
}
