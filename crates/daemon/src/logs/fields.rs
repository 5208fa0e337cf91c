//! The fields of an event or a span, recorded in a form that every line format can be made from.

use std::error::Error;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

/// A value as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    /// Includes values formatted by `%` and `?`; may contain any character.
    Text(String),
    /// The digits of a finite number.
    Number(String),
    Bool(bool),
}

/// Names and values in the order in which they were recorded; the message is separate.
#[derive(Clone, Debug, Default)]
pub(super) struct EventFields {
    pub(super) message: String,
    pub(super) list: Vec<(&'static str, Scalar)>,
}

impl EventFields {
    /// Adds a field, or replaces the one of the same name: an inner span overrides an outer one, and the event all spans.
    pub(super) fn set(&mut self, name: &'static str, value: Scalar) {
        match self.list.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.list.push((name, value)),
        }
    }

    fn record(&mut self, field: &Field, value: Scalar) {
        let name = field.name();
        match value {
            Scalar::Text(text) if name == "message" => self.message = text,
            // Set by the bridge from the `log` crate; the metadata has the same.
            _ if name.starts_with("log.") => {}
            value => self.set(name.strip_prefix("r#").unwrap_or(name), value),
        }
    }
}

impl Visit for EventFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let scalar = if value.is_finite() { Scalar::Number } else { Scalar::Text };
        self.record(field, scalar(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, Scalar::Number(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, Scalar::Number(value.to_string()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.record(field, Scalar::Number(value.to_string()));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.record(field, Scalar::Number(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, Scalar::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, Scalar::Text(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            write!(text, ": {error}").expect("a String takes every write");
            cause = error.source();
        }
        self.record(field, Scalar::Text(text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, Scalar::Text(format!("{value:?}")));
    }
}
