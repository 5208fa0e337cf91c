//! Members of an object that are present together or not at all.

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::{Map, Value};

/// A group of members that is flattened into an object.
pub(crate) trait OptionalPart: DeserializeOwned {
    /// Their names.
    const KEYS: &[&str];
}

/// For `#[serde(flatten, deserialize_with)]`: `None` if no member of the part is there. Serde's own `flatten` of an
/// `Option` would also return `None` when one of them is missing or has the wrong type, and hide that.
pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: OptionalPart,
{
    let members = Map::<String, Value>::deserialize(deserializer)?;
    if T::KEYS.iter().all(|key| !members.contains_key(*key)) {
        return Ok(None);
    }
    T::deserialize(Value::Object(members)).map(Some).map_err(D::Error::custom)
}
