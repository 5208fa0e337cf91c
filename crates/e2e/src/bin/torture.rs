//! `torture [kills|crash] [--minutes N]`: see `scripts/torture`. The first fault ends it, and the folder of the run stays.

use std::time::Duration;

use anyhow::Context as _;
use e2e::{
    KillRun, KillStep, Workload,
    crash_sweep::{CrashCause, sweep},
    log_line,
};
use tokio::time::Instant;

/// A store has more events than it may keep after two minutes, and clients read from the log what the ring no longer has.
const SETTINGS: [(&str, &str); 4] = [
    ("store.retention_events", "20000"),
    ("store.source_share_percent", "100"),
    ("gateway.ring_events", "1000"),
    ("gateway.drain", "\"1s\""),
];
/// Between two checks that every client has everything.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The bar for the size of the store's files, as a multiple of its events.
const DISK_RATIO_MAX: f64 = 4.0;

/// What the command line asks for.
struct Order {
    command: String,
    minutes: u64,
}

fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Order> {
    let mut order = Order { command: "kills".to_owned(), minutes: 10 };
    let mut arguments = arguments.peekable();
    if let Some(command) = arguments.next_if(|first| !first.starts_with('-')) {
        order.command = command;
    }
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        let value = value.with_context(|| format!("{name} needs a number"))?;
        match name.as_str() {
            "--minutes" => order.minutes = value,
            _ => anyhow::bail!("usage: torture [kills|crash] [--minutes N], not {name}"),
        }
    }
    Ok(order)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let order = parse(std::env::args().skip(1))?;
    match order.command.as_str() {
        "kills" => kills(&order).await,
        "crash" => crash(&order).await,
        other => anyhow::bail!("there is no torture {other}"),
    }
}

/// All crash points, and then again until the time is over, each time at another passing of each.
async fn crash(order: &Order) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(60 * order.minutes);
    let mut crashes = 0;
    let any = |step: &str| {
        // Retention comes every 5 s.
        let times_max = if step.starts_with("retain-") { 3 } else { 20 };
        fastrand::u64(1..=times_max)
    };
    for cause in CrashCause::ALL.into_iter().cycle() {
        let is_first_pass = crashes < CrashCause::ALL.iter().map(|cause| cause.steps().len()).sum();
        if !is_first_pass && Instant::now() >= until {
            break;
        }
        sweep(cause, cause.steps(), any).await?;
        crashes += cause.steps().len();
    }
    log_line(&format!("{crashes} crashes at named steps, 0 items lost, 0 doubled"));
    Ok(())
}

async fn kills(order: &Order) -> anyhow::Result<()> {
    let mut run = KillRun::start(&Workload::long(), &SETTINGS).await?;
    let outcome = kill_until(&mut run, Instant::now() + Duration::from_secs(60 * order.minutes)).await;
    if outcome.is_err() {
        run.stack_mut().show_logs();
        run.stack_mut().keep_folder();
    }
    outcome?;
    let report = run.report();
    anyhow::ensure!(report.kills() > 0, "the time was too short for a single kill");
    anyhow::ensure!(
        report.disk_ratio_max <= DISK_RATIO_MAX,
        "the files of the store were {:.1} times as large as its events, and may be {DISK_RATIO_MAX} times",
        report.disk_ratio_max
    );
    Ok(())
}

async fn kill_until(run: &mut KillRun, until: Instant) -> anyhow::Result<()> {
    while Instant::now() < until {
        let next_check = until.min(Instant::now() + CHECK_EVERY);
        while Instant::now() < next_check {
            run.step(&KillStep::random()).await?;
        }
        run.check().await?;
        log_line(&run.report().to_string());
    }
    Ok(())
}
