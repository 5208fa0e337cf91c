//! Lists of feeds that are read again and again (`[[list]]`): what a read makes of a document, whether its losses are
//! credible, and how the feeds become sources of the catalogue.
//!
//! ```text
//! document ─► read ─► doubt? ─► copy on disk ─► merge with the sources of the files ─► catalogue
//! ```
//!
//! Keys about requests are ignored, as in every foreign list.

mod copies;
mod left;
mod listed;

use std::{collections::HashSet, sync::Arc};

use feed::opml::Opml;
use news::{Catalogue, FeedList, ListMark, Source, SourceId};

pub use self::{
    copies::{ListCopies, ListMemory, LockedCopies},
    left::{LeftFeeds, LostFeeds},
    listed::{ListedFeed, ListedFeeds},
};
use crate::{known::KnownFeeds, opml};

/// From so many feeds on, a list that loses more than half of them is doubtful.
const DOUBTFUL_FEEDS_MIN: usize = 10;

/// What a document has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReading {
    /// Its feeds, with the ids that they had before.
    pub sources: Vec<Source>,
    /// Outlines that are no feed.
    pub refused: usize,
    /// The first of them, at most [`ListReading::SHOWN_MAX`]: each with its line and the reason.
    pub first_refused: Vec<(usize, String)>,
    /// The first fault of the document: its line, and what it is. Feeds may be missing because of it.
    pub fault: Option<(usize, String)>,
}

impl ListReading {
    /// Of so many outlines that are no feed it is said why.
    pub const SHOWN_MAX: usize = 10;

    /// Keeps what it has lost of `before`, behind its own feeds. Of new ones it has only as many as there is room for then.
    pub fn keep_lost(&mut self, before: &[Source]) {
        let had = KnownFeeds::of(before);
        let mut room = Catalogue::SOURCES_MAX.saturating_sub(before.len());
        self.sources.retain(|source| {
            let is_new = had.feed(&source.url).is_none();
            let fits = !is_new || room > 0;
            room = room.saturating_sub(usize::from(is_new));
            fits
        });
        let kept: Vec<_> = lost(before, &self.sources).cloned().collect();
        self.sources.extend(kept);
    }
}

/// Those of `before` whose feeds are not among `now`.
fn lost<'a>(before: &'a [Source], now: &[Source]) -> impl Iterator<Item = &'a Source> {
    let has = KnownFeeds::of(now);
    before.iter().filter(move |source| has.feed(&source.url).is_none())
}

/// Reads a document of a list whose sources were `before`, and from which others have `left`. Their categories are those of
/// the document: that of the list counts in [`merge`]. Blocks for a while if it is long.
#[must_use]
pub fn read(list: &FeedList, opml: &Opml, before: &[Source], left: &LeftFeeds) -> ListReading {
    let plan = opml::plan(opml, &Catalogue::default(), None);
    let mut known = KnownFeeds::of(before);
    known.reserve(left.ids().cloned());
    let left = left.by_address();
    let with_id = |planned: opml::PlannedSource| {
        let mut source = planned.source;
        match known.feed(&source.url) {
            Some(id) => source.id = id.clone(),
            None => {
                let its_own = left.get(&left::address_hash(&source.url)).filter(|id| !known.has_id(id));
                source.id = its_own.map(|id| SourceId::clone(id)).unwrap_or_else(|| {
                    known.free_id(Some(&id_within(&list.id, &source.id)), None, &source.url)
                });
                known.insert(&source);
            }
        }
        source
    };
    let sources = plan.added.into_iter().map(with_id).collect();
    let refused = plan.refused.len();
    let shown = plan.refused.into_iter().take(ListReading::SHOWN_MAX);
    let first_refused = shown.map(|refused| (refused.line, refused.described())).collect();
    ListReading { sources, refused, first_refused, fault: opml.faults.first().cloned() }
}

/// `LIST-ID`, cut to the length of an id.
fn id_within(list: &SourceId, id: &SourceId) -> String {
    let mut within = format!("{list}-{id}");
    within.truncate(SourceId::LENGTH_MAX);
    within
}

/// Why the losses of a reading are probably those of a fault, and which they are; `None` if they are not. `earlier` is what
/// was doubtful at the read before, which is still among `before`.
#[must_use]
pub fn doubt(before: &[Source], reading: &ListReading, earlier: &LostFeeds) -> Option<(String, LostFeeds)> {
    let mut addresses: Vec<_> =
        lost(before, &reading.sources).map(|source| left::address_hash(&source.url)).collect();
    addresses.sort_unstable();
    let (lost, all) = (addresses.len(), before.len());
    // What has come since the loss makes it no smaller.
    let had = if earlier.addresses.is_empty() { all } else { earlier.had.min(all) };
    let is_most = lost >= had || (had >= DOUBTFUL_FEEDS_MIN && 2 * lost > had);
    let why = match &reading.fault {
        _ if lost == 0 => return None,
        _ if lost == all => format!("it has none of its {all} feeds any more"),
        _ if is_most => format!("it has lost {lost} of its {all} feeds"),
        Some((line, fault)) => {
            format!("it has lost {lost} of its {all} feeds and is damaged: line {line}: {fault}")
        }
        None => return None,
    };
    Some((why, LostFeeds { had, addresses }))
}

/// A list and the sources that it has.
#[derive(Clone, Debug)]
pub struct ListedSources {
    /// What marks them.
    pub mark: Arc<ListMark>,
    /// That of all of them.
    pub category: Option<String>,
    /// All of them.
    pub sources: Vec<Source>,
    /// Those that it had.
    pub left: LeftFeeds,
}

/// What a merge made of the sources of one list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// They are in the catalogue.
    pub taken: usize,
    /// Their feeds were there already: of the files, or of an earlier list.
    pub known: usize,
    /// They are not in the catalogue, because it is full.
    pub left_out: usize,
}

/// The catalogue of the sources in its files and of lists. A feed of the files wins over one of a list, an earlier list over a
/// later one. An id that is in use is changed in the list, too, so that it stays; and a later list takes the id of a feed from
/// an earlier one, so that the feed keeps it when the earlier list loses it.
#[must_use]
pub fn merge(own: Vec<Source>, lists: &mut [ListedSources]) -> (Catalogue, Vec<MergeCounts>) {
    let mut catalogue = Catalogue { sources: own, ..Catalogue::default() };
    let mut known = KnownFeeds::of(&catalogue.sources);
    let own_ids: HashSet<_> = catalogue.sources.iter().map(|source| source.id.clone()).collect();
    for list in &*lists {
        known.reserve(list.sources.iter().map(|source| source.id.clone()));
        known.reserve(list.left.ids().cloned());
    }
    let mut all_counts = Vec::with_capacity(lists.len());
    for list in lists {
        let mut counts = MergeCounts::default();
        let mut ids: HashSet<_> = list.sources.iter().map(|source| source.id.clone()).collect();
        for source in &mut list.sources {
            if let Some(id) = known.feed(&source.url) {
                counts.known += 1;
                if !own_ids.contains(id) && ids.insert(id.clone()) {
                    source.id = id.clone();
                }
            } else if catalogue.sources.len() >= Catalogue::SOURCES_MAX {
                counts.left_out += 1;
            } else {
                if known.has_id(&source.id) {
                    source.id = known.free_id(Some(source.id.as_str()), None, &source.url);
                }
                known.insert(source);
                counts.taken += 1;
                let category = list.category.as_ref().unwrap_or(&source.category).clone();
                let list = Some(Arc::clone(&list.mark));
                catalogue.sources.push(Source { list, category, ..source.clone() });
            }
        }
        all_counts.push(counts);
    }
    (catalogue, all_counts)
}

#[cfg(test)]
mod tests {
    use feed::opml::{OpmlError, read_opml};
    use news::{FeedUrl, Timestamp};

    use super::*;

    fn read(
        list: &FeedList,
        document: &[u8],
        before: &[Source],
        left: &LeftFeeds,
    ) -> Result<ListReading, OpmlError> {
        Ok(super::read(list, &read_opml(document)?, before, left))
    }

    fn listed(list: &str, sources: Vec<Source>) -> ListedSources {
        let mark = Arc::new(ListMark { id: SourceId::try_new(list).unwrap(), is_trusted: false });
        ListedSources { mark, category: None, sources, left: LeftFeeds::default() }
    }

    fn list(keys: &str) -> FeedList {
        let text = format!("[[list]]\nid = \"planet\"\nurl = \"https://example.org/p.opml\"\n{keys}\n");
        Catalogue::parse(&text).unwrap().lists.remove(0)
    }

    fn document(feeds: &[(&str, &str)]) -> Vec<u8> {
        let outline = |(text, url): &(&str, &str)| format!("<outline text='{text}' xmlUrl='{url}'/>\n");
        let outlines: String = feeds.iter().map(outline).collect();
        format!("<opml version='2.0'><body><outline text='Tech'>\n{outlines}</outline></body></opml>").into()
    }

    fn numbered(count: usize) -> Vec<Source> {
        (0..count).map(|n| source(&format!("planet-{n}"), &format!("https://example.org/{n}"))).collect()
    }

    fn source(id: &str, url: &str) -> Source {
        Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(url).unwrap())
    }

    fn ids(sources: &[Source]) -> Vec<&str> {
        sources.iter().map(|source| source.id.as_str()).collect()
    }

    #[test]
    fn an_id_begins_with_that_of_the_list_and_stays_with_its_address() {
        let list = list("");
        let first = read(
            &list,
            &document(&[("News", "https://a.example/"), ("News", "https://b.example/")]),
            &[],
            &LeftFeeds::default(),
        );
        let first = first.unwrap().sources;
        assert_eq!(ids(&first), ["planet-news", "planet-news-2"]);
        assert_eq!(first[0].category, "tech");
        // Another name and another order, and a feed with a name that is in use.
        let text = document(&[
            ("News", "https://c.example/"),
            ("Other", "http://b.example/"),
            ("News", "https://a.example/#x"),
        ]);
        let second = read(&list, &text, &first, &LeftFeeds::default()).unwrap().sources;
        assert_eq!(ids(&second), ["planet-news-3", "planet-news-2", "planet-news"]);
        assert_eq!(second[1].name, "Other");
        let long = "long ".repeat(30);
        let text = document(&[(&long, "https://a.example/"), (&long, "https://b.example/")]);
        let long = read(&list, &text, &[], &LeftFeeds::default()).unwrap().sources;
        assert!(long.iter().all(|source| source.id.as_str().len() <= 64) && long[0].id != long[1].id);
    }

    #[test]
    fn an_id_stays_with_its_address_while_the_feed_is_away() {
        let list = list("");
        let (mut sources, mut left) = (Vec::new(), LeftFeeds::default());
        let mut read = |feeds: &[(&str, &str)]| {
            let reading = self::read(&list, &document(feeds), &sources, &left).unwrap().sources;
            let at = Timestamp::from_millis(0);
            left = serde_json::from_str(&serde_json::to_string(&left.after(&sources, &reading, at)).unwrap())
                .unwrap();
            sources = reading;
            ids(&sources).join(" ")
        };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|host| format!("https://{host}.example/"));
        assert_eq!(
            read(&[("News", &a), ("News", &b), ("News", &c), ("News", &d)]),
            "planet-news planet-news-2 planet-news-3 planet-news-4"
        );
        assert_eq!(read(&[("News", &c), ("News", &d)]), "planet-news-3 planet-news-4");
        // Another title, and a new feed with the title of one that is away.
        assert_eq!(
            read(&[("News", "https://x.example/"), ("News", &c), ("Other", "http://b.example/")]),
            "planet-news-5 planet-news-3 planet-news-2"
        );
        assert_eq!(read(&[("News", &b)]), "planet-news-2");
        assert_eq!(
            read(&[("News", &d), ("News", &c), ("News", &a), ("News", &b), ("News", "https://x.example/")]),
            "planet-news-4 planet-news-3 planet-news planet-news-2 planet-news-5"
        );
    }

    #[test]
    fn the_newest_of_the_feeds_that_have_left_are_remembered() {
        let at = Timestamp::from_millis(0);
        let older = LeftFeeds::default().after(&[source("older", "https://older.example/")], &[], at);
        assert_eq!(older.ids().count(), 1);
        let newer = older.after(&numbered(LeftFeeds::MAX), &[], at);
        assert_eq!(newer.ids().count(), LeftFeeds::MAX);
        assert!(newer.ids().all(|id| id.as_str() != "older"));
        // A draft of the copy may be lost: what has come back is remembered until the copy that has it is the old one.
        let back = [source("older", "http://older.example/")];
        let returned = older.after(&[], &back, at);
        assert_eq!(returned, older);
        assert_eq!(returned.after(&back, &back, at), LeftFeeds::default());
    }

    #[test]
    fn no_merge_hands_out_the_id_of_a_feed_that_has_left_or_comes_later() {
        let left = [source("planet-0-2", "https://left.example/")];
        let left = LeftFeeds::default().after(&left, &[], Timestamp::from_millis(0));
        let mut sources = numbered(1);
        sources.push(source("planet-0-3", "https://example.org/3"));
        let mut lists = [ListedSources { left, ..listed("planet", sources) }];
        let own = vec![source("planet-0", "https://example.org/own"), source("x", "https://example.org/3")];
        let (catalogue, _) = merge(own, &mut lists);
        assert_eq!(ids(&catalogue.sources), ["planet-0", "x", "planet-0-4"]);
        assert_eq!(ids(&lists[0].sources), ["planet-0-4", "planet-0-3"]);
    }

    #[test]
    fn a_feed_of_two_lists_keeps_its_id_when_the_first_loses_it() {
        let first = listed("first", vec![source("first-a", "https://example.org/a")]);
        let second = listed(
            "second",
            vec![source("second-a", "http://example.org/a"), source("second-b", "https://example.org/b")],
        );
        let own = || vec![source("mine", "https://example.org/b")];
        let mut lists = [first, second];
        let (catalogue, _) = merge(own(), &mut lists);
        assert_eq!(ids(&catalogue.sources), ["mine", "first-a"]);
        assert_eq!(
            ids(&lists[1].sources),
            ["first-a", "second-b"],
            "that of a source of the files is its own"
        );
        let (catalogue, _) = merge(own(), &mut lists[1..]);
        assert_eq!(ids(&catalogue.sources), ["mine", "first-a"]);
        lists.swap(0, 1);
        let (catalogue, _) = merge(own(), &mut lists);
        assert_eq!(ids(&catalogue.sources), ["mine", "first-a"]);
    }

    #[test]
    fn keys_about_requests_are_ignored_and_the_category_of_the_list_holds_in_the_catalogue_only() {
        let text = "<opml xmlns:newswire='urn:newswire:opml'><outline text='a' xmlUrl='https://a.example/' newswire:id='x' \
                    newswire:category='y' newswire:every='1h' newswire:basicFile='/etc/passwd' newswire:cookieFile='c' \
                    newswire:tlsCaFile='t' newswire:proxy='http://p.example' newswire:headers='{ X = \"y\" }' \
                    newswire:userAgent='u' newswire:bodyBytesMax='2000' newswire:newBytesMax='2000'/>\n\
                    <outline text='no feed' type='rss'/></opml>";
        let reading = read(&list("category = \"z\""), text.as_bytes(), &[], &LeftFeeds::default()).unwrap();
        let source = &reading.sources[0];
        assert_eq!((source.id.as_str(), source.category.as_str()), ("planet-x", "y"));
        assert_eq!(source.access, news::Access::default());
        assert_eq!((source.body_bytes_max, source.new_bytes_max), (None, None));
        let mut lists = [listed("planet", reading.sources.clone())];
        for (category, expected) in [(Some("z"), "z"), (None, "y")] {
            lists[0].category = category.map(str::to_owned);
            assert_eq!(merge(Vec::new(), &mut lists).0.sources[0].category, expected);
            assert_eq!(lists[0].sources, reading.sources, "the copy has that of the document");
        }
        assert_eq!((reading.refused, reading.first_refused), (1, vec![(2, "no feed: no xmlUrl".to_owned())]));
        assert!(read(&list(""), b"<html>Not found</html>", &[], &LeftFeeds::default()).is_err());
    }

    #[test]
    fn of_many_bad_outlines_the_first_ten_are_told_each_with_its_own_reason() {
        let mut text = "<opml xmlns:newswire='urn:newswire:opml'>\n".to_owned();
        for n in 2..=30 {
            let attributes = match n % 3 {
                0 => "xmlUrl='ftp://a.example/'".to_owned(),
                1 => format!("xmlUrl='https://{n}.example/' newswire:every='often'"),
                _ => format!("xmlUrl='https://{n}.example/' newswire:category='no word'"),
            };
            text += &format!("<outline text='{n}' {attributes}/>\n");
        }
        text += "<outline text='good' xmlUrl='https://good.example/'/></opml>";
        let reading = read(&list(""), text.as_bytes(), &[], &LeftFeeds::default()).unwrap();
        assert_eq!((reading.sources.len(), reading.refused), (1, 29));
        let lines: Vec<_> = reading.first_refused.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, (2..12).collect::<Vec<_>>());
        for (line, reason) in &reading.first_refused {
            let expected = ["ftp:", "newswire:every: ", "category"][line % 3];
            assert!(reason.starts_with(&format!("{line}: ")) && reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn the_name_of_an_outline_has_no_characters_that_reorder_or_control_a_line() {
        let text = "<opml><outline text='news\u{202e}gpj.exe\u{2066}x\u{9b}31m\u{1b}[2J\ty\u{2028}z\u{feff}' \
                    category='a\u{202e}b' xmlUrl='https://a.example/'/></opml>";
        let source = read(&list(""), text.as_bytes(), &[], &LeftFeeds::default()).unwrap().sources.remove(0);
        assert_eq!(source.name, "newsgpj.exex 31m [2J y z");
        assert_eq!(
            (source.id.as_str(), source.tags),
            ("planet-newsgpj-exex-31m-2j-y-z", vec!["a-b".to_owned()])
        );
        let folders = "<opml><outline text='w\u{202e}o\u{7}rld'><outline text='a' xmlUrl='https://a.example/'/></outline></opml>";
        let source =
            read(&list(""), folders.as_bytes(), &[], &LeftFeeds::default()).unwrap().sources.remove(0);
        assert_eq!(source.category, "w-o-rld");
    }

    #[test]
    fn a_loss_of_everything_of_most_or_in_a_damaged_document_is_doubtful() {
        let doubt = |had: usize, has: std::ops::Range<usize>, fault: Option<&str>| {
            let mut reading =
                ListReading { fault: fault.map(|fault| (3, fault.to_owned())), ..Default::default() };
            reading.sources =
                has.map(|n| source(&format!("x{n}"), &format!("http://example.org/{n}"))).collect();
            super::doubt(&numbered(had), &reading, &LostFeeds::default()).map(|(why, _)| why)
        };
        assert_eq!(doubt(10, 5..30, None), None, "half");
        assert_eq!(doubt(9, 8..9, None), None, "few feeds");
        assert_eq!(doubt(0, 0..0, None), None);
        assert_eq!(doubt(5, 0..9, Some("truncated")), None, "nothing is lost");
        assert_eq!(doubt(10, 6..30, None).unwrap(), "it has lost 6 of its 10 feeds");
        assert_eq!(doubt(3, 5..30, None).unwrap(), "it has none of its 3 feeds any more");
        assert_eq!(doubt(1, 0..0, None).unwrap(), "it has none of its 1 feeds any more");
        let damaged = doubt(4, 0..3, Some("truncated")).unwrap();
        assert_eq!(damaged, "it has lost 1 of its 4 feeds and is damaged: line 3: truncated");
    }

    /// Reads of a list of `before` that have these feeds, one after the other, each with the doubt about the one before and
    /// with what that one kept.
    fn doubts<const N: usize>(
        mut before: Vec<Source>,
        reads: [std::ops::Range<usize>; N],
    ) -> [Option<(String, bool)>; N] {
        let mut earlier = LostFeeds::default();
        reads.map(|feeds| {
            let mut reading = ListReading { sources: numbered(feeds.end), ..Default::default() };
            reading.sources.drain(..feeds.start);
            let doubt = doubt(&before, &reading, &earlier);
            if doubt.is_some() {
                reading.keep_lost(&before);
            }
            before = reading.sources;
            let (why, lost) = doubt.unzip();
            let lost = lost.unwrap_or_default();
            let is_within = lost.is_within(&earlier);
            earlier = lost;
            why.map(|why| (why, is_within))
        })
    }

    #[test]
    fn only_a_loss_that_was_doubtful_already_is_the_same() {
        let found = |why: &str, is_within| Some((why.to_owned(), is_within));
        assert_eq!(
            doubts(numbered(10), [6..10, 6..10, 0..0, 6..10, 0..4, 0..10]),
            [
                found("it has lost 6 of its 10 feeds", false),
                found("it has lost 6 of its 10 feeds", true),
                found("it has none of its 10 feeds any more", false),
                found("it has lost 6 of its 10 feeds", true),
                found("it has lost 6 of its 10 feeds", false),
                None,
            ]
        );
    }

    #[test]
    fn what_has_come_since_makes_a_loss_no_smaller() {
        let found = |why: &str, is_within| Some((why.to_owned(), is_within));
        assert_eq!(
            doubts(numbered(10), [6..40, 6..40, 5..40]),
            [
                found("it has lost 6 of its 10 feeds", false),
                found("it has lost 6 of its 40 feeds", true),
                None,
            ]
        );
        assert_eq!(
            doubts(numbered(3), [3..9, 3..9, 2..9]),
            [
                found("it has none of its 3 feeds any more", false),
                found("it has lost 3 of its 9 feeds", true),
                None,
            ]
        );
    }

    #[test]
    fn what_is_kept_is_no_more_than_a_catalogue_may_have() {
        let before = numbered(Catalogue::SOURCES_MAX - 2);
        let new = (0..5).map(|n| source(&format!("new-{n}"), &format!("https://b.example/{n}")));
        let mut reading = ListReading { sources: new.collect(), ..Default::default() };
        reading.sources.push(before[7].clone());
        reading.keep_lost(&before);
        assert_eq!(reading.sources.len(), Catalogue::SOURCES_MAX);
        assert_eq!(ids(&reading.sources[..4]), ["new-0", "new-1", "planet-7", "planet-0"]);
    }

    #[test]
    fn a_source_of_the_files_wins_and_an_id_in_use_is_changed_for_good() {
        let own =
            vec![source("own", "https://example.org/1"), source("planet-2", "https://example.org/other")];
        let mut lists =
            [listed("planet", numbered(4)), listed("later", vec![source("later-0", "http://example.org/0")])];
        let (catalogue, counts) = merge(own, &mut lists);
        assert_eq!(ids(&catalogue.sources), ["own", "planet-2", "planet-0", "planet-2-2", "planet-3"]);
        let marks = catalogue.sources.iter().map(|source| source.list.as_ref().map(|list| list.id.as_str()));
        assert_eq!(marks.collect::<Vec<_>>(), [None, None, Some("planet"), Some("planet"), Some("planet")]);
        assert_eq!(lists[0].sources[2].id.as_str(), "planet-2-2");
        let expected = [
            MergeCounts { taken: 3, known: 1, left_out: 0 },
            MergeCounts { taken: 0, known: 1, left_out: 0 },
        ];
        assert_eq!(counts, expected);
    }

    #[test]
    fn no_list_makes_the_catalogue_larger_than_it_may_be() {
        let mut own = numbered(Catalogue::SOURCES_MAX - 2);
        own.iter_mut()
            .for_each(|source| source.id = SourceId::try_new(&format!("own-{}", source.id)).unwrap());
        let sources =
            (0..5).map(|n| source(&format!("planet-{n}"), &format!("https://b.example/{n}"))).collect();
        let (catalogue, counts) = merge(own, &mut [listed("planet", sources)]);
        assert_eq!(catalogue.sources.len(), Catalogue::SOURCES_MAX);
        assert_eq!(counts, [MergeCounts { taken: 2, known: 0, left_out: 3 }]);
    }
}
