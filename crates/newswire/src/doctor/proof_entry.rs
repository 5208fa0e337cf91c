//! One part of the proof that all is well.

use serde::Serialize;

/// What is to be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProofPart {
    /// The configured address is answered, and by the process that was found for the gateway.
    Address,
    /// The gateway's report can be read.
    GatewayReport,
    /// The ingestion daemon's report can be read.
    IngestdReport,
    /// The watchdog of the gateway looks.
    GatewayWatchdog,
    /// The watchdog of the ingestion daemon looks.
    IngestdWatchdog,
    /// The gateway hears this ingestion daemon.
    Wire,
    /// The stream of NATS carries events, if it is the wire.
    Nats,
    /// The store is where the configuration says, and is written.
    Store,
    /// The sources are visited.
    Sources,
    /// The process of the gateway can be examined.
    GatewayProcess,
    /// The process of the ingestion daemon can be examined.
    IngestdProcess,
}

impl ProofPart {
    /// Its word in the JSON and in the report.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::GatewayReport => "gateway-report",
            Self::IngestdReport => "ingestd-report",
            Self::GatewayWatchdog => "gateway-watchdog",
            Self::IngestdWatchdog => "ingestd-watchdog",
            Self::Wire => "wire",
            Self::Nats => "nats",
            Self::Store => "store",
            Self::Sources => "sources",
            Self::GatewayProcess => "gateway-process",
            Self::IngestdProcess => "ingestd-process",
        }
    }
}

/// Whether it is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProofState {
    /// It was looked at, and is well.
    Proved,
    /// It could not be looked at, or what was seen proves nothing.
    Unknown,
    /// The options exclude it.
    NotAsked,
}

/// One part of the proof.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProofEntry {
    pub(crate) part: ProofPart,
    pub(crate) state: ProofState,
    /// What was seen, or why it could not be looked at.
    pub(crate) why: String,
    /// What would let it be looked at, if it is unknown.
    pub(crate) remedy: Option<String>,
    /// Whether this user lacks the right to look.
    #[serde(skip)]
    pub(crate) is_denied: bool,
    /// Whether that does not pass by itself, as a start does: a lack of rights, or an answer of another form.
    #[serde(skip)]
    pub(crate) is_lasting: bool,
}

impl ProofEntry {
    pub(crate) fn proved(part: ProofPart, why: impl Into<String>) -> Self {
        Self {
            part,
            state: ProofState::Proved,
            why: why.into(),
            remedy: None,
            is_denied: false,
            is_lasting: false,
        }
    }

    pub(crate) fn not_asked(part: ProofPart, why: impl Into<String>) -> Self {
        Self { state: ProofState::NotAsked, ..Self::proved(part, why) }
    }

    pub(crate) fn unknown(part: ProofPart, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: ProofState::Unknown, remedy: Some(remedy.into()), ..Self::proved(part, why) }
    }

    /// Unknown, because this user may not look.
    pub(crate) fn denied(part: ProofPart, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { is_denied: true, ..Self::unknown(part, why, remedy) }.lasting()
    }

    /// That it is unknown does not pass by itself.
    pub(crate) fn lasting(self) -> Self {
        Self { is_lasting: true, ..self }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.state == ProofState::Unknown
    }
}
