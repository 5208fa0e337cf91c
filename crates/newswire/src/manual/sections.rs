//! What manual pages say beyond commands and options.

use std::io::{self, Write};

use clap_mangen::roff::{Roff, bold, italic, roman};
use daemon::exit::{EX_CONFIG, EX_FAILURE, EX_IOERR, EX_OK, EX_TEMPFAIL, EX_USAGE};

/// One chapter: its heading and what stands there.
pub(super) enum ManSection {
    /// Terms, each with its explanation.
    Terms(&'static str, &'static [(&'static str, &'static str)]),
    /// Numbers a process ends with.
    Numbers(&'static [(u8, &'static str)]),
    /// Other pages; the page itself is left out.
    SeeAlso(&'static [(&'static str, &'static str)]),
}

use ManSection::{Numbers, SeeAlso, Terms};

const CONFIG: (&str, &str) = ("NEWSWIRE_CONFIG", "The configuration file, where --config names none.");
const OVERRIDE: (&str, &str) = (
    "NEWSWIRE_SECTION__KEY",
    "Overrides one key of the configuration: NEWSWIRE_FETCH__INTERVAL_MIN is interval_min of [fetch]. An unknown one \
     stops the start.",
);
const JOURNAL: (&str, &str) = (
    "JOURNAL_STREAM, NO_COLOR",
    "Set by systemd: the log goes to the journal with its fields. Set to anything: no colours on a terminal.",
);
const NOTIFY: (&str, &str) = (
    "NOTIFY_SOCKET, WATCHDOG_USEC",
    "Set by systemd: it is told of readiness, state, reloads and stops, and of progress in time for its watchdog.",
);

const CONFIG_FILE: (&str, &str) = (
    "/etc/newswire/newswire.toml",
    "The configuration of both daemons; newswire config default prints it with comments.",
);
const LIST: (&str, &str) =
    ("/etc/newswire/sources.toml", "The list of sources of the package's configuration.");
const STATE: (&str, &str) =
    ("/var/lib/newswire", "The log and the state of the sources (store.path); one process at a time.");
const SOCKETS: (&str, &str) = (
    "/run/newswire",
    "The sockets (daemon.run_dir): ingestd.sock, ingestd-admin.sock and gateway-admin.sock, all HTTP. The admin sockets \
     answer while everything else is stuck.",
);

const TERM: (&str, &str) =
    ("SIGTERM, SIGINT", "Stop in order. A second one ends the process at once, with 1.");
const QUIT: (&str, &str) = ("SIGQUIT", "Write the stacks of all threads to the log, and go on.");
const MORE: (&str, &str) = ("SIGUSR1", "Log one step more: from info to debug, from debug to trace.");
const LESS: (&str, &str) = ("SIGUSR2", "Log at the configured level again.");

const DAEMON_ENDS: ManSection = Numbers(&[
    (EX_OK, "Ended as asked."),
    (EX_FAILURE, "The work failed; the last line of the log says why."),
    (EX_USAGE, "The command line is wrong."),
    (EX_IOERR, "A file, directory, socket or port cannot be used."),
    (EX_TEMPFAIL, "Another process holds the log or the socket."),
    (EX_CONFIG, "The configuration is wrong; every complaint was printed. Starting again will not help."),
]);

const PAGES: ManSection = SeeAlso(&[
    ("newswire", "1"),
    ("newswire-config", "1"),
    ("newswire-doctor", "1"),
    ("newswire-sources", "1"),
    ("newswire-ingestd", "8"),
    ("newswire-gateway", "8"),
    ("journalctl", "1"),
    ("systemctl", "1"),
]);

/// Of `newswire` and each of its commands.
pub(super) const TOOL: &[ManSection] = &[
    Numbers(&[
        (EX_OK, "All is well, or the work is done."),
        (EX_FAILURE, "A problem was found, or the work failed."),
        (EX_USAGE, "The command line or the configuration is wrong."),
    ]),
    Terms("ENVIRONMENT", &[CONFIG, OVERRIDE, ("NO_COLOR", "Set to anything: no colours on a terminal.")]),
    Terms("FILES", &[CONFIG_FILE, LIST, STATE, SOCKETS]),
    PAGES,
];

/// Of `newswire-ingestd`.
pub(super) const INGESTD: &[ManSection] = &[
    Terms(
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Read the list of sources again: visits under way go on, sources that did not change keep their schedule, \
                 and a file with mistakes changes nothing. The log says what was changed, and what wants a restart.",
            ),
            TERM,
            QUIT,
            MORE,
            LESS,
        ],
    ),
    DAEMON_ENDS,
    Terms(
        "ENVIRONMENT",
        &[
            CONFIG,
            OVERRIDE,
            (
                "CREDENTIALS_DIRECTORY",
                "Set by systemd (LoadCredential): where secrets of sources with a bare name are read.",
            ),
            JOURNAL,
            NOTIFY,
        ],
    ),
    Terms("FILES", &[CONFIG_FILE, LIST, STATE, SOCKETS]),
    PAGES,
];

/// Of `newswire-gateway`.
pub(super) const GATEWAY: &[ManSection] = &[
    Terms(
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Read again what can change without a restart. The log says what was changed, and what wants a restart.",
            ),
            (
                "SIGTERM, SIGINT",
                "Drain: within gateway.drain every stream ends with the time to come back, spread over clients, and keeps \
                 its place. A second one ends the process at once, with 1.",
            ),
            QUIT,
            MORE,
            LESS,
        ],
    ),
    DAEMON_ENDS,
    Terms(
        "ENVIRONMENT",
        &[
            CONFIG,
            OVERRIDE,
            (
                "LISTEN_FDS, LISTEN_PID",
                "Set by systemd: the socket that it listens at already is served in place of gateway.listen.",
            ),
            JOURNAL,
            NOTIFY,
        ],
    ),
    Terms("FILES", &[CONFIG_FILE, SOCKETS]),
    PAGES,
];

/// Appends `sections` to the page that will stand in `file`.
pub(super) fn render(sections: &[ManSection], file: &str, page: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    for chapter in sections {
        match chapter {
            Terms(heading, terms) => {
                roff.control("SH", [*heading]);
                terms.iter().for_each(|(term, text)| paragraph(&mut roff, term, text));
            }
            Numbers(numbers) => {
                roff.control("SH", ["EXIT STATUS"]);
                numbers.iter().for_each(|(number, text)| paragraph(&mut roff, &number.to_string(), text));
            }
            SeeAlso(pages) => see_also(&mut roff, pages, file),
        }
    }
    roff.to_writer(page)
}

fn paragraph(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(text)]);
}

fn see_also(roff: &mut Roff, pages: &[(&str, &str)], file: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let mut words = Vec::new();
    for (name, section) in pages.iter().filter(|(name, section)| format!("{name}.{section}") != file) {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.extend([italic(*name), roman(format!("({section})"))]);
    }
    roff.text(words);
}
