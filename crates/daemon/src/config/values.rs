//! Checked values, and the fields of the configuration that are made from them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{LogFormat, WireTransport};

/// A value that its kind has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(u64),
    Boolean(bool),
    Duration(Duration),
    List(Vec<String>),
}

/// Converts an accepted value into the type of its field. Kind and type of a key must match; a test builds the defaults to
/// prove that they do.
pub(super) trait FromValue {
    fn from_value(value: &Value) -> Self;
}

fn text_of(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        other => unreachable!("{other:?} is not a text, as its kind promised"),
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Self {
        text_of(value).to_owned()
    }
}

impl FromValue for PathBuf {
    fn from_value(value: &Value) -> Self {
        PathBuf::from(text_of(value))
    }
}

impl FromValue for Option<PathBuf> {
    fn from_value(value: &Value) -> Self {
        Some(text_of(value)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }
}

impl FromValue for Option<String> {
    fn from_value(value: &Value) -> Self {
        Some(text_of(value)).filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

impl FromValue for SocketAddr {
    fn from_value(value: &Value) -> Self {
        text_of(value).parse().expect("ValueKind::Address has accepted it")
    }
}

impl FromValue for WireTransport {
    fn from_value(value: &Value) -> Self {
        match text_of(value) {
            "nats" => WireTransport::Nats,
            _ => WireTransport::Local, // ValueKind::WireTransport accepts no third word
        }
    }
}

impl FromValue for LogFormat {
    fn from_value(value: &Value) -> Self {
        match text_of(value) {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            "journald" => LogFormat::Journald,
            _ => LogFormat::Auto, // ValueKind::Format accepts no fifth word
        }
    }
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Integer(number) => *number,
            other => unreachable!("{other:?} is not an integer, as its kind promised"),
        }
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Boolean(is) => *is,
            other => unreachable!("{other:?} is not a boolean, as its kind promised"),
        }
    }
}

impl FromValue for usize {
    fn from_value(value: &Value) -> Self {
        usize::try_from(u64::from_value(value)).unwrap_or(usize::MAX)
    }
}

impl FromValue for Option<u64> {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Integer(number) => Some(*number),
            empty => {
                debug_assert!(text_of(empty).is_empty(), "ValueKind::OptionalInteger accepts no other text");
                None
            }
        }
    }
}

impl FromValue for Duration {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Duration(duration) => *duration,
            other => unreachable!("{other:?} is not a duration, as its kind promised"),
        }
    }
}

impl FromValue for Vec<u16> {
    fn from_value(value: &Value) -> Self {
        let entries = Vec::<String>::from_value(value);
        entries.iter().map(|port| port.parse().expect("ListItem::Port has accepted it")).collect()
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::List(entries) => entries.clone(),
            other => unreachable!("{other:?} is not a list, as its kind promised"),
        }
    }
}
