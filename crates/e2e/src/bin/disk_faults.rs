//! What can happen to a store, on the programs next to this one: `disk-faults cuts|calls|damage|images …`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use e2e::{disk, log_line};

const USAGE: &str = "usage: disk-faults cuts [POINTS [small|long|keys|mixed]] [--seed N] | calls [MAX] | damage | images [CUTS [small|long|keys|mixed]]";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let seed = match words.iter().position(|word| word == "--seed") {
        Some(at) => {
            let value = words.drain(at..(at + 2).min(words.len())).next_back().context(USAGE)?;
            value.parse().context(USAGE)?
        }
        None => fastrand::u64(..1 << 32),
    };
    let count = |default: usize| words.get(1).map_or(Ok(default), |text| text.parse().context(USAGE));
    let articles = match words.get(2) {
        None => disk::Articles::ALL[..3].to_vec(),
        Some(name) => disk::Articles::ALL.into_iter().filter(|(word, _)| word == name).collect(),
    };
    anyhow::ensure!(!articles.is_empty(), USAGE);
    let keep = std::env::current_exe()?.parent().context("a program is in a folder")?.join("faulty-stores");
    log_line(&format!("seed {seed}; stores with faults go to {}", keep.display()));
    match words.first().map(String::as_str) {
        Some("cuts") => cuts(&articles, count(500)?, seed, keep).await,
        Some("images") => images(&articles, count(60)?, keep).await,
        Some("calls") => calls(count(60)?, keep).await,
        Some("damage") => damage(seed, keep).await,
        _ => anyhow::bail!(USAGE),
    }
}

async fn cuts(
    articles: &[(&'static str, disk::Articles)],
    points: usize,
    seed: u64,
    keep: PathBuf,
) -> anyhow::Result<()> {
    let mut faults = 0;
    for (name, articles) in articles {
        let options = disk::CutOptions {
            articles: *articles,
            points,
            seed,
            concurrency: 6,
            phase: Duration::from_secs(6),
            keep: keep.join(name),
        };
        let summary = disk::cut_recorded_stores(&options).await?;
        faults += summary.faults.len();
        log_line(&format!(
            "{name}: {} cuts ({} after announcements) in {} steps ({} files removed) with {} events: {} refused, {} in another epoch, {} \
             lost, {} doubled, {} with a fault, longest start {} ms",
            summary.cuts,
            summary.cuts_after_announcements,
            summary.steps,
            summary.files_removed,
            summary.announced,
            summary.refused,
            summary.reset,
            summary.lost,
            summary.doubled,
            summary.faults.len(),
            summary.opened_ms_max
        ));
    }
    anyhow::ensure!(faults == 0, "{faults} cuts with a fault");
    Ok(())
}

async fn images(
    articles: &[(&'static str, disk::Articles)],
    cuts: usize,
    keep: PathBuf,
) -> anyhow::Result<()> {
    let mut faults = 0;
    for (name, articles) in articles {
        let Some(summary) = disk::cut_images(*articles, cuts, &keep.join(name)).await? else { return Ok(()) };
        faults += summary.faults.len();
        log_line(&format!(
            "{name}: {} cuts of an ext4 ({} after announcements), {} events: {} refused, {} in another epoch, {} lost, {} doubled, {} with a fault",
            summary.cuts,
            summary.cuts_after_announcements,
            summary.announced,
            summary.refused,
            summary.reset,
            summary.lost,
            summary.doubled,
            summary.faults.len()
        ));
    }
    anyhow::ensure!(faults == 0, "{faults} cuts with a fault");
    Ok(())
}

async fn calls(max: usize, keep: PathBuf) -> anyhow::Result<()> {
    let failing = disk::FailingCalls::prepare(keep.join("calls")).await?;
    let mut summary = disk::FailingCallSummary::default();
    for kind in disk::FailingCall::KINDS {
        let numbers: Vec<u32> = (1..=u32::try_from(max)?).collect();
        for numbers in numbers.chunks(6) {
            let calls = numbers.iter().flat_map(|number| {
                [(false, false), (true, true)].map(|(is_full, and_later)| disk::FailingCall {
                    kind,
                    number: *number,
                    is_full,
                    and_later,
                })
            });
            let one = failing.fail(&calls.collect::<Vec<_>>(), 6).await?;
            let is_last = one.failed == 0;
            summary.add(one);
            // The daemon makes no more calls of this kind in the time that it has.
            if is_last {
                break;
            }
        }
        log_line(&format!("{kind}: {} failed so far, {} with a fault", summary.failed, summary.faults.len()));
    }
    log_line(&format!(
        "{} calls failed: {} times the daemon ended with the cause (after {} ms at most), {} times it went on, {} times \
         there was a fault; {} were not reached",
        summary.failed,
        summary.ended,
        summary.end_ms_max,
        summary.went_on,
        summary.faults.len(),
        summary.not_reached
    ));
    anyhow::ensure!(summary.faults.is_empty(), "{} calls with a fault", summary.faults.len());
    Ok(())
}

async fn damage(seed: u64, keep: PathBuf) -> anyhow::Result<()> {
    let options = disk::DamageOptions {
        flips: 100,
        cuts: 20,
        zeroed: 10,
        deletes: true,
        seed,
        concurrency: 6,
        keep: keep.join("damage"),
    };
    let summary = disk::damage_stores(&options).await?;
    for (outcome, count) in &summary.outcomes {
        log_line(&format!("{outcome}: {count}"));
    }
    log_line(&format!(
        "events told missing at most, by kind: {:?}; peak memory {:?} KiB; {} with a fault",
        summary.missed_max,
        summary.memory_peak_kib,
        summary.faults.len()
    ));
    anyhow::ensure!(summary.faults.is_empty(), "{} damaged stores with a fault", summary.faults.len());
    Ok(())
}
