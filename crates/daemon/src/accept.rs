//! Content negotiation: which media types a client accepts, and which of them rather (RFC 9110, section 12.5.1).

use actix_web::http::header::{ACCEPT, HeaderMap, Quality, QualityItem, from_comma_delimited};
use actix_web::mime::{self, Mime};

/// The media types of a request's `Accept`. Without the header, or with one that cannot be read, all are accepted.
#[derive(Clone, Debug)]
pub struct AcceptedTypes(Vec<QualityItem<Mime>>);

/// How gladly a client takes one media type. The greater one of two is what the client prefers: by its quality, then by
/// how precisely the client named it. A type with `q=0` is as little accepted as one that was not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acceptance {
    quality: Quality,
    precision: usize,
}

impl AcceptedTypes {
    /// What a request with these headers accepts.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let listed = from_comma_delimited(headers.get_all(ACCEPT)).unwrap_or_default();
        let all = || vec![QualityItem::max(mime::STAR_STAR)];
        Self(if listed.is_empty() { all() } else { listed })
    }

    /// How gladly `offer`, a media type with or without parameters, is taken: the most precise range decides. A range
    /// with another value of a parameter does not mean the offer; parameters that the offer lacks are ignored.
    #[must_use]
    pub fn acceptance(&self, offer: &str) -> Acceptance {
        let none = Acceptance { quality: Quality::ZERO, precision: 0 };
        let Ok(offer) = offer.parse::<Mime>() else { return none };
        let fits = |range: &QualityItem<Mime>| {
            let precision = precision(&range.item, &offer)?;
            Some(Acceptance { quality: range.quality, precision })
        };
        let best = self.0.iter().filter_map(fits).max_by_key(|found| (found.precision, found.quality));
        best.filter(|found| found.quality > Quality::ZERO).unwrap_or(none)
    }
}

impl Acceptance {
    /// Whether the client named the type itself, and not only a range such as `*/*`.
    #[must_use]
    pub fn is_named(self) -> bool {
        self.precision >= NAMED
    }
}

/// Precision of a range that names a type without parameters; each parameter adds to it.
const NAMED: usize = 3;

/// How precisely a range means `offer`, if it does.
fn precision(range: &Mime, offer: &Mime) -> Option<usize> {
    let mut known = 0;
    for (name, value) in range.params() {
        match offer.get_param(name) {
            Some(ours) if ours == value => known += 1,
            Some(_) => return None,
            None => {}
        }
    }
    match (range.type_(), range.subtype()) {
        (mime::STAR, mime::STAR) => Some(1),
        (name, mime::STAR) if name == offer.type_() => Some(2),
        _ if range.essence_str() == offer.essence_str() => Some(NAMED + known),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn accepted(values: &[&'static str]) -> AcceptedTypes {
        let request = values.iter().fold(TestRequest::default(), |r, v| r.append_header((ACCEPT, *v)));
        AcceptedTypes::of(request.to_http_request().headers())
    }

    #[test]
    fn a_client_gets_what_it_prefers_by_quality_then_by_precision() {
        let prefers = |values: &[&'static str], one: &str, other: &str| {
            let accepted = accepted(values);
            accepted.acceptance(one) > accepted.acceptance(other)
        };
        let (json, text) = ("application/json", "text/plain; version=1; charset=utf-8");
        for first in [
            &["application/json"][..],
            &["application/json, text/plain;q=0.9"],
            &["application/json, */*"],
            &["application/*, */*"],
            &["text/plain;q=0, application/json;q=0.1"],
            &["text/plain;q=0, */*"],
            &["*/*;q=0.5", "application/json"],
            &["APPLICATION/JSON;Q=0.5,text/*;q=0.4"],
            &["text/plain;version=2, application/json;q=0.1"],
            &["text/*, text/plain;q=0.2, application/json;q=0.3"],
        ] {
            assert!(prefers(first, json, text) && !prefers(first, text, json), "{first:?}");
        }
        for neither in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/json;q=0"],
            &["application/json, text/plain"],
            &["image/png"],
            &["nonsense;;"],
            &["\u{e4}"],
        ] {
            assert!(!prefers(neither, json, text) && !prefers(neither, text, json), "{neither:?}");
        }
        assert!(prefers(&["text/plain;version=1;charset=utf-8;q=0.4, */*;q=0.1"], text, json));
        assert!(prefers(&["text/plain;escaping=none, application/json;q=0.9"], text, json));
    }

    #[test]
    fn only_a_range_that_names_the_type_is_its_name() {
        let is_named = |value| accepted(&[value]).acceptance("text/html").is_named();
        assert!(is_named("text/html") && is_named("a/b, text/html;level=1;q=0.1"));
        assert!(!is_named("text/*") && !is_named("*/*") && !is_named("text/html;q=0") && !is_named("a/b"));
    }
}
