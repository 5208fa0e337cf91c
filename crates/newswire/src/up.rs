//! `newswire up`: both daemons as children of this process, with their logs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use daemon::{Exit, config::Loaded, stop};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{ConfigFile, UsageError},
    config::read_catalogue,
    demo::Demo,
    out::{self, Paint},
    supervise::{ChildProgram, keep},
};

/// Arguments of `newswire up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// List of sources [default: ingestd.sources; where there is none, the built-in catalogue]
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    sources: Option<PathBuf>,
    /// Where events are kept [default: store.path]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the gateway listens [default: gateway.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Fetch from private addresses too
    #[arg(long)]
    allow_private: bool,
    /// Serve made-up feeds on this machine and watch those: needs no network, keeps nothing
    #[arg(long)]
    demo: bool,
}

/// The catalogue that comes with the program.
const CATALOGUE: &str = include_str!("../../../deploy/sources.toml");
/// How long ingestd may take to end.
const INGESTD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the gateway may take beyond its drain.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(arguments: UpArgs) -> anyhow::Result<Exit> {
    let mut loaded = arguments.file.load()?;
    // Set in the children's environment too, so that they and this process mean the same.
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
    announce(&loaded);
    supervise(&loaded, &environment, &signals.stop).await?;
    Ok(Exit::Ok)
}

/// Where nobody named a list of sources and the default one does not exist: the built-in one, as a file.
fn unpack_catalogue(loaded: &Loaded) -> anyhow::Result<Option<PathBuf>> {
    let by_default =
        loaded.show().iter().any(|shown| shown.key == "ingestd.sources" && shown.origin == "default");
    if !by_default || loaded.config.ingestd.sources.exists() {
        return Ok(None);
    }
    let run_dir = &loaded.config.daemon.run_dir;
    std::fs::create_dir_all(run_dir).with_context(|| format!("make the directory {}", run_dir.display()))?;
    let path = run_dir.join("sources.toml");
    std::fs::write(&path, CATALOGUE).with_context(|| format!("write {}", path.display()))?;
    Ok(Some(path))
}

fn announce(loaded: &Loaded) {
    let paint = Paint::for_stderr();
    let listen = loaded.config.gateway.listen;
    for line in [
        format!("page      http://{listen}/"),
        format!("stream    curl -N http://{listen}/news/stream"),
        format!("sources   {}", loaded.config.ingestd.sources.display()),
        format!("events    {}", loaded.config.store.path.display()),
    ] {
        out::complain(&format!("newswire  | {}", paint.bold(&line)));
    }
}

async fn supervise(
    loaded: &Loaded,
    environment: &[(String, String)],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let arguments = match &loaded.file {
        Some(file) => vec![PathBuf::from("--config"), file.clone()],
        None => Vec::new(),
    };
    let program = |name: &str, patience| -> anyhow::Result<ChildProgram> {
        let label = name.trim_start_matches("newswire-").to_owned();
        let (arguments, environment) = (arguments.clone(), environment.to_vec());
        Ok(ChildProgram { label, path: beside_us(name)?, arguments, environment, patience })
    };
    let ingestd = program("newswire-ingestd", INGESTD_PATIENCE)?;
    let gateway = program("newswire-gateway", loaded.config.gateway.drain + GATEWAY_PATIENCE)?;
    let both = stop.child_token();
    let either_fails = async |program| {
        let kept = keep(program, &both).await;
        // When one cannot work, the other has nothing to do.
        both.cancel();
        kept
    };
    let (ingestd, gateway) = tokio::join!(either_fails(&ingestd), either_fails(&gateway));
    ingestd.and(gateway)
}

/// The daemons lie beside this program.
pub(crate) fn beside_us(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find this program")?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is missing; build or install all three programs", path.display());
    Ok(path)
}
