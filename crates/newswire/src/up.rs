//! `newswire up`: runs both daemons as child processes and prints their logs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use daemon::{Exit, config::Loaded, program::ACCEPT_LOSS, stop};
use tokio_util::sync::CancellationToken;

use crate::{
    config::read_catalogue,
    config_file::{ConfigFile, UsageError},
    demo::Demo,
    out::Paint,
    supervise::{ChildProgram, PrintedLog, keep_running},
};

/// Arguments of `newswire up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// List of sources [default: ingestd.sources; if that file does not exist, the built-in list]
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    sources: Option<PathBuf>,
    /// Directory of the store [default: store.path]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address that the gateway listens on [default: gateway.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Allow feeds at addresses of private networks
    #[arg(long)]
    allow_private: bool,
    /// Serve made-up feeds from this machine and poll those; needs no network and stores nothing permanently
    #[arg(long)]
    demo: bool,
    /// If the journal of the store is gone, begin an empty log with a new epoch, instead of refusing to start
    #[arg(long, conflicts_with = "demo")]
    accept_loss: bool,
}

/// The list of sources that is built into the program.
const CATALOGUE: &str = include_str!("../../../deploy/sources.toml");
/// How long ingestd may take to stop.
const INGESTD_STOP_GRACE: Duration = Duration::from_secs(10);
/// How long the gateway may take to stop after its drain.
const GATEWAY_STOP_GRACE: Duration = Duration::from_secs(5);

pub(crate) async fn run(arguments: UpArgs) -> anyhow::Result<Exit> {
    let mut loaded = arguments.file.load()?;
    // Also set in the environment of the children, so that they see the same configuration.
    let mut environment = Vec::new();
    let mut set = |loaded: &mut Loaded, key: &str, value: String, flag: &str| -> anyhow::Result<()> {
        loaded.set(key, &value, flag).map_err(|complaint| UsageError(complaint.to_string()))?;
        environment.push((format!("NEWSWIRE_{}", key.replace('.', "__").to_uppercase()), value));
        Ok(())
    };
    let demo = if arguments.demo { Some(Demo::start().context("start the demo")?) } else { None };
    for (key, value) in demo.iter().flat_map(Demo::settings) {
        set(&mut loaded, key, value, "--demo")?;
    }
    if let Some(dir) = &arguments.data_dir {
        set(&mut loaded, "store.path", dir.display().to_string(), "--data-dir")?;
    }
    if let Some(listen) = arguments.listen {
        set(&mut loaded, "gateway.listen", listen.to_string(), "--listen")?;
    }
    if arguments.allow_private {
        set(&mut loaded, "fetch.allow", "0.0.0.0/0,::/0".to_owned(), "--allow-private")?;
    }
    if let Some(sources) = &arguments.sources {
        set(&mut loaded, "ingestd.sources", sources.display().to_string(), "--sources")?;
    } else if demo.is_none()
        && let Some(sources) = unpack_catalogue(&loaded)?
    {
        set(&mut loaded, "ingestd.sources", sources.display().to_string(), "built-in catalogue")?;
    }
    read_catalogue(&loaded.config.ingestd.sources)?;
    let signals = stop::on_signals().context("listen for Ctrl-C")?;
    let log = PrintedLog::start().context("start the thread that prints the logs")?;
    print_addresses(&loaded, &log);
    let option = arguments.accept_loss.then_some(ACCEPT_LOSS);
    let result = tokio::select! {
        result = supervise(&loaded, &environment, option, &log, &signals.stop) => result.map(|()| Exit::Ok),
        // The daemons are killed, and the demo's directory is removed, because both are dropped.
        () = signals.abort.cancelled() => {
            log.own_line("killed both daemons: a second order to stop came before they had ended");
            Ok(Exit::Failure)
        }
    };
    log.finish();
    result
}

/// Writes the built-in list to a file if none is configured and the default one does not exist.
fn unpack_catalogue(loaded: &Loaded) -> anyhow::Result<Option<PathBuf>> {
    let by_default =
        loaded.show().iter().any(|shown| shown.key == "ingestd.sources" && shown.origin == "default");
    if !by_default || loaded.config.ingestd.sources.exists() {
        return Ok(None);
    }
    let run_dir = &loaded.config.daemon.run_dir;
    std::fs::create_dir_all(run_dir)
        .with_context(|| format!("create the directory {}", run_dir.display()))?;
    let path = run_dir.join("sources.toml");
    std::fs::write(&path, CATALOGUE).with_context(|| format!("write {}", path.display()))?;
    Ok(Some(path))
}

fn print_addresses(loaded: &Loaded, log: &PrintedLog) {
    let paint = Paint::for_stderr();
    let listen = loaded.config.gateway.listen;
    for line in [
        format!("page      http://{listen}/"),
        format!("stream    curl -N http://{listen}/news/stream"),
        format!("sources   {}", loaded.config.ingestd.sources.display()),
        format!("events    {}", loaded.config.store.path.display()),
    ] {
        log.own_line(&paint.bold(&line));
    }
}

async fn supervise(
    loaded: &Loaded,
    environment: &[(String, String)],
    first_ingestd_option: Option<&str>,
    log: &PrintedLog,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let arguments = match &loaded.file {
        Some(file) => vec![PathBuf::from("--config"), file.clone()],
        None => Vec::new(),
    };
    let program = |name: &str, stop_grace| -> anyhow::Result<ChildProgram> {
        let label = name.trim_start_matches("newswire-").to_owned();
        let (arguments, environment) = (arguments.clone(), environment.to_vec());
        let (path, first_options) = (sibling_program(name)?, Vec::new());
        Ok(ChildProgram { label, path, arguments, first_options, environment, stop_grace })
    };
    let mut ingestd = program("newswire-ingestd", INGESTD_STOP_GRACE)?;
    ingestd.first_options.extend(first_ingestd_option.map(str::to_owned));
    let gateway = program("newswire-gateway", loaded.config.gateway.drain + GATEWAY_STOP_GRACE)?;
    let both = stop.child_token();
    let run_until_either_ends = async |program| {
        let result = keep_running(program, log, &both).await;
        // If one cannot work, the other has nothing to do.
        both.cancel();
        result
    };
    let (ingestd, gateway) = tokio::join!(run_until_either_ends(&ingestd), run_until_either_ends(&gateway));
    ingestd.and(gateway)
}

/// The path of another program of ours, which is installed next to this one.
pub(crate) fn sibling_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find this program")?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is missing; build or install all three programs", path.display());
    Ok(path)
}
