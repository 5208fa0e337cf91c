//! The kinds of values: what each accepts from a file or a variable, its bounds, and the message for anything else.

use std::time::Duration;

use notation::{parse_duration_within, shortened};

use super::shapes::{self, is_digits, without_password};
use super::values::Value;

/// Longest text of any value, in bytes: the longest path on Linux.
const TEXT_BYTES_MAX: usize = 4_096;
/// Maximum number of entries of a list.
const LIST_ITEMS_MAX: usize = 1_024;

/// What a key accepts. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub(super) enum ValueKind {
    Path,
    OptionalPath,
    RunDir,
    OptionalRunDir,
    Address,
    Integer(u64, u64),
    Boolean,
    /// An integer, or an empty string for none.
    OptionalInteger(u64, u64),
    Duration(Duration, Duration),
    OptionalUrl,
    OptionalProxy,
    /// A text that is compared as it is, such as an issuer.
    Text,
    OptionalText,
    UserAgent,
    WireTransport,
    NatsName,
    OptionalNatsName,
    Level,
    Format,
    List(ListItem),
}

/// What a list contains.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListItem {
    Network,
    Host,
    Origin,
    NatsUrl,
    HttpUrl,
    Category,
    /// An integer from 1 to 65535, without quotes.
    Port,
}

/// A value as it was written; entries of a list with their lines.
#[derive(Clone, Debug)]
pub(super) enum RawValue {
    Text(String),
    /// The number if it fits, and the digits as written.
    Integer(Option<u64>, String),
    Boolean(bool),
    List(Vec<(RawValue, usize)>),
    /// A float, date or table, by its name.
    Other(&'static str),
}

/// What is wrong with a value; `line` if it is one entry of a list.
#[derive(Debug)]
pub(super) struct InvalidValue {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl RawValue {
    fn describe(&self) -> String {
        match self {
            RawValue::Text(text) => format!("the string \"{}\"", shortened(&without_password(text))),
            RawValue::Integer(_, digits) => format!("the integer {}", shortened(digits)),
            RawValue::Boolean(is) => format!("the boolean {is}"),
            RawValue::List(_) => "a list".to_owned(),
            RawValue::Other(name) => format!("a {name}"),
        }
    }
}

impl ValueKind {
    /// Checks a value of a file.
    pub(super) fn accept(self, raw: &RawValue) -> Result<Value, Vec<InvalidValue>> {
        let whole = |message| vec![InvalidValue { line: None, message }];
        match (self, raw) {
            (ValueKind::List(item), RawValue::List(entries)) => accept_list(item, entries),
            (ValueKind::List(ListItem::Port), other) => {
                Err(whole(format!("expected a list of integers, found {}", other.describe())))
            }
            (ValueKind::List(_), other) => {
                Err(whole(format!("expected a list of strings, found {}", other.describe())))
            }
            (ValueKind::Integer(min, max), RawValue::Integer(number, digits)) => {
                accept_integer(*number, digits, min, max).map_err(whole)
            }
            (ValueKind::Integer(..), other) => {
                Err(whole(format!("expected an integer without quotes, found {}", other.describe())))
            }
            (ValueKind::Boolean, RawValue::Boolean(is)) => Ok(Value::Boolean(*is)),
            (ValueKind::Boolean, other) => {
                Err(whole(format!("expected true or false without quotes, found {}", other.describe())))
            }
            (ValueKind::OptionalInteger(..), RawValue::Text(text)) if text.is_empty() => {
                Ok(Value::Text(String::new()))
            }
            (ValueKind::OptionalInteger(min, max), RawValue::Integer(number, digits)) => {
                accept_integer(*number, digits, min, max).map_err(whole)
            }
            (ValueKind::OptionalInteger(..), other) => {
                Err(whole(format!("expected an integer without quotes, or \"\", found {}", other.describe())))
            }
            (_, RawValue::Text(text)) => self.accept_string(text).map_err(whole),
            (ValueKind::Duration(..), other) => {
                Err(whole(format!("expected a duration such as \"30s\", found {}", other.describe())))
            }
            (_, other) => Err(whole(format!("expected a string, found {}", other.describe()))),
        }
    }

    /// Checks a value of an environment variable or the command line: without quotes, lists separated by commas.
    pub(super) fn accept_text(self, text: &str) -> Result<Value, Vec<InvalidValue>> {
        let text = text.trim();
        match self {
            ValueKind::OptionalInteger(..) if text.is_empty() => Ok(Value::Text(String::new())),
            ValueKind::Integer(..) | ValueKind::OptionalInteger(..) => match text.parse::<u64>() {
                Ok(number) => self.accept(&RawValue::Integer(Some(number), text.to_owned())),
                Err(_) if is_digits(text) => self.accept(&RawValue::Integer(None, text.to_owned())),
                Err(_) => {
                    let message = format!("`{}` is not a whole number", shortened(text));
                    Err(vec![InvalidValue { line: None, message }])
                }
            },
            ValueKind::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                other => {
                    let message = format!("`{}` is neither true nor false", shortened(other));
                    Err(vec![InvalidValue { line: None, message }])
                }
            },
            ValueKind::List(_) => {
                let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                let raw = |entry: &str| match self {
                    ValueKind::List(ListItem::Port) if is_digits(entry) => {
                        RawValue::Integer(entry.parse().ok(), entry.to_owned())
                    }
                    _ => RawValue::Text(entry.to_owned()),
                };
                self.accept(&RawValue::List(entries.map(|entry| (raw(entry), 0)).collect()))
            }
            _ => self.accept(&RawValue::Text(text.to_owned())),
        }
    }

    fn accept_string(self, text: &str) -> Result<Value, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("`{}` has more than {TEXT_BYTES_MAX} bytes", shortened(text)));
        }
        let text = text.to_owned();
        match self {
            ValueKind::Path => shapes::path(&text)?,
            ValueKind::RunDir => shapes::run_dir(&text)?,
            ValueKind::OptionalRunDir if !text.is_empty() => shapes::run_dir(&text)?,
            ValueKind::OptionalPath if !text.is_empty() => shapes::path(&text)?,
            ValueKind::OptionalUrl if !text.is_empty() => return shapes::public_url(&text).map(Value::Text),
            ValueKind::OptionalProxy if !text.is_empty() => shapes::proxy(&text)?,
            ValueKind::Text => shapes::text(&text)?,
            ValueKind::OptionalText if !text.is_empty() => shapes::text(&text)?,
            ValueKind::Address => shapes::address(&text)?,
            ValueKind::UserAgent => return shapes::user_agent(&text).map(Value::Text),
            ValueKind::WireTransport => shapes::one_of(&text, &["local", "nats"])?,
            ValueKind::NatsName => shapes::nats_name(&text)?,
            ValueKind::OptionalNatsName if !text.is_empty() => shapes::nats_name(&text)?,
            ValueKind::Level => crate::logs::check_level(&text)?,
            ValueKind::Format => shapes::one_of(&text, &["auto", "text", "json", "journald"])?,
            ValueKind::Duration(min, max) => {
                let duration = parse_duration_within(&text, min..=max).map_err(|bad| bad.to_string())?;
                return Ok(Value::Duration(duration));
            }
            ValueKind::OptionalPath
            | ValueKind::OptionalRunDir
            | ValueKind::OptionalNatsName
            | ValueKind::OptionalUrl
            | ValueKind::OptionalProxy
            | ValueKind::OptionalText
            | ValueKind::Integer(..)
            | ValueKind::Boolean
            | ValueKind::OptionalInteger(..)
            | ValueKind::List(_) => {}
        }
        Ok(Value::Text(text))
    }
}

impl ListItem {
    /// Checks one entry and returns it in its normal form.
    fn accept(self, text: &str) -> Result<String, String> {
        match self {
            ListItem::Network => shapes::network(text),
            ListItem::Host => shapes::host(text),
            ListItem::Origin => shapes::origin(text),
            ListItem::NatsUrl => shapes::nats_url(text),
            ListItem::HttpUrl => shapes::http_url(text),
            ListItem::Category => shapes::category(text),
            ListItem::Port => Err(not_a_port(&format!("`{}`", shortened(text)))),
        }
    }
}

fn accept_list(item: ListItem, entries: &[(RawValue, usize)]) -> Result<Value, Vec<InvalidValue>> {
    if entries.len() > LIST_ITEMS_MAX {
        let message = format!("{} entries are more than {LIST_ITEMS_MAX}", entries.len());
        return Err(vec![InvalidValue { line: None, message }]);
    }
    let (mut accepted, mut mistakes) = (Vec::new(), Vec::new());
    for (raw, line) in entries {
        let result = match (item, raw) {
            (ListItem::Port, RawValue::Integer(number, digits)) => {
                let port = number.filter(|port| (1..=u64::from(u16::MAX)).contains(port));
                port.map(|port| port.to_string()).ok_or_else(|| not_a_port(&shortened(digits)))
            }
            (_, RawValue::Text(text)) => item.accept(text),
            (ListItem::Port, other) => Err(not_a_port(&other.describe())),
            (_, other) => Err(format!("expected a string in the list, found {}", other.describe())),
        };
        match result {
            Ok(text) => accepted.push(text),
            Err(message) => mistakes.push(InvalidValue { line: Some(*line), message }),
        }
    }
    if mistakes.is_empty() { Ok(Value::List(accepted)) } else { Err(mistakes) }
}

fn not_a_port(what: &str) -> String {
    format!("{what} is not a port; write an integer from 1 to 65535 without quotes")
}

fn accept_integer(number: Option<u64>, digits: &str, min: u64, max: u64) -> Result<Value, String> {
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        _ => Err(format!("{} is outside {min} to {max}", shortened(digits))),
    }
}
