//! The types that all parts of newswire share.
//!
//! A [`Source`] is visited, its feed has [`Item`]s, an item that is new or changed becomes an [`Event`] with a [`Seq`] in
//! an [`Epoch`], and a reader keeps a [`Cursor`]. [`Event`] has exactly one JSON form, in the store, on the wire and in
//! `/news`: it is rendered once and copied from then on.
//!
//! Never here: a runtime, a socket, a file, a clock.

mod access;
mod attempt;
mod catalogue;
mod cursor;
mod edit;
mod event;
mod failure;
mod hash;
mod item;
mod proxy;
mod redirects;
mod rhythm;
mod silences;
mod source;
mod text;
mod time;
mod visit;
mod websub;

pub use access::{Access, CredentialFile};
pub use attempt::Attempt;
pub use catalogue::{Catalogue, CatalogueFiles, FeedList, IncludePattern, ListOrigin, ListStatus};
pub use cursor::{BadCursor, BadEpoch, Cursor, Epoch, Seq};
pub use event::{Event, EventKind};
pub use failure::FailureClass;
pub use hash::{hash_prefix, stable_hash};
pub use item::{Author, DocumentPart, Enclosure, Item, ItemEvidence, Warning};
pub use proxy::{BadProxyUrl, ProxyChoice, ProxyUrl};
pub use redirects::{AdoptedRedirect, ObservedRedirect, RedirectState, StoredUrl};
pub use rhythm::NewsRhythm;
pub use silences::{Quiet, Silences};
pub use source::{BadFeedUrl, BadSourceId, FeedUrl, ListMark, Source, SourceId, without_feed_scheme};
pub use text::Escaped;
pub use time::{BadTimestamp, Timestamp};
pub use visit::{
    FeedRhythm, Flooding, FloodingBound, FloodingState, FormerAddress, FormerAddresses, HeldHost, Pause,
    SourceInFull, SourceNotice, SourceState, SourceStatus, SourceTotals, VisitReport, VisitStatus,
};
pub use websub::{
    HubSubscription, NamedHub, PushState, PushStatus, SecretText, UnsettledPushes, WebSubState,
};
