//! `torture [kills|crash|nats] [--minutes N]`: see `scripts/torture`. The first fault ends it, and the folder of the run stays;
//! `nats` goes on after a fault, and its exit code says whether there was one.

use std::time::Duration;

use anyhow::Context as _;
use e2e::{
    FaultRow, KillRun, KillStep, NatsFault, NatsRun, NatsRunSize, Workload,
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
    /// Of `nats`.
    size: NatsRunSize,
}

fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Order> {
    let mut order = Order { command: "kills".to_owned(), minutes: 10, size: NatsRunSize::whole() };
    let mut arguments = arguments.peekable();
    if let Some(command) = arguments.next_if(|first| !first.starts_with('-')) {
        order.command = command;
    }
    while let Some(name) = arguments.next() {
        let value: Option<usize> = arguments.next().and_then(|value| value.parse().ok());
        let value = value.with_context(|| format!("{name} needs a number"))?;
        match name.as_str() {
            "--minutes" => order.minutes = value as u64,
            "--sources" => order.size.sources = value,
            "--clients" => order.size.clients = value,
            "--gateways" => order.size.gateways = value,
            "--daemons" => order.size.daemons = value,
            _ => anyhow::bail!("usage: torture [kills|crash|nats] [--minutes N], not {name}"),
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
        "nats" => nats(&order).await,
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

/// All faults of NATS and around it, and then again in any order until the time is over.
async fn nats(order: &Order) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(60 * order.minutes);
    let mut run = NatsRun::start(order.size.clone()).await?;
    let mut faults = NatsFault::ALL.to_vec();
    let mut wrong = Vec::new();
    log_line(FaultRow::HEAD);
    loop {
        for fault in &faults {
            let row = run.row(*fault).await?;
            log_line(&row.to_string());
            row.faults.iter().take(10).for_each(|fault| log_line(&format!("  {fault}")));
            wrong.extend(row.faults);
        }
        if Instant::now() >= until {
            break;
        }
        fastrand::shuffle(&mut faults);
    }
    if !wrong.is_empty() {
        run.show_logs();
    }
    anyhow::ensure!(wrong.is_empty(), "{} faults", wrong.len());
    Ok(())
}
