//! Conversion to JSON for reports, which must not fail.

use serde::Serialize;
use serde_json::Value;

/// `value` as JSON; null if it cannot be serialised, which is logged.
pub(crate) fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| {
        tracing::error!(%error, "could not serialise a report");
        Value::Null
    })
}
