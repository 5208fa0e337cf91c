//! One polite visit to one URL.
//!
//! A [`Visitor`] makes visits under a [`Policy`]: conditional, capped, with deadlines, and only to addresses that
//! the guard allows. [`schedule`] decides when the next visit is due, and why.
//!
//! Never here: parsing, state between visits, the clock of the machine. Wall time is an argument; durations are measured
//! with tokio's clock, which tests can pause. No error shows a secret of a URL.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod address;
mod body;
mod budget;
mod cause;
mod certificate;
mod clients;
mod connection;
mod cookies;
mod decode;
mod exchange;
mod failure;
mod guard;
mod head_bounds;
mod headers;
mod hop_gate;
mod limits;
mod links;
mod phase;
mod policy;
mod post;
mod proxy;
mod report;
mod request_options;
mod resolver;
pub mod schedule;
mod stream;
mod tls;
mod transport;
mod userinfo;
mod verifier;
mod visit;

pub use address::{BadCidr, Cidr, is_public};
pub use body::body_hash;
pub use budget::{ByteBudget, RoomWait};
pub use failure::{FailedAt, Failure};
pub use guard::AddressScope;
pub use hop_gate::{HeldHop, HopEntry, HopGate};
pub use links::HeaderLinks;
pub use news::FailureClass;
pub use phase::{VisitPhase, VisitPhaseCell};
pub use policy::{BadPolicy, Policy};
pub use post::FormAnswer;
pub use report::{FetchReport, FetchResult, Freshness, Full, RedirectHop, Timings};
pub use request_options::{InvalidOptions, RequestOptions};
pub use resolver::{Lookup, Resolver, SystemResolver};
pub use transport::{Exchange, HttpTransport};
pub use visit::{VisitRequest, Visitor, may_share_credentials, validator_key};

/// Makes ring the TLS provider of the process, unless one is installed.
///
/// `main` calls it once, before anything speaks TLS; calling it again does nothing.
pub fn install_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails if another thread was faster: then there is a provider, too.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
