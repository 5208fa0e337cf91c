//! The newest notices: events without an id, sent once. A client that is too late for one does not get it.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use news::SourceId;

use super::{encoding::StreamFormat, filter::EventFilter, frame::FilterLabels};

/// The notices that clients may still get.
#[derive(Debug, Default)]
pub(crate) struct Notices(RwLock<NoticeRing>);

#[derive(Debug, Default)]
struct NoticeRing {
    /// The number of the oldest notice kept.
    first: u64,
    kept: VecDeque<NoticeBlock>,
}

/// An event without an id, and what filters look at.
#[derive(Clone, Debug)]
pub(crate) struct NoticeBlock {
    /// `source` or `refresh`.
    pub(crate) kind: &'static str,
    pub(crate) audience: Audience,
    /// Its data, on one line.
    pub(crate) json: String,
}

/// Which clients a notice is for.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    /// Clients whose filter selects this source.
    Visit { source: SourceId, labels: FilterLabels },
    /// Clients that may see all these categories.
    Refresh(Arc<[String]>),
}

impl Audience {
    fn includes(&self, filter: &EventFilter) -> bool {
        match self {
            Self::Visit { source, labels } => filter.matches_source(source.as_str(), labels),
            Self::Refresh(categories) => filter.may_see(categories.iter().map(String::as_str)),
        }
    }
}

/// The notices that one client gets with one write.
#[derive(Debug, Default)]
pub(crate) struct NoticeBatch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sent: usize,
    /// The number of the notice to continue with.
    pub(crate) next: u64,
    /// Notices that were evicted before the client read them.
    pub(crate) missed: u64,
}

impl Notices {
    /// Notices kept: a client that is further behind misses some.
    const KEPT_MAX: usize = 1024;
    /// Notices in one batch.
    const BATCH_MAX: usize = 64;
    /// Bytes in one batch, but at least one notice.
    const BATCH_BYTES_MAX: usize = 4 * 1024;

    pub(crate) fn push(&self, notice: NoticeBlock) {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ring.kept.len() == Self::KEPT_MAX {
            ring.kept.pop_front();
            ring.first += 1;
        }
        ring.kept.push_back(notice);
    }

    /// The number of the next notice to come.
    pub(crate) fn next(&self) -> u64 {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ring.first + ring.kept.len() as u64
    }

    /// The notices from number `from` on that a client's filter selects.
    pub(crate) fn read_from(&self, from: u64, filter: &EventFilter, format: StreamFormat) -> NoticeBatch {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut batch = NoticeBatch { missed: ring.first.saturating_sub(from), ..NoticeBatch::default() };
        batch.next = from.max(ring.first);
        let skip = usize::try_from(batch.next - ring.first).unwrap_or(usize::MAX);
        for notice in ring.kept.iter().skip(skip) {
            if batch.sent == Self::BATCH_MAX {
                break;
            }
            if filter.matches_kind(notice.kind) && notice.audience.includes(filter) {
                let block = format.event_of_json(notice.kind, &notice.json);
                if batch.sent > 0 && batch.bytes.len() + block.len() > Self::BATCH_BYTES_MAX {
                    break;
                }
                batch.bytes.extend_from_slice(&block);
                batch.sent += 1;
            }
            batch.next += 1;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_too_late_for_a_notice_does_not_get_it() {
        let notices = Notices::default();
        let notice = |n: usize| NoticeBlock {
            kind: "refresh",
            audience: Audience::Refresh(Arc::default()),
            json: n.to_string(),
        };
        (0..Notices::KEPT_MAX + 5).for_each(|n| notices.push(notice(n)));
        let batch = notices.read_from(3, &EventFilter::default(), StreamFormat::NdJson);
        assert_eq!((batch.missed, batch.sent), (2, Notices::BATCH_MAX));
        let first = "{\"event\":\"refresh\",\"data\":5}\n".as_bytes();
        assert!(batch.bytes.starts_with(first));
        assert_eq!(batch.next, 5 + Notices::BATCH_MAX as u64);
        let newest = notices.read_from(notices.next(), &EventFilter::default(), StreamFormat::EventStream);
        assert!(newest.bytes.is_empty());
    }
}
