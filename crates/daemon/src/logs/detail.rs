//! The words of `log.level`: what they let through, and what one step more detail is.

use tracing_subscriber::filter::EnvFilter;

/// The levels that are a word of their own, each with more detail than the one before.
pub(super) const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates that a bare level is about; every other crate then speaks from `warn` on. A filter matches the beginning
/// of a target, so `news` covers the binaries too.
const OURS: [&str; 9] = ["daemon", "feed", "fetch", "gateway", "ingestd", "news", "store", "wire", "bench"];

/// Longest filter, bytes.
const LEVEL_BYTES_MAX: usize = 1_024;

/// Checks a level or filter without using it. Unlike the filter's own parser it does not take a misspelt level for the
/// name of a module.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    if level.len() > LEVEL_BYTES_MAX {
        return Err(format!(
            "a filter of {} bytes is too long; at most {LEVEL_BYTES_MAX} will do",
            level.len()
        ));
    }
    for word in words(level).filter(|word| !word.contains(['=', '[', '{', '}', ']'])) {
        if step(word).is_none() {
            return Err(format!(
                "`{word}` is not a level; use one of {}, or a filter such as `info,ingestd=debug`",
                LEVELS.join(", ")
            ));
        }
    }
    filter(level).map(drop)
}

/// The filter that the words mean. A bare level comes first, whatever its place: a module's own level wins over it.
pub(super) fn filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("`{level}` is not a filter ({error}); write it like `info,ingestd=debug`")
    };
    // The commas in the braces of a span's fields are not ours to part at.
    if level.contains(['[', '{']) {
        return EnvFilter::builder().parse(level).map_err(|error| wrong(&error));
    }
    let (bare, named): (Vec<_>, Vec<_>) = words(level).partition(|word| step(word).is_some());
    let bare = bare.into_iter().map(about_ours);
    let directives: Vec<_> = bare.chain(named.into_iter().map(str::to_owned)).collect();
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| wrong(&error))
}

/// What a bare level means: `debug` of a library would drown everything of ours.
fn about_ours(level: &str) -> String {
    let level = level.to_ascii_lowercase();
    if ["off", "error", "warn"].contains(&level.as_str()) {
        return level;
    }
    let ours: Vec<String> = OURS.iter().map(|name| format!("{name}={level}")).collect();
    format!("warn,{}", ours.join(","))
}

/// The same with every level one step further; nothing when that would change nothing. What is about spans stays.
pub(super) fn one_step_more(level: &str) -> Option<String> {
    if level.contains(['[', '{']) {
        return None;
    }
    let louder = |word: &str| {
        let (before, last) = word.rsplit_once('=').map_or(("", word), |(name, last)| (name, last));
        let next = step(last).map_or(last, |at| LEVELS[(at + 1).min(LEVELS.len() - 1)]);
        if before.is_empty() { next.to_owned() } else { format!("{before}={next}") }
    };
    let more: Vec<_> = words(level).map(louder).collect();
    let more = more.join(",");
    (more != level.to_ascii_lowercase()).then_some(more)
}

fn words(level: &str) -> impl Iterator<Item = &str> {
    level.split(',').map(str::trim)
}

fn step(word: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted() {
        for level in
            ["off", "error", "INFO", "trace", "info,ingestd=debug", "warn,fetch[visit{source=bbc}]=trace"]
        {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        for level in ["inof", "", "info,degub", "ingestd=loud", "verbose"] {
            assert!(check_level(level).is_err(), "{level}");
        }
    }

    #[test]
    fn a_bare_level_is_about_our_crates_and_leaves_the_others_at_warn() {
        for level in ["debug", "debug,gateway=trace", "gateway=trace,debug"] {
            let shown = filter(level).unwrap().to_string();
            assert!(shown.contains("ingestd=debug") && shown.contains("warn"), "{level}: {shown}");
            assert_eq!(shown.contains("gateway=trace"), level.contains("gateway"), "{level}: {shown}");
        }
    }

    #[test]
    fn a_step_is_one_level_for_everything_and_ends_at_trace() {
        for (level, more) in [
            ("info", Some("debug")),
            ("DEBUG", Some("trace")),
            ("off", Some("error")),
            ("trace", None),
            ("info, ingestd=debug,fetch=trace", Some("debug,ingestd=trace,fetch=trace")),
            ("warn,fetch[visit{source=bbc}]=trace", None),
        ] {
            assert_eq!(one_step_more(level).as_deref(), more, "{level}");
        }
    }
}
