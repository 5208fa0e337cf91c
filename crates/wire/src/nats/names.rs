//! The names of everything that an installation has in NATS.

use std::fmt::Write as _;

/// The names of one installation, all of which begin with `wire.nats_name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectNames {
    name: Box<str>,
}

impl SubjectNames {
    /// Longest name, in bytes.
    pub const LENGTH_MAX: usize = 32;

    /// `name` has only letters, digits, `-` and `_`; the configuration checks that.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// The stream of events.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.name
    }

    /// The bucket with what belongs to the stream.
    #[must_use]
    pub fn bucket(&self) -> String {
        format!("{}-state", self.name)
    }

    /// The subject of an event, `NAME.events.CATEGORY.SOURCE`.
    #[must_use]
    pub fn event(&self, category: &str, source: &str) -> String {
        format!("{}.events.{}.{}", self.name, escaped(category), escaped(source))
    }

    /// The subjects of all events.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}.events.>", self.name)
    }

    /// The stream of checkpoints: what a daemon that takes over a source needs of it.
    #[must_use]
    pub fn checkpoints_stream(&self) -> String {
        format!("{}-checkpoints", self.name)
    }

    /// The subjects of all checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> String {
        format!("{}.checkpoints.>", self.name)
    }

    /// The subject of the state of a source, `NAME.checkpoints.SOURCE.state`.
    #[must_use]
    pub fn checkpoint_state(&self, source: &str) -> String {
        format!("{}.checkpoints.{}.state", self.name, escaped(source))
    }

    /// The subject of the seen set of a source, `NAME.checkpoints.SOURCE.seen`.
    #[must_use]
    pub fn checkpoint_seen(&self, source: &str) -> String {
        format!("{}.checkpoints.{}.seen", self.name, escaped(source))
    }

    /// The subject of notices: a visit has ended, the catalogue has changed.
    #[must_use]
    pub fn notices(&self) -> String {
        format!("{}.notices", self.name)
    }

    /// The subject of the daemons' heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> String {
        format!("{}.heartbeats", self.name)
    }

    /// The subject of requests to one daemon.
    #[must_use]
    pub fn requests(&self, daemon: &str) -> String {
        format!("{}.requests.{}", self.name, escaped(daemon))
    }

    /// The subject on which all processes say which event is the newest that they have seen.
    #[must_use]
    pub fn seen(&self) -> String {
        format!("{}.seen", self.name)
    }
}

/// A token of a subject: letters, digits, `-` and `_` stay, the bytes of everything else become `%XX`.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            token.push(char::from(byte));
        } else {
            write!(token, "%{byte:02X}").expect("a String takes everything");
        }
    }
    // A subject has no empty token.
    if token.is_empty() { "%".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_category_is_called_it_is_one_token_of_its_own() {
        let names = SubjectNames::new("newswire");
        assert_eq!(names.event("general", "bbc"), "newswire.events.general.bbc");
        assert_eq!(names.event("a.b", "*"), "newswire.events.a%2Eb.%2A");
        assert_eq!(names.event("", "zürich >"), "newswire.events.%.z%C3%BCrich%20%3E");
        assert_eq!(escaped("%2E"), "%252E", "no other text has the same token");
    }
}
