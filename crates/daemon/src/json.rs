//! Conversion to JSON for reports, which must not fail.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

/// `value` as JSON; null if it cannot be serialised, which is logged.
pub(crate) fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| {
        log(&error);
        Value::Null
    })
}

/// The text of it.
pub(crate) fn json_text(value: &impl Serialize) -> Bytes {
    let text = serde_json::to_vec(value).map(Bytes::from);
    text.unwrap_or_else(|error| {
        log(&error);
        Bytes::from_static(b"null")
    })
}

fn log(error: &serde_json::Error) {
    tracing::error!(%error, "could not serialise a report");
}
