//! What is wrong with a file of the operator: every mistake at once, each with its location.

use std::fmt;

use crate::escaped;

/// One mistake in a file, a variable or a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Path of the file, `env:NAME` or `--flag`; empty while the file has no name (see [`Complaints::in_file`]).
    pub place: String,
    /// Line of the file, from 1; `None` if the mistake is not on one line.
    pub line: Option<usize>,
    /// `section.key` as far as it is known; empty for a syntax error.
    pub key: String,
    /// What is wrong and what to write instead; lowercase, no full stop.
    pub message: String,
}

impl Complaint {
    /// File and line, `place:line`.
    #[must_use]
    pub fn location(&self) -> String {
        match (self.place.as_str(), self.line) {
            (place, None) => place.to_owned(),
            ("", Some(line)) => format!("line {line}"),
            (place, Some(line)) => format!("{place}:{line}"),
        }
    }
}

/// `place:line: key: message` on one line; control characters are escaped.
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = self.location();
        for part in [&location, &self.key].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{}: ", escaped(part))?;
        }
        f.write_str(&escaped(&self.message))
    }
}

impl std::error::Error for Complaint {}

/// All mistakes that were found. Shown one per line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// Adds one at the end.
    pub fn push(&mut self, complaint: Complaint) {
        self.0.push(complaint);
    }

    /// All of them, in the order in which they are shown.
    #[must_use]
    pub fn list(&self) -> &[Complaint] {
        &self.0
    }

    /// `value` if there are no complaints.
    ///
    /// # Errors
    /// The complaints, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// The same about the text of this file, in the order of its lines.
    #[must_use]
    pub fn in_file(mut self, file: impl fmt::Display) -> Self {
        let place = file.to_string();
        self.0.iter_mut().for_each(|complaint| complaint.place.clone_from(&place));
        self.0.sort_by_key(|complaint| complaint.line);
        self
    }
}

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Self(vec![complaint])
    }
}

impl IntoIterator for Complaints {
    type Item = Complaint;
    type IntoIter = std::vec::IntoIter<Complaint>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<Complaint> for Complaints {
    fn from_iter<I: IntoIterator<Item = Complaint>>(complaints: I) -> Self {
        Self(complaints.into_iter().collect())
    }
}

impl Extend<Complaint> for Complaints {
    fn extend<I: IntoIterator<Item = Complaint>>(&mut self, complaints: I) {
        self.0.extend(complaints);
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, complaint) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(place: &str, line: Option<usize>, key: &str) -> Complaint {
        Complaint { place: place.to_owned(), line, key: key.to_owned(), message: "is wrong".to_owned() }
    }

    #[test]
    fn what_is_known_of_the_location_is_shown() {
        for (place, line, key, shown) in [
            ("a.toml", Some(3), "source.every", "a.toml:3: source.every: is wrong"),
            ("a.toml", Some(3), "", "a.toml:3: is wrong"),
            ("a.toml", None, "", "a.toml: is wrong"),
            ("env:X", None, "log.level", "env:X: log.level: is wrong"),
            ("", Some(3), "source.every", "line 3: source.every: is wrong"),
        ] {
            assert_eq!(complaint(place, line, key).to_string(), shown);
        }
    }

    #[test]
    fn complaints_about_a_file_are_one_per_line_in_its_order() {
        let complaints: Complaints =
            [complaint("", Some(7), "b\n\u{1b}"), complaint("", Some(2), "a")].into_iter().collect();
        let shown = complaints.in_file("x.toml").to_string();
        assert_eq!(shown, "x.toml:2: a: is wrong\nx.toml:7: b\\n\\u{1b}: is wrong");
    }
}
