//! The outbox against a real nats-server: whatever happens to the server, the stream has every event of the log once, and the
//! events of a source in their order.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod several;
mod support;

use std::{
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use e2e::{NatsServer, nats_server_program, wait_for};
use futures_util::{FutureExt as _, StreamExt as _};
use news::{Epoch, Event, Seq};
use support::{LIMIT, MemoryLog, Running, check, connect, jetstream_of, stored};
use tokio::sync::{broadcast, watch};
use wire::{
    EventLog, Notice,
    nats::{
        Announcer, DaemonHeartbeat, DaemonNotice, NewestSeen, NoticeKind, OutboxReport, OutboxStatus,
        answer_seen, newest_seen,
    },
};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_in_the_stream_once_whenever_the_server_or_the_daemon_dies_or_stops() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    let mut outbox = Running::start(&server, &log).await;
    let growing = Arc::clone(&log);
    let grow = tokio::spawn(async move {
        loop {
            growing.append(fastrand::usize(1..40), 23);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
    });
    let seed = fastrand::get_seed();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..600))).await;
        match fastrand::u8(0..4) {
            0 => {
                server.kill();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..500))).await;
                server.restart().await.unwrap();
            }
            1 => {
                server.pause();
                // Sometimes longer than a confirmation is waited for.
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..7000))).await;
                server.resume();
            }
            2 => {
                outbox.kill().await;
                outbox = Running::start(&server, &log).await;
            }
            _ => {
                outbox.stop().await;
                outbox = Running::start(&server, &log).await;
            }
        }
    }
    grow.abort();
    grow.await.ok();
    outbox.published().await;
    let stored = stored(&server).await;
    println!("seed {seed}: {} events, {} retries", stored.len(), outbox.counters.retries.load(Relaxed));
    check(&stored, &log);
}

/// Loses something of what the server has, while the log grows.
async fn lose_at_random(server: &mut NatsServer, older: &Path, outbox: &mut Running, log: &Arc<MemoryLog>) {
    let pause = || tokio::time::sleep(Duration::from_millis(fastrand::u64(0..800)));
    match fastrand::u8(0..6) {
        // The stream may have been deleted just now.
        0 => drop(purge(server).await),
        1 => drop(jetstream_of(server).await.delete_stream("newswire").await),
        2 => drop(jetstream_of(server).await.delete_key_value("newswire-state").await),
        3 => {
            server.kill();
            std::fs::remove_dir_all(server.data()).unwrap();
            pause().await;
            server.restart().await.unwrap();
        }
        4 => {
            server.kill();
            let copied = older.join("data");
            if copied.exists() {
                std::fs::remove_dir_all(server.data()).unwrap();
                copy(&copied, &server.data());
            } else {
                copy(&server.data(), &copied);
            }
            server.restart().await.unwrap();
        }
        _ => {
            let next = Running::start(server, log).await;
            std::mem::replace(outbox, next).kill().await;
        }
    }
    pause().await;
}

async fn purge(server: &NatsServer) -> Option<()> {
    let stream = jetstream_of(server).await.get_stream("newswire").await.ok()?;
    stream.purge().await.ok().map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_server_loses_while_the_log_grows_all_of_it_is_there_once_in_the_end() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let (log, older) = (MemoryLog::new("log1"), tempfile::tempdir().unwrap());
    let mut outbox = Running::start(&server, &log).await;
    outbox.published().await;
    let growing = Arc::clone(&log);
    let grow = tokio::spawn(async move {
        loop {
            growing.append(fastrand::usize(1..8), 23);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
        }
    });
    for _ in 0..8 {
        lose_at_random(&mut server, older.path(), &mut outbox, &log).await;
    }
    grow.abort();
    grow.await.ok();
    // A loss that has not been noticed yet is noticed by the check, every 5 s.
    wait_for("the log is in the stream", LIMIT, async || {
        outbox.published().await;
        let mut stream = jetstream_of(&server).await.get_stream("newswire").await.ok()?;
        let messages = stream.info().await.ok()?.state.messages;
        (messages >= log.head()).then_some(())
    })
    .await
    .unwrap();
    check(&stored(&server).await, &log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_daemon_asks_about_the_last_events_and_publishes_none_twice() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    log.append(3000, 7);
    let mut outbox = Running::start(&server, &log).await;
    let epoch = outbox.published().await;
    outbox.kill().await;
    log.append(10, 7);
    let mut outbox = Running::start(&server, &log).await;
    assert_eq!(outbox.published().await, epoch, "the same epoch");
    assert_eq!(outbox.counters.published.load(Relaxed), 10);
    check(&stored(&server).await, &log);
    outbox.stop().await;
    // After an orderly stop it is written down how far it came.
    let mut outbox = Running::start(&server, &log).await;
    outbox.published().await;
    let passed_over = outbox.counters.passed_over.load(Relaxed);
    assert_eq!((passed_over, outbox.counters.refills.load(Relaxed)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_purge_a_new_epoch_has_every_event_once_also_those_published_right_after_it() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    log.append(500, 9);
    let mut outbox = Running::start(&server, &log).await;
    let first = outbox.published().await;
    jetstream_of(&server).await.get_stream("newswire").await.unwrap().purge().await.unwrap();
    // Events of sources that it knows, and of new ones.
    log.append(30, 12);
    let second = outbox.published_in_another_epoch(&first).await;
    check(&stored(&server).await, &log);

    outbox.kill().await;
    jetstream_of(&server).await.get_stream("newswire").await.unwrap().purge().await.unwrap();
    log.append(30, 12);
    let mut outbox = Running::start(&server, &log).await;
    outbox.published_in_another_epoch(&second).await;
    check(&stored(&server).await, &log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_or_whose_files_are_gone_is_made_again_and_filled_in_a_new_epoch() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    log.append(500, 9);
    let mut outbox = Running::start(&server, &log).await;
    let first = outbox.published().await;
    jetstream_of(&server).await.delete_stream("newswire").await.unwrap();
    log.append(1, 9);
    let second = outbox.published_in_another_epoch(&first).await;
    check(&stored(&server).await, &log);

    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    log.append(1, 9);
    server.restart().await.unwrap();
    let third = outbox.published_in_another_epoch(&second).await;
    assert_ne!(third, first);
    check(&stored(&server).await, &log);

    jetstream_of(&server).await.delete_key_value("newswire-state").await.unwrap();
    outbox.published_in_another_epoch(&third).await;
    check(&stored(&server).await, &log);
}

/// Puts the server back to a copy of its files that is older than the last 200 events; it is not running afterwards.
async fn lose_the_last_events(server: &mut NatsServer, log: &MemoryLog, outbox: &mut Running) -> Epoch {
    log.append(300, 9);
    let epoch = outbox.published().await;
    server.kill();
    let older = tempfile::tempdir().unwrap();
    copy(&server.data(), &older.path().join("data"));
    server.restart().await.unwrap();
    log.append(200, 11);
    assert_eq!(outbox.published().await, epoch);
    server.kill();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy(&older.path().join("data"), &server.data());
    epoch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_what_it_had_confirmed_gets_it_again_in_a_new_epoch() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    let mut outbox = Running::start(&server, &log).await;
    let first = lose_the_last_events(&mut server, &log, &mut outbox).await;
    server.restart().await.unwrap();
    let second = outbox.published_in_another_epoch(&first).await;
    let stored = stored(&server).await;
    check(&stored, &log);
    let new: Vec<_> = stored.iter().filter(|stored| stored.message_id.starts_with(second.as_str())).collect();
    assert!(new.len() >= 200, "what was lost came again under the new epoch: {}", new.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_knows_nothing_of_a_loss_asks_those_that_have_seen_more() {
    let Some(program) = nats_server_program() else { return };
    let mut server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    let mut outbox = Running::start(&server, &log).await;
    let first = lose_the_last_events(&mut server, &log, &mut outbox).await;
    let seen = outbox.status.borrow().newest.clone();
    assert_eq!(seen.as_ref().unwrap().newest.seq, Seq(500));
    outbox.kill().await;
    server.restart().await.unwrap();
    let witness = connect(&server).await;
    let mut connections = witness.connections();
    connections.wait_for(|count| *count > 0).await.unwrap();
    let answers = tokio::spawn(async move { answer_seen(&witness, || seen.clone()).await });
    // The answer is there before the question.
    let probe = connect(&server).await;
    wait_for("the witness listens", LIMIT, async || (!newest_seen(&probe).await.is_empty()).then_some(()))
        .await
        .unwrap();
    let mut outbox = Running::start(&server, &log).await;
    outbox.published_in_another_epoch(&first).await;
    check(&stored(&server).await, &log);
    answers.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logs_are_published_to_one_stream_and_a_new_epoch_has_both() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let logs = [MemoryLog::new("log1"), MemoryLog::new("log2")];
    logs.iter().for_each(|log| log.append(700, 13));
    let (mut one, mut other) =
        (Running::start(&server, &logs[0]).await, Running::start(&server, &logs[1]).await);
    let epoch = one.published().await;
    assert_eq!(other.published().await, epoch);
    let all = stored(&server).await;
    assert_eq!(all.len(), 1400, "both have events of the same sources, which are not the same");
    logs.iter().for_each(|log| check(&all, log));
    jetstream_of(&server).await.get_stream("newswire").await.unwrap().purge().await.unwrap();
    let second = one.published_in_another_epoch(&epoch).await;
    assert_eq!(other.published_in_another_epoch(&epoch).await, second);
    let all = stored(&server).await;
    assert_eq!(all.len(), 1400);
    logs.iter().for_each(|log| check(&all, log));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_for_the_server_comes_without_its_content_and_says_so() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "max_payload: 64KB").await.unwrap();
    let log = MemoryLog::new("log1");
    log.append(1, 1);
    log.append_with(1, 1, Some(&"x".repeat(80_000)));
    log.append_with(1, 1, Some(&"x".repeat(60_000)));
    let mut outbox = Running::start(&server, &log).await;
    outbox.published().await;
    let stored = stored(&server).await;
    let content: Vec<_> = stored
        .iter()
        .map(|stored| {
            let event: Event =
                serde_json::from_slice(&stored.message.json_with_id(&stored.message.origin)).unwrap();
            (event.item.content_html.map(|html| html.len()), event.item.warnings.len())
        })
        .collect();
    assert_eq!(content, [(None, 0), (None, 1), (Some(60_000), 0)]);
    assert_eq!(outbox.counters.shortened.load(Relaxed), 1);
    let reports = outbox.reports.lock().unwrap();
    let is_told = |report: &OutboxReport| matches!(report, OutboxReport::Shortened { origin, .. } if origin.seq == Seq(2));
    assert!(reports.iter().any(is_told), "{reports:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removes_before_it_is_published_is_counted_and_told() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    log.append(10, 3);
    let mut outbox = Running::start(&server, &log).await;
    outbox.published().await;
    outbox.stop().await;
    log.append(100, 3);
    *log.oldest.lock().unwrap() = 51;
    let mut outbox = Running::start(&server, &log).await;
    outbox.published().await;
    let mut origins: Vec<_> =
        stored(&server).await.iter().map(|stored| stored.message.origin.seq.0).collect();
    origins.sort_unstable();
    assert_eq!(origins, (1..=10).chain(51..=110).collect::<Vec<_>>());
    assert_eq!(outbox.counters.lost.load(Relaxed), 40);
    let is_told =
        |report: &OutboxReport| matches!(report, OutboxReport::Missed { first: Seq(11), events: 40 });
    let reports = outbox.reports.lock().unwrap();
    assert!(reports.iter().any(is_told), "{reports:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_waits_until_the_events_before_it_are_in_the_stream_and_heartbeats_do_not() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut notices = client.subscribe("newswire.notices").await.unwrap();
    let mut heartbeats = client.subscribe("newswire.heartbeats").await.unwrap();
    client.flush().await.unwrap();
    let log = MemoryLog::new("log1");
    log.append(5, 1);
    let (outbox, status) =
        watch::channel(OutboxStatus { connected: true, through: Seq(3), ..OutboxStatus::default() });
    let (notice, received) = broadcast::channel(8);
    let announcer = Announcer {
        connection: connect(&server).await,
        daemon: "log1".to_owned(),
        log: Arc::clone(&log) as Arc<dyn EventLog>,
        notices: received,
        outbox: status,
        recording_pauses: Arc::new(Vec::new),
        counters: Arc::default(),
    };
    notice.send(Notice::Source(r#"{"source":"s0"}"#.into())).unwrap();
    let task = tokio::spawn(announcer.run());
    let heartbeat = tokio::time::timeout(LIMIT, heartbeats.next()).await.unwrap().unwrap();
    let heartbeat: DaemonHeartbeat = serde_json::from_slice(&heartbeat.payload).unwrap();
    assert_eq!((&*heartbeat.daemon, &*heartbeat.published.to_string()), ("log1", "log1-3"));
    tokio::time::timeout(LIMIT, heartbeats.next()).await.unwrap().unwrap();
    // Sent over the same connection in this order, so it would be here by now.
    assert!(notices.next().now_or_never().is_none(), "two events before it are not in the stream");

    let newest = NewestSeen { newest: "stream-9".parse().unwrap(), message_id: None };
    outbox.send_modify(|status| {
        status.through = Seq(5);
        status.newest = Some(newest.clone());
    });
    let notice = tokio::time::timeout(LIMIT, notices.next()).await.unwrap().unwrap();
    let notice: DaemonNotice = serde_json::from_slice(&notice.payload).unwrap();
    assert_eq!((notice.event, notice.after), (NoticeKind::Source, Some(newest.newest)));
    assert_eq!(notice.data.get(), r#"{"source":"s0"}"#);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: --run-ignored only --no-capture prints events per second and the time to a confirmation"]
async fn how_fast_a_backlog_is_published_and_how_long_a_new_event_takes() {
    let Some(program) = nats_server_program() else { return };
    let server = NatsServer::start(&program, "").await.unwrap();
    let log = MemoryLog::new("log1");
    log.append_with(50_000, 200, Some(&"x".repeat(1200)));
    let begun = tokio::time::Instant::now();
    let mut outbox = Running::start(&server, &log).await;
    outbox.published().await;
    let took = begun.elapsed();
    println!("50000 events of 200 sources in {took:?}: {:.0}/s", 50_000.0 / took.as_secs_f64());
    let mut latencies = Vec::new();
    for _ in 0..500 {
        let begun = tokio::time::Instant::now();
        log.append_with(1, 200, Some(&"x".repeat(1200)));
        outbox.published().await;
        latencies.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    latencies.sort_unstable();
    println!("from the log to the confirmation: p50 {:?}, p99 {:?}", latencies[250], latencies[495]);
}
