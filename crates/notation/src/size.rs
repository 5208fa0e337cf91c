//! Sizes in bytes, for people.

/// A size in bytes for people to read, in the unit that says it: `512 B`, `8.0 MiB`, `42 GiB`. It is cut, not rounded.
#[must_use]
pub fn humanize_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| bytes >> (10 * unit) > 0).unwrap_or(0);
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    match (unit, UNITS.get(unit)) {
        (1.., Some(name)) if tenths < 100 => format!("{}.{} {name}", tenths / 10, tenths % 10),
        (_, name) => format!("{} {}", tenths / 10, name.unwrap_or(&"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_unit_that_says_it() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((8 << 20) - 1, "7.9 MiB"),
            (256 << 20, "256 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(humanize_bytes(bytes), text);
        }
    }
}
