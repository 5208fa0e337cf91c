//! The syntax of `log.level`: which lines a level or filter lets through, and what one step more detail is.

use tracing_subscriber::filter::EnvFilter;

use super::unfiltered::{DROPPED_TARGET, DUMP_TARGET};

/// The levels, each with more detail than the one before.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates that a bare level applies to; all others then log from `warn` on, except [`SILENT`]. A filter matches the beginning of a
/// target, so `news` covers the binaries too.
const OUR_CRATES: [&str; 9] =
    ["daemon", "feed", "fetch", "gateway", "ingestd", "news", "store", "wire", "bench"];
/// Libraries whose lines say nothing that ours do not: an error for each connection of a client whose bytes are not HTTP/1,
/// and one, without the source, for each certificate that is not trusted.
const SILENT: &str = "actix_http=off,rustls_platform_verifier=off";

/// What is logged at every level: the dump that an operator requests with SIGQUIT, and the number of dropped lines. Comes
/// last, so that no directive of the operator overrides it.
fn always() -> String {
    format!("{DUMP_TARGET}=info,{DROPPED_TARGET}=warn")
}

/// Longest filter, bytes.
const LEVEL_BYTES_MAX: usize = 1_024;

/// Checks a level or filter without applying it. Unlike the parser of `EnvFilter`, it does not accept a misspelt level
/// as the name of a module.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    if level.len() > LEVEL_BYTES_MAX {
        return Err(format!(
            "a filter of {} bytes is too long; the maximum is {LEVEL_BYTES_MAX}",
            level.len()
        ));
    }
    for directive in directives(level).filter(|directive| !directive.contains(['=', '[', '{', '}', ']'])) {
        if rank(directive).is_none() {
            return Err(format!(
                "`{directive}` is not a level; use one of {}, or a filter such as `info,ingestd=debug`",
                LEVELS.join(", ")
            ));
        }
    }
    parse_filter(level).map(drop)
}

/// Parses a level or filter. A bare level comes first wherever it is written, so that a module's own level overrides it.
pub(super) fn parse_filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("`{level}` is not a filter ({error}); write it like `info,ingestd=debug`")
    };
    // A filter with spans is not split here: the braces of a span's fields may contain commas.
    if level.contains(['[', '{']) {
        return EnvFilter::builder()
            .parse(format!("{SILENT},{level},{}", always()))
            .map_err(|error| wrong(&error));
    }
    let (bare, named): (Vec<_>, Vec<_>) = directives(level).partition(|directive| rank(directive).is_some());
    let bare = bare.into_iter().map(for_our_crates);
    let all: Vec<_> = bare.chain(named.into_iter().map(str::to_owned)).chain([always()]).collect();
    EnvFilter::builder().parse(all.join(",")).map_err(|error| wrong(&error))
}

/// What a bare level means: the `debug` lines of libraries would drown out our own, and [`SILENT`] ones are not needed at any
/// level.
fn for_our_crates(level: &str) -> String {
    let level = level.to_ascii_lowercase();
    if ["off", "error", "warn"].contains(&level.as_str()) {
        return format!("{level},{SILENT}");
    }
    let ours: Vec<String> = OUR_CRATES.iter().map(|name| format!("{name}={level}")).collect();
    format!("warn,{SILENT},{}", ours.join(","))
}

/// The same filter with every level one step more verbose; `None` if that changes nothing. A filter with spans is not
/// changed.
pub(super) fn more_verbose(level: &str) -> Option<String> {
    if level.contains(['[', '{']) {
        return None;
    }
    let raise = |directive: &str| {
        let (before, last) = directive.rsplit_once('=').map_or(("", directive), |(name, last)| (name, last));
        let next = rank(last).map_or(last, |at| LEVELS[(at + 1).min(LEVELS.len() - 1)]);
        if before.is_empty() { next.to_owned() } else { format!("{before}={next}") }
    };
    let more: Vec<_> = directives(level).map(raise).collect();
    let more = more.join(",");
    (more != level.to_ascii_lowercase()).then_some(more)
}

fn directives(level: &str) -> impl Iterator<Item = &str> {
    level.split(',').map(str::trim)
}

/// The position in [`LEVELS`]; `None` if it is not a level.
fn rank(level: &str) -> Option<usize> {
    LEVELS.iter().position(|known| known.eq_ignore_ascii_case(level))
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
    fn a_misspelt_level_is_not_accepted_as_a_module() {
        for level in ["inof", "", "info,degub", "ingestd=loud", "verbose"] {
            assert!(check_level(level).is_err(), "{level}");
        }
    }

    #[test]
    fn a_bare_level_applies_to_our_crates_and_leaves_the_others_at_warn() {
        for level in ["debug", "debug,gateway=trace", "gateway=trace,debug"] {
            let shown = parse_filter(level).unwrap().to_string();
            assert!(shown.contains("ingestd=debug") && shown.contains("warn"), "{level}: {shown}");
            assert_eq!(shown.contains("gateway=trace"), level.contains("gateway"), "{level}: {shown}");
        }
    }

    #[test]
    fn what_others_can_make_a_library_log_is_shown_only_if_it_is_named() {
        for library in ["actix_http", "rustls_platform_verifier"] {
            for level in ["info", "warn", "error", "off", "trace", "info,fetch[visit{source=bbc}]=trace"] {
                let shown = parse_filter(level).unwrap().to_string();
                assert!(shown.contains(&format!("{library}=off")), "{level}: {shown}");
            }
            for level in ["info", "info,fetch[visit{source=bbc}]=trace"] {
                let shown = parse_filter(&format!("{level},{library}=debug")).unwrap().to_string();
                assert!(shown.contains(&format!("{library}=debug")), "{level}: {shown}");
                assert!(!shown.contains(&format!("{library}=off")), "{level}: {shown}");
            }
        }
    }

    #[test]
    fn no_level_hides_a_dump_or_the_number_of_dropped_lines() {
        for level in ["off", "error", "daemon::watch::dump=off", "off,daemon=off", "off,fetch[visit]=trace"] {
            let shown = parse_filter(level).unwrap().to_string();
            for always in ["daemon::watch::dump=info", "daemon::logs::unfiltered=warn"] {
                assert!(shown.contains(always), "{level}: {shown}");
            }
            assert!(!shown.contains("dump=off"), "{level}: {shown}");
        }
    }

    #[test]
    fn one_step_raises_every_level_by_one_and_ends_at_trace() {
        for (level, more) in [
            ("info", Some("debug")),
            ("DEBUG", Some("trace")),
            ("off", Some("error")),
            ("trace", None),
            ("info, ingestd=debug,fetch=trace", Some("debug,ingestd=trace,fetch=trace")),
            ("warn,fetch[visit{source=bbc}]=trace", None),
        ] {
            assert_eq!(more_verbose(level).as_deref(), more, "{level}");
        }
    }
}
