//! Reads the tokens of a date. Every token must be understood, or the text is not a date.

use chrono::{NaiveDate, Weekday};

use super::{
    DayOrder, offset_minutes,
    parts::{DateNumber, DateParts, NUMBERS_MAX},
    tokens::{DateToken, DateTokenKind, split},
    words::{self, DateWord},
    zones,
};

/// The most words that the name of a time zone has, such as `north american eastern standard time`.
const ZONE_WORDS_MAX: usize = 6;
/// The instant of a folded text, in milliseconds since 1970. `language` is the tag of the feed's language in lower case, or
/// empty; `order` decides dates such as `03/04/2005`; `american` is whether the text has a sign of the United States, which
/// decides if neither `order` nor the weekday does.
pub(super) fn instant_ms(text: &str, language: &str, order: Option<DayOrder>, american: bool) -> Option<i64> {
    let tokens = split(text)?;
    let parts = DateParts { order, american, ..DateParts::default() };
    let mut reader = Reader { text, language, tokens: &tokens, at: 0, parts };
    reader.all()?;
    reader.parts.instant_ms()
}

struct Reader<'a> {
    text: &'a str,
    /// The tag of the feed's language, in lower case.
    language: &'a str,
    tokens: &'a [DateToken],
    at: usize,
    parts: DateParts<'a>,
}

impl<'a> Reader<'a> {
    fn all(&mut self) -> Option<()> {
        while let Some(token) = self.tokens.get(self.at) {
            self.at += match token.kind {
                DateTokenKind::Number(value, digits) => self.number_here(value, digits)?,
                DateTokenKind::Word => self.word_here()?,
                DateTokenKind::Sign(sign) => self.sign_here(sign)?,
            };
        }
        Some(())
    }

    /// The token `n` places from here.
    fn token(&self, n: usize) -> Option<&'a DateToken> {
        self.tokens.get(self.at + n)
    }

    fn word(&self, n: usize) -> Option<&'a str> {
        let token = self.token(n).filter(|token| token.kind == DateTokenKind::Word)?;
        self.text.get(token.start..token.end)
    }

    fn number(&self, n: usize) -> Option<(i64, usize)> {
        match self.token(n)?.kind {
            DateTokenKind::Number(value, digits) => Some((value, digits)),
            _ => None,
        }
    }

    fn sign(&self, n: usize) -> Option<char> {
        match self.token(n)?.kind {
            DateTokenKind::Sign(sign) => Some(sign),
            _ => None,
        }
    }

    /// `n`, or the place after it if there is a space.
    fn skip_space(&self, n: usize) -> usize {
        n + usize::from(self.sign(n) == Some(' '))
    }

    /// The sign before this token.
    fn sign_before(&self) -> Option<char> {
        match self.tokens.get(self.at.checked_sub(1)?)?.kind {
            DateTokenKind::Sign(sign) => Some(sign),
            _ => None,
        }
    }

    /// A number: how many tokens were used.
    fn number_here(&mut self, value: i64, digits: usize) -> Option<usize> {
        let next = self.skip_space(1);
        if let Some(unit) = self.word(next).and_then(words::meaning).and_then(|meaning| meaning.unit) {
            self.parts.unit(unit, value, digits)?;
            return Some(next + 1);
        }
        if self.parts.time.is_none()
            && let Some(used) = self.clock(value, digits)
        {
            return Some(used);
        }
        if self.parts.is_day_known() && self.parts.time.is_some() {
            // "15:04:05 0000"; of "0200" the sign is lost.
            let is_utc = value == 0 && matches!(digits, 2 | 4) && !self.parts.has_zone();
            self.parts.offset = is_utc.then_some(0);
            return is_utc.then_some(1);
        }
        if matches!(digits, 8 | 14) {
            return self.parts.packed(value, digits).then_some(1);
        }
        if let Some(used) = self.week(value, digits) {
            return Some(used);
        }
        if self.parts.numbers.len() == NUMBERS_MAX || self.parts.date.is_some() {
            return None;
        }
        let sign = self.sign(1).unwrap_or(' ');
        self.parts.numbers.push(DateNumber { value, digits, sign });
        // "6th", "1er", "1º", "6-го".
        let suffix = self.word(1).or_else(|| self.word(2).filter(|word| sign == '-' && *word == "го"));
        let is_ordinal = suffix.is_some_and(|word| {
            matches!(word, "st" | "nd" | "rd" | "th" | "er" | "e" | "o" | "a" | "го") && digits <= 2
        });
        Some(if is_ordinal { 1 + usize::from(self.word(1).is_none()) + 1 } else { 1 })
    }

    /// A time of day that begins here: how many tokens it has.
    fn clock(&mut self, hour: i64, digits: usize) -> Option<usize> {
        let two = |n| self.number(n).filter(|(_, digits)| *digits == 2).map(|(value, _)| value);
        let after_t =
            self.at > 0 && self.tokens.get(self.at - 1).is_some_and(|t| &self.text[t.start..t.end] == "t");
        if after_t && matches!(digits, 4 | 6) {
            let second = if digits == 6 { hour % 100 } else { 0 };
            let minutes = if digits == 6 { hour / 100 } else { hour };
            self.parts.time = Some((minutes / 100, minutes % 100, second));
            return Some(1 + self.fraction(1));
        }
        if digits > 2 {
            return None;
        }
        if self.sign(1) == Some(':') {
            return self.colons(hour);
        }
        // "15h04", "15 h 04", "15h", "15 Uhr".
        let next = self.skip_space(1);
        if let Some("h" | "u" | "uhr" | "uur") = self.word(next) {
            let minute = two(self.skip_space(next + 1)).filter(|_| self.word(next) != Some("uur"));
            let minute = minute.filter(|_| self.sign(self.skip_space(next + 1) + 1) != Some('.'));
            self.parts.time = Some((hour, minute.unwrap_or(0), 0));
            return Some(if minute.is_some() { self.skip_space(next + 1) + 1 } else { next + 1 });
        }
        // "3pm".
        let half = self.half_of_day(next).filter(|(word, _)| matches!(word.as_str(), "am" | "pm"));
        if half.is_some() && self.parts.is_day_known() || after_t && digits == 2 {
            self.parts.time = Some((hour, 0, 0));
            return Some(1);
        }
        // "15.04" behind a date.
        let minute = two(2).filter(|_| self.sign(1) == Some('.') && self.parts.is_day_known())?;
        let second = two(4).filter(|_| self.sign(3) == Some('.'));
        self.parts.time = Some((hour, minute, second.unwrap_or(0)));
        Some(if second.is_some() { 5 + self.fraction(5) } else { 3 })
    }

    /// `12:00`, `12:00:00`, `12:00:00.25`, `12:00:00:250`: how many tokens it has.
    fn colons(&mut self, hour: i64) -> Option<usize> {
        let short = |n| self.number(n).filter(|(_, digits)| *digits <= 2).map(|(value, _)| value);
        let minute = short(2)?;
        let Some(second) = short(4).filter(|_| self.sign(3) == Some(':')) else {
            // An offset and no time: XML Schema's "2021-09-06-05:00".
            if self.sign_before() == Some('-') && self.parts.is_day_known() {
                return None;
            }
            self.parts.time = Some((hour, minute, 0));
            return Some(3);
        };
        self.parts.time = Some((hour, minute, second));
        match (self.sign(5), self.number(6)) {
            (Some(':'), Some((ms, digits))) => {
                self.parts.fraction_ms = ms;
                (digits == 3 || ms == 0).then_some(7)
            }
            _ => Some(5 + self.fraction(5)),
        }
    }

    /// A fraction of the second at `n`: how many tokens it has.
    fn fraction(&mut self, n: usize) -> usize {
        let (Some('.' | ','), Some((value, digits))) = (self.sign(n), self.number(n + 1)) else { return 0 };
        // Of more digits only 18 were read.
        let scale = 10_i128.pow(u32::try_from(digits.min(18)).unwrap_or(18));
        self.parts.fraction_ms = i64::try_from(i128::from(value) * 1000 / scale).unwrap_or(0);
        2
    }

    /// `2004-W05-1`, `2004W051`: how many tokens it has (ISO 8601).
    fn week(&mut self, year: i64, digits: usize) -> Option<usize> {
        let dash = usize::from(self.sign(1) == Some('-'));
        if digits != 4 || self.word(1 + dash) != Some("w") || !self.parts.numbers.is_empty() {
            return None;
        }
        let (week, day, used) = match (self.number(2 + dash)?, self.sign(3 + dash), self.number(4 + dash)) {
            ((both, 3), _, _) => (both / 10, both % 10, 3 + dash),
            ((week, 2), Some('-'), Some((day, 1))) => (week, day, 5 + dash),
            _ => return None,
        };
        let weekday = Weekday::try_from(u8::try_from(day.checked_sub(1)?).ok()?).ok()?;
        let date = NaiveDate::from_isoywd_opt(i32::try_from(year).ok()?, u32::try_from(week).ok()?, weekday)?;
        self.parts.date = Some(date);
        Some(used)
    }

    /// A word: how many tokens were used.
    fn word_here(&mut self) -> Option<usize> {
        let word = self.word(0)?;
        if let Some(used) = self.long_zone_name().or_else(|| self.iana_name()) {
            return Some(used);
        }
        if word == "t" {
            let is_separator =
                self.number(1).is_some() && self.parts.is_day_known() && self.parts.time.is_none();
            return is_separator.then_some(1);
        }
        // Monday and Sunday before a date in Japanese and Korean, as in "月, 05 8月 2024".
        if self.at == 0 && words::meaning(word).is_some_and(|meaning| meaning.unit.is_some()) {
            return Some(1);
        }
        if let Some(used) = self.vietnamese(word) {
            return Some(used);
        }
        if let Some(used) = self.half_here() {
            return Some(used);
        }
        // Two words: "كانون الثاني", "segunda-feira".
        if matches!(self.sign(1), Some(' ' | '-'))
            && let (Some(_), Some(first), Some(last)) = (self.word(2), self.token(0), self.token(2))
            && let Some(meaning) = self.text.get(first.start..last.end).and_then(words::meaning)
        {
            return self.parts.name(meaning).then_some(3);
        }
        let meaning = words::meaning(word).or_else(|| {
            // Hebrew writes "in" as a letter before the month.
            words::meaning(word.strip_prefix('ב')?).filter(|meaning| meaning.month.is_some())
        });
        let meaning = match words::month_in(word, self.language) {
            month @ Some(_) => Some(DateWord { month, ..meaning.unwrap_or_default() }),
            None => meaning,
        };
        let is_month = meaning.is_some_and(|meaning| meaning.month.is_some());
        if is_month && (self.parts.month.is_none() || self.parts.month_is_weekday) {
            return self.parts.name(meaning?).then_some(1);
        }
        let is_zone_place = self.parts.time.is_some() || self.parts.is_day_known();
        // "at" is Atlantic Time only at the end.
        let zone = zones::abbreviation(word, self.language)
            .filter(|_| is_zone_place && (word != "at" || self.token(1).is_none()));
        if let Some(zone) = zone {
            self.parts.is_zulu |= word == "z";
            return self
                .parts
                .zone(zone, zones::is_american(word) && !self.language.starts_with("zh"))
                .then_some(1);
        }
        let meaning = meaning?;
        // Behind a time, a letter is one of RFC 822's zones, defined there with the wrong sign (RFC 5322 §4.3).
        let is_letter = word != "h" && word.len() == 1 && self.parts.time.is_some();
        let is_end =
            self.tokens[self.at + 1..].iter().all(|token| matches!(token.kind, DateTokenKind::Sign(_)));
        let ends_well = meaning.weekdays != 0 || meaning.ending && !is_letter;
        if is_end && meaning.filler && !ends_well {
            return None;
        }
        self.parts.name(meaning).then_some(1)
    }

    /// `America/Port-au-Prince`, `Etc/GMT+5`, `EST5EDT`: how many tokens it has.
    fn iana_name(&mut self) -> Option<usize> {
        let start = self.token(0)?.start;
        let rest = &self.text[start..];
        let name = &rest[..rest.find([' ', ')', ']', ',']).unwrap_or(rest.len())];
        let zone = zones::iana(name)?;
        let used = self.tokens[self.at..].iter().take_while(|token| token.end <= start + name.len()).count();
        self.parts.zone(zone, false).then_some(used)
    }

    /// `Eastern Time`, `W. Europe Standard Time`: how many tokens it has.
    fn long_zone_name(&mut self) -> Option<usize> {
        let mut words = 0;
        let end = (0..).find(|n| {
            words += usize::from(self.word(*n).is_some());
            let goes_on = words <= ZONE_WORDS_MAX
                && (self.word(*n).is_some() || matches!(self.sign(*n), Some(' ' | '.' | '-')));
            !goes_on || self.word(*n) == Some("time")
        })?;
        let (first, last) = (self.token(0)?, self.token(end).filter(|_| self.word(end) == Some("time"))?);
        let zone = zones::english(&self.text[first.start..last.end])?;
        self.parts.zone(zone, false).then_some(end + 1)
    }

    /// `tháng 9`, `thg 9`, `Th9`: how many tokens it has.
    fn vietnamese(&mut self, word: &str) -> Option<usize> {
        let at = match word {
            "thang" | "thg" => self.skip_space(1),
            "th" => 1,
            _ => return None,
        };
        let (month, _) = self.number(at).filter(|_| self.parts.month.is_none())?;
        self.parts.month = Some((month, self.parts.numbers.len()));
        Some(at + 1)
    }

    /// The half of the day at `n`, as in `pm`, `p. m.`, `μ.μ.`: the letters, and how many tokens they have.
    fn half_of_day(&self, n: usize) -> Option<(String, usize)> {
        let first = self.word(n)?;
        if self.sign(n + 1) == Some('.')
            && let second = self.skip_space(n + 2)
            && let Some(second_word) = self.word(second)
            && first.chars().count() <= 2
            && second_word.chars().count() <= 2
            && let both = format!("{first}{second_word}")
            && words::meaning(&both).is_some_and(|meaning| meaning.afternoon.is_some())
        {
            return Some((both, second + 1 - n));
        }
        let is_half = words::meaning(first).is_some_and(|meaning| meaning.afternoon.is_some());
        is_half.then(|| (first.to_owned(), 1))
    }

    /// The half of the day here: how many tokens it has. `None` if the word means something else in this place.
    fn half_here(&mut self) -> Option<usize> {
        let (word, used) = self.half_of_day(0)?;
        let meaning = words::meaning(&word)?;
        let is_here = match word.as_str() {
            _ if self.parts.afternoon.is_some() => false,
            // Hungarian, also an article in French and Spanish; and German "am 6. September".
            "de" | "du" => self.parts.is_day_known() && self.parts.time.is_none(),
            "am" if self.parts.numbers.is_empty() && !self.parts.is_day_known() => {
                let is_german = self.number(used + 1).is_some() && self.sign(used + 2) == Some('.');
                self.parts.time.is_some_and(|(hour, ..)| hour <= 12) && !is_german
            }
            "am" => true,
            _ if self.parts.time.is_some() || self.parts.units[3].is_some() => true,
            _ => meaning.before_time,
        };
        self.parts.afternoon = if is_here { meaning.afternoon } else { self.parts.afternoon };
        is_here.then_some(used)
    }

    /// A sign: how many tokens were used.
    fn sign_here(&mut self, sign: char) -> Option<usize> {
        let is_last = self.tokens.len() == self.at + 1;
        match sign {
            '+' | '-' if self.number(1).is_some() && self.is_offset_place(sign) => self.offset(sign),
            // What the number says already: "+0200 (CEST)", "+02:00[Europe/Paris]".
            '(' | '[' if self.parts.has_zone() => self.comment(),
            // Monday and Sunday in Japanese and Korean, elsewhere the units of month and day.
            '(' if self.sign(2) == Some(')')
                && self.word(1).and_then(words::meaning).is_some_and(|meaning| meaning.unit.is_some()) =>
            {
                Some(3)
            }
            ' ' | ',' | '.' | ';' | '|' | '@' | '·' | '•' | '،' | '、' | '。' | '(' | ')' | '[' | ']'
            | '"' | '\'' => Some(1),
            '/' | '-' | ':' if self.at > 0 && !is_last => Some(1),
            _ => None,
        }
    }

    /// Skips to the end of a comment: how many tokens it has.
    fn comment(&self) -> Option<usize> {
        let mut depth = 0_usize;
        for (n, token) in self.tokens[self.at..].iter().enumerate() {
            match token.kind {
                DateTokenKind::Sign('(' | '[') => depth += 1,
                DateTokenKind::Sign(')' | ']') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(n + 1);
            }
        }
        None
    }

    /// Whether a number behind a sign is an offset here, not a part of the date.
    fn is_offset_place(&self, sign: char) -> bool {
        let parts = &self.parts;
        let behind_day =
            parts.is_day_known() && (sign == '+' || self.number(1).is_some_and(|(_, digits)| digits == 4));
        parts.offset.is_none() && (parts.time.is_some() || parts.units[3].is_some() || behind_day)
    }

    /// `+0200`, `+02:00`, `-8`, `+02:00:00`: how many tokens it has.
    fn offset(&mut self, sign: char) -> Option<usize> {
        let (value, digits) = self.number(1)?;
        let minutes = self.number(3).filter(|_| self.sign(2) == Some(':'));
        let (hours, minutes, mut used) = match (digits, minutes) {
            (1 | 2, Some((minutes, 2) | (minutes @ 0, 1))) => (value, minutes, 4),
            (1 | 2, None) => (value, 0, 2),
            // "-700", but not "+020".
            (3, _) if value < 100 => return None,
            (3 | 4, _) => (value / 100, value % 100, 2),
            _ => return None,
        };
        if self.sign(used) == Some(':') && self.number(used + 1) == Some((0, 2)) {
            used += 2;
        }
        let offset = offset_minutes(sign == '-', hours, minutes)?;
        // "Z+01:00" contradicts itself; in "+01:00Z" a template has added the letter.
        if self.parts.is_zulu && offset != 0 {
            return None;
        }
        self.parts.offset = Some(offset);
        Some(used)
    }
}
