//! Checks all that a journal has, and counts it.

use std::{collections::BTreeMap, path::Path};

use news::{Epoch, Seq, SourceId, Timestamp};
use serde::Serialize;

use crate::{
    journal::{IndexState, segment_path},
    totals::EventTotals,
};

use super::{
    ToolError,
    reading::{ClosedJournal, DamageKind, DamagedPlace, LogPart, place},
    witness::{EndWitness, LogWitness},
};

/// So many damaged places are listed; the rest is counted.
const PLACES_MAX: usize = 10_000;

/// What a journal has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreSurvey {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The oldest event that is kept; one more than the head if there is none.
    pub oldest: Seq,
    /// The newest event.
    pub head: Seq,
    /// Events that can be read.
    pub events: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
    /// Files of the journal.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// When the oldest event was recorded.
    pub first_recorded: Option<Timestamp>,
    /// When the newest one was.
    pub last_recorded: Option<Timestamp>,
    /// Events that are damaged or missing.
    pub lost_events: u64,
    /// Damaged places.
    pub damaged_places: u64,
    /// The first of them.
    pub places: Vec<DamagedPlace>,
    /// With what the end of the log was compared.
    pub end: EndWitness,
    /// The newest event that is known, there or not.
    pub known_head: Seq,
    /// What each source has, the one with most bytes first.
    pub sources: Vec<SourceEvents>,
}

/// What a source has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceEvents {
    /// The source.
    pub source: SourceId,
    /// Its events.
    pub events: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
}

/// Reads all segments of the store in `store`, or of a backup, and checks every checksum. Beside a daemon, it ends at the last
/// whole record.
///
/// # Errors
/// [`ToolError`] if there is no journal or a file cannot be read.
pub fn survey(store: &Path) -> Result<StoreSurvey, ToolError> {
    let mut witness = LogWitness::of(store);
    let journal = ClosedJournal::find(store)?;
    let (end, known_head) = witness.end(&journal);
    let mut survey = StoreSurvey {
        epoch: journal.epoch.clone(),
        oldest: journal.oldest,
        head: journal.head,
        events: 0,
        bytes: 0,
        segments: 0,
        segment_bytes: 0,
        first_recorded: None,
        last_recorded: None,
        lost_events: 0,
        damaged_places: 0,
        places: Vec::new(),
        end,
        known_head,
        sources: Vec::new(),
    };
    let mut sources: BTreeMap<SourceId, EventTotals> = BTreeMap::new();
    journal.read(Seq::NONE, |part| {
        match part {
            LogPart::Segment { segment, is_last } => {
                witness.check_segment(segment.number, &segment.bytes);
                survey.segments += 1;
                survey.segment_bytes += segment.bytes.len() as u64;
                let path = segment_path(&journal.folder, segment.number).with_extension("index");
                let index = segment.index_state(&journal.folder).map_err(ToolError::file("read", path))?;
                if !is_last && index == IndexState::Wrong {
                    survey.add_place(place(DamageKind::Index, segment.number, None));
                }
            }
            LogPart::Event { source, recorded, sealed, .. } => {
                let bytes = sealed.len() as u64;
                survey.events += 1;
                survey.bytes += bytes;
                survey.first_recorded.get_or_insert(recorded);
                survey.last_recorded = Some(recorded);
                let totals = sources.entry(source).or_default();
                *totals = totals.with(bytes);
            }
            LogPart::Changes(_) => {}
            LogPart::Damage(damage) => survey.add_place(damage),
        }
        Ok(())
    })?;
    for place in witness.places(&journal, &survey.places)? {
        survey.add_place(place);
    }
    survey.sources = sources
        .into_iter()
        .map(|(source, EventTotals { events, bytes })| SourceEvents { source, events, bytes })
        .collect();
    survey.sources.sort_by_key(|source| std::cmp::Reverse(source.bytes));
    Ok(survey)
}

impl StoreSurvey {
    fn add_place(&mut self, place: DamagedPlace) {
        self.lost_events += place.events;
        self.damaged_places += 1;
        if self.places.len() < PLACES_MAX {
            self.places.push(place);
        }
    }
}
