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
    /// It has lost so much that this may be a fault; the copy has kept that, and has what is new.
    Doubtful { is_changed: bool, added: usize },
    /// Nothing.
    Failed,
}

impl ReadResult {
    pub(crate) const ALL: [&'static str; 4] = ["changed", "unchanged", "doubtful", "failed"];

    /// Whether the copy has other sources than before.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::Doubtful { is_changed: true, .. })
    }

    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Unchanged => "unchanged",
            Self::Doubtful { .. } => "doubtful",
            Self::Failed => "failed",
        }
    }
}
