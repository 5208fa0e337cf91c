//! Feeds with more items than are kept of a document: what is added to them is sent, at whichever end it is, and what was
//! there is not.
#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, fmt::Write as _};

use news::{Item, Timestamp};
use seen::{Classification, ItemStatus, SeenSet};

/// An article of a feed, without a date if `day` is `None`.
#[derive(Clone, Copy, Debug)]
struct Article {
    n: usize,
    day: Option<i64>,
}

fn document(format: Format, articles: &VecDeque<Article>) -> Vec<Item> {
    let mut items = String::new();
    for Article { n, day } in articles {
        let link = format!("http://news.example/{n}");
        let date = day.map(|day| Timestamp::from_millis(1_700_000_000_000 + day * 86_400_000).to_string());
        let date = date.unwrap_or_default();
        match format {
            Format::Rss => {
                write!(items, "<item><guid>{link}</guid><link>{link}</link><title>Article {n}</title>")
                    .unwrap();
                if day.is_some() {
                    write!(items, "<pubDate>{date}</pubDate>").unwrap();
                }
                items.push_str("</item>");
            }
            Format::Json => {
                let comma = if items.is_empty() { "" } else { "," };
                let date = if date.is_empty() { date } else { format!(",\"date_published\":\"{date}\"") };
                write!(
                    items,
                    "{comma}{{\"id\":\"{link}\",\"url\":\"{link}\",\"title\":\"Article {n}\"{date}}}"
                )
                .unwrap();
            }
        }
    }
    let text = match format {
        Format::Rss => format!("<rss version=\"2.0\"><channel><title>Feed</title>{items}</channel></rss>"),
        Format::Json => {
            format!(
                "{{\"version\":\"https://jsonfeed.org/version/1.1\",\"title\":\"Feed\",\"items\":[{items}]}}"
            )
        }
    };
    seen::oldest_first(feed::read(text.as_bytes(), &feed::Hints::default()).unwrap().items)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Rss,
    Json,
}

struct Visits {
    format: Format,
    seen: SeenSet,
    at: i64,
}

impl Visits {
    fn new(format: Format) -> Self {
        Self { format, seen: SeenSet::default(), at: 1_800_000_000_000 }
    }

    fn visit(&mut self, articles: &VecDeque<Article>) -> Classification {
        self.at += 300_000;
        self.seen.classify(&document(self.format, articles), Timestamp::from_millis(self.at))
    }

    /// How many items a visit sends as new.
    fn new_items(&mut self, articles: &VecDeque<Article>) -> usize {
        self.visit(articles).count(ItemStatus::New)
    }
}

/// Feeds by which of their items have a date.
type Dates = fn(usize) -> Option<i64>;

const DATES: [(&str, Dates); 4] = [
    ("undated", |_| None),
    ("one dated", |n| (n == 700).then_some(700)),
    ("one undated", |n| (n != 700).then(|| i64::try_from(n).unwrap())),
    ("every third undated", |n| (!n.is_multiple_of(3)).then(|| i64::try_from(n).unwrap())),
];

fn articles(numbers: std::ops::Range<usize>, date: Dates) -> VecDeque<Article> {
    numbers.map(|n| Article { n, day: date(n) }).collect()
}

#[test]
fn an_item_that_is_added_at_the_end_of_a_long_feed_is_sent() {
    let kinds = DATES.map(|(what, date)| (what, date, Format::Rss, 1400));
    let json = ("undated JSON", DATES[0].1, Format::Json, 5000);
    for (what, date, format, count) in kinds.into_iter().chain([json]) {
        let mut feed = articles(0..count, date);
        let mut visits = Visits::new(format);
        assert_eq!(visits.new_items(&feed), 1000, "{what}");
        for added in [count..count + 1, count + 1..count + 104] {
            feed.extend(articles(added.clone(), date));
            assert_eq!(visits.new_items(&feed), added.len(), "{what}");
        }
        assert_eq!(visits.new_items(&feed), 0, "{what}");
    }
}

#[test]
fn an_item_after_more_than_are_read_of_a_document_is_sent() {
    let dated: Dates = |n| Some(i64::try_from(n).unwrap());
    for (what, date, format) in [("undated", DATES[0].1, Format::Rss), ("dated", dated, Format::Json)] {
        let mut feed = articles(0..11_500, date);
        let mut visits = Visits::new(format);
        assert_eq!(visits.new_items(&feed), 1000, "{what}");
        feed.extend(articles(11_500..11_503, date));
        assert_eq!(visits.new_items(&feed), 3, "{what}");
    }
}

#[test]
fn an_item_that_is_added_at_the_front_of_a_long_feed_is_sent_and_no_old_one() {
    for (what, date) in DATES {
        let mut feed: VecDeque<_> = articles(0..1400, date).into_iter().rev().collect();
        let mut visits = Visits::new(Format::Rss);
        assert_eq!(visits.new_items(&feed), 1000, "{what}");
        // It grows, then as many leave it at the other end.
        for (added, is_window) in [(1400..1401, false), (1401..1403, true), (1403..1503, true)] {
            for article in articles(added.clone(), date) {
                feed.push_front(article);
                if is_window {
                    feed.pop_back();
                }
            }
            let visit = visits.visit(&feed);
            assert_eq!(visit.count(ItemStatus::New), added.len(), "{what}");
            assert_eq!(visit.items.last().unwrap().status, ItemStatus::New, "{what}");
        }
        assert_eq!(visits.new_items(&feed), 0, "{what}");
    }
}

#[test]
fn items_that_leave_a_long_feed_at_the_front_bring_no_old_ones() {
    let mut feed = articles(0..1400, |_| None);
    let mut visits = Visits::new(Format::Rss);
    visits.visit(&feed);
    for n in 1400..1406 {
        feed.pop_front();
        feed.extend(articles(n..n + 1, |_| None));
        assert_eq!(visits.new_items(&feed), 1);
    }
}

#[test]
fn a_feed_that_becomes_long_or_short_sends_what_is_read_of_it() {
    let mut visits = Visits::new(Format::Rss);
    let mut feed = articles(0..500, |_| None);
    assert_eq!(visits.new_items(&feed), 500);
    feed.extend(articles(500..1500, |_| None));
    assert_eq!(visits.new_items(&feed), 500, "1,000 were added, and 500 of them are read");
    assert_eq!(visits.new_items(&articles(3000..4400, |_| None)), 1000, "all are others");
    assert_eq!(visits.new_items(&articles(3000..3900, |_| None)), 150, "the part that was not read");
}
