//! What a valid token grants.

use std::sync::Arc;

use news::Timestamp;

use super::scope::CategoryScope;

/// Maximum number of categories of one token.
pub(super) const CATEGORIES_MAX: usize = 256;
/// Longest category, in bytes: the limit of `sources.toml`.
const CATEGORY_BYTES_MAX: usize = 64;

/// What a valid token grants.
pub(super) struct TokenGrant {
    /// `None` for everything.
    pub(super) scope: Option<Arc<CategoryScope>>,
    pub(super) expires: Option<Timestamp>,
}

/// Whether a source can have this category.
pub(super) fn is_category(text: &&str) -> bool {
    let is_allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=CATEGORY_BYTES_MAX).contains(&text.len()) && text.chars().all(is_allowed)
}
