//! Converts between OPML and the catalogue.
//!
//! Settings that OPML cannot express are attributes in our namespace, so that an import of an export restores them:
//! `id category country tags every timeout timeoutFirstByte fresh enabled paused pausedReason`, and every other key of a source in
//! the same spelling (`bodyBytesMax`, `headers` as a TOML table, `basicFile`, …). In lists of other programs, folders become
//! the category and tags, `text` or `title` the name, `language` the language.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use feed::opml::{Attributes, Opml, Outline};
use news::{
    Access, Catalogue, FeedUrl, Pause, ProxyChoice, Source, SourceId, Timestamp, without_feed_scheme,
};
use notation::{Complaint, Complaints, parse_duration, write_duration};

use crate::{
    known::{KnownFeeds, address_key},
    lists::ListedFeeds,
};

/// Our XML namespace.
const NAMESPACE: &str = "urn:newswire:opml";
/// Endings of the names of query parameters with secret values, in lower case.
const SECRET_ENDINGS: [&str; 8] =
    ["token", "key", "secret", "password", "passwd", "signature", "session", "sessionid"];
/// Whole last words of such names.
const SECRET_WORDS: [&str; 6] = ["sid", "sig", "pass", "pwd", "auth", "hash"];
/// A value of letters and digits of at least this length is taken for a key, unless its name says that it is an id, in
/// bytes.
const SECRET_BYTES_MIN: usize = 20;

/// What an import would do, given the existing sources.
#[derive(Debug, Default)]
pub struct ImportPlan {
    /// The feeds to add, in the order of the list.
    pub added: Vec<PlannedSource>,
    /// What is there already.
    pub known: Vec<KnownOutline>,
    /// What cannot be imported, by line.
    pub refused: Vec<RefusedOutline>,
}

/// A source to add.
#[derive(Debug)]
pub struct PlannedSource {
    /// Its line, from 1.
    pub line: usize,
    /// The source, with an unused id.
    pub source: Source,
    /// The pause to set once it is added.
    pub paused: Option<ImportedPause>,
}

/// A line whose source is there already.
#[derive(Debug)]
pub struct KnownOutline {
    /// The line, from 1.
    pub line: usize,
    /// Its address.
    pub url: FeedUrl,
    /// The source that it is.
    pub id: SourceId,
}

/// A pause in the OPML.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImportedPause {
    /// When it ends by itself; `None` if only an order ends it.
    pub until: Option<Timestamp>,
    /// The reason that the operator gave.
    pub reason: Option<String>,
}

/// A line that is not imported.
#[derive(Debug)]
pub struct RefusedOutline {
    /// Its line, from 1.
    pub line: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Why not, in one sentence.
    pub reason: String,
}

impl RefusedOutline {
    /// Which outline it is, and why it is not imported.
    #[must_use]
    pub fn described(&self) -> String {
        match &self.name {
            Some(name) => format!("{name}: {}", self.reason),
            None => self.reason.clone(),
        }
    }
}

/// Plans an import; `category` overrides the categories of the list. Keys about requests, such as files with credentials
/// and proxies, are ignored: a foreign list must not choose them.
#[must_use]
pub fn plan(opml: &Opml, catalogue: &Catalogue, category: Option<&str>) -> ImportPlan {
    plan_as(opml, catalogue, category, None)
}

/// The same with every key, for a list of the operator's own. What has no id of its own takes that of the feed in `lists`,
/// which it replaces.
#[must_use]
pub fn plan_with_requests(
    opml: &Opml,
    catalogue: &Catalogue,
    category: Option<&str>,
    lists: &ListedFeeds,
) -> ImportPlan {
    plan_as(opml, catalogue, category, Some(lists))
}

fn plan_as(
    opml: &Opml,
    catalogue: &Catalogue,
    category: Option<&str>,
    lists: Option<&ListedFeeds>,
) -> ImportPlan {
    let (prefix, known) = (prefix(&opml.root), KnownFeeds::new(catalogue));
    let by_id = catalogue.sources.iter().map(|source| (source.id.as_str(), source)).collect();
    let mut planner = Planner { prefix, category, listed: known.clone(), by_id, known, lists };
    let mut plan = ImportPlan::default();
    for (line, reason) in &opml.faults {
        plan.refused.push(RefusedOutline { line: *line, name: None, reason: reason.clone() });
    }
    for outline in &opml.feeds {
        planner.add(outline, &mut plan);
    }
    plan.refused.sort_by_key(|refused| refused.line);
    plan
}

/// The prefix that the list declares for our namespace.
fn prefix(root: &Attributes) -> String {
    let ours = root.iter().find(|(_, value)| *value == NAMESPACE);
    ours.and_then(|(name, _)| name.strip_prefix("xmlns:")).unwrap_or("newswire").to_owned()
}

/// A category or tag of any letters; `None` if none are left.
fn word(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let words = text.split(|c| !is_part(c)).filter(|word| !word.is_empty());
    let word = words.collect::<Vec<_>>().join("-").to_lowercase();
    let word = word[..word.floor_char_boundary(Catalogue::WORD_BYTES_MAX)].trim_end_matches('-');
    // The lower case of some letters contains marks that are not letters.
    (!word.is_empty() && word.chars().all(|c| is_part(c) || c == '-')).then(|| word.to_owned())
}

/// A name that the catalogue accepts: one line, not too long, and as in the title of a feed without characters that control
/// a terminal or reorder a line.
#[must_use]
pub fn name(text: &str) -> Option<String> {
    let line = feed::drop_forbidden(text.replace(char::is_control, " ").into());
    let line = line.trim();
    let name = line[..line.floor_char_boundary(Catalogue::TEXT_BYTES_MAX)].trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

/// A language tag that the catalogue accepts: `EN-us` becomes `en-us`; `English` is `None`.
#[must_use]
pub fn language(text: &str) -> Option<String> {
    let text = text.trim().replace('_', "-");
    let (first, rest) = text.split_at(text.find('-').unwrap_or(text.len()));
    let first = first.to_ascii_lowercase();
    let is_plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric());
    let fine = (2..=3).contains(&first.len())
        && first.bytes().all(|b| b.is_ascii_lowercase())
        && rest.split('-').skip(1).all(|part| (1..=8).contains(&part.len()) && is_plain(part));
    fine.then(|| format!("{first}{rest}"))
}

/// The first complaint of the catalogue about a source.
#[must_use]
pub fn complaint(source: &Source) -> Option<String> {
    let read =
        Catalogue::parse(&Catalogue { sources: vec![source.clone()], ..Catalogue::default() }.to_toml());
    read.err().map(first)
}

fn first(complaints: Complaints) -> String {
    let first = complaints.into_iter().next();
    first.map_or_else(String::new, |first| Complaint { line: None, ..first }.to_string())
}

/// Keys that an outline has in a form of their own.
const OWN_FORM: [&str; 12] = [
    "id",
    "url",
    "name",
    "category",
    "country",
    "language",
    "tags",
    "every",
    "timeout",
    "timeout_first_byte",
    "fresh",
    "enabled",
];
/// Other keys whose values are no strings.
const NO_STRINGS: [&str; 3] = ["body_bytes_max", "new_bytes_max", "headers"];

/// `basic_file` as an attribute: `basicFile`.
fn camel_case(key: &str) -> String {
    let mut words = key.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (initial, rest) = word.split_at(word.len().min(1));
        name += &initial.to_ascii_uppercase();
        name += rest;
    }
    name
}

/// The lines of a `[[source]]` for the attributes of all other keys.
fn more_keys(attributes: &Attributes, prefix: &str) -> Result<String, String> {
    let mut lines = String::new();
    for key in Catalogue::keys().filter(|key| !OWN_FORM.contains(key)) {
        let Some(text) = attributes.get(&format!("{prefix}:{}", camel_case(key))) else { continue };
        let value = if NO_STRINGS.contains(&key) {
            let table = format!("{key} = {text}").parse::<toml::Table>().ok();
            // Its text may be a secret.
            let value = table.filter(|table| table.len() == 1).and_then(|mut table| table.remove(key));
            value.ok_or_else(|| format!("{prefix}:{}: is not written as in TOML", camel_case(key)))?
        } else {
            toml::Value::String(text.to_owned())
        };
        writeln!(lines, "{key} = {value}").expect("writing to a String cannot fail");
    }
    Ok(lines)
}

/// The source with more lines of its table.
fn with_keys(source: Source, more: &str) -> Result<Source, String> {
    let text = Catalogue { sources: vec![source], ..Catalogue::default() }.to_toml() + more;
    let read = Catalogue::parse(&text).map_err(first)?;
    read.sources.into_iter().next().ok_or_else(|| "it is no source".to_owned())
}

/// Lines of a source, and the request settings among them.
#[derive(Default)]
struct MoreKeys {
    text: String,
    access: Access,
}

struct Planner<'a> {
    prefix: String,
    category: Option<&'a str>,
    /// Those of the catalogue.
    listed: KnownFeeds,
    by_id: HashMap<&'a str, &'a Source>,
    /// The same, and those that are added.
    known: KnownFeeds,
    /// Feeds of lists. `None`: keys about requests are ignored.
    lists: Option<&'a ListedFeeds>,
}

impl Planner<'_> {
    fn add(&mut self, outline: &Outline, plan: &mut ImportPlan) {
        let (line, attributes) = (outline.line, &outline.attributes);
        let name = attributes.get("text").or(attributes.get("title")).and_then(self::name);
        let mut refuse =
            |reason: String| plan.refused.push(RefusedOutline { line, name: name.clone(), reason });
        let url = match address(attributes) {
            Ok(url) => url,
            Err(reason) => return refuse(reason),
        };
        let more = match self.more_keys(attributes, &url) {
            Ok(more) => more,
            Err(reason) => return refuse(reason),
        };
        if let Some(id) = self.known_as(attributes, &url, &more.access) {
            return plan.known.push(KnownOutline { line, url, id: id.clone() });
        }
        let read = self
            .source(outline, url, name.clone())
            .and_then(|(source, paused)| Ok((with_keys(source, &more.text)?, paused)));
        let (source, paused) = match read {
            Ok(read) => read,
            Err(reason) => return refuse(reason),
        };
        self.known.insert(&source);
        plan.added.push(PlannedSource { line, source, paused });
    }

    /// The keys without a form of their own.
    fn more_keys(&self, attributes: &Attributes, url: &FeedUrl) -> Result<MoreKeys, String> {
        let text = if self.lists.is_some() { more_keys(attributes, &self.prefix)? } else { String::new() };
        if text.is_empty() {
            return Ok(MoreKeys::default());
        }
        let any_id = SourceId::try_new("feed").map_err(|bad| bad.to_string())?;
        let access = with_keys(Source::new(any_id, url.clone()), &text)?.access;
        Ok(MoreKeys { text, access })
    }

    /// The source that an outline is: the one with its address and its request settings. Without settings it is also
    ///
    /// * one of the catalogue with its address, if the list is of another program, which knows no settings;
    /// * the one with its id, if it is what an export without secrets has of it.
    fn known_as(&self, attributes: &Attributes, url: &FeedUrl, access: &Access) -> Option<&SourceId> {
        if let Some(id) = self.known.request(url, access) {
            return Some(id);
        }
        let Some(id) = attributes.get(&format!("{}:id", self.prefix)) else {
            return self.listed.feed(url).filter(|_| *access == Access::default());
        };
        let source = self.by_id.get(id)?;
        let shown = without_secrets(source).0;
        (address_key(&shown.url) == address_key(url) && shown.access == *access).then_some(&source.id)
    }

    fn source(
        &mut self,
        outline: &Outline,
        url: FeedUrl,
        name: Option<String>,
    ) -> Result<(Source, Option<ImportedPause>), String> {
        let attributes = &outline.attributes;
        let prefix = self.prefix.clone();
        let ours = |name: &str| attributes.get(&format!("{prefix}:{name}"));
        let replaced = self.lists.and_then(|lists| lists.get(&url)).map(|feed| feed.id.as_str());
        let id = self.known.free_id(ours("id").or(replaced), name.as_deref(), &url);
        let mut source = Source::new(id, url);
        source.name = name.unwrap_or(source.name);
        let mut folders = outline.folders().into_iter().filter_map(word);
        let folder = folders.next();
        source.category = match (self.category, ours("category")) {
            (Some(category), _) | (None, Some(category)) => category.to_owned(),
            (None, None) => folder.unwrap_or_else(|| Source::CATEGORY_DEFAULT.to_owned()),
        };
        source.country = ours("country").map(str::to_owned);
        source.language = attributes.get("language").and_then(language);
        let others = attributes.get("category").unwrap_or_default().split(',').filter_map(word);
        source.tags = match ours("tags") {
            Some(tags) => tags.split(',').map(|tag| tag.trim().to_owned()).collect(),
            None => distinct(folders.chain(others).filter(|tag| *tag != source.category)),
        };
        for (name, field) in [
            ("every", &mut source.every),
            ("timeout", &mut source.timeout),
            ("timeoutFirstByte", &mut source.timeout_first_byte),
        ] {
            let duration = ours(name).map(parse_duration).transpose();
            *field = duration.map_err(|bad| format!("{prefix}:{name}: {bad}"))?;
        }
        source.ignores_freshness = ours("fresh") == Some("ignore");
        source.enabled = ours("enabled") != Some("false");
        let reason = || ours("pausedReason").map(str::to_owned);
        let paused = ours("paused").filter(|paused| *paused != "false");
        Ok((source, paused.map(|until| ImportedPause { until: until.parse().ok(), reason: reason() })))
    }
}

/// The URL of the feed, also in the forms `feed:https://…` and `feed://…` of some programs.
fn address(attributes: &Attributes) -> Result<FeedUrl, String> {
    let Some(url) = attributes.get("xmlUrl") else {
        return Err(match attributes.get("type") {
            Some("include") => "includes are not followed; import that list itself".to_owned(),
            _ => "no xmlUrl".to_owned(),
        });
    };
    let rest = without_feed_scheme(url);
    let url = if rest.starts_with("//") { format!("http:{rest}") } else { rest.to_owned() };
    // Without the query, which may contain a key.
    FeedUrl::try_new(&url)
        .map_err(|bad| format!("{}: {bad}", news::Escaped(url.split('?').next().unwrap_or(&url))))
}

fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    words.filter(|word| seen.insert(word.clone())).take(Catalogue::TAGS_MAX).collect()
}

/// What an export does not have of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The source.
    pub id: SourceId,
    /// Secrets, by what they are.
    pub secrets: Vec<&'static str>,
    /// Keys that name files: the names are exported, but not what is in the files.
    pub files: Vec<&'static str>,
    /// An earlier source of the export that has the same address and the same request settings there: an import adds that
    /// one only.
    pub same_as: Option<SourceId>,
}

impl LeftOut {
    fn is_told(&self) -> bool {
        !self.secrets.is_empty() || !self.files.is_empty() || self.same_as.is_some()
    }
}

/// The catalogue as OPML, and what it does not have.
#[must_use]
pub fn write(
    catalogue: &Catalogue,
    pauses: &HashMap<SourceId, Pause>,
    with_secrets: bool,
) -> (String, Vec<LeftOut>) {
    let mut folders: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in &catalogue.sources {
        folders.entry(&source.category).or_default().push(source);
    }
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<opml version=\"2.0\" xmlns:newswire=\"{NAMESPACE}\">\n  \
         <head>\n    <title>newswire</title>\n  </head>\n  <body>\n"
    );
    let (mut all_left_out, mut exported) = (Vec::new(), KnownFeeds::default());
    for (category, sources) in folders {
        writeln!(out, "    <outline{}>", attribute("text", category))
            .expect("writing to a String cannot fail");
        for source in sources {
            let (shown, secrets) =
                if with_secrets { (source.clone(), Vec::new()) } else { without_secrets(source) };
            let files = source.access.keys().into_iter().filter(|key| key.ends_with("_file")).collect();
            let same_as = exported.request(&shown.url, &shown.access).cloned();
            exported.insert(&shown);
            write_outline(&mut out, &shown, pauses.get(&source.id));
            let left_out = LeftOut { id: source.id.clone(), secrets, files, same_as };
            if left_out.is_told() {
                all_left_out.push(left_out);
            }
        }
        out.push_str("    </outline>\n");
    }
    out.push_str("  </body>\n</opml>\n");
    (out, all_left_out)
}

/// The keys of a source, as the list of sources has them.
#[must_use]
pub fn keys(source: &Source) -> toml::Table {
    let text = Catalogue { sources: vec![source.clone()], ..Catalogue::default() }.to_toml();
    let mut document = text.parse::<toml::Table>().unwrap_or_default();
    let source = document.get_mut("source").and_then(|list| list.get_mut(0));
    source.and_then(toml::Value::as_table_mut).map(std::mem::take).unwrap_or_default()
}

/// Those without a form of their own, and their values.
fn other_keys(source: &Source) -> Vec<(String, String)> {
    let others = keys(source).into_iter().filter(|(key, _)| !OWN_FORM.contains(&key.as_str()));
    others
        .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

fn write_outline(out: &mut String, source: &Source, pause: Option<&Pause>) {
    let mut outline = String::from("      <outline type=\"rss\"");
    let mut put = |name: &str, value: &str| outline.push_str(&attribute(name, value));
    put("text", &source.name);
    put("title", &source.name);
    put("xmlUrl", source.url.secret().as_str());
    if let Some(language) = &source.language {
        put("language", language);
    }
    let tags = source.tags.join(",");
    if !tags.is_empty() {
        put("category", &tags);
        put("newswire:tags", &tags);
    }
    put("newswire:id", source.id.as_str());
    put("newswire:category", &source.category);
    if let Some(country) = &source.country {
        put("newswire:country", country);
    }
    let durations = [
        ("newswire:every", source.every),
        ("newswire:timeout", source.timeout),
        ("newswire:timeoutFirstByte", source.timeout_first_byte),
    ];
    for (name, duration) in durations {
        if let Some(duration) = duration {
            put(name, &write_duration(duration));
        }
    }
    for (key, value) in other_keys(source) {
        put(&format!("newswire:{}", camel_case(&key)), &value);
    }
    if source.ignores_freshness {
        put("newswire:fresh", "ignore");
    }
    if !source.enabled {
        put("newswire:enabled", "false");
    }
    if let Some(pause) = pause {
        put("newswire:paused", &pause.until.map_or("true".to_owned(), |until| until.to_string()));
        if let Some(reason) = &pause.reason {
            put("newswire:pausedReason", reason);
        }
    }
    outline.push_str("/>\n");
    out.push_str(&outline);
}

fn attribute(name: &str, value: &str) -> String {
    let mut out = format!(" {name}=\"");
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The source without its secrets, and what these are.
fn without_secrets(source: &Source) -> (Source, Vec<&'static str>) {
    let (mut shown, mut secrets) = (source.clone(), Vec::new());
    if let Some(url) = source.url.without_secrets(is_secret) {
        shown.url = url;
        secrets.push("the secrets of its url");
    }
    if !shown.access.headers.is_empty() {
        shown.access.headers.clear();
        secrets.push("its headers");
    }
    if let Some(ProxyChoice::Via(proxy)) = &source.access.proxy
        && (!proxy.secret().username().is_empty() || proxy.secret().password().is_some())
    {
        shown.access.proxy = None;
        secrets.push("its proxy, which has a password");
    }
    (shown, secrets)
}

/// Whether a parameter of a query looks like a key.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let word = name.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let named = SECRET_ENDINGS.iter().any(|end| name.ends_with(end)) || SECRET_WORDS.contains(&word);
    let long = value.len() >= SECRET_BYTES_MIN && value.bytes().all(|b| b.is_ascii_alphanumeric());
    !value.is_empty() && (named || (long && word != "id"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use feed::opml::read_opml;
    use proptest::prelude::*;

    use super::*;

    fn import(text: &str, catalogue: &Catalogue) -> ImportPlan {
        plan_with_requests(&read_opml(text.as_bytes()).unwrap(), catalogue, None, &ListedFeeds::default())
    }

    fn list(outlines: &str) -> String {
        format!("<opml version='2.0'><body>\n{outlines}\n</body></opml>")
    }

    fn added(plan: ImportPlan) -> Catalogue {
        Catalogue {
            sources: plan.added.into_iter().map(|added| added.source).collect(),
            ..Catalogue::default()
        }
    }

    #[test]
    fn folders_titles_and_languages_of_other_programs_are_read() {
        let text = list(
            "<outline text='World News'><outline text='Às 8h'><outline title='  The\u{1} Äther &amp; Co. ' xmlUrl='https://www.example.org/feed' \
             language='EN_us' category='/Tech/Web,World News'/></outline></outline>\n\
             <outline xmlUrl='feed://example.org/b'/><outline text='新聞' xmlUrl='Feed:feed:https://example.com/c' language='unknown'/>",
        );
        let sources = added(import(&text, &Catalogue::default())).sources;
        let shown: Vec<_> = sources
            .iter()
            .map(|s| {
                (s.id.as_str(), s.name.as_str(), s.category.as_str(), s.tags.join(" "), s.language.as_deref())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("the-ther-co", "The  Äther & Co.", "world-news", "às-8h tech-web".to_owned(), Some("en-us")),
                ("example-org", "example-org", "general", String::new(), None),
                ("example-com", "新聞", "general", String::new(), None),
            ]
        );
    }

    #[test]
    fn an_existing_feed_is_not_added_again_however_its_url_is_written() {
        let text = list(
            "<outline text='a' xmlUrl='http://Example.org:80/f'/>\n<outline text='b' xmlUrl='https://example.org/f?#x'/>",
        );
        let first = import(&text, &Catalogue::default());
        assert_eq!((first.added.len(), first.known.len()), (1, 1));
        let again = import(&text, &added(first));
        assert_eq!((again.added.len(), again.known.len(), again.refused.len()), (0, 2, 0));
    }

    /// Sources with one address and other keys.
    fn three_keys() -> Catalogue {
        let one = |id: &str, more: &str| {
            format!("[[source]]\nid = \"{id}\"\nurl = \"https://example.org/\"\n{more}\n")
        };
        let text = one("a", "headers = { X-K = \"1\" }")
            + &one("b", "headers = { X-K = \"2\" }")
            + &one("c", "")
            + &one("d", "user_agent = \"x/1\"")
            + &one("e", "basic_file = \"agency\"");
        Catalogue::parse(&text).unwrap()
    }

    #[test]
    fn sources_with_one_address_and_other_request_settings_are_different_sources() {
        let catalogue = three_keys();
        let (text, told) = write(&catalogue, &HashMap::new(), true);
        assert!(told.iter().all(|left_out| left_out.same_as.is_none()), "{told:?}");
        let empty = import(&text, &Catalogue::default());
        assert_eq!((empty.known.len(), empty.refused.len()), (0, 0), "{empty:?}");
        assert_eq!(added(empty), catalogue);
        // Whichever of them are there already.
        for present in 0..1 << catalogue.sources.len() {
            let has = |n: &usize| present >> n & 1 == 1;
            let of = |wanted: &dyn Fn(&usize) -> bool| {
                let sources = catalogue.sources.iter().enumerate().filter(|(n, _)| wanted(n));
                let sources = sources.map(|(_, source)| source.clone()).collect();
                Catalogue { sources, ..Catalogue::default() }
            };
            let plan = import(&text, &of(&has));
            let ids: Vec<_> = plan.known.iter().map(|known| known.id.clone()).collect();
            assert_eq!(ids, of(&has).sources.into_iter().map(|s| s.id).collect::<Vec<_>>());
            assert_eq!(added(plan), of(&|n| !has(n)));
        }
    }

    #[test]
    fn an_export_without_secrets_is_known_in_its_own_list_and_names_what_it_makes_the_same() {
        let mut catalogue = three_keys();
        let more = "[[source]]\nid = \"f\"\nurl = \"https://u:p@example.org/f?key=1\"\n\
                    [[source]]\nid = \"g\"\nurl = \"https://example.org/f?key=2\"\n\
                    proxy = \"http://u:p@proxy.example:3128\"\n";
        catalogue.sources.extend(Catalogue::parse(more).unwrap().sources);
        let (text, told) = write(&catalogue, &HashMap::new(), false);
        let same: Vec<_> = told
            .iter()
            .filter_map(|left_out| Some((left_out.id.as_str(), left_out.same_as.as_ref()?.as_str())))
            .collect();
        assert_eq!(same, [("b", "a"), ("c", "a"), ("g", "f")]);
        let again = import(&text, &catalogue);
        assert_eq!((again.added.len(), again.known.len(), again.refused.len()), (0, 7, 0), "{again:?}");
        let elsewhere = import(&text, &Catalogue::default());
        let known: Vec<_> = elsewhere.known.iter().map(|known| known.id.as_str()).collect();
        assert_eq!((elsewhere.added.len(), known), (4, vec!["a", "a", "f"]));
    }

    #[test]
    fn a_list_of_another_program_adds_no_feed_that_is_requested_with_settings_already() {
        let list = list("<outline text='x' xmlUrl='http://example.org/'/>");
        let mut catalogue = three_keys();
        catalogue.sources.remove(2);
        let plan = import(&list, &catalogue);
        assert_eq!((plan.added.len(), plan.known[0].id.as_str()), (0, "a"));
    }

    #[test]
    fn a_mistake_is_reported_with_its_line_and_affects_no_other_line() {
        let text = list(
            "<outline text='a' xmlUrl='ftp://example.org/?key=SECRET'/>\n<outline type='rss' text='b'/>\n\
             <outline text='c' xmlUrl='http://c.example/' newswire:every='often'/>\n\
             <outline text='d' xmlUrl='http://d.example/' newswire:country='Germany'/>\n\
             <outline type='include' url='http://e.example/list.opml'/>\n<outline text='f' xmlUrl='http://f.example/'/>",
        );
        let plan = import(&text, &Catalogue::default());
        let lines: Vec<_> = plan.refused.iter().map(|r| r.line).collect();
        assert_eq!((lines, plan.added.len()), (vec![2, 3, 4, 5, 6], 1), "{:?}", plan.refused);
        assert!(!format!("{:?}", plan.refused).contains("SECRET"));
        assert!(plan.refused[3].reason.contains("country"));
    }

    #[test]
    fn an_interval_may_be_written_in_several_units() {
        let text = list("<outline text='a' xmlUrl='http://a.example/' newswire:every='1h30m'/>");
        let plan = import(&text, &Catalogue::default());
        assert_eq!(plan.added[0].source.every, Some(Duration::from_secs(5_400)));
    }

    #[test]
    fn ids_are_unique_and_the_same_each_time() {
        let outlines: String = (0..300)
            .map(|n| format!("<outline text='{}' xmlUrl='http://a.example/{n}'/>", "News ".repeat(20)))
            .collect();
        let once = added(import(&list(&outlines), &Catalogue::default()));
        assert_eq!(once, added(import(&list(&outlines), &Catalogue::default())));
        let ids: HashSet<_> = once.sources.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids.len(), 300);
        assert!(Catalogue::parse(&once.to_toml()).is_ok());
    }

    #[test]
    fn secrets_are_not_exported_unless_requested() {
        let text = "[[source]]\nid = \"a\"\nurl = \"https://u:p@example.org/f?page=2&api_key=SECRET&x=0123456789abcdefghij\"\n\
                    [[source]]\nid = \"b\"\nurl = \"https://example.org/?keywords=a&author=b&channel_id=UC0123456789abcdefghijkl\"\n";
        let catalogue = Catalogue::parse(text).unwrap();
        let (list, stripped) = write(&catalogue, &HashMap::new(), false);
        assert!(list.contains("\"https://example.org/f?page=2\"") && list.contains("_id=UC0123"), "{list}");
        assert_eq!(stripped.len(), 1);
        assert_eq!(
            (stripped[0].id.as_str(), &stripped[0].secrets[..]),
            ("a", &["the secrets of its url"][..])
        );
        let (list, stripped) = write(&catalogue, &HashMap::new(), true);
        assert!(list.contains("SECRET") && stripped.is_empty());
    }

    #[test]
    fn secrets_of_a_long_address_are_not_exported_and_the_rest_stays_as_it_is() {
        let filter = format!("filter={}", "a,".repeat(700));
        let path = "ж".repeat(330);
        let text = format!(
            "[[source]]\nid = \"a\"\nurl = \"https://example.org/?{filter}&api_key=SECRET\"\n\
             [[source]]\nid = \"b\"\nurl = \"https://SECRET:SECRET@example.org/{path}\"\n"
        );
        let catalogue = Catalogue::parse(&text).unwrap();
        let (list, left_out) = write(&catalogue, &HashMap::new(), false);
        assert!(!list.contains("SECRET"), "{list}");
        assert!(list.contains(&format!("\"https://example.org/?{filter}\"")), "{list}");
        let told: Vec<_> =
            left_out.iter().map(|left_out| (left_out.id.as_str(), &left_out.secrets[..])).collect();
        let secrets = &["the secrets of its url"][..];
        assert_eq!(told, [("a", secrets), ("b", secrets)]);
        // What no export could name is refused as the address of a source.
        let longer = text.replace(&path, &"ж".repeat(600));
        let complaints = Catalogue::parse(&longer).unwrap_err().to_string();
        assert!(complaints.contains("at most 2048 bytes") && !complaints.contains("SECRET"), "{complaints}");
    }

    #[test]
    fn an_export_without_secrets_names_what_it_left_out() {
        let text = "[[source]]\nid = \"a\"\nurl = \"https://example.org/\"\nbasic_file = \"agency\"\n\
                    headers = { X-Key = \"SECRET\" }\nproxy = \"http://u:SECRET@proxy.example:3128\"\nuser_agent = \"x/1\"\n\
                    [[source]]\nid = \"b\"\nurl = \"https://example.org/b\"\nproxy = \"http://proxy.example:3128\"\n";
        let catalogue = Catalogue::parse(text).unwrap();
        let (list, left_out) = write(&catalogue, &HashMap::new(), false);
        assert!(!list.contains("SECRET") && list.contains("newswire:basicFile=\"agency\""), "{list}");
        assert_eq!(list.matches("newswire:proxy=").count(), 1);
        let secrets = vec!["its headers", "its proxy, which has a password"];
        let id = SourceId::try_new("a").unwrap();
        assert_eq!(left_out, [LeftOut { id, secrets, files: vec!["basic_file"], same_as: None }]);
    }

    #[test]
    fn a_foreign_list_chooses_no_files_and_no_proxy() {
        let text = list(
            "<outline text='a' xmlUrl='http://a.example/' newswire:basicFile='/etc/shadow' newswire:every='1h' \
             newswire:proxy='http://proxy.example:1' newswire:headers='{ a = \"b\" }'/>",
        );
        let opml = read_opml(text.as_bytes()).unwrap();
        let source = &plan(&opml, &Catalogue::default(), None).added[0].source;
        assert_eq!((source.access.keys(), source.every), (Vec::new(), Some(Duration::from_secs(3600))));
        let own = plan_with_requests(&opml, &Catalogue::default(), None, &ListedFeeds::default());
        assert_eq!(own.added[0].source.access.keys(), ["headers", "basic_file", "proxy"]);
        let wrong = list("<outline xmlUrl='http://a.example/' newswire:headers='{}&#10;id = \"b\"'/>");
        assert_eq!(import(&wrong, &Catalogue::default()).refused.len(), 1);
    }

    #[test]
    fn a_pause_is_exported_and_imported_with_its_source() {
        let catalogue =
            added(import(&list("<outline text='a' xmlUrl='http://a.example/'/>"), &Catalogue::default()));
        let until = Timestamp::from_millis(1_900_000_000_000);
        let pause =
            Pause { since: Timestamp::from_millis(0), until: Some(until), reason: Some("\"a\" & b".into()) };
        let (text, _) = write(&catalogue, &HashMap::from([(catalogue.sources[0].id.clone(), pause)]), true);
        let plan = import(&text, &Catalogue::default());
        let reason = Some("\"a\" & b".to_owned());
        assert_eq!(plan.added[0].paused, Some(ImportedPause { until: Some(until), reason }));
    }

    /// Real lists, if the environment names a directory with them.
    #[test]
    fn every_feed_of_every_list_of_the_corpus_is_imported() {
        let Some(folder) = std::env::var_os("NEWSWIRE_CORPUS") else {
            println!("SKIPPED: NEWSWIRE_CORPUS names no folder with the corpus");
            return;
        };
        let folder = std::path::Path::new(&folder).join("opml");
        let mut lists = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "opml") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let plan = plan(&read_opml(&bytes).unwrap(), &Catalogue::default(), None);
            let feeds = String::from_utf8_lossy(&bytes).matches("xmlUrl").count();
            assert!(feeds > 0 && plan.refused.is_empty(), "{}: {:?}", path.display(), plan.refused);
            assert_eq!(plan.added.len() + plan.known.len(), feeds, "{}", path.display());
            lists += 1;
        }
        assert!(lists > 0);
    }

    /// Lines of a source about its requests, each with odd characters.
    fn any_request() -> impl Strategy<Value = String> {
        let quoted = |text: String| toml::Value::String(text).to_string();
        let option = |key: &'static str, value: &'static str| {
            let line = move |value: String| format!("{key} = {}\n", quoted(value));
            proptest::option::of(value.prop_map(line)).prop_map(Option::unwrap_or_default)
        };
        let header = move |n: usize, value: String| format!("\"X-{n}.y\" = {}", quoted(value));
        let headers = proptest::collection::vec("[!-~]([ -~]{0,100}[!-~])?", 0..4).prop_map(move |values| {
            let all: Vec<_> = values.into_iter().enumerate().map(|(n, value)| header(n, value)).collect();
            if all.is_empty() { String::new() } else { format!("headers = {{ {} }}\n", all.join(", ")) }
        });
        let bytes = proptest::option::of(1024_u32..=33_554_432);
        let bytes = bytes.prop_map(|n| n.map_or(String::new(), |n| format!("body_bytes_max = {n}\n")));
        let path = "[!-~é]([ -~é]{0,20}[!-~é])?";
        let credential = prop_oneof![option("basic_file", path), option("bearer_file", path)];
        let proxy = option("proxy", "http://[a-z]{1,5}:[a-z%]{1,5}@proxy\\.example:[1-9][0-9]{0,3}");
        let files = (option("cookie_file", path), option("tls_ca_file", path));
        let agent = option("user_agent", "[!-~]([ -~]{0,40}[!-~])?");
        (headers, bytes, credential, proxy, files, agent).prop_map(
            |(headers, bytes, credential, proxy, files, agent)| {
                [headers, bytes, credential, proxy, files.0, files.1, agent].concat()
            },
        )
    }

    fn any_source() -> impl Strategy<Value = Source> {
        let text = "[^\\p{Cc}]{1,30}".prop_filter("a name is not empty", |s: &String| !s.trim().is_empty());
        let word = "[\\p{L}0-9_.-]{1,10}";
        let seconds = || proptest::option::of((1_u64..300_000).prop_map(Duration::from_millis));
        (
            (text, word, proptest::collection::vec(word, 0..4), proptest::option::of("[A-Z]{2}")),
            (proptest::option::of("[a-z]{2,3}(-[A-Za-z0-9]{1,8}){0,2}"), any::<bool>(), any::<bool>()),
            [seconds(), seconds(), seconds()],
            "[a-z0-9/?=&%;\"'<>é ]{0,20}",
            any_request(),
        )
            .prop_map(
                |(
                    (name, category, tags, country),
                    (language, enabled, ignores_freshness),
                    durations,
                    path,
                    more,
                )| {
                    let id = SourceId::try_new("x").unwrap();
                    // A source has one credential.
                    let has_file = more.contains("basic_file") || more.contains("bearer_file");
                    let user = if has_file { "" } else { "u:p@" };
                    let mut source = Source::new(
                        id,
                        FeedUrl::try_new(&format!("https://{user}example.org/{path}")).unwrap(),
                    );
                    let least = |d: Duration| d.max(Duration::from_secs(1));
                    let [every, timeout, first_byte] = durations.map(|duration| duration.map(least));
                    let name = feed::drop_forbidden(name.into());
                    (source.name, source.category, source.tags) = (name.trim().to_owned(), category, tags);
                    (source.country, source.language, source.enabled) = (country, language, enabled);
                    source.ignores_freshness = ignores_freshness;
                    (source.every, source.timeout, source.timeout_first_byte) = (every, timeout, first_byte);
                    let text =
                        Catalogue { sources: vec![source.clone()], ..Catalogue::default() }.to_toml() + &more;
                    match complaint(&source) {
                        None => Catalogue::parse(&text).unwrap().sources.remove(0),
                        Some(_) => source,
                    }
                },
            )
            .prop_filter("what the catalogue would take", |source| complaint(source).is_none())
    }

    #[test]
    fn no_key_of_a_source_is_lost_by_an_export_and_an_import() {
        let text = "[[source]]\nid = \"a\"\nurl = \"https://example.org/a\"\nname = \"A\"\ncategory = \"x\"\ncountry = \"GB\"\n\
                    language = \"en\"\ntags = [\"y\"]\nevery = \"1h\"\ntimeout = \"20s\"\ntimeout_first_byte = \"10s\"\n\
                    enabled = false\nfresh = \"ignore\"\nbody_bytes_max = 2048\nnew_bytes_max = 4096\n\
                    headers = { X-A = \"1\" }\nbasic_file = \"b\"\ncookie_file = \"c\"\n\
                    proxy = \"socks5://u:p@proxy.example:1080\"\nuser_agent = \"x/1\"\ntls_ca_file = \"ca.pem\"\n\
                    [[source]]\nid = \"b\"\nurl = \"https://example.org/b\"\nname = \"B\"\ncategory = \"x\"\n\
                    bearer_file = \"t\"\nproxy = \"direct\"\n";
        let missing: Vec<_> =
            Catalogue::keys().filter(|key| !text.contains(&format!("\n{key} = "))).collect();
        assert!(missing.is_empty(), "this test has no value for {missing:?}");
        let catalogue = Catalogue::parse(text).unwrap();
        let (exported, _) = write(&catalogue, &HashMap::new(), true);
        let plan = import(&exported, &Catalogue::default());
        assert!(plan.refused.is_empty(), "{:?}", plan.refused);
        assert_eq!(added(plan), catalogue);
    }

    proptest! {
        #[test]
        fn import_of_an_export_is_the_same_catalogue(sources in proptest::collection::vec(any_source(), 0..8)) {
            let mut sources = sources;
            for (n, source) in sources.iter_mut().enumerate() {
                source.id = SourceId::try_new(&format!("id-{n}")).unwrap();
                let url = format!("{}&n={n}", source.url.secret());
                source.url = FeedUrl::try_new(&url).unwrap();
            }
            let mut feeds = HashSet::new();
            sources.retain(|source| feeds.insert(address_key(&source.url)));
            let catalogue = Catalogue { sources, ..Catalogue::default() };
            let (text, _) = write(&catalogue, &HashMap::new(), true);
            let plan = import(&text, &Catalogue::default());
            prop_assert!(plan.refused.is_empty(), "{:?}", plan.refused);
            let mut back = added(plan);
            back.sources.sort_by_key(|source| source.id.clone());
            prop_assert_eq!(&back, &catalogue);
            prop_assert!(import(&text, &catalogue).added.is_empty(), "and a second time adds nothing");
        }
    }
}
