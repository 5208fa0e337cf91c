//! What happens at every publisher sooner or later, and what goes out then.
#![allow(clippy::unwrap_used)]

mod publisher;

use publisher::{Entry, Visits, changed, opaque, permalinks, ten, undated, without_guid};
use seen::ItemStatus;

const NOTHING: (usize, usize) = (0, 0);

/// The kinds of feeds that a story is tried with.
fn kinds() -> Vec<(&'static str, Vec<Entry>)> {
    vec![
        ("permalinks", permalinks()),
        ("opaque guids", opaque()),
        ("no guids", without_guid()),
        ("permalinks, undated", undated(permalinks())),
        ("opaque guids, undated", undated(opaque())),
        ("no guids, undated", undated(without_guid())),
    ]
}

/// Visits each kind of feed, then as `change` makes it, twice, and then with one more article: nothing is sent but that.
fn nothing_but_the_new_article_is_sent(change: impl Fn(usize, &mut Entry)) {
    for (kind, before) in kinds() {
        let mut visits = Visits::default();
        assert_eq!(visits.sent(&before), (10, 0), "{kind}");
        let after = changed(&before, &change);
        assert_eq!(visits.sent(&after), NOTHING, "{kind}");
        assert_eq!(visits.sent(&after), NOTHING, "{kind}, again");
        assert!(!visits.visit(&after).changed, "{kind}: nothing is written");
        let mut newer =
            Entry { title: "Newer".to_owned(), text: "Something else".to_owned(), ..before[0].clone() };
        newer.link += "-newer";
        newer.guid += if newer.guid.is_empty() { "" } else { "-newer" };
        newer.minute = newer.minute.map(|minute| minute + 600);
        let mut entries = vec![newer];
        change(0, &mut entries[0]);
        entries.extend_from_slice(&after[..9]);
        assert_eq!(visits.sent(&entries), (1, 0), "{kind}: a newer article");
    }
}

/// Changes every address of the site.
fn everywhere(entry: &mut Entry, from: &str, to: &str) {
    for text in [&mut entry.guid, &mut entry.link, &mut entry.text] {
        *text = text.replace(from, to);
    }
}

#[test]
fn a_site_that_moves_to_https_sends_nothing() {
    nothing_but_the_new_article_is_sent(|_, entry| everywhere(entry, "http://", "https://"));
    nothing_but_the_new_article_is_sent(|_, entry| entry.link = entry.link.replace("http://", "https://"));
}

#[test]
fn addresses_in_the_text_are_not_the_text() {
    let with_link = |scheme: &str, entry: &mut Entry| {
        entry.text += &format!("<a href=\"{scheme}://news.example/more\">more</a> {scheme}://news.example/");
        entry.text += &format!("<img src=\"{scheme}://cdn.example/1.jpg\">");
    };
    for (kind, entries) in kinds() {
        let mut visits = Visits::default();
        visits.visit(&changed(&entries, |_, entry| with_link("http", entry)));
        assert_eq!(visits.sent(&changed(&entries, |_, entry| with_link("https", entry))), NOTHING, "{kind}");
    }
}

#[test]
fn a_site_that_moves_to_another_host_sends_nothing() {
    for host in ["www.news.example", "news.example.org", "blog.other.example"] {
        nothing_but_the_new_article_is_sent(|_, entry| everywhere(entry, "news.example", host));
    }
}

#[test]
fn a_slash_or_an_extension_at_the_end_of_links_sends_nothing() {
    for end in ["/", ".html", "/?ref=rss", "#comments", "?utm_source=feed&utm_medium=rss"] {
        nothing_but_the_new_article_is_sent(|_, entry| {
            entry.link += end;
            if entry.guid.starts_with("http") {
                entry.guid += end;
            }
        });
    }
}

#[test]
fn another_structure_of_addresses_sends_nothing() {
    nothing_but_the_new_article_is_sent(|_, entry| everywhere(entry, "/2024/", "/archive/2024/01/"));
    nothing_but_the_new_article_is_sent(|_, entry| {
        entry.link = entry.link.replace("/2024/article", "/story")
    });
}

#[test]
fn session_ids_and_unknown_trackers_send_nothing_at_any_visit() {
    for parameter in [";jsessionid=", "?ref=", "?sid=", "?PHPSESSID=", "#ref="] {
        for (kind, entries) in kinds() {
            let mut visits = Visits::default();
            for visit in 0..20 {
                let entries = changed(&entries, |n, entry| {
                    entry.link += &format!("{parameter}{visit}A{n}");
                    entry.enclosure = format!("https://cdn.example/{n}.mp3?signature={visit}{n}");
                });
                let expected = if visit == 0 { (10, 0) } else { NOTHING };
                assert_eq!(visits.sent(&entries), expected, "{kind} {parameter} {visit}");
            }
        }
    }
}

#[test]
fn session_ids_in_links_that_name_articles_by_query_send_nothing() {
    for (kind, entries) in kinds() {
        let mut visits = Visits::default();
        for visit in 0..20 {
            let entries = changed(&entries, |n, entry| {
                entry.link = format!("http://news.example/read.php?session={visit}7f&id={n}");
                if entry.guid.starts_with("http") {
                    entry.guid.clone_from(&entry.link);
                }
            });
            let expected = if visit == 0 { (10, 0) } else { NOTHING };
            assert_eq!(visits.sent(&entries), expected, "{kind} {visit}");
        }
    }
}

#[test]
fn the_same_words_in_another_element_or_format_send_nothing() {
    let rss = |body: &str| {
        format!(
            "<rss version=\"2.0\" xmlns:content=\"http://purl.org/rss/1.0/modules/content/\"><channel><title>F</title>\
             <item><guid isPermaLink=\"false\">g</guid><link>http://e.example/1</link><title>T</title>{body}</item></channel></rss>"
        )
    };
    let atom = |body: &str| {
        format!(
            "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title>F</title><entry><id>g</id>\
             <link href=\"http://e.example/1\"/><title>T</title>{body}</entry></feed>"
        )
    };
    let long = "Salt &amp; pepper, £5 and more. ".repeat(40);
    for words in ["Story x", "Salt &amp; pepper &lt; 5", long.as_str()] {
        let markup = format!("<![CDATA[<p>{words}</p>]]>");
        let forms = [
            rss(&format!("<description>{markup}</description>")),
            rss(&format!("<description>{words}</description>")),
            rss(&format!("<content:encoded>{markup}</content:encoded>")),
            rss(&format!("<content:encoded>{words}</content:encoded>")),
            rss(&format!("<description>{words}</description><content:encoded>{markup}</content:encoded>")),
            rss(&format!("<description>Short</description><content:encoded>{markup}</content:encoded>")),
            atom(&format!("<summary>{words}</summary>")),
            atom(&format!("<content>{words}</content>")),
            atom(&format!("<content type=\"html\">{markup}</content>")),
            atom(&format!("<summary>{words}</summary><content type=\"html\">{markup}</content>")),
        ];
        let mut seen = seen::SeenSet::default();
        for (n, form) in forms.iter().chain(forms.iter().rev()).enumerate() {
            let items = feed::read(form.as_bytes(), &feed::Hints::default()).unwrap().items;
            let now = news::Timestamp::from_millis(1_800_000_000_000 + i64::try_from(n).unwrap() * 300_000);
            let status = seen.classify(&items, now).items[0].status;
            assert_eq!(status, if n == 0 { ItemStatus::New } else { ItemStatus::Known }, "{form}");
        }
    }
}

#[test]
fn equal_words_without_guid_and_link_are_told_apart_by_their_media_or_dates() {
    let kinds: [(&str, EntryOfVisit); 3] = [
        ("a podcast", |n, visit| Entry {
            title: "Episode".to_owned(),
            enclosure: format!("http://e.example/{n}.mp3?sig={visit}"),
            ..Entry::default()
        }),
        ("a dated podcast", |n, visit| Entry {
            title: "Episode".to_owned(),
            enclosure: format!("http://e.example/{n}.mp3?sig={visit}"),
            minute: Some(n * 1440),
            ..Entry::default()
        }),
        ("reports", |n, _| Entry {
            title: "Status".to_owned(),
            text: "All systems work.".to_owned(),
            minute: Some(n * 1440),
            ..Entry::default()
        }),
    ];
    for (kind, entry) in kinds {
        let mut visits = Visits::default();
        let window = |last: i64, visit| (last - 4..=last).rev().map(|n| entry(n, visit)).collect::<Vec<_>>();
        assert_eq!(visits.sent(&window(5, 0)), (5, 0), "{kind}");
        assert_eq!(visits.sent(&window(5, 1)), NOTHING, "{kind}");
        assert_eq!(visits.sent(&window(6, 2)), (1, 0), "{kind}");
        assert_eq!(visits.sent(&window(8, 3)), (2, 0), "{kind}");
        let newest = window(8, 4).remove(0);
        assert_eq!(visits.sent(&[newest]), NOTHING, "{kind}: the newest alone");
    }
}

/// The article of a number as it is at a visit.
type EntryOfVisit = fn(i64, usize) -> Entry;

/// Articles of which only the words, or title and date, are the same at each visit.
fn made_up_at_each_visit() -> Vec<(&'static str, EntryOfVisit)> {
    vec![
        ("a parameter of the link, untitled", |n, visit| Entry {
            link: format!("http://e.example/p?id={n}&zz={visit}{n}"),
            text: words(n),
            ..Entry::default()
        }),
        ("a parameter of the link and of the guid", |n, visit| Entry {
            guid: format!("http://e.example/p?id={n}&zz={visit}{n}"),
            link: format!("http://e.example/p?id={n}&zz={visit}{n}"),
            text: words(n),
            ..Entry::default()
        }),
        ("a session in the path, equal titles", |n, visit| Entry {
            link: format!("http://e.example/S(x{visit}y)/p{n}.aspx"),
            title: "News".to_owned(),
            text: words(n),
            ..Entry::default()
        }),
        ("a session in the path, untitled", |n, visit| Entry {
            link: format!("http://e.example/S(x{visit}y)/p{n}.aspx"),
            text: words(n),
            ..Entry::default()
        }),
        ("guid and date, no link", |n, visit| Entry {
            guid: format!("{visit}-{n}"),
            title: format!("Article {n}"),
            text: words(n),
            minute: Some(i64::try_from(visit).unwrap() * 5),
            ..Entry::default()
        }),
        ("guid, link and date", |n, visit| Entry {
            guid: format!("{visit}-{n}"),
            link: format!("http://e.example/{visit}/{n}"),
            title: format!("Article {n}"),
            text: words(n),
            minute: Some(i64::try_from(visit).unwrap() * 5),
            ..Entry::default()
        }),
        ("the guids of a podcast", |n, visit| Entry {
            guid: format!("{visit}-{n}"),
            title: format!("Episode {n}"),
            enclosure: format!("http://e.example/{n}.mp3?sig={visit}"),
            ..Entry::default()
        }),
        ("the guids of a podcast with equal titles", |n, visit| Entry {
            guid: format!("{visit}-{n}"),
            title: "Episode".to_owned(),
            minute: Some(n * 1440),
            enclosure: format!("http://e.example/{n}.mp3?sig={visit}"),
            ..Entry::default()
        }),
    ]
}

fn words(n: i64) -> String {
    format!("What happened on day {n} to people of whom we have not heard before")
}

#[test]
fn ten_items_of_which_only_the_words_stay_are_sent_once() {
    for (kind, entry) in made_up_at_each_visit() {
        let mut visits = Visits::default();
        for visit in 0..10 {
            let document: Vec<_> = (0..10).rev().map(|n| entry(n, visit)).collect();
            assert_eq!(visits.sent(&document), if visit == 0 { (10, 0) } else { NOTHING }, "{kind} {visit}");
        }
        let newer: Vec<_> = (1..11).rev().map(|n| entry(n, 10)).collect();
        assert_eq!(visits.sent(&newer), (1, 0), "{kind}: a newer article");
    }
}

#[test]
fn equal_words_of_several_items_and_equal_titles_of_others_are_no_evidence() {
    // Two comic strips a day, each with its own link; and reports with equal words.
    let strips = |day: i64| {
        ["Cat", "Dog"].map(|title| Entry {
            guid: format!("{title}-{day}"),
            link: format!("http://comics.example/{title}/{day}"),
            title: title.to_owned(),
            minute: Some(day * 1440),
            ..Entry::default()
        })
    };
    let reports = |day: i64| {
        [1, 2].map(|n| Entry {
            guid: format!("{n}-{day}"),
            title: "Status".to_owned(),
            text: "All systems work.".to_owned(),
            minute: Some(day * 1440 + n),
            ..Entry::default()
        })
    };
    for kind in [&strips as &dyn Fn(i64) -> [Entry; 2], &reports] {
        let mut visits = Visits::default();
        for day in 0..5 {
            assert_eq!(visits.sent(&kind(day)), (2, 0), "day {day}");
        }
    }
}

#[test]
fn a_text_that_changes_at_every_visit_is_bounded() {
    for counter in [10, 7] {
        for (kind, entries) in kinds() {
            let mut visits = Visits::default();
            visits.visit(&entries);
            let mut updates = 0;
            for visit in 0..30 {
                let entries = changed(&entries, |n, entry| {
                    if n < counter {
                        entry.text += &format!("<p>Points: {visit}</p>");
                        entry.link += &format!("?n={visit}");
                    }
                });
                let visit = visits.visit(&entries);
                assert_eq!(visit.count(ItemStatus::New), 0, "{kind}");
                updates +=
                    visit.items.iter().filter(|i| matches!(i.status, ItemStatus::Changed { .. })).count();
            }
            assert!((1..=counter).contains(&updates), "{kind}: {updates}");
        }
    }
}

#[test]
fn a_few_counters_among_quiet_items_are_bounded() {
    let mut visits = Visits::default();
    let updates: usize = (0..30)
        .map(|visit| {
            let counted =
                |n, entry: &mut Entry| entry.text += &if n < 3 { visit.to_string() } else { String::new() };
            visits.sent(&changed(&opaque(), counted)).1
        })
        .sum();
    assert_eq!(updates, 6, "two for each");
}

#[test]
fn counters_in_every_number_of_items_are_bounded_and_their_last_state_is_sent() {
    for (items, counters) in [(1, 1), (2, 1), (2, 2), (3, 2), (10, 1), (10, 3), (10, 10)] {
        let counted = |visit: usize| {
            let mut entries = changed(&opaque(), |n, entry| {
                entry.text += &if n < counters { format!(" Points: {visit}") } else { String::new() }
            });
            entries.truncate(items);
            entries
        };
        let mut visits = Visits::default();
        let updates: usize = (0..40).map(|visit| visits.sent(&counted(visit)).1).sum();
        assert!(updates <= 2 * counters, "{counters} of {items}: {updates}");
        let last = visits.seen.encode();
        let mut sent = 0;
        while visits.visit(&counted(40)).waiting {
            sent += 1;
            assert!(sent < 12, "{counters} of {items}: nothing waits for ever");
        }
        assert_ne!(visits.seen.encode(), last);
        for _ in 0..4 {
            visits.visit(&counted(40));
        }
        assert!(!visits.visit(&counted(40)).changed, "{counters} of {items}: and then nothing is written");
    }
}

#[test]
fn a_feed_that_is_edited_as_a_whole_and_edited_back_ends_as_it_was() {
    let edited = changed(&opaque(), |_, entry| entry.text += "<p>A line that comes and goes</p>");
    let mut visits = Visits::default();
    assert_eq!((visits.sent(&opaque()), visits.sent(&edited)), ((10, 0), (0, 10)));
    let sent: usize = (0..10).map(|_| visits.sent(&opaque()).1).sum();
    assert_eq!(sent, 10);
}

#[test]
fn words_that_count_without_guid_link_and_date_are_no_new_items() {
    let counted = |visit: usize| -> Vec<Entry> {
        let story = |n: usize| ["Rain", "Snow", "Hail", "Wind", "Fog"][n];
        (0..5)
            .map(|n| Entry {
                title: format!("{} ({} comments)", story(n), 5 * visit + n),
                text: format!("Much {} was reported, {visit} times.", story(n).to_lowercase()),
                ..Entry::default()
            })
            .collect()
    };
    let mut visits = Visits::default();
    assert_eq!(visits.sent(&counted(0)), (5, 0));
    let (items, updates) = (1..20).fold((0, 0), |(items, updates), visit| {
        let (new, changed) = visits.sent(&counted(visit));
        (items + new, updates + changed)
    });
    assert_eq!(items, 0);
    assert!((1..=5).contains(&updates), "{updates}");

    // Not so what comes one after the other, or has the same words.
    let releases = |newest: usize| -> Vec<Entry> {
        (newest..newest + 3)
            .rev()
            .map(|n| Entry { title: format!("Release {n}"), ..Entry::default() })
            .collect()
    };
    let mut visits = Visits::default();
    assert_eq!((visits.sent(&releases(0)), visits.sent(&releases(3))), ((3, 0), (3, 0)));
    let one = |n: usize| vec![Entry { title: format!("Quake of magnitude {n}"), ..Entry::default() }];
    let mut visits = Visits::default();
    assert_eq!((visits.sent(&one(1)), visits.sent(&one(2))), ((1, 0), (1, 0)));
}

#[test]
fn two_mirrors_that_differ_by_a_dot_are_bounded_and_a_new_article_still_comes() {
    let mut visits = Visits::default();
    let mirror = |visit: usize| {
        changed(&opaque(), |_, entry| entry.text += if visit.is_multiple_of(2) { "" } else { "." })
    };
    let sent: Vec<_> = (0..20).map(|visit| visits.sent(&mirror(visit))).collect();
    assert_eq!((sent[0], sent[1]), ((10, 0), (0, 10)));
    assert!(sent[2..].iter().all(|sent| *sent == NOTHING), "{sent:?}");
    let mut entries = mirror(20);
    entries.insert(0, Entry { guid: "id-new".to_owned(), title: "New".to_owned(), ..entries[0].clone() });
    assert_eq!(visits.sent(&entries), (1, 0));
}

#[test]
fn two_mirrors_of_a_feed_with_one_item_are_bounded_and_its_edits_are_sent() {
    let mut visits = Visits::default();
    let mirror = |text: &str| vec![Entry { text: text.to_owned(), ..opaque().remove(0) }];
    let sent: Vec<_> = ["A", "A.", "A", "A.", "A", "A.", "A"].map(|text| visits.sent(&mirror(text))).to_vec();
    assert_eq!(sent[..3], [(1, 0), (0, 1), (0, 1)]);
    assert!(sent[3..].iter().all(|sent| *sent == NOTHING), "{sent:?}");
    for edit in 0..20 {
        assert_eq!(
            visits.sent(&mirror(&"And then. ".repeat(edit + 1))),
            (0, 1),
            "a report that grows is sent"
        );
    }
}

#[test]
fn a_guid_that_counts_versions_is_one_update_for_each_edit() {
    let versions = |edit: usize| {
        let mut entries = ten(|n| format!("https://news.example/2024/article-{n}#0"));
        entries[3].guid = format!("https://news.example/2024/article-6#{edit}");
        entries
    };
    for date in [None, Some(7)] {
        let mut visits = Visits::default();
        let first = visits.visit(&versions(0));
        for edit in 1..6 {
            let mut entries = versions(edit * 2);
            entries[3].title += &format!(", edited {edit}");
            entries[3].text = format!("Another text {edit}");
            entries[3].minute =
                date.map(|minute| minute + i64::try_from(edit).unwrap()).or(entries[3].minute);
            let visit = visits.visit(&entries);
            let updates: Vec<_> =
                visit.items.iter().filter(|i| matches!(i.status, ItemStatus::Changed { .. })).collect();
            assert_eq!((visit.count(ItemStatus::New), updates.len()), (0, 1), "edit {edit}");
            assert!(
                first.items.iter().any(|item| item.key == updates[0].key),
                "with the key published first"
            );
        }
    }
}

#[test]
fn a_new_guid_for_an_edited_article_is_an_update() {
    let edits: [fn(&mut Entry); 3] = [
        |entry| entry.text = "Another text".to_owned(),
        |entry| entry.title += ", corrected",
        |entry| (entry.title, entry.text) = ("All is different".to_owned(), "but the date".to_owned()),
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let mut visits = Visits::default();
        visits.visit(&opaque());
        let mut entries = opaque();
        entries[4].guid = format!("another-{n}");
        edit(&mut entries[4]);
        assert_eq!(visits.sent(&entries), (0, 1), "edit {n}");
        let mut back = opaque();
        back[4].guid = format!("and-back-{n}");
        assert_eq!(visits.sent(&back), (0, 1), "back {n}");
    }
}

#[test]
fn another_policy_for_guids_sends_nothing() {
    for share in [1, 3, 7, 10] {
        for (kind, entries) in kinds() {
            let mut visits = Visits::default();
            visits.visit(&entries);
            let renamed = |n, entry: &mut Entry| {
                if n < share {
                    entry.guid = format!("uuid-{n}")
                }
            };
            assert_eq!(visits.sent(&changed(&entries, renamed)), NOTHING, "{kind} {share}");
            let without = |n, entry: &mut Entry| {
                if n < share {
                    entry.guid.clear()
                }
            };
            assert_eq!(visits.sent(&changed(&entries, without)), NOTHING, "{kind} {share} without");
        }
    }
}

#[test]
fn a_used_guid_that_enters_or_leaves_changes_nothing_for_the_other_item() {
    let first = Entry { guid: "same".to_owned(), ..without_guid()[5].clone() };
    let siblings = [
        Entry { guid: "same".to_owned(), ..without_guid()[4].clone() },
        Entry { title: "Another title, same link".to_owned(), text: "New".to_owned(), ..first.clone() },
        Entry { link: "http://news.example/other".to_owned(), text: "New".to_owned(), ..first.clone() },
    ];
    for second in siblings {
        let mut visits = Visits::default();
        let key = visits.visit(std::slice::from_ref(&first)).items[0].key.clone();
        assert_eq!(visits.sent(&[second.clone(), first.clone()]), (1, 0), "{second:?}");
        let both = visits.visit(&[second.clone(), first.clone()]);
        assert!(both.items.iter().any(|item| item.key == key));
        assert_eq!(visits.sent(std::slice::from_ref(&first)), NOTHING);
        assert_eq!(visits.sent(std::slice::from_ref(&second)), NOTHING);
        assert_eq!(visits.sent(&[first.clone(), second]), NOTHING);
    }
}

#[test]
fn untitled_items_of_one_guid_and_link_are_told_apart_by_their_text() {
    let post = |text: &str| Entry {
        guid: "http://notes.example/#a1".to_owned(),
        text: text.to_owned(),
        ..Entry::default()
    };
    let mut visits = Visits::default();
    assert_eq!(visits.sent(&[post("Good morning"), post("Another story")]), (2, 0));
    assert_eq!(visits.sent(&[post("A third one"), post("Good morning"), post("Another story")]), (1, 0));
    assert_eq!(visits.sent(&[post("Another story"), post("A third one")]), NOTHING);
}

/// A changelog: the last `window` of `releases`, the newest first.
fn changelog(releases: i64, window: i64, anchors: bool, dates: bool, title: &str) -> Vec<Entry> {
    let first = (releases - window + 1).max(1);
    (first..=releases)
        .rev()
        .map(|n| Entry {
            link: format!(
                "http://tool.example/changelog{}",
                if anchors { format!("#v{n}") } else { String::new() }
            ),
            title: if title.is_empty() { format!("Release {n}") } else { title.to_owned() },
            text: format!("Notes of release {n}"),
            minute: dates.then_some(n * 1440),
            ..Entry::default()
        })
        .collect()
}

#[test]
fn each_release_of_a_changelog_is_one_item() {
    for (anchors, dates) in [(false, false), (false, true), (true, false), (true, true)] {
        for title in ["", "New release"] {
            let mut visits = Visits::default();
            assert_eq!(visits.sent(&changelog(3, 3, anchors, dates, title)), (3, 0));
            for release in 4..9 {
                let document = changelog(release, 3, anchors, dates, title);
                assert_eq!(visits.sent(&document), (1, 0), "{anchors} {dates} {title} {release}");
            }
            let mut edited = changelog(8, 3, anchors, dates, title);
            edited[1].text += ", corrected";
            let sent = visits.sent(&edited);
            assert!(sent.0 + sent.1 == 1, "{anchors} {dates} {title}: {sent:?}");
        }
    }
}

#[test]
fn a_changelog_that_begins_with_one_release_grows() {
    for (anchors, dates) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut visits = Visits::default();
        for release in 1..5 {
            assert_eq!(visits.sent(&changelog(release, 9, anchors, dates, "")), (1, 0), "{anchors} {dates}");
        }
    }
    let mut visits = Visits::default();
    for release in 1..5 {
        assert_eq!(visits.sent(&changelog(release, 1, false, true, "")), (1, 0), "one at a time, dated");
    }
}

#[test]
fn an_item_that_is_dated_anew_and_moved_to_the_top_sends_nothing() {
    for (kind, entries) in kinds() {
        let mut visits = Visits::default();
        visits.visit(&entries);
        let mut moved = entries.clone();
        let mut entry = moved.remove(7);
        entry.minute = entry.minute.map(|minute| minute + 100_000);
        moved.insert(0, entry);
        assert_eq!(visits.sent(&moved), NOTHING, "{kind}");
    }
}

#[test]
fn an_edit_and_its_return_are_two_updates_with_one_key() {
    for (kind, entries) in kinds() {
        let mut visits = Visits::default();
        let key = visits.visit(&entries).items[9].key.clone();
        let mut edited = entries.clone();
        edited[0].title += " (corrected)";
        edited[0].text += "<p>A correction</p>";
        let visit = visits.visit(&edited);
        assert!(matches!(visit.items[9].status, ItemStatus::Changed { .. }), "{kind}");
        assert_eq!(visit.items[9].key, key, "{kind}");
        assert_eq!(visits.sent(&entries), (0, 1), "{kind}");
        assert_eq!(visits.sent(&entries), NOTHING, "{kind}");
    }
}

#[test]
fn images_and_enclosures_from_another_host_send_nothing() {
    for (kind, entries) in kinds() {
        let mut visits = Visits::default();
        for visit in 0..5 {
            let entries = changed(&entries, |n, entry| {
                entry.text += &format!(
                    "<img src=\"https://cdn{visit}.example/{n}.jpg?sig={visit}\" width=\"{visit}00\">"
                );
                entry.enclosure = format!("https://cdn{visit}.example/{n}.mp3");
            });
            assert_eq!(visits.sent(&entries), if visit == 0 { (10, 0) } else { NOTHING }, "{kind}");
        }
    }
}

#[test]
fn guids_that_change_at_every_visit_send_what_is_new_only() {
    for addresses in [false, true] {
        let mut visits = Visits::default();
        let mut new = 0;
        for visit in 0..50_usize {
            // A really new article at every fifth visit.
            let first = i64::try_from(visit / 5).unwrap();
            let mut entries = ten(|n| format!("guid-{visit}-{n}"));
            entries.iter_mut().enumerate().for_each(|(n, entry)| {
                let number = first + 9 - i64::try_from(n).unwrap();
                entry.link = format!("http://news.example/{number}");
                if addresses {
                    entry.link += &format!("?session={visit}");
                }
                entry.title = format!("Article {number}");
                entry.text = format!("What happened on day {number}");
                entry.minute = Some(number * 1440);
            });
            let classified = visits.visit(&entries);
            new += classified.count(ItemStatus::New);
            assert_eq!(classified.flapping, visit > 0, "visit {visit}");
        }
        assert_eq!(new, 10 + 9);
    }
}

/// Articles, the newest first, with guids of their own at each visit.
fn with_guids_of_the_visit(visit: usize, articles: std::ops::Range<i64>, dated: bool) -> Vec<Entry> {
    let entry = |n: i64| Entry {
        guid: format!("guid-{visit}-{n}"),
        link: format!("http://news.example/{n}"),
        title: format!("Article {n}"),
        minute: dated.then_some(n * 60),
        ..Entry::default()
    };
    articles.rev().map(entry).collect()
}

#[test]
fn guids_that_change_once_hold_no_new_item_back() {
    for dated in [false, true] {
        for (known, new) in [(100, 50), (60, 59), (500, 400)] {
            let document = |visit, articles| with_guids_of_the_visit(visit, articles, dated);
            let mut visits = Visits::default();
            visits.visit(&document(0, 0..known));
            visits.visit(&document(0, 0..known));
            let changed = visits.visit(&document(1, 0..known + new));
            let expected = (usize::try_from(new).unwrap(), 0);
            assert_eq!(
                (changed.count(ItemStatus::New), changed.count(ItemStatus::Held)),
                expected,
                "{dated}"
            );
            // They may have left the feed at the next visit.
            let next = visits.sent(&document(1, known + new..known + new + 20));
            assert_eq!(next, (20, 0), "{dated} {known} {new}");
            // Another change, after visits without.
            let again = visits.visit(&document(2, known..known + new + 70));
            assert_eq!(again.count(ItemStatus::Held), 0, "{dated} {known} {new}");
        }
    }
}

#[test]
fn while_guids_flap_new_items_are_accepted_in_portions_newest_first() {
    let document = |visit, articles| with_guids_of_the_visit(visit, articles, false);
    let mut visits = Visits::default();
    visits.visit(&document(0, 1..101));
    assert_eq!(visits.sent(&document(1, 1..101)), NOTHING);
    let visit = visits.visit(&document(2, 1..151));
    let counts = [ItemStatus::New, ItemStatus::Held, ItemStatus::Known].map(|status| visit.count(status));
    assert_eq!(counts, [20, 30, 100]);
    assert!(visit.waiting, "the next visit reads the document, even if it is the same");
    assert_eq!(visit.items[149].status, ItemStatus::New);
    let mut flapping = Visits { seen: visits.seen.clone(), ..Visits::default() };
    assert_eq!(flapping.visit(&document(3, 1..151)).count(ItemStatus::New), 20);
    assert_eq!(flapping.visit(&document(4, 1..151)).count(ItemStatus::New), 10);
    let calm = visits.visit(&document(2, 1..151));
    assert_eq!((calm.count(ItemStatus::New), calm.waiting), (30, false), "what was held, all at once");
}

#[test]
fn articles_that_are_later_than_all_before_come_while_guids_flap() {
    let mut visits = Visits::default();
    for visit in 0..8_usize {
        let first = i64::try_from(visit).unwrap() * 50;
        let document = with_guids_of_the_visit(visit, first..first + 110, true);
        let expected = if visit == 0 { 110 } else { 50 };
        assert_eq!(visits.sent(&document), (expected, 0), "visit {visit}");
    }
}

#[test]
fn dates_of_the_visit_do_not_make_items_new_that_cannot_be_told_apart() {
    let document = |visit: usize| {
        let mut entries = with_guids_of_the_visit(visit, 0..60, true);
        entries.extend((0..40).map(|n| Entry {
            guid: format!("other-{visit}-{n}"),
            link: "http://news.example/".to_owned(),
            title: "Offer".to_owned(),
            text: format!("Number {visit} {n}"),
            ..Entry::default()
        }));
        for entry in &mut entries {
            entry.minute = Some(i64::try_from(visit).unwrap() * 10_000);
        }
        entries
    };
    let mut visits = Visits::default();
    let new: Vec<_> = (0..6).map(|visit| visits.visit(&document(visit)).count(ItemStatus::New)).collect();
    assert_eq!((new[0], new[1]), (100, 40));
    assert!(new[2..].iter().all(|new| *new == 20), "{new:?}");
}

#[test]
fn a_feed_that_is_really_all_new_is_all_new() {
    for (kind, entries) in kinds() {
        let mut visits = Visits::default();
        visits.visit(&entries);
        let others = changed(&entries, |n, entry| {
            everywhere(entry, "article", "report");
            entry.guid += if entry.guid.is_empty() { "" } else { "-report" };
            entry.title = format!("Report {n}");
            entry.text = format!("Nothing of what was there before {n}");
            entry.minute = entry.minute.map(|minute| minute + 50_000);
        });
        let visit = visits.visit(&others);
        assert!(!visit.flapping, "{kind}");
        assert_eq!(visit.count(ItemStatus::New), 10, "{kind}");
    }
}

#[test]
fn what_recurs_is_new_each_time() {
    // An episode a day: one link for the show, one title, guids and dates of their own.
    let episode = |n: i64| Entry {
        guid: format!("episode-{n}"),
        link: "http://radio.example/show".to_owned(),
        title: "The evening news".to_owned(),
        text: format!("Today: {n}"),
        minute: Some(n * 1440),
        enclosure: format!("https://radio.example/{n}.mp3"),
    };
    // A report with equal words each day.
    let report = |n: i64| Entry {
        guid: format!("http://status.example/{n}"),
        link: format!("http://status.example/{n}"),
        title: "Status".to_owned(),
        text: "All systems work.".to_owned(),
        minute: Some(n * 1440),
        ..Entry::default()
    };
    for entry in [&episode as &dyn Fn(i64) -> Entry, &report] {
        for window in [1_i64, 3] {
            let mut visits = Visits::default();
            let window_to = |last: i64| ((last - window + 1)..=last).rev().map(entry).collect::<Vec<_>>();
            assert_eq!(visits.sent(&window_to(10)).0, usize::try_from(window).unwrap());
            for day in 11..20 {
                let sent = visits.sent(&window_to(day));
                if window == 1 {
                    assert_eq!(sent.0 + sent.1, 1, "{:?}", entry(day).title);
                } else {
                    assert_eq!(sent, (1, 0), "{:?}", entry(day).title);
                }
            }
        }
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// A few articles, of which several may have the same guid, link or title.
    fn articles() -> impl Strategy<Value = Vec<Entry>> {
        let one = (0..6u8, 0..6u8, 0..6u8, 0..6u8).prop_map(|(guid, link, title, text)| Entry {
            guid: if guid == 0 { String::new() } else { format!("g{guid}") },
            link: if link == 0 { String::new() } else { format!("http://x.example/{link}") },
            title: if title == 0 { String::new() } else { format!("Title {title}") },
            text: format!("Text {text}"),
            ..Entry::default()
        });
        prop::collection::vec(one, 1..12).prop_map(|mut entries| {
            let mut keys = std::collections::HashSet::new();
            entries
                .retain(|entry| keys.insert(publisher::document(std::slice::from_ref(entry))[0].key.clone()));
            entries
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever part of known articles a document has, in whatever order, each keeps its key and none is sent again.
        #[test]
        fn neighbours_change_nothing(
            articles in articles(),
            documents in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..12), 1..6),
        ) {
            let mut visits = Visits::default();
            let first = visits.visit(&articles);
            prop_assert_eq!(first.count(ItemStatus::New), articles.len());
            for document in documents {
                let mut chosen: Vec<usize> = Vec::new();
                for index in document {
                    let n = index.index(articles.len());
                    if !chosen.contains(&n) { chosen.push(n); }
                }
                let entries: Vec<_> = chosen.iter().map(|n| articles[*n].clone()).collect();
                let visit = visits.visit(&entries);
                for (item, n) in visit.items.iter().rev().zip(chosen) {
                    prop_assert_eq!(item.status, ItemStatus::Known);
                    prop_assert_eq!(&item.key, &first.items[articles.len() - 1 - n].key);
                }
            }
        }

        /// An article that is added to any others is the only one that is sent.
        #[test]
        fn an_article_that_is_added_is_the_only_one_sent(articles in articles(), at in any::<prop::sample::Index>()) {
            let mut visits = Visits::default();
            let at = at.index(articles.len());
            let mut others = articles.clone();
            others.remove(at);
            prop_assume!(!others.is_empty());
            visits.visit(&others);
            let visit = visits.visit(&articles);
            prop_assert_eq!(visit.count(ItemStatus::New), 1);
            prop_assert_eq!(visit.count(ItemStatus::Known), others.len());
        }
    }
}

/// Articles that repeat the words of those before them, newest first: `window` of them, of which the newest has the number
/// `newest`.
fn recurring(newest: i64, window: i64, entry: impl Fn(i64) -> Entry) -> Vec<Entry> {
    (newest - window + 1..=newest).rev().map(|n| Entry { minute: Some(n * 60), ..entry(n) }).collect()
}

#[test]
fn an_article_that_repeats_the_words_of_one_that_has_gone_is_new() {
    let base = |n: i64| Entry {
        guid: format!("aabb-{n}"),
        title: "Re: Question".to_owned(),
        text: "Thanks!".to_owned(),
        enclosure: format!("http://news.example/{n}.mp3"),
        ..Entry::default()
    };
    let kinds: [(&str, &dyn Fn(i64) -> Entry); 4] = [
        ("a number in the query", &|n| Entry { link: format!("http://e.example/v?id={n}"), ..base(n) }),
        ("an answer of a forum", &|n| Entry { link: format!("http://e.example/t?p={n}#p{n}"), ..base(n) }),
        ("one link for all", &|n| Entry { link: "http://show.example/".to_owned(), ..base(n) }),
        ("no link", &base),
    ];
    for (kind, entry) in kinds {
        for window in [1, 3, 10] {
            let mut visits = Visits::default();
            visits.visit(&recurring(10, window, entry));
            for newest in 11..20 {
                let sent = visits.sent(&recurring(newest, window, entry));
                assert_eq!(sent, (1, 0), "{kind}, {window} at a time, number {newest}");
            }
            if window > 1 {
                let mut visits = Visits::default();
                visits.visit(&undated(recurring(10, window, entry)));
                let sent = visits.sent(&undated(recurring(11, window, entry)));
                assert_eq!(sent, (1, 0), "{kind}, undated, {window} at a time");
            }
        }
    }
}

#[test]
fn another_edition_of_a_programme_is_an_item_and_no_update() {
    let edition = |n: i64| Entry {
        guid: format!("uuid-{n}"),
        link: "http://radio.example/news".to_owned(),
        title: format!("News at {n}"),
        text: "The latest news.".to_owned(),
        enclosure: format!("http://radio.example/{n}.mp3"),
        ..Entry::default()
    };
    let mut visits = Visits::default();
    visits.visit(&recurring(1, 1, edition));
    assert_eq!(visits.sent(&recurring(2, 1, edition)), (1, 0));
}

#[test]
fn releases_of_one_day_with_the_same_notes_are_items() {
    for guid in ["g", ""] {
        let release = |n: i64| Entry {
            guid: if guid.is_empty() { String::new() } else { format!("{guid}{n}") },
            link: format!("http://e.example/r{n}"),
            title: format!("Release {n}"),
            text: "See the notes.".to_owned(),
            minute: Some(0),
            ..Entry::default()
        };
        let window = |newest: i64| (newest - 2..=newest).rev().map(release).collect::<Vec<_>>();
        let mut visits = Visits::default();
        visits.visit(&window(3));
        assert_eq!(visits.sent(&window(4)), (1, 0), "guid {guid:?}");
    }
}

/// Stories whose guid is their place in the list, the newest first.
fn numbered_places(newest: i64, places: i64, dated: bool) -> Vec<Entry> {
    (0..places)
        .map(|place| {
            let story = newest - place;
            Entry {
                guid: place.to_string(),
                link: format!("http://news.example/story-{story}"),
                title: format!("Story {story}"),
                text: format!("What happened in story {story}"),
                minute: dated.then_some(story * 60),
                ..Entry::default()
            }
        })
        .collect()
}

#[test]
fn a_new_story_in_a_list_with_numbered_places_is_the_only_one_sent() {
    for dated in [true, false] {
        for added in [1, 3] {
            let mut visits = Visits::default();
            let first = visits.visit(&numbered_places(10, 5, dated));
            let mut keys: Vec<_> = first.items.into_iter().map(|item| item.key).collect();
            for round in 1..6 {
                let newest = 10 + round * added;
                let visit = visits.visit(&numbered_places(newest, 5, dated));
                let new = visit.count(ItemStatus::New);
                assert_eq!(new, usize::try_from(added).unwrap(), "dated {dated}, story {newest}");
                assert_eq!(visit.count(ItemStatus::Known), 5 - new, "dated {dated}, story {newest}");
                let after: Vec<_> = visit.items.into_iter().map(|item| item.key).collect();
                assert_eq!(keys[new..], after[..5 - new], "each story keeps its key");
                keys = after;
            }
            let mut edited = numbered_places(10 + 5 * added, 5, dated);
            edited[2].text += ", corrected";
            assert_eq!(visits.sent(&edited), (0, 1), "an edit is an update");
            edited[2].title += ", corrected";
            assert_eq!(visits.sent(&edited), (0, 1), "of the title, too");
        }
    }
}

#[test]
fn one_guid_for_each_story_of_a_feed_with_one_item_is_one_item_for_each() {
    let mut visits = Visits::default();
    for story in 1..6 {
        assert_eq!(visits.sent(&numbered_places(story, 1, true)), (1, 0));
        assert_eq!(visits.sent(&numbered_places(story, 1, true)), NOTHING);
    }
    // Less than all that differs is an edit.
    let last = numbered_places(5, 1, true).remove(0);
    let other = numbered_places(6, 1, true).remove(0);
    for edited in [
        Entry { link: last.link.clone(), ..other.clone() },
        Entry { minute: last.minute, ..other.clone() },
        Entry { text: last.text.clone(), ..other.clone() },
    ] {
        let mut visits = Visits::default();
        visits.visit(std::slice::from_ref(&last));
        assert_eq!(visits.sent(&[edited]), (0, 1));
    }
}

#[test]
fn values_that_move_from_one_guid_to_another_stay_updates() {
    // Rates, without links: the second has now what the first had.
    let rates = |first: i64| {
        [("USD", first), ("EUR", first - 1)].map(|(guid, value)| Entry {
            guid: guid.to_owned(),
            title: format!("Rate: {value}"),
            text: "Now".to_owned(),
            ..Entry::default()
        })
    };
    let mut visits = Visits::default();
    visits.visit(&rates(5));
    assert_eq!(visits.sent(&rates(6)), (0, 2));
}

#[test]
fn alerts_of_one_page_without_guids_are_told_apart_by_their_dates() {
    let alert = |n: i64| Entry {
        link: "http://alerts.example/".to_owned(),
        title: "Earthquake alert".to_owned(),
        text: "Click for details".to_owned(),
        minute: Some(n * 60),
        ..Entry::default()
    };
    let window = |newest: i64| (newest - 4..=newest).rev().map(alert).collect::<Vec<_>>();
    for added in [1, 3, 5] {
        let mut visits = Visits::default();
        assert_eq!(visits.sent(&window(5)), (5, 0));
        for round in 1..6 {
            let sent = visits.sent(&window(5 + round * added));
            assert_eq!(sent, (usize::try_from(added).unwrap(), 0), "{added} at a time");
            assert_eq!(visits.sent(&window(5 + round * added)), NOTHING);
        }
    }
}

#[test]
fn a_new_date_of_an_item_without_guid_sends_nothing() {
    // Links of their own, and one link for all titles of a changelog, whose dates are those of the visit.
    for (kind, entries) in [("links", without_guid()), ("a changelog", changelog(3, 3, false, true, ""))] {
        let mut visits = Visits::default();
        visits.visit(&entries);
        for visit in 1..5 {
            let redated = |n, entry: &mut Entry| {
                entry.minute = Some(90_000 * visit - i64::try_from(n).unwrap());
            };
            assert_eq!(visits.sent(&changed(&entries, redated)), NOTHING, "{kind}");
        }
    }
}

#[test]
fn episodes_without_guid_that_share_title_and_link_are_told_apart_by_their_files() {
    let episode = |n: i64| Entry {
        link: "http://show.example/".to_owned(),
        title: "Morning News".to_owned(),
        minute: Some(n * 60),
        enclosure: format!("https://cdn{n}.example/episodes/{n}.mp3?sig={n}"),
        ..Entry::default()
    };
    for window in [1, 3] {
        let mut visits = Visits::default();
        let entries = |newest: i64| (newest - window + 1..=newest).rev().map(episode).collect::<Vec<_>>();
        assert_eq!(visits.sent(&entries(9)).0, usize::try_from(window).unwrap());
        for newest in 10..15 {
            assert_eq!(visits.sent(&entries(newest)), (1, 0), "{window}: {newest}");
            assert_eq!(visits.sent(&entries(newest)), NOTHING);
        }
    }
}

/// Three headlines of a source that makes up everything else at each visit; `counts` says whether their texts count.
fn made_up(visit: i64, guid: bool, link: &str, dated: bool, counts: bool) -> Vec<Entry> {
    (0..5)
        .map(|n| Entry {
            guid: if guid { format!("g{visit}-{n}") } else { String::new() },
            link: link.replace("{}", &format!("{visit}-{n}")),
            title: format!("Headline about {}", words(n)),
            text: if counts {
                format!("Read by {} people of {}", visit * 7 + n, words(n))
            } else {
                String::new()
            },
            minute: dated.then_some(visit * 10),
            ..Entry::default()
        })
        .collect()
}

#[test]
fn headlines_that_are_made_up_anew_at_every_visit_are_sent_twice_at_most() {
    for guid in [true, false] {
        for link in ["", "http://news.example/", "http://news.example/r/{}"] {
            for (dated, counts) in [(true, true), (true, false), (false, true), (false, false)] {
                let mut visits = Visits::default();
                let sent: Vec<_> =
                    (0..12).map(|visit| visits.sent(&made_up(visit, guid, link, dated, counts))).collect();
                let (items, updates) = sent.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                let kind = format!("guid {guid}, link {link:?}, dated {dated}, counts {counts}: {sent:?}");
                assert!(items <= 10 && updates <= 10, "{kind}");
                assert!(sent[5..].iter().all(|sent| *sent == NOTHING), "{kind}");
            }
        }
    }
}

#[test]
fn a_feed_that_is_all_new_at_every_visit_is_all_sent() {
    let mut visits = Visits::default();
    for visit in 0..6 {
        let entries: Vec<_> = (0..5)
            .map(|n| {
                let story = visit * 5 + n;
                Entry {
                    guid: format!("g{story}"),
                    link: format!("http://news.example/{story}"),
                    title: format!("Story of {}", words(story)),
                    text: format!("What {} did", words(story)),
                    minute: Some(story),
                    ..Entry::default()
                }
            })
            .collect();
        assert_eq!(visits.sent(&entries), (5, 0), "visit {visit}");
    }
}

#[test]
fn places_as_guids_without_links_of_their_own_send_new_stories_only() {
    for link in ["", "http://news.example/"] {
        let window = |newest: i64| -> Vec<Entry> {
            (0..5)
                .map(|place| Entry {
                    guid: place.to_string(),
                    link: link.to_owned(),
                    title: format!("Story of {}", words(newest - place)),
                    text: format!("What {} did", words(newest - place)),
                    minute: Some((newest - place) * 60),
                    ..Entry::default()
                })
                .collect()
        };
        let mut visits = Visits::default();
        assert_eq!(visits.sent(&window(10)), (5, 0));
        for newest in 11..18 {
            assert_eq!(visits.sent(&window(newest)), (1, 0), "{link:?}, {newest}");
        }
    }
}

#[test]
fn visits_that_find_the_document_unchanged_are_quiet_ones() {
    let counted = |visit: usize| {
        changed(&opaque(), |n, entry| {
            entry.text += &if n < 3 { format!(" {visit} dead") } else { String::new() };
        })
    };
    let mut visits = Visits::default();
    visits.visit(&counted(0));
    for visit in 1..12 {
        visits.seen.pass_unchanged(3);
        assert_eq!(visits.sent(&counted(visit)), (0, 3), "{visit}");
    }
}
