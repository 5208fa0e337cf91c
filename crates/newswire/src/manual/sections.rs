//! What man pages contain beyond commands and options.

use std::io::{self, Write};

use clap_mangen::roff::{Roff, bold, italic, roman};
use daemon::exit::{EX_CONFIG, EX_FAILURE, EX_IOERR, EX_OK, EX_TEMPFAIL, EX_UNKNOWN, EX_USAGE};

use crate::examples::Example;

/// One section of a man page.
pub(super) enum ManSection {
    /// A heading, and terms with their explanations.
    Terms(&'static str, &'static [(&'static str, &'static str)]),
    /// EXIT STATUS: exit codes and what they mean.
    ExitCodes(&'static [(u8, &'static str)]),
    /// SEE ALSO: other pages; the page itself is left out.
    SeeAlso(&'static [(&'static str, &'static str)]),
}

use ManSection::{ExitCodes, SeeAlso, Terms};

const CONFIG: (&str, &str) = ("NEWSWIRE_CONFIG", "The configuration file, unless --config names one.");
const OVERRIDE: (&str, &str) = (
    "NEWSWIRE_SECTION__KEY",
    "Overrides one key of the configuration: NEWSWIRE_FETCH__INTERVAL_MIN sets interval_min of [fetch]. An unknown key \
     is an error.",
);
const NO_COLOR: (&str, &str) = ("NO_COLOR", "If set and not empty, no colours are used on a terminal.");
const JOURNAL: (&str, &str) =
    ("JOURNAL_STREAM", "Set by systemd: the log goes to the journal, with its fields as journal fields.");
const NOTIFY: (&str, &str) = (
    "NOTIFY_SOCKET, WATCHDOG_USEC",
    "Set by systemd: the process reports readiness, status, reloads and stops, and keeps the watchdog from firing as long \
     as it makes progress.",
);

const CONFIG_FILE: (&str, &str) = (
    "/etc/newswire/newswire.toml",
    "The configuration of both daemons; newswire config default prints it with comments.",
);
const LIST: (&str, &str) =
    ("/etc/newswire/sources.toml", "The list of sources that the packaged configuration names.");
const STATE: (&str, &str) = (
    "/var/lib/newswire",
    "The log and the state of the sources (store.path); one process at a time can open it.",
);
const SOCKETS: (&str, &str) = (
    "/run/newswire",
    "The Unix sockets (daemon.run_dir): ingestd.sock, ingestd-admin.sock and gateway-admin.sock. All speak HTTP. The admin \
     sockets answer even if every event loop is blocked. The black boxes, ingestd.blackbox and gateway.blackbox, have what each \
     daemon did last; newswire doctor --since reads them.",
);

const TERM: (&str, &str) =
    ("SIGTERM, SIGINT", "Stop gracefully. A second signal ends the process at once, with exit code 1.");
const QUIT: (&str, &str) = ("SIGQUIT", "Write the stacks of all threads to the log and continue.");
const MORE: (&str, &str) =
    ("SIGUSR1", "Raise the log level by one step: from info to debug, from debug to trace.");
const LESS: (&str, &str) = ("SIGUSR2", "Return to the configured log level.");

const DAEMON_EXITS: ManSection = ExitCodes(&[
    (EX_OK, "Stopped as requested."),
    (EX_FAILURE, "The work failed; the last line of the log says why."),
    (EX_USAGE, "The command line is wrong."),
    (EX_IOERR, "A file, directory, socket or port cannot be used."),
    (EX_TEMPFAIL, "Another process holds the store or the socket."),
    (EX_CONFIG, "The configuration is wrong; every complaint was printed. A restart does not help."),
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

/// For `newswire` and each of its commands.
pub(super) const TOOL: &[ManSection] = &[
    ExitCodes(&[
        (EX_OK, "Success: no problem was found, or the work is done."),
        (EX_FAILURE, "A problem was found, or the work failed."),
        (EX_USAGE, "The command line or the configuration is wrong."),
        (
            EX_UNKNOWN,
            "It could not tell: something may not be looked at, or did not answer (doctor, verify).",
        ),
    ]),
    Terms("ENVIRONMENT", &[CONFIG, OVERRIDE, NO_COLOR]),
    Terms("FILES", &[CONFIG_FILE, LIST, STATE, SOCKETS]),
    PAGES,
];

/// For `newswire-ingestd`.
pub(super) const INGESTD: &[ManSection] = &[
    Terms(
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Reload the configuration and the list of sources. Running visits continue, unchanged sources keep their \
                 schedule, and a file with mistakes changes nothing. The log says what changed and what needs a restart.",
            ),
            TERM,
            QUIT,
            MORE,
            LESS,
        ],
    ),
    DAEMON_EXITS,
    Terms(
        "ENVIRONMENT",
        &[
            CONFIG,
            OVERRIDE,
            (
                "CREDENTIALS_DIRECTORY",
                "Set by systemd (LoadCredential): credential files of sources that are named without a directory are read \
                 from here.",
            ),
            JOURNAL,
            NO_COLOR,
            NOTIFY,
        ],
    ),
    Terms("FILES", &[CONFIG_FILE, LIST, STATE, SOCKETS]),
    PAGES,
];

/// For `newswire-gateway`.
pub(super) const GATEWAY: &[ManSection] = &[
    Terms(
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "Reload the keys that can change without a restart. The log says what changed and what needs a restart.",
            ),
            (
                "SIGTERM, SIGINT",
                "Drain: within gateway.drain every stream is closed with a time to reconnect, spread over the clients, so \
                 that each resumes where it was. A second signal ends the process at once, with exit code 1.",
            ),
            QUIT,
            MORE,
            LESS,
        ],
    ),
    DAEMON_EXITS,
    Terms(
        "ENVIRONMENT",
        &[
            CONFIG,
            OVERRIDE,
            (
                "LISTEN_FDS, LISTEN_PID",
                "Set by systemd (socket activation): the gateway serves the inherited socket instead of gateway.listen.",
            ),
            JOURNAL,
            NO_COLOR,
            NOTIFY,
        ],
    ),
    Terms("FILES", &[CONFIG_FILE, SOCKETS]),
    PAGES,
];

/// Appends the examples and the sections to the page in `file`.
pub(super) fn render(
    examples: &'static [Example],
    sections: &[ManSection],
    file: &str,
    page: &mut dyn Write,
) -> io::Result<()> {
    let mut roff = Roff::new();
    if !examples.is_empty() {
        terms(&mut roff, "EXAMPLES", examples);
    }
    for section in sections {
        match section {
            Terms(heading, explained) => terms(&mut roff, heading, explained),
            ExitCodes(codes) => {
                roff.control("SH", ["EXIT STATUS"]);
                codes.iter().for_each(|(code, text)| paragraph(&mut roff, &code.to_string(), text));
            }
            SeeAlso(pages) => see_also(&mut roff, pages, file),
        }
    }
    roff.to_writer(page)
}

fn terms(roff: &mut Roff, heading: &str, explained: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    explained.iter().for_each(|(term, text)| paragraph(roff, term, text));
}

fn paragraph(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(text)]);
}

fn see_also(roff: &mut Roff, pages: &[(&str, &str)], file: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let mut inlines = Vec::new();
    for (name, section) in pages.iter().filter(|(name, section)| format!("{name}.{section}") != file) {
        if !inlines.is_empty() {
            inlines.push(roman(", "));
        }
        inlines.extend([italic(*name), roman(format!("({section})"))]);
    }
    roff.text(inlines);
}
