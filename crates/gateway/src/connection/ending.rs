//! Why connections are closed by the gateway, and why streams end. Each stream is counted once, with its first reason.

/// Why the gateway closes a connection without waiting for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionCut {
    /// Its request or its answer took too long.
    Deadline,
    /// The process stops, and the client did not take the last block of its stream.
    Drain,
    /// The client has read too little of its stream.
    Slow,
    /// The reader's token has expired, and the client did not take the last block of its stream.
    Expired,
    /// The client has sent too much behind its request.
    Pipelining,
}

/// Why a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The process stops.
    Drain,
    /// The reader's token has expired, or is no longer valid.
    Expired,
    /// The daemon's log has become another one.
    Epoch,
    /// The client has read too little.
    Slow,
    /// The client has sent too much.
    Pipelining,
    /// The client has left, or its connection was lost.
    Client,
    /// The gateway has failed: a panic, or the end of the worker.
    Fault,
}

impl ConnectionCut {
    pub(crate) const ALL: [Self; 5] =
        [Self::Deadline, Self::Drain, Self::Slow, Self::Expired, Self::Pipelining];

    /// Its name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Drain => "drain",
            Self::Slow => "slow",
            Self::Expired => "expired",
            Self::Pipelining => "pipelining",
        }
    }

    /// The end of the stream that is cut; `None` if only one that has ended already can be.
    pub(super) fn stream_end(self) -> Option<StreamEnd> {
        match self {
            Self::Deadline => None,
            Self::Drain => Some(StreamEnd::Drain),
            Self::Slow => Some(StreamEnd::Slow),
            Self::Expired => Some(StreamEnd::Expired),
            Self::Pipelining => Some(StreamEnd::Pipelining),
        }
    }
}

impl StreamEnd {
    pub(crate) const ALL: [Self; 7] =
        [Self::Drain, Self::Expired, Self::Epoch, Self::Slow, Self::Pipelining, Self::Client, Self::Fault];

    /// Its name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Expired => "expired",
            Self::Epoch => "epoch",
            Self::Slow => "slow",
            Self::Pipelining => "pipelining",
            Self::Client => "client",
            Self::Fault => "fault",
        }
    }
}
