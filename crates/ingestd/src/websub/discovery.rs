//! Which hub and topic a feed names, in its response header or in the document (WebSub, section 4).

use news::{FeedUrl, SecretText, Source, WebSubState};

/// Stores the hub and the topic that a feed names. `links` are those of the response header, which have precedence;
/// `document` is from the body, if one was parsed.
pub(crate) fn discover(
    websub: &mut Option<Box<WebSubState>>,
    source: &Source,
    links: &fetch::HeaderLinks,
    document: Option<&feed::FeedInfo>,
) {
    let text = |url: &FeedUrl| SecretText::new(url.secret().as_str().to_owned());
    let named =
        |text: &Option<String>| text.clone().filter(|t| t.len() <= FeedUrl::LENGTH_MAX).map(SecretText::new);
    let hub = links.hub.as_ref().map(text).or_else(|| named(&document?.hub));
    match hub {
        Some(hub) => {
            let topic = links.topic.as_ref().map(text).or_else(|| named(&document?.self_url));
            let known = websub.get_or_insert_default();
            known.topic = topic.or_else(|| known.topic.take()).or_else(|| plain(source));
            known.hub = Some(hub);
        }
        // Only a document without a hub means that the feed has none any more.
        None if document.is_some() => {
            if let Some(known) = websub {
                (known.hub, known.topic) = (None, None);
            }
            websub.take_if(|known| known.subscription.is_none());
        }
        None => {}
    }
}

/// The URL of a feed that names no topic, if it contains no secret that a hub must not see.
fn plain(source: &Source) -> Option<SecretText> {
    let url = source.url.secret();
    let is_plain = url.query().is_none() && url.username().is_empty() && url.password().is_none();
    is_plain.then(|| SecretText::new(url.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use news::SourceId;

    use super::*;

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
        discover(&mut websub, &feed, &none, None);
        assert_eq!(websub, None);
        discover(&mut websub, &feed, &none, Some(&info));
        assert_eq!(named(&websub), expected("https://document.example/", "https://example.org/self"));
        let head = fetch::HeaderLinks {
            hub: link("https://head.example/"),
            topic: link("https://example.org/head"),
        };
        discover(&mut websub, &feed, &head, Some(&info));
        assert_eq!(named(&websub), expected("https://head.example/", "https://example.org/head"));
        discover(&mut websub, &feed, &none, None);
        assert_eq!(
            named(&websub),
            expected("https://head.example/", "https://example.org/head"),
            "a 304 says nothing"
        );
        discover(&mut websub, &feed, &none, Some(&feed::FeedInfo::default()));
        assert_eq!(websub, None);

        let hub_only = fetch::HeaderLinks { hub: link("https://head.example/"), topic: None };
        discover(&mut websub, &feed, &hub_only, None);
        assert_eq!(named(&websub).1.as_deref(), Some("https://example.org/feed"));
        let mut websub = None;
        discover(&mut websub, &source("https://example.org/feed?key=TOPSECRET"), &hub_only, None);
        assert_eq!(named(&websub).1, None, "a hub is not told a secret that the feed did not publish");
    }
}
