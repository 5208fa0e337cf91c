//! The attribute `srcset`: a list of addresses with descriptors (HTML section 4.8.4.2.1).

/// The whitespace of HTML.
const SPACE: [char; 5] = [' ', '\t', '\n', '\u{c}', '\r'];

/// The addresses of the valid candidates, in their order. Commas and parentheses inside an address are part of it.
pub(super) fn candidates(srcset: &str) -> impl Iterator<Item = &str> {
    let mut rest = srcset;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || SPACE.contains(&c));
            if rest.is_empty() {
                return None;
            }
            let (address, after) = rest.split_at(rest.find(SPACE).unwrap_or(rest.len()));
            let bare = address.trim_end_matches(',');
            if bare.len() < address.len() {
                rest = after;
                return Some(bare);
            }
            let end = descriptors_end(after);
            let descriptors = &after[..end];
            rest = after.get(end + 1..).unwrap_or_default();
            if are_valid(descriptors) {
                return Some(address);
            }
        }
    })
}

/// Where the descriptors end: at a comma outside parentheses.
fn descriptors_end(text: &str) -> usize {
    let mut inside = false;
    let end = text.bytes().position(|b| {
        match b {
            b'(' => inside = true,
            b')' => inside = false,
            _ => {}
        }
        b == b',' && !inside
    });
    end.unwrap_or(text.len())
}

/// At most one width or density, and a height only with a width.
fn are_valid(descriptors: &str) -> bool {
    let (mut width, mut density, mut height) = (false, false, false);
    for descriptor in descriptors.split(SPACE).filter(|d| !d.is_empty()) {
        let (value, unit) = descriptor.split_at(descriptor.len() - last_len(descriptor));
        let valid = match unit {
            "w" => !std::mem::replace(&mut width, true) && !density && is_size(value),
            "x" => !std::mem::replace(&mut density, true) && !width && !height && is_density(value),
            "h" => !std::mem::replace(&mut height, true) && !density && is_size(value),
            _ => false,
        };
        if !valid {
            return false;
        }
    }
    width || !height
}

fn last_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

/// A valid non-negative integer that is not 0.
fn is_size(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) && value.bytes().any(|b| b != b'0')
}

/// A valid floating-point number that is not negative (HTML section 2.3.4.3): `1`, `.5`, `1.5e3`; no `+1`, `1.`, `inf`.
fn is_density(value: &str) -> bool {
    let (mantissa, exponent) = match value.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (value, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => (true, mantissa),
        None => (false, mantissa),
    };
    let is_number = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole.is_empty() || is_digits(whole)) && is_digits(fraction),
        None => is_digits(mantissa),
    };
    let is_zero = mantissa.bytes().all(|b| matches!(b, b'0' | b'.'));
    is_number
        && (!negative || is_zero)
        && exponent.is_none_or(|e| is_digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each rule of the grammar, and what breaks it.
    const LISTS: &[(&str, &[&str])] = &[
        ("", &[]),
        (",", &[]),
        (" ,,, ,\t,\n", &[]),
        ("a", &["a"]),
        (" a ", &["a"]),
        ("\t\n\u{c}\r a\t", &["a"]),
        // Other whitespace is part of the address.
        ("\u{b}a\u{a0}b", &["\u{b}a\u{a0}b"]),
        ("a,", &["a"]),
        ("a,,,", &["a"]),
        (",a", &["a"]),
        ("a,b", &["a,b"]),
        ("a, b", &["a", "b"]),
        ("a ,b", &["a", "b"]),
        ("a , b", &["a", "b"]),
        ("a,,b", &["a,,b"]),
        ("a,, b", &["a", "b"]),
        ("data:,a 1x", &["data:,a"]),
        ("data:,a,", &["data:,a"]),
        (
            "/w_400,c_limit/a.jpg 400w, /w_800,c_limit/a.jpg 800w",
            &["/w_400,c_limit/a.jpg", "/w_800,c_limit/a.jpg"],
        ),
        (
            "/w_400,c_limit/a.jpg 400w,/w_800,c_limit/a.jpg 800w",
            &["/w_400,c_limit/a.jpg", "/w_800,c_limit/a.jpg"],
        ),
        ("a(b,c).png 1x, d", &["a(b,c).png", "d"]),
        ("a 1w", &["a"]),
        ("a 1w 2w", &[]),
        ("a 0w", &[]),
        ("a 00w", &[]),
        ("a -1w", &[]),
        ("a +1w", &[]),
        ("a 1.0w", &[]),
        ("a 1e3w", &[]),
        ("a w", &[]),
        ("a 1W", &[]),
        ("a 0001w", &["a"]),
        ("a 1x", &["a"]),
        ("a 1x 1x", &[]),
        ("a 1X", &[]),
        ("a x", &[]),
        ("a 0x", &["a"]),
        ("a -0x", &["a"]),
        ("a -1x", &[]),
        ("a +1x", &[]),
        ("a 1.5x", &["a"]),
        ("a .5x", &["a"]),
        ("a 1.x", &[]),
        ("a 1e2x", &["a"]),
        ("a 1e+2x", &["a"]),
        ("a 1E-2x", &["a"]),
        ("a 1e2.5x", &[]),
        ("a 1ex", &[]),
        ("a infx", &[]),
        ("a NaNx", &[]),
        ("a 0x10x", &[]),
        ("a 1w 1x", &[]),
        ("a 1x 1w", &[]),
        ("a 1h", &[]),
        ("a 1w 1h", &["a"]),
        ("a 1h 1w", &["a"]),
        ("a 1w 0h", &[]),
        ("a 1w 1h 1h", &[]),
        ("a 1x 1h", &[]),
        ("a 1h 1x", &[]),
        ("a foo", &[]),
        ("a foo, b", &["b"]),
        ("a foo(1x, b), c", &["c"]),
        ("a (, b", &[]),
        ("a 1w é", &[]),
        ("a 1x,b 2x ,c\t3x\n, d", &["a", "b", "c", "d"]),
    ];

    #[test]
    fn a_list_is_read_as_html_says() {
        for (list, addresses) in LISTS {
            assert_eq!(candidates(list).collect::<Vec<_>>(), *addresses, "{list:?}");
        }
    }

    #[test]
    fn a_list_is_read_in_linear_time() {
        for piece in ["a", ",", "a ", "a (", "a (, ", "a 1w, ", "a foo, "] {
            let _counted = candidates(&piece.repeat(200_000)).count();
        }
    }
}
