//! Edits the text of a `sources.toml` and leaves order, comments and spacing unchanged.

use std::{collections::HashSet, fmt::Write as _, ops::Range};

use notation::{Complaint, Complaints};
use toml::de::{DeTable, DeValue};

use crate::{Catalogue, Source};

impl Catalogue {
    /// The text with these sources appended.
    #[must_use]
    pub fn append_to(text: &str, sources: Vec<Source>) -> String {
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        write!(text, "{}", Self { sources, ..Self::default() }.to_toml())
            .expect("writing to a String never fails");
        text
    }

    /// The text without the sources of these ids, and without the comments directly above them. Unknown ids change
    /// nothing.
    ///
    /// # Errors
    /// Complaints, if the text is not a valid list of sources or one of them is not written as a `[[source]]` of its own.
    pub fn remove_from(text: &str, ids: &HashSet<&str>) -> Result<String, Complaints> {
        Self::parse(text)?;
        let complain = |span: &Range<usize>| {
            Complaints::from(Complaint {
                place: String::new(),
                line: Some(1 + text[..span.start.min(text.len())].matches('\n').count()),
                key: "source".to_owned(),
                message: "is not written as a [[source]] table of its own; remove it by hand".to_owned(),
            })
        };
        let document = DeTable::parse(text).map_err(|e| complain(&e.span().unwrap_or_default()))?;
        let entries = document.get_ref().get("source").and_then(|list| list.get_ref().as_array());
        let mut out = String::with_capacity(text.len());
        let mut kept_from = 0;
        for entry in entries.into_iter().flatten() {
            let DeValue::Table(table) = entry.get_ref() else { continue };
            if !table.get("id").and_then(|id| id.get_ref().as_str()).is_some_and(|id| ids.contains(id)) {
                continue;
            }
            let start = entry.span().start;
            if !text[start..].starts_with("[[") {
                return Err(complain(&entry.span()));
            }
            let block = block(text, start, last_end(entry.get_ref(), start));
            out.push_str(&text[kept_from..block.start.max(kept_from)]);
            kept_from = block.end;
        }
        out.push_str(&text[kept_from..]);
        Ok(out)
    }
}

/// The end of the last value within this one.
fn last_end(value: &DeValue<'_>, at_least: usize) -> usize {
    let mut end = at_least;
    // Tables within a source are one or two levels deep, and the parser limits the depth.
    if let DeValue::Table(table) = value {
        for (key, value) in table {
            end = end.max(key.span().end).max(last_end(value.get_ref(), value.span().end));
        }
    }
    if let DeValue::Array(list) = value {
        for value in list {
            end = end.max(last_end(value.get_ref(), value.span().end));
        }
    }
    end
}

/// Whole lines: the comments directly above, the table, and the empty lines after it.
fn block(text: &str, start: usize, end: usize) -> Range<usize> {
    let mut start = text[..start].rfind('\n').map_or(0, |n| n + 1);
    while start > 0 {
        let above = text[..start - 1].rfind('\n').map_or(0, |n| n + 1);
        if !text[above..start].trim_start().starts_with('#') {
            break;
        }
        start = above;
    }
    let mut end = text[end..].find('\n').map_or(text.len(), |n| end + n + 1);
    while let Some(n) = text[end..].find('\n')
        && text[end..end + n].trim().is_empty()
    {
        end += n + 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FeedUrl, SourceId};

    const TEXT: &str = "# The list.\n\n# ---- Britain ----\n\n# First.\n[[source]]\nid = \"a\" # its id\nurl = \"https://a.example/\"\n\
                        # the end of a\ntags = [\n  \"x\",\n]\n\n# ---- Germany ----\n\n[[ source ]]\nurl = \"https://b.example/\"\n\
                        id = \"b\"\n\n# Last.\n[[source]]\nid = \"c\"\nurl = \"https://c.example/\"";

    fn without(ids: &[&str]) -> String {
        Catalogue::remove_from(TEXT, &ids.iter().copied().collect()).unwrap()
    }

    #[test]
    fn a_removed_source_takes_its_own_comments_and_nothing_else() {
        assert_eq!(without(&["unknown"]), TEXT);
        assert_eq!(
            without(&["a", "c"]),
            "# The list.\n\n# ---- Britain ----\n\n# ---- Germany ----\n\n[[ source ]]\nurl = \"https://b.example/\"\nid = \"b\"\n\n"
        );
        let rest = without(&["b"]);
        assert!(rest.contains("# ---- Germany ----\n\n# Last.\n[[source]]\nid = \"c\""), "{rest}");
        assert_eq!(Catalogue::parse(&rest).unwrap().sources.len(), 2);
    }

    #[test]
    fn an_appended_source_leaves_every_byte_before_it() {
        let source =
            Source::new(SourceId::try_new("d").unwrap(), FeedUrl::try_new("https://d.example/").unwrap());
        let text = Catalogue::append_to(TEXT, vec![source]);
        assert!(text.starts_with(TEXT));
        assert_eq!(Catalogue::parse(&text).unwrap().sources.len(), 4);
    }

    #[test]
    fn a_source_that_is_written_inline_is_left_to_the_operator() {
        let text = "source = [\n{ id = \"a\", url = \"https://a.example/\" },\n]\n";
        let complaints = Catalogue::remove_from(text, &HashSet::from(["a"])).unwrap_err();
        assert_eq!(complaints.list()[0].line, Some(2));
    }
}
