//! `GET /sources`: made and sent in parts, so that neither the loop nor the memory has all sources at once.

use std::io;

use actix_web::web;
use bytes::Bytes;
use futures_util::{Stream, stream};
use news::SourceId;

use crate::status::registry::SourceRegistry;

/// Sources in one part.
const PART_SOURCES_MAX: usize = 64;
/// A part with more bytes than this has no further source.
const PART_BYTES: usize = 64 * 1024;

/// Where the next part begins.
enum NextPart {
    First,
    After(SourceId),
}

/// `{"sources":[…]}` with the last visits: the gateways keep them for `GET /sources/{id}`. Each part is made in the pool,
/// and only when the one before has been sent.
pub(super) fn parts(registry: SourceRegistry) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(Some(NextPart::First), move |next| {
        let registry = registry.clone();
        async move {
            let Some(next) = next else { return Ok(None) };
            let made = web::block(move || make_part(&registry, &next)).await;
            made.map_err(io::Error::other)?.map(Some)
        }
    })
}

/// A part, and where the next one begins, if there is one. A source that comes or leaves meanwhile may be missing.
fn make_part(registry: &SourceRegistry, at: &NextPart) -> io::Result<(Bytes, Option<NextPart>)> {
    let (mut json, after) = match at {
        NextPart::First => (br#"{"sources":["#.to_vec(), None),
        NextPart::After(id) => (Vec::new(), Some(id.as_str())),
    };
    let mut is_first = after.is_none();
    let entries = registry.entries_after(after, PART_SOURCES_MAX);
    let mut last = None;
    for entry in &entries {
        if !std::mem::take(&mut is_first) {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, &entry.full_status())?;
        last = Some(entry.source.id.clone());
        if json.len() > PART_BYTES {
            break;
        }
    }
    if last.is_none() {
        json.extend_from_slice(b"]}");
    }
    Ok((json.into(), last.map(NextPart::After)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::TryStreamExt as _;
    use news::{FeedUrl, Source, SourceState};
    use serde_json::Value;

    use super::*;
    use crate::status::registry::SourceEntry;

    const LONG: usize = 10_000;

    /// So many sources; each tenth has a long reason.
    fn registry(sources: usize) -> SourceRegistry {
        let registry = SourceRegistry::default();
        for n in 0..sources {
            let url = FeedUrl::try_new("https://example.org/").unwrap();
            let source = Source::new(SourceId::try_new(&id(n)).unwrap(), url);
            let why = "x".repeat(if n % 10 == 0 { LONG } else { 0 });
            let state = SourceState { why, ..SourceState::default() };
            registry.insert(Arc::new(SourceEntry::new(Arc::new(source), state)));
        }
        registry
    }

    fn id(n: usize) -> String {
        format!("s{n:05}")
    }

    fn ids(parts: &[Bytes]) -> Vec<String> {
        let answer: Value = serde_json::from_slice(&parts.concat()).unwrap();
        let ids = answer["sources"].as_array().unwrap().iter().map(|source| source["id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    #[actix_web::test]
    async fn every_source_is_in_one_of_many_small_parts() {
        const SOURCES: usize = 20_000;
        let sent: Vec<_> = parts(registry(SOURCES)).try_collect().await.unwrap();
        let largest = sent.iter().map(Bytes::len).max().unwrap();
        assert!(largest <= PART_BYTES + LONG + 2_000, "{largest}");
        assert!(sent.len() > SOURCES / PART_SOURCES_MAX, "{}", sent.len());
        assert_eq!(ids(&sent), (0..SOURCES).map(id).collect::<Vec<_>>());
    }

    #[actix_web::test]
    async fn a_part_is_made_when_it_is_asked_for_and_a_list_that_shrinks_stays_json() {
        let registry = registry(3 * PART_SOURCES_MAX);
        let mut parts = Box::pin(parts(registry.clone()));
        let first = parts.try_next().await.unwrap().unwrap();
        for n in 1..3 * PART_SOURCES_MAX {
            registry.remove(&SourceId::try_new(&id(n)).unwrap());
        }
        let rest: Vec<_> = parts.try_collect().await.unwrap();
        let ids = ids(&[vec![first], rest].concat());
        assert!(!ids.is_empty() && ids.len() <= PART_SOURCES_MAX, "{ids:?}");
    }

    #[actix_web::test]
    async fn without_sources_the_list_is_empty() {
        let sent: Vec<_> = parts(SourceRegistry::default()).try_collect().await.unwrap();
        assert!(ids(&sent).is_empty());
    }
}
