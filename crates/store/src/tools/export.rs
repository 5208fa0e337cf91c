//! Writes the events of a journal as they are stored.

use std::{io, path::Path};

use news::{Cursor, Seq, SourceId};

use crate::record;

use super::{
    ToolError,
    reading::{ClosedJournal, LogPart},
};

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Events written.
    pub events: u64,
    /// Events that could not be read; those of other sources are left out if that can be told.
    pub lost: u64,
    /// The log has no event at all of the source that was asked for, not even an earlier one.
    pub is_source_unknown: bool,
}

/// Calls `write` with the JSON of each event after `after`, of one source or of all, in order; with none, from the oldest on.
/// Beside a daemon, it ends at the last whole record.
///
/// # Errors
/// [`ToolError`] if there is no journal, a file cannot be read, `after` is of another log or above its head, or `write` fails.
pub fn export(
    store: &Path,
    after: Option<&Cursor>,
    source: Option<&SourceId>,
    mut write: impl FnMut(&str) -> io::Result<()>,
) -> Result<ExportReport, ToolError> {
    let journal = ClosedJournal::find(store)?;
    if let Some(after) = after.filter(|after| after.epoch != journal.epoch) {
        let (asked, epoch) = (after.epoch.clone(), journal.epoch);
        return Err(ToolError::OtherEpoch { asked, epoch });
    }
    if let Some(after) = after.filter(|after| after.seq > journal.head) {
        let head = Cursor { epoch: journal.epoch, seq: journal.head };
        return Err(ToolError::AboveHead { asked: after.clone(), head });
    }
    let from = after.map_or(Seq::NONE, |after| Seq(after.seq.0.saturating_add(1)));
    let mut report = ExportReport::default();
    journal.read(from, |part| {
        match part {
            LogPart::Event { seq, source: owner, sealed, .. }
                if seq >= from && source.is_none_or(|source| *source == owner) =>
            {
                if let Ok((_, _, json)) = record::unseal_event(sealed) {
                    write(json).map_err(ToolError::Output)?;
                    report.events += 1;
                }
            }
            LogPart::Damage(damage)
                if damage.source.as_ref().zip(source).is_none_or(|(owner, source)| owner == source) =>
            {
                let first = damage.first.unwrap_or(from).max(from);
                let end = damage.first.map_or(0, |first| first.0 + damage.events);
                report.lost += end.saturating_sub(first.0);
            }
            LogPart::Segment { .. } | LogPart::Event { .. } | LogPart::Changes(_) | LogPart::Damage(_) => {}
        }
        Ok(())
    })?;
    if let Some(source) = source.filter(|_| report.events == 0 && report.lost == 0) {
        report.is_source_unknown = !has_event_of(&journal, source)?;
    }
    Ok(report)
}

fn has_event_of(journal: &ClosedJournal, source: &SourceId) -> Result<bool, ToolError> {
    let mut is_found = false;
    journal.read(Seq::NONE, |part| {
        is_found |= matches!(part, LogPart::Event { source: owner, .. } if owner == *source);
        Ok(())
    })?;
    Ok(is_found)
}
