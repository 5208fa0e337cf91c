//! What a visit waits for at this moment, as others may read it: a visit that hangs has no thread whose stack shows it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A part of a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum VisitPhase {
    /// Files of the source are read, such as passwords.
    #[default]
    Options,
    /// The addresses of the host are looked up.
    Lookup,
    /// TCP to the host, or to the proxy.
    Connect,
    /// TLS with the proxy.
    ProxyTls,
    /// The proxy connects to the host.
    Tunnel,
    /// TLS with the host.
    Tls,
    /// The request is sent, and the head of the response awaited.
    Answer,
    /// The body is read.
    Body,
    /// No connection was established; the second attempt follows after a pause.
    Retry,
}

impl VisitPhase {
    /// All variants, in the order of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::Options,
        Self::Lookup,
        Self::Connect,
        Self::ProxyTls,
        Self::Tunnel,
        Self::Tls,
        Self::Answer,
        Self::Body,
        Self::Retry,
    ];

    /// The name: `options`, `lookup`, `connect`, `proxy-tls`, `tunnel`, `tls`, `answer`, `body`, `retry`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Lookup => "lookup",
            Self::Connect => "connect",
            Self::ProxyTls => "proxy-tls",
            Self::Tunnel => "tunnel",
            Self::Tls => "tls",
            Self::Answer => "answer",
            Self::Body => "body",
            Self::Retry => "retry",
        }
    }
}

/// The phase of the visit in progress, or the last phase of the last one. One byte, without locks.
#[derive(Debug, Default)]
pub struct VisitPhaseCell(AtomicU8);

impl VisitPhaseCell {
    /// The phase that was begun last.
    #[must_use]
    pub fn get(&self) -> VisitPhase {
        VisitPhase::ALL.get(usize::from(self.0.load(Relaxed))).copied().unwrap_or_default()
    }

    /// Begins a phase.
    pub fn set(&self, phase: VisitPhase) {
        self.0.store(phase as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_is_read_as_it_was_set() {
        let cell = VisitPhaseCell::default();
        assert_eq!(cell.get(), VisitPhase::Options);
        for phase in VisitPhase::ALL {
            cell.set(phase);
            assert_eq!(cell.get(), phase);
        }
    }
}
