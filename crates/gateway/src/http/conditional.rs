//! Conditional requests (RFC 9110, section 13): whether the client's copy is current.

use actix_web::http::header::{EntityTag, HeaderMap, IF_NONE_MATCH};

/// Whether the answer is `304 Not Modified`: the request's `If-None-Match` names `etag`, weak or strong, alone or in a
/// list, or is `*` (RFC 9110, section 13.1.2). Only for what exists: `*` means any representation of it.
pub(crate) fn not_modified(headers: &HeaderMap, etag: &str) -> bool {
    let Ok(current) = etag.parse::<EntityTag>() else {
        debug_assert!(false, "{etag} is no entity tag");
        return false;
    };
    // A comma within a tag cuts it into pieces that are no tags, and ours has none.
    let members = headers.get_all(IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    members.flat_map(|value| value.split(',')).map(str::trim).any(|member| {
        member == "*" || member.parse::<EntityTag>().is_ok_and(|theirs| theirs.weak_eq(&current))
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_copy_is_current_if_any_of_its_tags_is_ours_weak_or_strong() {
        let is_current = |values: &[&'static str], etag: &str| {
            let request =
                values.iter().fold(TestRequest::default(), |r, v| r.append_header(("if-none-match", *v)));
            not_modified(request.to_http_request().headers(), etag)
        };
        for values in [
            &["W/\"k-1-2\""][..],
            &["\"k-1-2\""],
            &["*"],
            &[" * "],
            &["\"a\", W/\"k-1-2\""],
            &["W/\"a\",\"k-1-2\" ,\"b\""],
            &["\"a,b\", \"k-1-2\""],
            &["\"a\"", "\"k-1-2\""],
            &["nonsense, \"k-1-2\""],
        ] {
            assert!(is_current(values, "W/\"k-1-2\""), "{values:?}");
            assert!(is_current(values, "\"k-1-2\""), "{values:?}");
        }
        for values in [
            &[][..],
            &[""],
            &["k-1-2"],
            &["w/\"k-1-2\""],
            &["W/k-1-2"],
            &["\"k-1-2"],
            &["\"k-1\""],
            &["\"k-1-22\", \"K-1-2\""],
            &["\"*\""],
        ] {
            assert!(!is_current(values, "W/\"k-1-2\""), "{values:?}");
        }
    }
}
