//! What a source is doing, and how healthy it is: the closed sets behind two metrics and the status.

/// What the actor of a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Waiting for the next visit.
    #[default]
    Idle,
    /// A visit is due, but its host or the process has no slot.
    Waiting,
    /// Talking to the server.
    Fetching,
    /// Its document is being parsed.
    Parsing,
    /// Its items are being appended to the log.
    Recording,
    /// Its actor died and will be rebuilt.
    Down,
    /// Not visited until its pause ends.
    Paused,
    /// Disabled in the catalogue.
    Disabled,
}

impl Activity {
    /// All variants, in the order of their discriminants.
    pub(crate) const ALL: [Self; 8] = [
        Self::Idle,
        Self::Waiting,
        Self::Fetching,
        Self::Parsing,
        Self::Recording,
        Self::Down,
        Self::Paused,
        Self::Disabled,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Parsing => "parsing",
            Self::Recording => "recording",
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// The health of a source, by its last visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceHealth {
    /// Not visited yet.
    New,
    /// The last visit returned a feed, or that nothing has changed.
    Healthy,
    /// The last visit failed.
    Failing,
    /// A document took too much processor time to parse, or was being parsed at several crashes of the process.
    Quarantined,
    /// The server says that the feed is gone (410).
    Gone,
    /// Paused by an operator.
    Paused,
    /// Disabled in the catalogue.
    Disabled,
}

impl SourceHealth {
    /// All variants, in the order of their discriminants.
    pub(crate) const ALL: [Self; 7] = [
        Self::New,
        Self::Healthy,
        Self::Failing,
        Self::Quarantined,
        Self::Gone,
        Self::Paused,
        Self::Disabled,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Quarantined => "quarantined",
            Self::Gone => "gone",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}
