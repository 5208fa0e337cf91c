//! The feeds that have left a list, or perhaps have. Their ids stay theirs: one that comes back has the id, and with it the state, that it had
//! before, and no other feed takes that over.

use std::collections::HashMap;

use news::{FeedUrl, Source, SourceId, Timestamp, stable_hash};
use serde::{Deserialize, Serialize};

use crate::known::address_key;

/// A feed that has left a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeftFeed {
    /// The hash of its address, which may have a secret.
    address: u64,
    id: SourceId,
    /// Since when.
    since: Timestamp,
}

/// The feeds that have left a list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeftFeeds(Vec<LeftFeed>);

/// What a list has lost by a fault, perhaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFeeds {
    /// How many feeds it had before.
    pub(super) had: usize,
    /// The hashes of the lost addresses, in order.
    pub(super) addresses: Vec<u64>,
}

impl LostFeeds {
    /// Whether all of these are among `earlier`.
    #[must_use]
    pub fn is_within(&self, earlier: &Self) -> bool {
        self.addresses.iter().all(|address| earlier.addresses.binary_search(address).is_ok())
    }
}

impl LeftFeeds {
    /// Of more, the newest are remembered.
    pub const MAX: usize = 10_000;

    /// The ids by address ([`address_hash`]).
    pub(super) fn by_address(&self) -> HashMap<u64, &SourceId> {
        self.0.iter().map(|feed| (feed.address, &feed.id)).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &SourceId> {
        self.0.iter().map(|feed| &feed.id)
    }

    /// When a list whose sources were `before` has the sources `now`. Those that it had before are no longer needed here,
    /// those that have just come back are: the copy that has them is written later.
    #[must_use]
    pub fn after(&self, before: &[Source], now: &[Source], since: Timestamp) -> Self {
        let had: HashMap<_, _> =
            before.iter().map(|source| (address_hash(&source.url), &source.id)).collect();
        let mut lost = had.clone();
        for source in now {
            lost.remove(&address_hash(&source.url));
        }
        let mut feeds: Vec<_> =
            lost.into_iter().map(|(address, id)| LeftFeed { address, id: id.clone(), since }).collect();
        feeds.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
        feeds.extend(self.0.iter().filter(|feed| !had.contains_key(&feed.address)).cloned());
        feeds.truncate(Self::MAX);
        Self(feeds)
    }
}

/// Equal for two addresses of one feed.
pub(super) fn address_hash(url: &FeedUrl) -> u64 {
    stable_hash(address_key(url).as_bytes())
}
