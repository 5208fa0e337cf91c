//! What a read of a list has found. A module of its own, because the metrics name its variants.

/// What a read has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadResult {
    /// Other sources than before; the copy has them.
    Changed {
        sources: usize,
        added: usize,
        removed: usize,
        /// The first outlines that are no feed: each with its line and the reason.
        refused: Vec<(usize, String)>,
    },
    /// The same sources.
    Unchanged,
    /// It has lost so much that this may be a fault; the copy is the old one.
    Doubtful,
    /// Nothing.
    Failed,
}

impl ReadResult {
    pub(crate) const ALL: [&'static str; 4] = ["changed", "unchanged", "doubtful", "failed"];

    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Unchanged => "unchanged",
            Self::Doubtful => "doubtful",
            Self::Failed => "failed",
        }
    }
}
