//! `POST /reload`: does what SIGHUP does, and answers with the result. It is all or nothing: if anything is wrong, the
//! answer is a [`Problem`](crate::Problem) with every complaint, and nothing changes.

use serde::{Deserialize, Serialize};

use crate::optional_part::OptionalPart;

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// What changed in the list of sources; only the ingestion daemon has one.
    #[serde(flatten, deserialize_with = "crate::optional_part::deserialize")]
    pub catalogue: Option<CatalogueChanges>,
    /// Configuration keys whose value changed.
    pub changes: Vec<ConfigChange>,
}

/// How the new list of sources differs from the old one, in sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueChanges {
    /// The absolute path of the file that was read.
    pub file: String,
    /// New sources.
    pub added: usize,
    /// Sources with changed settings.
    pub changed: usize,
    /// Sources that are no longer listed.
    pub removed: usize,
    /// All other sources.
    pub unchanged: usize,
}

impl OptionalPart for CatalogueChanges {
    const KEYS: &[&str] = &["file", "added", "changed", "removed", "unchanged"];
}

/// A configuration key whose value changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// `section.key`
    pub key: String,
    /// The old value as it is written in the file; passwords in addresses are hidden.
    pub old: String,
    /// The new value, likewise.
    pub new: String,
    /// Whether the new value is in force; otherwise the old one is kept until a restart.
    pub live: bool,
}
