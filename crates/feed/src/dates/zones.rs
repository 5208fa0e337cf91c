//! Time zones by name: abbreviations, IANA names, Windows names and English names ending in "time".
//!
//! A name that says "standard" or "summer" is a fixed offset. A name that leaves it open (`ET`, `America/New_York`) is a
//! region, whose rules of daylight saving time come from the IANA database.

use std::sync::LazyLock;

use chrono::{Datelike, NaiveDateTime, Timelike};
use jiff::{
    civil,
    tz::{AmbiguousOffset, TimeZoneDatabase},
};

use super::windows;

/// The IANA database, compiled in. A zone that a date has named stays in its cache, of one entry per name.
static IANA: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone as a date names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone<'a> {
    /// Minutes east of UTC.
    Fixed(i64),
    /// An IANA zone with its rules.
    Region(&'a str),
    /// `Eastern Standard Time`: the offset for readers of English, the whole zone with its summer time for Windows. The
    /// date is understood while both agree, which is in winter.
    Standard(i64, &'a str),
}

impl Zone<'_> {
    /// The instant of a local time, in milliseconds since 1970. Of a time that occurs twice, the first. `None` if clocks
    /// skipped it, or if the two meanings of the name differ.
    pub(super) fn instant_ms(self, local: NaiveDateTime) -> Option<i64> {
        let local_ms = local.and_utc().timestamp_millis();
        let fixed = |minutes: i64| local_ms - minutes * 60_000;
        let region = |name: &str| Some(local_ms - i64::from(offset_seconds(name, local)?) * 1000);
        match self {
            Self::Fixed(minutes) => Some(fixed(minutes)),
            Self::Region(name) => region(name),
            Self::Standard(minutes, name) => Some(fixed(minutes)).filter(|ms| region(name) == Some(*ms)),
        }
    }
}

/// Seconds east of UTC of a zone at a local time.
fn offset_seconds(name: &str, local: NaiveDateTime) -> Option<i32> {
    let small = |part: u32| i8::try_from(part).ok();
    let local = civil::DateTime::new(
        i16::try_from(local.year()).ok()?,
        small(local.month())?,
        small(local.day())?,
        small(local.hour())?,
        small(local.minute())?,
        small(local.second())?,
        0,
    );
    match IANA.get(name).ok()?.to_ambiguous_timestamp(local.ok()?).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            Some(offset.seconds())
        }
        AmbiguousOffset::Gap { .. } => None,
    }
}

/// The zone of an abbreviation in lower case, such as `est`, in a feed of a language.
pub(super) fn abbreviation(word: &str, language: &str) -> Option<Zone<'static>> {
    let is_of =
        |tag: &str| language.strip_prefix(tag).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some((minutes, ..)) =
        LOCAL.iter().find(|(_, name, tags)| *name == word && tags.split(' ').any(is_of))
    {
        return Some(Zone::Fixed(*minutes));
    }
    if let Some((_, zone)) = OPEN.iter().find(|(name, _)| *name == word) {
        return Some(Zone::Region(zone));
    }
    FIXED.iter().find(|(_, names)| has(names, word)).map(|(minutes, _)| Zone::Fixed(*minutes))
}

/// The zone of an IANA name such as `america/new_york`, in any case, that is not also an abbreviation.
pub(super) fn iana(name: &str) -> Option<Zone<'_>> {
    (name.len() > 3 && IANA.get(name).is_ok()).then_some(Zone::Region(name))
}

/// The zone of an English or Windows name in lower case: `eastern time`, `w. europe standard time`.
pub(super) fn english(name: &str) -> Option<Zone<'static>> {
    let english = ENGLISH.iter().find(|(_, names)| names.split(", ").any(|n| n == name));
    english.map(|(zone, _)| *zone).or_else(|| windows::zone(name).map(Zone::Region))
}

/// Whether an abbreviation belongs to the United States, where dates are written month first.
pub(super) fn is_american(word: &str) -> bool {
    has("est edt et cst cdt ct mst mdt mt pst pdt pt akst akdt hst", word)
}

fn has(names: &str, word: &str) -> bool {
    names.split(' ').any(|name| name == word)
}

/// Abbreviations that do not say whether it is summer.
const OPEN: [(&str, &str); 8] = [
    ("et", "America/New_York"),
    ("ct", "America/Chicago"),
    ("mt", "America/Denver"),
    ("pt", "America/Los_Angeles"),
    ("akt", "America/Anchorage"),
    ("at", "America/Halifax"),
    ("aet", "Australia/Sydney"),
    ("nzt", "Pacific/Auckland"),
];

/// What an abbreviation is in feeds of some languages, if that is not what [`FIXED`] says: Australia, China, Israel,
/// Ireland, Bangladesh, Arabia.
const LOCAL: [(i64, &str, &str); 9] = [
    (570, "cst", "en-au"),
    (600, "est", "en-au"),
    (630, "cdt", "en-au"),
    (660, "edt", "en-au"),
    (480, "cst", "zh"),
    (120, "ist", "he iw en-il"),
    (60, "ist", "ga en-ie"),
    (360, "bst", "bn en-bd"),
    (180, "ast", "ar"),
];

/// Minutes east of UTC of abbreviations (RFC 822 §5 and the IANA database).
///
/// Of those with several meanings: EST, CST, MST, PST and their summer forms are American by RFC 822, not Australian,
/// Chinese or Cuban. AST is Atlantic, as for other parsers of feeds. BST is British Summer, since Bangladesh has far fewer
/// feeds. IST is India, which has far more feeds than Ireland and Israel. GST is Gulf, not South Georgia. Absent, so that
/// the date is null: SST (Samoa, Singapore), ACT, ECT, AMT, CCT, BDT, PYT, and RFC 822's letters A to Y, defined there with
/// the wrong sign (RFC 5322 §4.3).
const FIXED: [(i64, &str); 35] = [
    (-600, "hst"),
    (-540, "akst hdt"),
    (-480, "pst akdt"),
    (-420, "mst pdt"),
    (-360, "cst mdt"),
    (-300, "est hne cdt pet cot"),
    (-240, "edt hae ast clt vet bot"),
    (-210, "nst"),
    (-180, "adt brt art clst uyt"),
    (-150, "ndt"),
    (-120, "brst"),
    (0, "z ut utc gmt wet"),
    (60, "cet mez met west wesz bst wat"),
    (120, "cest cedt mesz mest eet sast cat oez"),
    (180, "eest eedt oesz msk мск eat trt idt"),
    (210, "irst"),
    (240, "gst msd samt azt"),
    (270, "irdt aft"),
    (300, "pkt uzt yekt"),
    (330, "ist"),
    (345, "npt"),
    (360, "omst"),
    (390, "mmt"),
    (420, "wib ict novt krat"),
    (480, "sgt hkt awst pht myt wita irkt"),
    (525, "acwst"),
    (540, "jst kst wit yakt"),
    (570, "acst"),
    (600, "aest chst vlat"),
    (630, "acdt lhst"),
    (660, "aedt lhdt magt"),
    (720, "nzst fjt pett"),
    (765, "chast"),
    (780, "nzdt"),
    (825, "chadt"),
];

/// English names. "Arabian Standard Time" is absent: +3 in English, +4 in Windows.
const ENGLISH: [(Zone<'static>, &str); 46] = [
    (
        Zone::Fixed(0),
        "greenwich mean time, coordinated universal time, universal time, western european standard time",
    ),
    (Zone::Region("America/New_York"), "eastern time, us eastern time, new york time"),
    (Zone::Standard(-300, "America/New_York"), "eastern standard time, north american eastern standard time"),
    (Zone::Fixed(-240), "eastern daylight time, north american eastern daylight time"),
    (Zone::Region("America/Chicago"), "central time"),
    (Zone::Standard(-360, "America/Chicago"), "central standard time"),
    (Zone::Fixed(-300), "central daylight time"),
    (Zone::Region("America/Denver"), "mountain time"),
    (Zone::Standard(-420, "America/Denver"), "mountain standard time"),
    (Zone::Fixed(-360), "mountain daylight time"),
    (Zone::Region("America/Los_Angeles"), "pacific time"),
    (Zone::Standard(-480, "America/Los_Angeles"), "pacific standard time"),
    (Zone::Fixed(-420), "pacific daylight time"),
    (Zone::Region("America/Halifax"), "atlantic time"),
    (Zone::Standard(-240, "America/Halifax"), "atlantic standard time"),
    (Zone::Fixed(-180), "atlantic daylight time"),
    (Zone::Region("America/Anchorage"), "alaska time"),
    (Zone::Fixed(-540), "alaska standard time"),
    (Zone::Fixed(-480), "alaska daylight time, alaskan daylight time"),
    (Zone::Fixed(-600), "hawaii time, hawaii standard time, hawaii-aleutian standard time"),
    (Zone::Region("America/St_Johns"), "newfoundland time"),
    (Zone::Fixed(-150), "newfoundland daylight time"),
    (Zone::Region("Europe/London"), "british time, uk time, london time"),
    (
        Zone::Fixed(60),
        "british summer time, gmt daylight time, western european summer time, irish standard time",
    ),
    (Zone::Region("Europe/Lisbon"), "western european time"),
    (Zone::Region("Europe/Berlin"), "central european time"),
    (Zone::Standard(60, "Europe/Warsaw"), "central european standard time, middle european time"),
    (
        Zone::Fixed(120),
        "central european summer time, central european daylight time, central europe daylight time, \
         w. europe daylight time, romance daylight time, middle european summer time, south africa time",
    ),
    (Zone::Region("Europe/Athens"), "eastern european time"),
    (Zone::Standard(120, "Europe/Athens"), "eastern european standard time"),
    (
        Zone::Fixed(180),
        "eastern european summer time, fle daylight time, gtb daylight time, israel daylight time",
    ),
    (Zone::Fixed(180), "moscow time, moscow standard time, east africa time, eastern africa time"),
    (Zone::Region("Asia/Jerusalem"), "israel time"),
    (Zone::Fixed(240), "gulf standard time"),
    (Zone::Fixed(330), "india time, indian standard time"),
    (Zone::Fixed(420), "indochina time, western indonesia time"),
    (Zone::Fixed(480), "china time, beijing time, singapore time, hong kong time, hong kong standard time"),
    (Zone::Fixed(480), "philippine time, philippine standard time, australian western standard time"),
    (Zone::Fixed(540), "japan time, japan standard time, korean time, korean standard time"),
    (Zone::Fixed(570), "australian central standard time"),
    (Zone::Fixed(630), "australian central daylight time, cen. australia daylight time"),
    (Zone::Fixed(600), "australian eastern standard time"),
    (Zone::Fixed(660), "australian eastern daylight time, aus eastern daylight time"),
    (Zone::Region("Pacific/Auckland"), "new zealand time"),
    (Zone::Standard(720, "Pacific/Auckland"), "new zealand standard time"),
    (Zone::Fixed(780), "new zealand daylight time"),
];
