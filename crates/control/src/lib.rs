//! The control plane, which is what the three programs say to each other besides the wire: the JSON of the control
//! sockets, the names of sockets and routes, and a client.
//!
//! Both sides use these types, so a field cannot be renamed on one of them only. A reader ignores unknown fields; a
//! missing one is an error that names it, together with the version of the process that answered. The serialised names
//! are an interface: operators and their tools read the same JSON.

pub mod black_box;
pub mod client;
pub mod documents;
pub mod orders;
pub mod paths;
pub mod problem;
pub mod reload;
pub mod status;
pub mod watch;

mod optional_part;

pub use client::{ControlAnswer, ControlClient, ControlError, ControlRequest};
pub use documents::{DocumentAnswer, DocumentHead, DocumentHop};
pub use orders::{
    ListAnswer, ListOrder, LogLevel, PauseAnswer, PauseOrder, ResumeOrder, SourceSelection, TurnAnswer,
    TurnOrder, VisitAnswer, VisitOrder,
};
pub use paths::ControlSocket;
pub use problem::Problem;
pub use reload::{CatalogueChanges, ConfigChange, CredentialChanges, ReloadAnswer};
pub use status::{GatewayStatus, IngestHealth, IngestStatus};
pub use watch::{GatewayVitals, HealthReport, IngestVitals, ProcessIdentity, ProcessVitals, WatchReport};
