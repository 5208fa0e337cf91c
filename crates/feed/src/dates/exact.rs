//! The two forms that nearly every feed uses, byte by byte, without allocating: RFC 3339 and RFC 822.

use super::{clock_ms, day_ms, offset_minutes};

/// The instant of `2021-09-06T12:00:00.25+02:00` or `Mon, 06 Sep 2021 12:00:00 +0200`, in milliseconds since 1970.
/// `None` for any other form, also one of these with a mistake.
pub(super) fn instant_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    match bytes.first()? {
        b'0'..=b'9' if bytes.get(4) == Some(&b'-') => rfc3339(bytes),
        _ => rfc822(bytes),
    }
}

fn rfc3339(bytes: &[u8]) -> Option<i64> {
    let (head, tail) = bytes.split_at_checked(19)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b't' | b' ', clock @ ..] = head else {
        return None;
    };
    let day = day_ms(number(&[*y1, *y2, *y3, *y4])?, number(&[*m1, *m2])?, number(&[*d1, *d2])?)?;
    let (fraction_ms, zone) = match tail {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let ms = (0..3).try_fold(0, |ms, at| {
                let digit = rest.get(at).filter(|_| at < digits).map_or(Some(0), |b| number(&[*b]));
                Some(ms * 10 + digit?)
            })?;
            (ms, &rest[digits..])
        }
        rest => (0, rest),
    };
    let minutes = match zone {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => offset(*sign, &[*h1, *h2, *m1, *m2])?,
        [sign @ (b'+' | b'-'), hhmm @ ..] => offset(*sign, hhmm)?,
        _ => return None,
    };
    Some(day + time_ms(clock)? + fraction_ms - minutes * 60_000)
}

fn rfc822(bytes: &[u8]) -> Option<i64> {
    let rest = match bytes {
        [a, b, c, b',', b' ', rest @ ..] => is_weekday([*a, *b, *c]).then_some(rest)?,
        rest => rest,
    };
    let (day, rest) = match rest {
        [d1, d2, b' ', rest @ ..] => (number(&[*d1, *d2])?, rest),
        [d1, b' ', rest @ ..] => (number(&[*d1])?, rest),
        _ => return None,
    };
    let [a, b, c, b' ', y1, y2, y3, y4, b' ', rest @ ..] = rest else { return None };
    let day = day_ms(number(&[*y1, *y2, *y3, *y4])?, month([*a, *b, *c])?, day)?;
    let (clock, zone) = rest.split_at_checked(8)?;
    let minutes = match zone {
        b" GMT" | b" UTC" | b" Z" => 0,
        [b' ', sign @ (b'+' | b'-'), hhmm @ ..] => offset(*sign, hhmm)?,
        _ => return None,
    };
    Some(day + time_ms(clock)? - minutes * 60_000)
}

/// `12:00:00`, without the exceptions for the hour 24 and the second 60.
fn time_ms(clock: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hour, second) = (number(&[*h1, *h2])?, number(&[*s1, *s2])?);
    clock_ms(hour, number(&[*m1, *m2])?, second).filter(|_| hour < 24 && second < 60)
}

fn offset(sign: u8, hhmm: &[u8]) -> Option<i64> {
    let [h1, h2, m1, m2] = hhmm else { return None };
    offset_minutes(sign == b'-', number(&[*h1, *h2])?, number(&[*m1, *m2])?)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, b| b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0')))
}

fn is_weekday(name: [u8; 3]) -> bool {
    const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    DAYS.contains(&&name)
}

fn month(name: [u8; 3]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    (1..).zip(MONTHS).find(|(_, month)| **month == name).map(|(number, _)| number)
}
