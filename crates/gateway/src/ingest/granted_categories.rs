//! Categories that tokens or `gateway.public_categories` grant and no source has: their readers get nothing, and no error
//! tells them so.

use super::catalogue_labels::{CatalogueLabels, LabelKind};
use crate::auth::authenticator::Authenticator;

/// Categories that one warning names.
const NAMED_MAX: usize = 32;

/// Those that no source has, in lower case; none while the catalogue is not known.
pub(crate) fn without_source(authenticator: &Authenticator, catalogue: &CatalogueLabels) -> Vec<String> {
    let granted = authenticator.granted_categories().into_iter();
    granted
        .filter(|category| !catalogue.has(LabelKind::Category, category, None))
        .map(str::to_owned)
        .collect()
}

/// Warns of them, if there are any.
pub(crate) fn warn(categories: &[String]) {
    if categories.is_empty() {
        return;
    }
    let (named, more) = categories.split_at(categories.len().min(NAMED_MAX));
    let mut named = named.join(", ");
    if !more.is_empty() {
        named.push_str(&format!(" and {} more", more.len()));
    }
    tracing::warn!(
        categories = named,
        "gateway.public_categories or gateway.read_tokens_file grants categories that no source has; correct their names"
    );
}

#[cfg(test)]
mod tests {
    use daemon::config::GatewaySection;
    use serde_json::json;

    use super::*;
    use crate::ingest::catalogue_labels::LabelIndex;

    #[test]
    fn a_granted_category_that_no_source_has_is_found_in_tokens_and_in_what_is_public() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.toml");
        let token = |name: &str, categories: &str| {
            format!(
                "[[token]]\nname = '{name}'\ntoken = '{name}-token-0123456789'\ncategories = {categories}\n"
            )
        };
        let tokens =
            [token("desk", "['Sport', 'Culture']"), token("chief", "'all'"), token("a", "['sports']")];
        std::fs::write(&file, tokens.concat()).unwrap();
        let gateway = GatewaySection {
            read_tokens_file: Some(file),
            public_categories: vec!["general".to_owned(), "WORLD".to_owned()],
            ..GatewaySection::default()
        };
        let authenticator = Authenticator::load(&gateway).unwrap();
        let catalogue = CatalogueLabels::default();
        assert!(without_source(&authenticator, &catalogue).is_empty(), "the catalogue is not known yet");
        let source = |id: &str, category: &str| {
            serde_json::from_value(json!({
                "id": id, "name": "", "url": "", "category": category, "country": null, "tags": [],
                "enabled": true, "activity": "idle", "consecutive_failures": 0, "why": "", "warnings": [],
                "restarts": 0, "counts": {},
            }))
            .unwrap()
        };
        catalogue.replace(LabelIndex::new(&[source("a", "sport"), source("b", "World")]));
        assert_eq!(without_source(&authenticator, &catalogue), ["culture", "general", "sports"]);
        assert!(without_source(&Authenticator::default(), &catalogue).is_empty());
    }
}
