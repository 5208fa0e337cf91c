//! A page of a list, in the order of its keys: `{"NAME":[…],"next":"/PATH?…"|null}`. The elements were rendered when
//! they changed, and all clients get the same bytes.

use bytes::Bytes;

use super::{body::SharedBody, news_page::PAGE_BYTES_MAX, pool::Slice};

/// Elements of a page without a `limit`, and the most that one may have.
pub(crate) const LIMIT_MAX: usize = 1000;

/// Which page of a list.
#[derive(Clone, Debug)]
pub(crate) struct ListRequest {
    /// The path of the list, such as `/sources`.
    pub(crate) path: &'static str,
    /// The key that the page begins after.
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
}

/// An element of a list.
#[derive(Clone, Debug)]
pub(crate) struct ListElement {
    /// What the list is ordered by.
    pub(crate) key: Box<str>,
    /// JSON without its last brace.
    pub(crate) json: Bytes,
    /// Whether the reader may see it.
    pub(crate) is_visible: bool,
}

/// Makes a page. `read_after` returns the next elements after a key, at most so many; none at the end of the list.
pub(crate) async fn make(
    name: &'static str,
    request: ListRequest,
    read_after: impl Fn(Option<&str>, usize) -> Vec<ListElement>,
) -> SharedBody {
    let mut body = SharedBody::from(format!("{{\"{name}\":["));
    let mut slice = Slice::begin();
    let (mut count, mut bytes) = (0, 0);
    // The last element that was looked at.
    let mut last = request.after.clone();
    let next = 'list: loop {
        let elements = read_after(last.as_deref(), Slice::STEPS);
        if elements.is_empty() {
            break None;
        }
        for ListElement { key, json, is_visible } in elements {
            if is_visible {
                bytes += json.len();
                if count == request.limit || count > 0 && bytes > PAGE_BYTES_MAX {
                    break 'list last;
                }
                if count > 0 {
                    body.push(Bytes::from_static(b"},"));
                }
                body.push(json);
                count += 1;
            }
            last = Some(key.into());
            slice.step().await;
        }
    };
    if count > 0 {
        body.push(Bytes::from_static(b"}"));
    }
    let next = next.map(|last| next_page(&request, &last));
    body.push(format!("],\"next\":{}}}", serde_json::json!(next)));
    body
}

fn next_page(request: &ListRequest, last: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &request.limit.to_string()).append_pair("after", last);
    format!("{}?{}", request.path, query.finish())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::Bound};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Follows `next` through a list in which every element is visible or not.
    fn walk(list: &BTreeMap<String, bool>, limit: usize, padding: usize) -> Vec<String> {
        let read_after = |after: Option<&str>, n: usize| {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let range = list.range::<str, _>((start, Bound::Unbounded));
            let padding = "x".repeat(padding);
            let element = |(key, is_visible): (&String, &bool)| ListElement {
                key: key.as_str().into(),
                json: serde_json::json!({ "key": key, "padding": padding })
                    .to_string()
                    .trim_end_matches('}')
                    .to_owned()
                    .into(),
                is_visible: *is_visible,
            };
            // Fewer than asked for: the end is where there are none.
            range.map(element).take(n.min(7)).collect()
        };
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let request = ListRequest { path: "/list", after, limit };
            let body = whole(make("list", request, read_after));
            let body: Value = serde_json::from_slice(&body).unwrap();
            let elements = body["list"].as_array().unwrap();
            assert!(elements.len() <= limit);
            keys.extend(elements.iter().map(|element| element["key"].as_str().unwrap().to_owned()));
            let Some(next) = body["next"].as_str() else { return keys };
            let query = next.strip_prefix("/list?").unwrap();
            let value = |name: &str| {
                url::form_urlencoded::parse(query.as_bytes())
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v.into_owned())
            };
            assert_eq!(value("limit"), Some(limit.to_string()));
            assert!(!elements.is_empty(), "a page with a next one has an element");
            after = value("after");
        }
    }

    fn whole(page: impl Future<Output = SharedBody>) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(page);
        runtime.block_on(actix_web::body::to_bytes(body)).unwrap().to_vec()
    }

    proptest! {
        #[test]
        fn a_walk_over_a_list_gets_every_visible_element_once_and_in_order(
            list in prop::collection::btree_map("[a-z&+ é]{0,3}", any::<bool>(), 0..40), limit in 1..9usize,
        ) {
            let visible: Vec<_> = list.iter().filter(|(_, v)| **v).map(|(k, _)| k.clone()).collect();
            prop_assert_eq!(walk(&list, limit, 0), visible);
        }
    }

    #[test]
    fn bytes_limit_a_page_too_but_one_element_always_fits() {
        let list = (0..5).map(|n| (n.to_string(), true)).collect();
        assert_eq!(walk(&list, 1000, PAGE_BYTES_MAX / 2).len(), 5);
        assert_eq!(walk(&list, 1000, PAGE_BYTES_MAX + 1).len(), 5);
    }
}
