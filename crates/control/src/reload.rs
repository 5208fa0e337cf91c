//! `POST /reload`: what SIGHUP does, with an answer. All or nothing: a refusal is a [`Problem`](crate::Problem) with
//! every complaint, and everything stays as it was.

use serde::{Deserialize, Serialize};

use crate::optional_part::OptionalPart;

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// What changed in the list of sources; only the ingestion daemon has one.
    #[serde(flatten, deserialize_with = "crate::optional_part::deserialize")]
    pub catalogue: Option<CatalogueChanges>,
    /// Keys of the configuration that have another value.
    pub changes: Vec<ConfigChange>,
}

/// How the new list of sources differs from the old one, in sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueChanges {
    /// The absolute path of the file that was read.
    pub file: String,
    /// New ones.
    pub added: usize,
    /// Those with other settings.
    pub changed: usize,
    /// Those that are no longer listed.
    pub removed: usize,
    /// All others.
    pub unchanged: usize,
}

impl OptionalPart for CatalogueChanges {
    const KEYS: &[&str] = &["file", "added", "changed", "removed", "unchanged"];
}

/// A key of the configuration that has another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// `section.key`
    pub key: String,
    /// The old value as it is written in the file; passwords in addresses are hidden.
    pub old: String,
    /// The new value, likewise.
    pub new: String,
    /// Whether it is in force now; else the old value is kept until a restart.
    pub live: bool,
}
