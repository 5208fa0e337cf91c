//! A raw item to an item: plain text without markup, HTML sanitised, URLs absolute.

use news::{Author, DocumentPart, Enclosure, Item, ItemEvidence};
use url::Url;

use super::{Context, HtmlMode, RawItem};
use crate::{
    html::{
        first_image, has_lines, has_markup, may_be_markup, paragraphs, plain_text, plain_title, resolve,
        sanitise, web_url,
    },
    limits::{
        AUTHORS_MAX, CATEGORIES_MAX, CONTENT_BYTES_MAX, ENCLOSURES_MAX, GUID_BYTES_MAX, ITEM_WARNINGS_MAX,
        LINK_BYTES_MAX, SUMMARY_BYTES_MAX, TITLE_BYTES_MAX,
    },
    normalise::{FeedLink, FeedText},
    text::{escape, fold, is_folded, truncate, unescape},
};

/// Longest summary taken from the content, in bytes.
const EXCERPT_BYTES_MAX: usize = 500;
/// How much more than what is kept of a line is read, in bytes: a space and a character, which tell that it goes on.
const BEYOND_BYTES: usize = 8;

impl FeedText<'_> {
    /// A title as plain text on one line; not copied if it already is.
    fn into_title(self, bytes_max: usize) -> String {
        if self.value.len() <= bytes_max
            && is_folded(&self.value)
            && !(self.html && may_be_markup(&self.value))
        {
            self.value.into_owned()
        } else {
            self.title(bytes_max)
        }
    }

    /// A title as plain text on one line.
    pub(super) fn title(&self, bytes_max: usize) -> String {
        if self.html { plain_title(&self.value, bytes_max) } else { fold(&self.value, bytes_max) }
    }

    /// Plain text on one line.
    pub(super) fn line(&self, bytes_max: usize) -> String {
        if self.html { plain_text(&self.value, bytes_max) } else { fold(&self.value, bytes_max) }
    }

    fn as_html(&self) -> Option<&str> {
        Some(self.value.as_ref()).filter(|_| self.html)
    }

    /// Whether one line of plain text would not show it as it is.
    fn is_rich(&self) -> bool {
        self.may_exceed_summary() || self.as_html().is_some_and(has_markup) || has_lines(&self.value)
    }

    fn may_exceed_summary(&self) -> bool {
        self.value.len() > SUMMARY_BYTES_MAX
    }
}

/// The line, truncated to `bytes_max` with a warning if it is longer.
fn within(mut line: String, bytes_max: usize, what: &str, warnings: &mut Vec<String>) -> String {
    if line.len() > bytes_max {
        line.truncate(truncate(&line, bytes_max).trim_end().len());
        let warning = format!("the {what} was too long and was truncated");
        // An item may have many categories and authors that are too long.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    line
}

/// The first `max` of several, with a warning if there are more.
fn first<T>(
    all: Vec<T>,
    max: usize,
    what: &str,
    warnings: &mut Vec<String>,
) -> std::iter::Take<std::vec::IntoIter<T>> {
    if all.len() > max {
        warnings.push(format!("{what} after the first {max} were dropped"));
    }
    all.into_iter().take(max)
}

/// Makes the item.
pub(super) fn assemble(raw: RawItem<'_>, context: &Context<'_>) -> Item {
    let base = raw.base.as_deref().or(context.site);
    let content_base = raw.content_base.as_deref().or(base);
    let mut warnings = raw.warnings;
    let title = raw.title.map(|t| t.into_title(TITLE_BYTES_MAX + BEYOND_BYTES)).unwrap_or_default();
    let title = within(title, TITLE_BYTES_MAX, "title", &mut warnings);
    let guid = raw.guid.map(|g| fold(&g, GUID_BYTES_MAX + BEYOND_BYTES)).filter(|g| !g.is_empty());
    let guid = guid.map(|guid| within(guid, GUID_BYTES_MAX, "guid", &mut warnings));
    let link = link(&raw.links, guid.as_deref().filter(|_| raw.guid_is_link), base, &mut warnings);
    let mut summary = raw.summary.as_ref().map(|s| s.line(SUMMARY_BYTES_MAX)).unwrap_or_default();
    let body = body(raw.content.as_ref(), raw.summary.as_ref(), &mut warnings);
    let mut content_html = body
        .filter(|_| context.html == HtmlMode::Sanitise)
        .and_then(|text| content(text, content_base, &mut warnings));
    if summary.is_empty()
        && let Some(text) = raw.content.as_ref().or_else(|| raw.captions.first().map(|(_, text)| text))
    {
        summary = text.line(EXCERPT_BYTES_MAX);
    }
    if context.html == HtmlMode::Sanitise
        && let Some(captions) = captions(&raw.captions, base, &summary)
    {
        let content = content_html.take().or_else(|| paragraphs(&summary).0).unwrap_or_default();
        let has_room = content.len() + captions.len() <= CONTENT_BYTES_MAX;
        content_html = Some(if has_room { content + &captions } else { content });
        if !has_room {
            warnings.push("the captions of media were left out, because the content is too long".to_owned());
        }
    }
    let enclosures = enclosures(raw.enclosures, base, &mut warnings);
    let authors = authors(raw.authors, base, &mut warnings);
    let categories = categories(raw.categories, &mut warnings);
    let in_text = |text: &Option<FeedText<'_>>| first_image(text.as_ref()?.as_html()?, content_base);
    let image = raw
        .images
        .iter()
        .find_map(|i| web_url(i, base))
        .or_else(|| enclosures.iter().find(|e| is_image(e)).map(|e| e.url.clone()))
        .or_else(|| in_text(&raw.content))
        .or_else(|| in_text(&raw.summary));
    let comments = raw.comments.and_then(|comments| {
        let is_of_item = comments.trim().starts_with('#');
        let item = link.as_deref().filter(|_| is_of_item).and_then(|link| resolve(link, None));
        web_url(&comments, item.as_ref().or(base))
    });
    warnings.truncate(ITEM_WARNINGS_MAX);
    Item {
        key: String::new(),
        guid,
        title,
        link,
        summary,
        content_html,
        authors,
        categories,
        published: raw.published,
        updated: raw.updated,
        language: raw
            .language
            .or_else(|| context.language.map(str::to_owned))
            .map(|l| fold(&l, 64))
            .filter(|l| !l.is_empty()),
        image,
        enclosures,
        comments,
        warnings,
        evidence: ItemEvidence::default(),
        part: DocumentPart::default(),
    }
}

/// The first link that is an address; the guid if there is none, or if the link only counts readers.
fn link(
    links: &[String],
    guid: Option<&str>,
    base: Option<&Url>,
    warnings: &mut Vec<String>,
) -> Option<String> {
    let permalink = || {
        let is_address = |guid: &&str| ["http://", "https://", "www."].iter().any(|b| guid.starts_with(b));
        web_url(guid.filter(is_address)?, None)
    };
    let link = match links.iter().find_map(|l| web_url(l, base)) {
        Some(link) if counts_readers(&link) => permalink().or(Some(link)),
        Some(link) => Some(link),
        None => permalink(),
    };
    if link.is_none() && links.iter().any(|l| l.len() > LINK_BYTES_MAX) {
        warnings.push("the link was too long and was dropped".to_owned());
    }
    link
}

/// Whether the link leads through FeedBurner, which has hosts of its own or that of a publisher. The guid may be the
/// address that it leads to.
fn counts_readers(link: &str) -> bool {
    let host_and_path = link.split_once("://").map_or("", |(_, rest)| rest);
    let hosts = ["feedproxy.google.com/", "feeds.feedburner.com/", "feeds2.feedburner.com/"];
    hosts.iter().any(|host| host_and_path.starts_with(host))
        || host_and_path.split_once("/~r/").is_some_and(|(_, rest)| rest.contains("/~3/"))
}

/// The media with the words that describe them, as links; `None` if the summary has all that there is.
fn captions(captions: &[(String, FeedText<'_>)], base: Option<&Url>, summary: &str) -> Option<String> {
    let link = |(address, text): &(String, FeedText<'_>)| {
        let words = text.line(TITLE_BYTES_MAX);
        let address = web_url(address, base).filter(|_| !words.is_empty() && words != summary)?;
        Some(format!("<p><a href=\"{}\">{}</a></p>", escape(&address), escape(&words)))
    };
    sanitise(&captions.iter().filter_map(link).collect::<String>(), None).0
}

/// The text that `content_html` is made of: the content, or a summary that one line would not show as it is.
fn body<'t, 'a>(
    content: Option<&'t FeedText<'a>>,
    summary: Option<&'t FeedText<'a>>,
    warnings: &mut Vec<String>,
) -> Option<&'t FeedText<'a>> {
    match (content, summary) {
        // The content is an excerpt of a summary that has no room for all of its text.
        (Some(content), Some(summary))
            if summary.may_exceed_summary() && summary.value.len() > content.value.len() =>
        {
            warnings.push("the content was left out, because the summary is longer".to_owned());
            Some(summary)
        }
        _ => content.or(summary.filter(|s| s.is_rich())),
    }
}

fn content(text: &FeedText<'_>, base: Option<&Url>, warnings: &mut Vec<String>) -> Option<String> {
    let (safe, repairs) = match text.as_html() {
        // Sanitising plain text of that length would take several times its memory.
        Some(html) if (has_lines(html) || text.may_exceed_summary()) && !has_markup(html) => {
            paragraphs(&unescape(html))
        }
        Some(html) => sanitise(html, base),
        None => paragraphs(&text.value),
    };
    if repairs.truncated {
        warnings.push("the content was too long and was truncated".to_owned());
    }
    if repairs.flattened {
        warnings.push("the content was nested too deeply and was converted to plain text".to_owned());
    }
    safe
}

fn categories(raw: Vec<FeedText<'_>>, warnings: &mut Vec<String>) -> Vec<String> {
    let mut categories: Vec<String> = Vec::new();
    for text in first(raw, CATEGORIES_MAX, "categories", warnings) {
        let category = text.into_title(TITLE_BYTES_MAX + BEYOND_BYTES);
        let category = within(category, TITLE_BYTES_MAX, "category", warnings);
        if !category.is_empty() && !categories.contains(&category) {
            categories.push(category);
        }
    }
    categories
}

fn enclosures(raw: Vec<FeedLink>, base: Option<&Url>, warnings: &mut Vec<String>) -> Vec<Enclosure> {
    let mut enclosures: Vec<Enclosure> = Vec::new();
    for link in first(raw, ENCLOSURES_MAX, "enclosures", warnings) {
        let Some(url) = web_url(&link.href, base) else { continue };
        if enclosures.iter().any(|e| e.url == url) {
            continue;
        }
        enclosures.push(Enclosure {
            url,
            media_type: link.media_type.map(|t| fold(&t, 128)).filter(|t| !t.is_empty()),
            length: link.length.and_then(|l| l.trim().parse().ok()).filter(|l| *l > 0),
        });
    }
    enclosures
}

fn is_image(enclosure: &Enclosure) -> bool {
    enclosure.media_type.as_deref().is_some_and(|t| t.starts_with("image/"))
}

fn authors(raw: Vec<Author>, base: Option<&Url>, warnings: &mut Vec<String>) -> Vec<Author> {
    let mut authors: Vec<Author> = Vec::new();
    for author in first(raw, AUTHORS_MAX, "authors", warnings) {
        let mut clean = |s: Option<String>| {
            let line = fold(&s?, TITLE_BYTES_MAX + BEYOND_BYTES);
            Some(within(line, TITLE_BYTES_MAX, "author", warnings)).filter(|s| !s.is_empty())
        };
        let mut author = Author {
            name: clean(author.name),
            email: clean(author.email),
            url: author.url.and_then(|u| web_url(&u, base)),
        };
        if author.email.is_none()
            && let Some(text) = &author.name
        {
            let (name, email) = name_and_email(text);
            author.name = name;
            author.email = email;
        }
        let empty = author.name.is_none() && author.email.is_none() && author.url.is_none();
        if !empty && !authors.contains(&author) {
            authors.push(author);
        }
    }
    authors
}

/// `jane@example.org (Jane Doe)`, `Jane Doe <jane@example.org>`, `Jane Doe (jane@example.org)`, and either alone.
fn name_and_email(text: &str) -> (Option<String>, Option<String>) {
    let some = |s: &str| Some(s.trim().trim_matches('"').trim().to_owned()).filter(|s| !s.is_empty());
    let (outer, inner) = match text.find(['(', '<']) {
        Some(at) => (&text[..at], text[at + 1..].trim_end().trim_end_matches([')', '>'])),
        None => (text, ""),
    };
    let inner = inner.trim().trim_start_matches("mailto:");
    let outer_mail = outer.trim().trim_start_matches("mailto:");
    if is_email(outer_mail) {
        (some(inner), some(outer_mail))
    } else if is_email(inner) {
        (some(outer), some(inner))
    } else {
        (some(text), None)
    }
}

fn is_email(text: &str) -> bool {
    let text = text.trim();
    match text.split_once('@') {
        Some((user, host)) => {
            !user.is_empty() && host.len() > 2 && !text.contains(char::is_whitespace) && !host.contains('@')
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_an_address_are_accepted_in_either_order() {
        let pair = |n: &str, e: &str| (Some(n.to_owned()), Some(e.to_owned()));
        for text in [
            "j@x.org (Jane Doe)",
            "Jane Doe <j@x.org>",
            "Jane Doe (j@x.org)",
            "\"Jane Doe\" <mailto:j@x.org>",
        ] {
            assert_eq!(name_and_email(text), pair("Jane Doe", "j@x.org"), "{text}");
        }
        assert_eq!(name_and_email("j@x.org"), (None, Some("j@x.org".to_owned())));
        assert_eq!(name_and_email("Jane (the) Doe"), (Some("Jane (the) Doe".to_owned()), None));
    }
}
