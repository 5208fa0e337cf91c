//! Elements without end tag: where they end, and items inside items.
//!
//! The scan has found which start tags have no end tag. Such an element ends where a tag begins that has a meaning outside
//! of it. An element with an end tag is never ended early for that reason.

use memchr::memmem;

use super::{
    capture::TextMode,
    elements::{Builder, OpenElement, Role, is_void},
    meaning::{ElementScope, Meaning, meaning},
    namespaces::Vocabulary,
};
use crate::scan::is_break;

/// How the start tags of items begin.
const ITEMS: [&str; 4] = ["<item>", "<item ", "<entry>", "<entry "];

/// The name of the root element that is opened once more. No tag has it.
const REOPENED: &str = "";

impl Builder<'_> {
    /// Ends the innermost elements that have no end tag, if a tag of this name belongs to an element around them.
    pub(super) fn end_unclosed(&mut self, name: &str, offset: usize) {
        // Nearly always the innermost element is closed. A field ends before the element around it does.
        while self.stack.last().is_some_and(|innermost| !innermost.is_closed)
            && let Some(level) = self.first_to_end(name)
        {
            self.warnings.warn(offset, format!("<{}> was not closed", self.stack[level].name));
            self.close_to(level, offset);
        }
    }

    /// The outermost of the elements that a tag of this name ends.
    fn first_to_end(&self, name: &str) -> Option<usize> {
        let mut level = self.stack.len();
        loop {
            let open = &self.stack[level.checked_sub(1)?];
            if self.ends_field_in(open, self.stack.get(level), name) || self.is_part_of(open, name) {
                return Some(level).filter(|level| *level < self.stack.len());
            }
            if open.is_closed {
                return None;
            }
            level -= 1;
        }
    }

    /// Whether the element that has just begun ends at once, although its tag does not say so.
    pub(super) fn is_read_as_empty(&mut self, open: &OpenElement<'_>, offset: usize) -> bool {
        match open.role {
            // Sanitising finds where such a tag ends; here it would only be one level more.
            Role::Markup => !open.is_closed || is_void(open.name),
            // The scan does not look for end tags of these.
            Role::Skip if is_break(open.name) => true,
            // Inside an element without end tag that is not read would be the rest of the document.
            Role::Skip if !open.is_closed && !has_own_title(open.name) => {
                self.warnings.warn(offset, format!("<{}> was not closed", open.name));
                true
            }
            _ => false,
        }
    }

    /// Opens the feed once more if items follow the end of the root element.
    pub(super) fn reopens_for_items(&mut self, text: &str, end: usize) -> bool {
        let rest = text.as_bytes().get(end..).unwrap_or_default();
        let Some(at) = ITEMS.iter().filter_map(|tag| memmem::find(rest, tag.as_bytes())).min() else {
            return false;
        };
        let message = "items after the end of the feed were read: its end tag is too early";
        self.warnings.warn(end + at, message.to_owned());
        self.stack.push(OpenElement {
            name: REOPENED,
            role: Role::Scope(ElementScope::Feed),
            namespaces: self.names.len(),
            language: None,
            base: self.feed.base.clone(),
            begins: false,
            is_closed: true,
        });
        self.done = false;
        true
    }

    /// Closes what [`Builder::reopens_for_items`] has opened, unless the document ends inside an item.
    pub(super) fn close_reopened(&mut self) {
        if let [open] = self.stack.as_slice()
            && open.name == REOPENED
        {
            self.stack.clear();
        }
    }

    /// Whether a tag of this name cannot be inside a field: a name with a prefix is not HTML, and an address or a date has
    /// no tags at all.
    fn ends_field_in(&self, open: &OpenElement<'_>, field: Option<&OpenElement<'_>>, name: &str) -> bool {
        matches!(open.role, Role::Scope(_))
            && field.is_some_and(|inner| inner.role == Role::Field)
            && (self.capture.as_ref().is_some_and(|c| c.mode == TextMode::Plain)
                || name.contains(':') && self.names.resolve(name).0 != Vocabulary::Xhtml)
    }

    /// Whether a tag of this name is one of the children that the open element may have.
    fn is_part_of(&self, open: &OpenElement<'_>, name: &str) -> bool {
        let (vocabulary, local) = self.names.resolve(name);
        match open.role {
            // An item needs its title and its link more than its image does.
            Role::Scope(ElementScope::Image) if self.item.is_some() => is_of_picture(local),
            Role::Scope(ElementScope::Image) => is_of_picture(local) || is_of_titled(local),
            Role::Scope(scope) => meaning(scope, vocabulary, local) != Meaning::Skip,
            Role::Skip => has_own_title(open.name) && is_of_titled(local),
            Role::Field | Role::Markup => false,
        }
    }

    /// Whether a tag of this name begins an item within the open item, which goes on when that one ends.
    pub(super) fn is_nested_item(&self, name: &str) -> bool {
        let item = self.stack.iter().rfind(|o| o.begins && o.role == Role::Scope(ElementScope::Item));
        item.is_some_and(|item| item.name.eq_ignore_ascii_case(name))
    }
}

/// Whether the element is skipped and has a title and a link of its own, as its siblings have: `<textInput>` of RSS.
fn has_own_title(name: &str) -> bool {
    local_name(name).eq_ignore_ascii_case("textinput")
}

/// Whether `<image>` and `<textInput>` have children of this name, as a feed has.
fn is_of_titled(local: &str) -> bool {
    ["title", "link", "description", "name"].iter().any(|c| c.eq_ignore_ascii_case(local))
}

/// Whether only `<image>` has children of this name.
fn is_of_picture(local: &str) -> bool {
    ["url", "width", "height"].iter().any(|c| c.eq_ignore_ascii_case(local))
}

fn local_name(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}
