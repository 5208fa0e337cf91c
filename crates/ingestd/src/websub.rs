//! WebSub (<https://www.w3.org/TR/websub/>): a push from a hub is a hint to visit sooner, never a reason to stop
//! visiting.
//!
//! ```text
//! visit ──finds a hub──► WebSubActor ──POST──► hub ──GET /websub/{id}──► gateway ──► WebSubActor: is this ours? ──► verified
//!                                              hub ──POST /websub/{id}─► gateway ──► WebSubActor: signed? ──► a visit, soon
//! ```
//!
//! What a hub pushes is never parsed as a feed, and a source whose hub works is still visited, at least half as
//! often. A feed names its hub, so a hub is never trusted more than the feed: it makes no source be visited more often
//! than the operator allows.

pub(crate) mod actor;
pub(crate) mod discovery;
pub(crate) mod due;
pub(crate) mod interval;
pub(crate) mod messages;
pub(crate) mod pushes;
pub(crate) mod signature;
pub(crate) mod subscription;
