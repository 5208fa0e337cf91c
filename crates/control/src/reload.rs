//! `POST /reload`: does what SIGHUP does, and answers with the result. It is all or nothing: if anything is wrong, the
//! answer is a [`Problem`](crate::Problem) with every complaint, and nothing changes.

use std::fmt;

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
    /// What changed in files of tokens and keys; only the gateway has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialChanges>,
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

/// How a file of tokens or keys that the configuration names differs from the one in use before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialChanges {
    /// `section.key` that names the file.
    pub key: String,
    /// New tokens or keys.
    pub added: usize,
    /// Tokens that grant something else, or until another time.
    pub changed: usize,
    /// Tokens or keys that are no longer accepted.
    pub removed: usize,
}

impl fmt::Display for CredentialChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, added, changed, removed } = self;
        write!(f, "{key}: {added} added, {changed} changed, {removed} removed")
    }
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
