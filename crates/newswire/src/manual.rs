//! `newswire manual DIR`: writes the man pages and shell completions of all three programs from the definitions that
//! parse their command lines. Package builds run it. The output must be reproducible, so no page has a date.
//!
//! ```text
//! DIR/man/newswire.1  newswire-COMMAND.1  newswire-COMMAND-SUBCOMMAND.1  newswire-ingestd.8  newswire-gateway.8
//! DIR/completions/{newswire,newswire-ingestd,newswire-gateway}.{bash,fish}  _newswire  _newswire-ingestd  …
//! ```

mod sections;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use daemon::{
    Exit,
    program::{GATEWAY, INGESTD},
};

use crate::{cli, examples};

/// Arguments of `newswire manual`.
#[derive(Debug, Args)]
pub(crate) struct ManualArgs {
    /// Directory in which the directories `man` and `completions` are created
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(arguments: &ManualArgs) -> anyhow::Result<Exit> {
    let man = arguments.directory.join("man");
    let completions = arguments.directory.join("completions");
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    for page in pages() {
        let file = man.join(&page.file);
        fs::write(&file, &page.roff).with_context(|| format!("write {}", file.display()))?;
    }
    for command in [tool(), INGESTD.command(), GATEWAY.command()] {
        complete(command, &completions)?;
    }
    Ok(Exit::Ok)
}

/// `newswire` without its hidden commands, which the generators of completions would offer too.
fn tool() -> Command {
    let whole = cli::definition();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let tool = Command::new("newswire").version(env!("CARGO_PKG_VERSION"));
    tool.about(whole.get_about().cloned().unwrap_or_default()).subcommands(shown)
}

fn complete(mut command: Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, folder)
            .with_context(|| format!("write the completion of {name} for {shell}"))?;
    }
    Ok(())
}

/// A man page and its file name.
struct ManPage {
    file: String,
    roff: Vec<u8>,
}

fn pages() -> Vec<ManPage> {
    let mut pages = Vec::new();
    let mut tool = tool().disable_help_subcommand(true);
    tool.build(); // sets the inherited options and the full name of every command
    tree(&tool, &mut pages);
    pages.push(page(&INGESTD.command(), "8", sections::INGESTD));
    pages.push(page(&GATEWAY.command(), "8", sections::GATEWAY));
    pages
}

fn tree(command: &Command, pages: &mut Vec<ManPage>) {
    pages.push(page(command, "1", sections::TOOL));
    for below in command.get_subcommands() {
        tree(below, pages);
    }
}

fn page(command: &Command, section: &str, sections: &[sections::ManSection]) -> ManPage {
    let man = Man::new(command.clone())
        .section(section)
        .date(" ") // the writer leaves out an empty date, and the next field would take its position
        .source(concat!("newswire ", env!("CARGO_PKG_VERSION")))
        .manual("newswire");
    let file = man.get_filename();
    let mut roff = Vec::new();
    let examples = examples::of(command.get_bin_name().unwrap_or(command.get_name()));
    let rendered =
        man.render(&mut roff).and_then(|()| sections::render(examples, sections, &file, &mut roff));
    rendered.expect("writing to a Vec cannot fail");
    ManPage { file, roff }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, process};

    use super::*;

    fn written() -> (tempfile::TempDir, BTreeMap<String, Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        run(&ManualArgs { directory: folder.path().to_owned() }).unwrap();
        let mut files = BTreeMap::new();
        for part in ["man", "completions"] {
            for file in fs::read_dir(folder.path().join(part)).unwrap() {
                let file = file.unwrap();
                let name = format!("{part}/{}", file.file_name().to_str().unwrap());
                files.insert(name, fs::read(file.path()).unwrap());
            }
        }
        (folder, files)
    }

    fn undocumented(command: &Command, found: &mut Vec<String>) {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        if command.get_about().is_none() {
            found.push(name.clone());
        }
        let bare = command.get_arguments().filter(|a| a.get_help().is_none());
        found.extend(bare.map(|argument| format!("{name} {}", argument.get_id())));
        command.get_subcommands().for_each(|below| undocumented(below, found));
    }

    #[test]
    fn every_command_and_every_argument_is_documented() {
        let mut found = Vec::new();
        for mut command in [cli::definition(), INGESTD.command(), GATEWAY.command()] {
            command.build();
            undocumented(&command, &mut found);
        }
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn all_three_programs_have_pages_and_completions_and_hidden_commands_have_none() {
        let (_folder, files) = written();
        for name in [
            "man/newswire.1",
            "man/newswire-doctor.1",
            "man/newswire-sources-import.1",
            "man/newswire-ingestd.8",
            "man/newswire-gateway.8",
        ] {
            assert!(files.contains_key(name), "{name}");
        }
        for program in ["newswire", "newswire-ingestd", "newswire-gateway"] {
            for name in [format!("{program}.bash"), format!("_{program}"), format!("{program}.fish")] {
                let text = String::from_utf8(files[&format!("completions/{name}")].clone()).unwrap();
                assert!(text.contains("config"), "{name}");
                assert!(!text.contains("manual"), "{name}");
            }
        }
        assert!(!files.contains_key("man/newswire-manual.1"));
        let commands = cli::definition().get_subcommands().filter(|c| !c.is_hide_set()).count();
        let pages = files.keys().filter(|name| name.starts_with("man/newswire-")).count();
        assert!(pages >= commands + 2, "{pages} pages for {commands} commands and two daemons");
    }

    #[test]
    fn two_runs_write_the_same_bytes_and_no_date() {
        let (_one, first) = written();
        let (_two, second) = written();
        assert_eq!(first, second);
        for (name, page) in first.iter().filter(|(name, _)| name.starts_with("man/")) {
            let text = String::from_utf8(page.clone()).unwrap();
            let title = text.lines().find(|line| line.starts_with(".TH")).unwrap();
            assert!(title.contains(r#" " " "newswire "#), "{name}: {title}");
        }
    }

    #[test]
    fn the_pages_have_the_sections_that_an_operator_looks_for() {
        let (_folder, files) = written();
        let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
        for daemon in ["man/newswire-ingestd.8", "man/newswire-gateway.8"] {
            let page = text(daemon);
            for section in ["SIGNALS", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"] {
                assert!(
                    page.contains(&format!("\n.SH \"{section}\""))
                        || page.contains(&format!("\n.SH {section}")),
                    "{daemon}: {section}"
                );
            }
            for signal in ["SIGHUP", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGUSR2"] {
                assert!(page.contains(signal), "{daemon}: {signal}");
            }
        }
        assert!(text("man/newswire-tail.1").contains("EXIT STATUS"));
        for page in
            ["man/newswire.1", "man/newswire-tail.1", "man/newswire-sources-add.1", "man/newswire-ingestd.8"]
        {
            assert!(text(page).contains("EXAMPLES"), "{page}");
        }
    }

    #[test]
    fn groff_renders_every_page_without_a_warning() {
        let (folder, files) = written();
        for name in files.keys().filter(|name| name.starts_with("man/")) {
            let output = process::Command::new("groff")
                .args(["-man", "-ww", "-z", "-Tutf8"])
                .arg(folder.path().join(name))
                .output();
            let Ok(answer) = output else {
                crate::out::stderr_line(
                    "SKIPPED: groff is not installed; the manual pages were not rendered",
                );
                return;
            };
            let complaints = String::from_utf8_lossy(&answer.stderr);
            assert!(answer.status.success() && complaints.is_empty(), "{name}: {complaints}");
        }
    }

    #[test]
    fn installed_shells_read_their_completions() {
        let (folder, files) = written();
        let completions = |ending: &'static str| {
            files.keys().filter(move |name| name.starts_with("completions/") && name.ends_with(ending))
        };
        let of_zsh = files.keys().filter(|name| name.starts_with("completions/_"));
        let all = completions(".bash")
            .map(|name| ("bash", name))
            .chain(completions(".fish").map(|name| ("fish", name)));
        for (shell, name) in all.chain(of_zsh.map(|name| ("zsh", name))) {
            let Ok(answer) = process::Command::new(shell).arg("-n").arg(folder.path().join(name)).output()
            else {
                crate::out::stderr_line(&format!(
                    "SKIPPED: {shell} is not installed; it did not read {name}"
                ));
                continue;
            };
            let complaints = String::from_utf8_lossy(&answer.stderr);
            assert!(answer.status.success() && complaints.is_empty(), "{name}: {complaints}");
        }
    }
}
