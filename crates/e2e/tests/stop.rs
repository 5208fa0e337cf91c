//! SIGTERM ends a daemon, whatever hangs and however many clients are connected; so does a disk that fails.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::time::Duration;

use e2e::{
    Behaviour, Binary, ChildProcess, Origin, StartOptions, TestStack, TestSubscriber, log_line, scenario,
    wait_for,
};
use rustix::process::Signal;

/// Deadline of an exit; on a busy machine, so many times what an idle twin takes to exit at the same time more.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);
const TWIN_TIMES: u32 = 3;
/// A process that has not exited after this time hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);
const FEEDS: usize = 12;
const SUBSCRIBERS: usize = 30;

/// Both daemons at work: most feeds hang in the middle of a visit, and all streams are open.
async fn start_busy() -> anyhow::Result<(Origin, TestStack, Vec<TestSubscriber>)> {
    let origin = Origin::start().await?;
    let mut stack = TestStack::new(&scenario::feeds(&origin, FEEDS))?;
    for number in 0..FEEDS {
        let name = format!("feed-{number}");
        origin.publish(&name, "Something");
        match number % 3 {
            0 => origin.set_behaviour(&name, Behaviour::SilentHead),
            1 => origin.set_behaviour(&name, Behaviour::SilentBody),
            _ => {}
        }
    }
    stack.set("gateway.drain", "\"1s\"");
    stack.start_both().await?;
    let subscribers: Vec<_> =
        (0..SUBSCRIBERS).map(|_| stack.subscribe("/news/stream?snapshot=1000")).collect();
    wait_for("an item on every stream, and a visit to every feed", HANGS_AFTER, async || {
        let read = subscribers.iter().all(|s| s.count("item") >= FEEDS / 3);
        let hung = (0..FEEDS).all(|n| !origin.requests(&format!("feed-{n}")).is_empty());
        (read && hung).then_some(())
    })
    .await?;
    Ok((origin, stack, subscribers))
}

/// Sends SIGTERM to a daemon and to its twin, which has no feeds and no clients, and checks that it exits in time.
async fn terminate(stack: &mut TestStack, program: Binary) {
    let mut twin = TestStack::new(&[]).unwrap();
    twin.start_both().await.unwrap();
    let (ended, of_twin) =
        tokio::join!(stack.terminate(program, HANGS_AFTER), twin.terminate(program, HANGS_AFTER));
    let ((status, after), (_, twin_after)) = (ended.unwrap(), of_twin.unwrap());
    log_line(&format!("{} ended after {after:?}, its twin after {twin_after:?}", program.name()));
    assert_eq!(status.code(), Some(0));
    assert!(after < STOPPED_WITHIN + twin_after * TWIN_TIMES, "{after:?}, and the twin {twin_after:?}");
}

#[tokio::test]
async fn sigterm_ends_the_gateway_within_5_s_with_streams_open() {
    let (_origin, mut stack, subscribers) = start_busy().await.unwrap();
    terminate(&mut stack, Binary::Gateway).await;
    for subscriber in &subscribers {
        wait_for("the end of a stream", HANGS_AFTER, async || subscriber.connections()[0].ended.clone())
            .await
            .unwrap();
        let end = subscriber.connections()[0].ended.clone();
        assert_eq!(end.as_deref(), Some("the stream ended"), "ended, not cut: {}", subscriber.summary());
        assert_eq!(subscriber.closed(), None);
    }
    assert!(stack.process(Binary::Ingestd).unwrap().is_running());
}

#[tokio::test]
async fn sigterm_ends_the_daemon_within_5_s_with_feeds_hanging_and_the_wire_open() {
    let (_origin, mut stack, subscribers) = start_busy().await.unwrap();
    terminate(&mut stack, Binary::Ingestd).await;
    assert!(stack.process(Binary::Gateway).unwrap().is_running());
    let undisturbed =
        subscribers.iter().all(|s| s.connections().len() == 1 && s.connections()[0].ended.is_none());
    assert!(undisturbed, "streams stay open without the daemon");

    stack.start(Binary::Ingestd).unwrap();
    stack.wait_ready().await.unwrap();
    terminate(&mut stack, Binary::Ingestd).await;
}

/// `newswire up` with both daemons ready, and the process ids of these.
async fn start_up(stack: &mut TestStack) -> anyhow::Result<(ChildProcess, Vec<i32>)> {
    let config = stack.write_config("newswire.toml", &[])?;
    let arguments = ["up", "--config", config.to_str().unwrap()];
    let up = ChildProcess::start(Binary::Newswire, &arguments, stack.folder())?;
    stack.wait_ready().await?;
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", up.id()))?;
    let children: Vec<i32> = children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    anyhow::ensure!(children.len() == 2, "{children:?}");
    Ok((up, children))
}

async fn until_gone(pids: &[i32]) {
    wait_for("the end of both daemons", HANGS_AFTER, async || {
        pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn both_daemons_end_with_newswire_up_when_it_is_killed() {
    let mut stack = TestStack::new(&[]).unwrap();
    let (mut up, daemons) = start_up(&mut stack).await.unwrap();
    up.kill();
    until_gone(&daemons).await;
}

#[tokio::test]
async fn two_interrupts_at_once_are_one_and_a_later_one_ends_newswire_up_and_its_daemons_at_once() {
    let mut stack = TestStack::new(&[]).unwrap();
    let (mut up, daemons) = start_up(&mut stack).await.unwrap();
    // As a wrapper such as `timeout` sends them: to the process, and again to its group.
    up.signal(Signal::INT).unwrap();
    up.signal(Signal::INT).unwrap();
    assert_eq!(up.wait_exit(HANGS_AFTER).await.unwrap().0.code(), Some(0), "{}", up.log());
    until_gone(&daemons).await;

    let (mut up, daemons) = start_up(&mut stack).await.unwrap();
    // A daemon that is stopped cannot end.
    let stopped = rustix::process::Pid::from_raw(daemons[0]).unwrap();
    rustix::process::kill_process(stopped, Signal::STOP).unwrap();
    up.signal(Signal::INT).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    up.signal(Signal::INT).unwrap();
    assert_eq!(up.wait_exit(HANGS_AFTER).await.unwrap().0.code(), Some(1), "{}", up.log());
    assert!(up.log().contains("killed both daemons"), "{}", up.log());
    until_gone(&daemons).await;
}

/// A document whose items are larger than the files of the store may become.
fn large_document() -> String {
    let body = "0123456789abcdef".repeat(1000);
    let item = |n| {
        format!(
            "<item><guid>large-{n}</guid><title>Large {n}</title><description>{body}</description></item>"
        )
    };
    let items: String = (0..200).map(item).collect();
    format!("<rss version=\"2.0\"><channel><title>Large</title>{items}</channel></rss>")
}

#[tokio::test]
async fn a_failed_write_of_the_store_ends_the_daemon_with_74_and_the_cause_and_loses_nothing_that_was_sent() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    origin.publish("feed-0", "Before");
    origin.publish("feed-1", "Beside");
    stack.set_start_options(
        Binary::Ingestd,
        StartOptions { file_kib_max: Some(2048), ..StartOptions::default() },
    );
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    wait_for("both items", HANGS_AFTER, async || (subscriber.count("item") == 2).then_some(()))
        .await
        .unwrap();

    let mut twin = TestStack::new(&[]).unwrap();
    twin.start_both().await.unwrap();

    origin.set_document("feed-0", &large_document());
    let daemon = stack.process(Binary::Ingestd).unwrap();
    let cause = wait_for("the cause in the log", HANGS_AFTER, async || {
        daemon.log().lines().find(|line| line.contains("cannot write the journal")).map(str::to_owned)
    });
    let cause = cause.await.unwrap();
    assert!(cause.contains("ERROR") && cause.contains("File too large"), "{cause}");
    assert!(cause.contains("check the disk"), "with the remedy: {cause}");
    let (ended, of_twin) =
        tokio::join!(daemon.wait_exit(HANGS_AFTER), twin.terminate(Binary::Ingestd, HANGS_AFTER));
    let ((status, after), (_, twin_after)) = (ended.unwrap(), of_twin.unwrap());
    log_line(&format!("ended {after:?} after the cause; its twin was stopped within {twin_after:?}"));
    assert_eq!(status.code(), Some(74));
    assert!(after < STOPPED_WITHIN + twin_after * TWIN_TIMES, "{after:?}, and the twin {twin_after:?}");
    let log = stack.process(Binary::Ingestd).unwrap().log();
    assert_eq!(log.matches("cannot write the journal").count(), 1, "{log}");

    stack.set_start_options(Binary::Ingestd, StartOptions::default());
    stack.start(Binary::Ingestd).unwrap();
    wait_for("the large items", HANGS_AFTER, async || (subscriber.count("item") == 202).then_some(()))
        .await
        .unwrap();
}
