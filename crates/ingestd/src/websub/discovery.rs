//! Which hub and topic a feed names, in its response header or in the document (WebSub, section 4).

use news::{FeedUrl, NamedHub, SecretText, Source, Timestamp, WebSubState};

/// Stores the hub and the topic that a feed names, unless they have changed lately: then what it names waits. `links` are
/// those of the response header, which have precedence; `document` is from the body, if one was parsed.
pub(crate) fn discover(
    websub: &mut Option<Box<WebSubState>>,
    source: &Source,
    links: &fetch::HeaderLinks,
    document: Option<&feed::FeedInfo>,
    now: Timestamp,
) {
    let text = |url: &FeedUrl| SecretText::new(url.secret().as_str().to_owned());
    let named =
        |text: &Option<String>| text.clone().filter(|t| t.len() <= FeedUrl::LENGTH_MAX).map(SecretText::new);
    let hub = links.hub.as_ref().map(text).or_else(|| named(&document?.hub));
    let found = match hub {
        Some(hub) => {
            let topic = links.topic.as_ref().map(text).or_else(|| named(&document?.self_url));
            let topic = topic.or_else(|| known_topic(websub.as_deref(), &hub)).or_else(|| plain(source));
            Some(NamedHub { hub: Some(hub), topic })
        }
        // Only a document without a hub means that the feed has none any more.
        None if document.is_some() => Some(NamedHub::default()),
        None => websub.as_ref().and_then(|known| known.named.as_deref().cloned()),
    };
    let Some(found) = found.filter(|found| websub.is_some() || found.hub.is_some()) else { return };
    change(websub.get_or_insert_default(), found, now);
    websub.take_if(|known| {
        known.hub.is_none()
            && known.subscription.is_none()
            && known.named.is_none()
            && known.kept_until(now).is_none()
    });
}

/// The topic that is known with this hub, or with the one before it.
fn known_topic(websub: Option<&WebSubState>, hub: &SecretText) -> Option<SecretText> {
    let websub = websub?;
    let waits = websub.named.as_ref().filter(|named| named.hub.as_ref() == Some(hub));
    waits.map_or(&websub.topic, |named| &named.topic).clone()
}

/// A feed cannot change its hub more than once a day, or each visit could make two requests to others.
fn change(known: &mut WebSubState, found: NamedHub, now: Timestamp) {
    let current = NamedHub { hub: known.hub.take(), topic: known.topic.take() };
    let is_first = current.hub.is_none() && known.hub_changed.is_none();
    let is_same = current.hub == found.hub && (found.hub.is_none() || current.topic == found.topic);
    let waits = !is_same && known.kept_until(now).is_some();
    if !is_same && !waits && !is_first {
        known.hub_changed = Some(now);
    }
    let (stays, named) = if waits { (current, Some(Box::new(found))) } else { (found, None) };
    (known.hub, known.topic, known.named) = (stays.hub, stays.topic, named);
}

/// The URL of a feed that names no topic, if it contains no secret that a hub must not see.
fn plain(source: &Source) -> Option<SecretText> {
    let url = source.url.secret();
    let is_plain = url.query().is_none() && url.username().is_empty() && url.password().is_none();
    is_plain.then(|| SecretText::new(url.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use news::{PushStatus, SourceId};

    use super::*;

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(3600 * hours))
    }

    #[test]
    fn the_header_has_precedence_over_the_document_and_a_feed_without_either_has_no_hub() {
        let source = |url: &str| Source::new(SourceId::try_new("a").unwrap(), FeedUrl::try_new(url).unwrap());
        let feed = source("https://example.org/feed");
        let link = |text: &str| Some(FeedUrl::try_new(text).unwrap());
        let none = fetch::HeaderLinks::default();
        let info = feed::FeedInfo {
            hub: Some("https://document.example/".to_owned()),
            self_url: Some("https://example.org/self".to_owned()),
            ..feed::FeedInfo::default()
        };
        let named = |websub: &Option<Box<WebSubState>>| {
            let websub = websub.as_ref().unwrap();
            let text = |hidden: &Option<SecretText>| hidden.as_ref().map(|h| h.reveal().to_owned());
            (text(&websub.hub), text(&websub.topic))
        };
        let expected = |hub: &str, topic: &str| (Some(hub.to_owned()), Some(topic.to_owned()));

        let mut websub = None;
        discover(&mut websub, &feed, &none, None, at(0));
        assert_eq!(websub, None);
        discover(&mut websub, &feed, &none, Some(&info), at(0));
        assert_eq!(named(&websub), expected("https://document.example/", "https://example.org/self"));
        let head = fetch::HeaderLinks {
            hub: link("https://head.example/"),
            topic: link("https://example.org/head"),
        };
        discover(&mut websub, &feed, &head, Some(&info), at(1));
        assert_eq!(named(&websub), expected("https://head.example/", "https://example.org/head"));
        discover(&mut websub, &feed, &none, None, at(0));
        assert_eq!(
            named(&websub),
            expected("https://head.example/", "https://example.org/head"),
            "a 304 says nothing"
        );
        for hours in [25, 49] {
            discover(&mut websub, &feed, &none, Some(&feed::FeedInfo::default()), at(hours));
            assert!(websub.as_ref().is_none_or(|websub| websub.hub.is_none() && websub.topic.is_none()));
        }
        assert_eq!(websub, None);

        let hub_only = fetch::HeaderLinks { hub: link("https://head.example/"), topic: None };
        discover(&mut websub, &feed, &hub_only, None, at(0));
        assert_eq!(named(&websub).1.as_deref(), Some("https://example.org/feed"));
        let mut websub = None;
        discover(&mut websub, &source("https://example.org/feed?key=TOPSECRET"), &hub_only, None, at(0));
        assert_eq!(named(&websub).1, None, "a hub is not told a secret that the feed did not publish");
    }

    /// What a visit at this hour knows of the hub, if the feed names this one.
    fn visit(websub: &mut Option<Box<WebSubState>>, hub: Option<&str>, hour: u64) -> Option<String> {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let source = Source::new(SourceId::try_new("a").unwrap(), url);
        let info = feed::FeedInfo { hub: hub.map(str::to_owned), ..feed::FeedInfo::default() };
        discover(websub, &source, &fetch::HeaderLinks::default(), Some(&info), at(hour));
        Some(websub.as_ref()?.hub.as_ref()?.reveal().to_owned())
    }

    /// The same, of a visit that was answered 304.
    fn unchanged(websub: &mut Option<Box<WebSubState>>, hour: u64) -> Option<String> {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let source = Source::new(SourceId::try_new("a").unwrap(), url);
        discover(websub, &source, &fetch::HeaderLinks::default(), None, at(hour));
        Some(websub.as_ref()?.hub.as_ref()?.reveal().to_owned())
    }

    #[test]
    fn a_hub_changes_once_a_day_and_what_the_feed_names_meanwhile_waits() {
        let ([a, b, c], mut websub) =
            (["https://a.example/", "https://b.example/", "https://c.example/"], None);
        let known = |hub: &str| Some(hub.to_owned());
        assert_eq!(visit(&mut websub, Some(a), 0), known(a));
        assert_eq!(visit(&mut websub, Some(b), 1), known(b), "the first change");
        assert_eq!(visit(&mut websub, Some(c), 2), known(b));
        let error = PushStatus::from(&**websub.as_ref().unwrap()).error.unwrap();
        let until = at(25);
        assert_eq!(
            error,
            format!(
                "the feed names another hub; that changes at most once a day, the next time after {until}"
            )
        );
        assert_eq!(visit(&mut websub, Some(b), 3), known(b), "it has changed its mind");
        assert_eq!(PushStatus::from(&**websub.as_ref().unwrap()).error, None);
        assert_eq!(visit(&mut websub, None, 4), known(b));
        assert_eq!(visit(&mut websub, Some(c), 5), known(b));
        assert_eq!(unchanged(&mut websub, 24), known(b));
        assert_eq!(unchanged(&mut websub, 25), known(c), "without another document");
        assert_eq!(visit(&mut websub, Some(a), 48), known(c));
        assert_eq!(visit(&mut websub, Some(a), 49), known(a));
    }

    #[test]
    fn leaving_out_the_hub_is_a_change_as_well() {
        let mut websub = None;
        let (a, b) = ("https://a.example/", "https://b.example/");
        visit(&mut websub, Some(a), 0);
        assert_eq!(visit(&mut websub, None, 1), None);
        for hour in 2..25 {
            let hub = if hour % 2 == 0 { Some(b) } else { None };
            assert_eq!(visit(&mut websub, hub, hour), None, "{hour}");
        }
        assert_eq!(visit(&mut websub, Some(b), 25), Some(b.to_owned()));
        assert_eq!(visit(&mut websub, None, 49), None);
        assert!(websub.is_some(), "the change is remembered");
        visit(&mut websub, None, 74);
        assert_eq!(websub, None, "for a day");
    }

    #[test]
    fn a_topic_changes_with_its_hub() {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let source = Source::new(SourceId::try_new("a").unwrap(), url);
        let mut websub = None;
        let link = |text: &str| FeedUrl::try_new(text).ok();
        for minute in 0..60 {
            let topic = link(&format!("https://example.org/feed?now={minute}"));
            let links = fetch::HeaderLinks { hub: link("https://a.example/"), topic };
            discover(&mut websub, &source, &links, None, at(0).plus(Duration::from_secs(60 * minute)));
        }
        let topic = websub.as_ref().unwrap().topic.clone().unwrap();
        assert_eq!(topic.reveal(), "https://example.org/feed?now=1");
        let error = PushStatus::from(&**websub.as_ref().unwrap()).error.unwrap();
        assert!(error.starts_with("the feed names another topic;"), "{error}");
    }
}
