//! The command line of the daemons, defined once: what they parse is what the manual and the completions say.

use std::path::PathBuf;

use clap::{Args as _, FromArgMatches as _};

/// A daemon as its operator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name of its binary, on the log and in the manual.
    pub name: &'static str,
    /// One sentence, without its full stop.
    pub about: &'static str,
}

/// The ingestion daemon.
pub const INGESTD: Program = Program {
    name: "newswire-ingestd",
    about: "Visits feeds, records what is new, and serves it to gateways on a Unix socket",
};

/// The gateway.
pub const GATEWAY: Program = Program {
    name: "newswire-gateway",
    about: "Serves what the ingestion daemon records as Server-Sent Events, with a page, history and health of the sources",
};

#[derive(Debug, clap::Args)]
struct Arguments {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say what is wrong with the configuration and the files that it names, and end with 0 or 78
    #[arg(long)]
    check: bool,
}

/// What a daemon was started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The file of `--config`, if there was one.
    pub config: Option<PathBuf>,
    /// Not for its work, but for what would stop or hinder it.
    pub check: bool,
}

impl Program {
    /// The definition of the command line.
    #[must_use]
    pub fn command(self) -> clap::Command {
        let command = clap::Command::new(self.name)
            .version(env!("CARGO_PKG_VERSION")) // one version for the whole workspace
            .max_term_width(100);
        // After the arguments, whose own documentation would otherwise describe the program.
        Arguments::augment_args(command).about(self.about)
    }

    /// What this process was started for; help, version and mistakes end the process.
    #[must_use]
    pub fn asked(self) -> Invocation {
        let mut matches = self.command().get_matches();
        match Arguments::from_arg_matches_mut(&mut matches) {
            Ok(Arguments { config, check }) => Invocation { config, check },
            Err(error) => error.exit(),
        }
    }
}
