//! A disk that fills up and has space again: what the operator reads, and what clients get.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{
    Binary, Browser, DocumentFormat, Origin, TestSource, TestStack, TestSubscriber, faults, http, log_line,
    wait_for,
};
use serde_json::{Value, json};

/// Deadline of a change that only a hang misses.
const SOON: Duration = Duration::from_secs(90);
/// Recording resumes within this time after space came back.
const RESUMED_WITHIN: Duration = Duration::from_secs(60);

/// A small file system in memory. It exists in the mount namespace of this process only.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` in the first call for a test: that runs it once more, in namespaces of its own, where every user may mount.
    /// Also if that is not possible here.
    fn of(test: &str, options: &str) -> Option<Self> {
        const INSIDE: &str = "NEWSWIRE_TEST_OWN_NAMESPACE";
        let folder = std::env::temp_dir();
        if std::env::var_os(INSIDE).is_some() {
            let disk = Self(tempfile::Builder::new().prefix("newswire-disk-").tempdir().unwrap().keep());
            let mount = ["-t", "tmpfs", "-o", options, "small"];
            assert!(Command::new("mount").args(mount).arg(&disk.0).status().unwrap().success());
            return Some(disk);
        }
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount"]);
            command
        };
        let probe =
            unshare().args(["mount", "-t", "tmpfs", "probe"]).arg(folder).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            log_line("SKIPPED: a small disk needs unshare, user namespaces and mount");
            return None;
        }
        let itself = std::env::current_exe().unwrap();
        let ran =
            unshare().arg(itself).args(["--exact", test, "--nocapture"]).env(INSIDE, "1").status().unwrap();
        assert!(ran.success(), "{test}, in its own namespaces: {ran}");
        None
    }

    fn free_bytes(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        space.f_bavail * space.f_frsize
    }

    fn free_inodes(&self) -> u64 {
        rustix::fs::statvfs(&self.0).unwrap().f_favail
    }

    /// Leaves so many bytes free. `name` is the file that takes the rest.
    fn fill(&self, name: &str, free_bytes: u64) {
        let taken = self.free_bytes().saturating_sub(free_bytes);
        // The last write of a disk that is filled to the end may fail.
        fs::write(self.0.join(name), vec![7; usize::try_from(taken).unwrap()]).ok();
        log_line(&format!("# the disk is filled: {} bytes free", self.free_bytes()));
    }

    /// Leaves so many inodes free.
    fn take_inodes(&self, free: u64) {
        fs::create_dir_all(self.0.join("files")).unwrap();
        for n in 0..self.free_inodes().saturating_sub(free) {
            fs::write(self.0.join(format!("files/{free}-{n}")), "").unwrap();
        }
        log_line(&format!("# inodes are taken: {} free", self.free_inodes()));
    }

    fn remove(&self, name: &str) {
        let path = self.0.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        log_line(&format!(
            "# {name} is removed: {} bytes, {} inodes free",
            self.free_bytes(),
            self.free_inodes()
        ));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: an exiting process may still have files open there.
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
        let _removed = fs::remove_dir(&self.0);
    }
}

/// Feeds, both daemons, and what is seen from each side.
struct Case {
    origin: Origin,
    feeds: Vec<TestSource>,
    stack: TestStack,
    published: u32,
}

impl Case {
    async fn start(store: &Path, settings: &[(&str, &str)]) -> (Self, TestSubscriber) {
        let origin = Origin::start().await.unwrap();
        let feeds: Vec<_> = (0..3)
            .map(|n| {
                let id = format!("feed-{n}");
                TestSource::new(&id, origin.add_feed(&id, DocumentFormat::Rss))
            })
            .collect();
        let mut stack = TestStack::new(&feeds).unwrap();
        stack.set("store.path", &format!("{:?}", store.display().to_string()));
        settings.iter().for_each(|(key, value)| stack.set(key, value));
        let mut case = Self { origin, feeds, stack, published: 0 };
        case.publish();
        case.stack.start_both().await.unwrap();
        let client = case.stack.subscribe("/news/stream?snapshot=1000");
        case.all_arrived(&client).await;
        (case, client)
    }

    /// One article of 24 KB in each feed.
    fn publish(&mut self) {
        for feed in &self.feeds {
            self.published += 1;
            self.origin
                .publish(&feed.id, &format!("Story {} {}", self.published, "lorem ipsum ".repeat(2000)));
        }
    }

    fn requests(&self) -> usize {
        self.feeds.iter().map(|feed| self.origin.requests(&feed.id).len()).sum()
    }

    /// Every item that was published arrives once, and nothing else.
    async fn all_arrived(&self, client: &TestSubscriber) {
        let published = self.origin.published();
        let arrived = wait_for("every published item", RESUMED_WITHIN, async || {
            (client.count("item") >= published.values().map(Vec::len).sum()).then_some(())
        });
        arrived.await.unwrap_or_else(|error| panic!("{error}; {}", client.summary()));
        assert_eq!(faults(&published, &client.records()), [""; 0]);
        log_line(&format!("# the client has every item once: {}", client.summary()));
    }

    async fn ready(&self) -> (u16, Value) {
        let (status, text) = http::fetch(&self.stack.gateway(), "/ready", SOON).await.unwrap();
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Waits until `/ready` names this reason, or none, and returns the answer.
    async fn until_degraded(&self, reason: Option<&str>) -> (u16, Value) {
        let what = format!("/ready to be degraded by {reason:?}");
        let shown = wait_for(&what, SOON, async || {
            let (status, ready) = self.ready().await;
            (status == 200 && ready["degraded"][0]["reason"].as_str() == reason).then_some((status, ready))
        });
        shown.await.unwrap()
    }

    /// Nothing is fetched, once the visits under way have ended.
    async fn nothing_is_fetched(&self) {
        let ended = wait_for("the end of visits under way", SOON, async || {
            let (_, text) = http::fetch(&self.stack.wire(), "/metrics", SOON).await.ok()?;
            text.lines().any(|line| line == "newswire_ingestd_visits_in_flight 0").then_some(())
        });
        ended.await.unwrap();
        let before = self.requests();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(self.requests(), before, "feeds are not fetched for nothing");
    }

    async fn doctor(&self) -> (Option<i32>, Value) {
        let config = self.stack.write_config("newswire.toml", &[]).unwrap();
        let mut command = Command::new(Binary::Newswire.path().unwrap());
        command
            .args(["doctor", "--json", "--config"])
            .arg(config)
            .env_clear()
            .current_dir(self.stack.folder());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    }

    async fn metric(&self, series: &str, value: &str) {
        let sample = format!("{series} {value}");
        let seen = wait_for(&sample, SOON, async || {
            let (_, text) = http::fetch(&self.stack.gateway(), "/metrics", SOON).await.ok()?;
            text.lines().any(|line| line == sample).then_some(())
        });
        seen.await.unwrap();
    }

    /// The lines of the daemon's log about recording and the ballast.
    fn log_lines(&mut self) -> Vec<String> {
        let log = self.stack.process(Binary::Ingestd).unwrap().log();
        let about = |line: &&str| line.contains("recording") || line.contains("ballast");
        log.lines().filter(about).map(str::to_owned).collect()
    }

    /// What each side sees while recording is paused for this reason.
    async fn check_paused(&mut self, reason: &str, client: &TestSubscriber) {
        let (status, ready) = self.until_degraded(Some(reason)).await;
        assert_eq!((status, &ready["ready"]), (200, &json!(true)), "{ready}");
        log_line(&format!("$ curl /ready\n{status} {}", ready["degraded"]));
        let (exit, diagnosis) = self.doctor().await;
        let verdict = &diagnosis["verdict"];
        log_line(&format!("$ newswire doctor   # exit {exit:?}\n{}: {}", verdict["code"], verdict["line"]));
        assert_eq!((exit, &verdict["code"]), (Some(1), &json!("disk-full")), "{verdict:#}");
        let line = verdict["line"].as_str().unwrap();
        assert!(
            line.starts_with("recording has been paused for ") || line.ends_with("nothing can be recorded"),
            "{line}"
        );
        self.metric(&format!("newswire_ingestd_recording_paused{{reason=\"{reason}\"}}"), "1").await;
        self.publish();
        self.nothing_is_fetched().await;
        let before = self.origin.published().values().map(Vec::len).sum::<usize>() - self.feeds.len();
        assert_eq!(client.count("item"), before, "{}", client.summary());
        self.check_served(before).await;
    }

    /// Pages and replays go on: a client that comes with the first id gets every item after it from the log.
    async fn check_served(&self, events: usize) {
        let page = self.stack.json("/news?limit=1").await.unwrap();
        let newest = page["items"][0]["id"].as_str().unwrap().to_owned();
        let (epoch, head) = newest.split_once('-').unwrap();
        assert_eq!(head.parse::<usize>().unwrap(), events, "{newest}");
        let resumed = self.stack.subscribe(&format!("/news/stream?after={epoch}-1"));
        let last =
            resumed.wait_event("item", SOON, |event| event.message.last_event_id == newest).await.unwrap();
        let opened = &resumed.events("stream")[0];
        assert_eq!((opened.json()["resume"].as_str(), resumed.count("item")), (Some("exact"), events - 1));
        log_line(&format!(
            "$ curl '/news/stream?after={epoch}-1'\n{}\n… {} items, the last {}",
            opened.message.data,
            events - 1,
            last.message.last_event_id
        ));
    }

    async fn check_resumed(&mut self, reason: &str, client: &TestSubscriber) {
        let (_, ready) = self.until_degraded(None).await;
        log_line(&format!("$ curl /ready\n200 {}", ready["degraded"]));
        self.all_arrived(client).await;
        self.metric(&format!("newswire_ingestd_recording_paused{{reason=\"{reason}\"}}"), "0").await;
        let (exit, diagnosis) = self.doctor().await;
        let code = diagnosis["verdict"]["code"].as_str().unwrap();
        assert!(
            matches!(code, "healthy" | "slow-feeds" | "worker-starved"),
            "{exit:?} {}",
            diagnosis["verdict"]
        );
        log_line(&format!("$ newswire doctor   # exit {exit:?}\n{}", diagnosis["verdict"]["line"]));
    }

    fn show_log(&mut self) -> Vec<String> {
        let lines = self.log_lines();
        log_line("$ grep -e recording -e ballast newswire-ingestd.log");
        lines.iter().for_each(|line| log_line(line));
        lines
    }
}

fn count(lines: &[String], words: &str) -> usize {
    lines.iter().filter(|line| line.contains(words)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_pauses_recording_and_no_article_is_lost_or_doubled() {
    const TEST: &str = "a_disk_that_fills_up_pauses_recording_and_no_article_is_lost_or_doubled";
    let Some(disk) = SmallDisk::of(TEST, "size=96m") else { return };
    let store = disk.0.join("data");
    let (mut case, client) = Case::start(&store, &[("store.free_bytes_min", "16777216")]).await;
    let ballast = store.join("ballast");
    wait_for("the ballast", SOON, async || ballast.exists().then_some(())).await.unwrap();

    disk.fill("others", 12 << 20);
    case.check_paused("disk-space", &client).await;
    disk.remove("others");
    case.check_resumed("disk-space", &client).await;
    let lines = case.show_log();
    assert_eq!((count(&lines, "recording paused"), count(&lines, "recording resumed")), (1, 1), "{lines:#?}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("(store.free_bytes_min); free some space"),
        "{lines:#?}"
    );

    // To the last byte, while it is paused; then it dies, and is started on the full disk.
    disk.fill("others", 12 << 20);
    case.until_degraded(Some("disk-space")).await;
    disk.fill("more", 0);
    case.stack.kill(Binary::Ingestd).unwrap();
    disk.fill("rest", 0);
    log_line("# newswire-ingestd is killed, and started on the full disk");
    case.stack.start(Binary::Ingestd).unwrap();
    wait_for("the start on a full disk", SOON, async || (!ballast.exists()).then_some(())).await.unwrap();
    case.stack.wait_ready().await.unwrap();
    case.check_paused("disk-space", &client).await;
    ["others", "more", "rest"].iter().for_each(|name| disk.remove(name));
    case.check_resumed("disk-space", &client).await;
    wait_for("the ballast again", SOON, async || ballast.exists().then_some(())).await.unwrap();
    let lines = case.show_log();
    assert_eq!(count(&lines, "ballast released"), 1, "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_inodes_pause_recording_too_and_the_store_opens_without_any() {
    const TEST: &str = "exhausted_inodes_pause_recording_too_and_the_store_opens_without_any";
    let Some(disk) = SmallDisk::of(TEST, "size=96m,nr_inodes=600") else { return };
    let store = disk.0.join("data");
    let (mut case, client) = Case::start(&store, &[("store.free_bytes_min", "16777216")]).await;
    let ballast = store.join("ballast");
    wait_for("the ballast", SOON, async || ballast.exists().then_some(())).await.unwrap();

    disk.take_inodes(40);
    case.check_paused("disk-inodes", &client).await;
    disk.take_inodes(0);
    case.stack.kill(Binary::Ingestd).unwrap();
    disk.take_inodes(0);
    log_line("# newswire-ingestd is killed, and started without inodes");
    case.stack.start(Binary::Ingestd).unwrap();
    wait_for("the start without inodes", SOON, async || (!ballast.exists()).then_some(())).await.unwrap();
    case.stack.wait_ready().await.unwrap();
    case.until_degraded(Some("disk-inodes")).await;
    disk.remove("files");
    case.check_resumed("disk-inodes", &client).await;
    let lines = case.show_log();
    assert!(lines.iter().any(|line| line.contains("inodes are free on the disk of")), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_paused_fetches_nothing_shows_it_on_the_page_and_a_reload_ends_it() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("a", DocumentFormat::Rss);
    origin.publish("a", "The first");
    let mut stack = TestStack::new(&[TestSource::new("a", url)]).unwrap();
    // No disk has a pebibyte.
    stack.set("store.free_bytes_min", "1125899906842624");
    stack.start_both().await.unwrap();
    if let Some(browser) = Browser::start().await.unwrap() {
        let http::Address::Tcp(address) = stack.gateway() else { panic!("the gateway listens on TCP") };
        browser.open(&format!("http://{address}/")).await.unwrap();
        let reasons = "return document.getElementById('gateway-reasons').textContent;";
        let shown = wait_for("the page to show it", SOON, async || {
            let text = browser.run(reasons).await.ok()?;
            text.as_str()?.contains("recording is paused: the disk of the store is nearly full").then_some(())
        });
        shown.await.unwrap();
        let pill = "return document.getElementById('pill-gateway-text').textContent;";
        assert_eq!(browser.run(pill).await.unwrap(), "recording paused");
    }
    assert_eq!(origin.requests("a").len(), 0, "nothing is fetched for nothing");
    let paused = "recording is paused: the disk of the store is nearly full";
    let waits = wait_for("the source to say what it waits for", SOON, async || {
        let (_, source) = http::fetch(&stack.wire(), "/sources/a", SOON).await.ok()?;
        let source: Value = serde_json::from_str(&source).ok()?;
        (source["activity"] == "waiting" && source["waiting_for"] == paused).then_some(())
    });
    waits.await.unwrap();
    stack.set("store.free_bytes_min", "0");
    stack.write_config("newswire.toml", &[]).unwrap();
    let client = stack.subscribe("/news/stream?snapshot=10");
    stack.process(Binary::Ingestd).unwrap().signal(rustix::process::Signal::HUP).unwrap();
    client.wait_event("item", SOON, |_| true).await.unwrap();
}

/// Each restart fails at once, for as long as others keep the disk full.
#[test]
fn the_restart_limits_of_the_unit_survive_an_hour_of_a_full_disk() {
    const UNIT: &str = include_str!("../../../deploy/systemd/newswire-ingestd.service");
    let value = |key: &str| {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("the unit has no {key}"))
    };
    let seconds = |key: &str| match value(key).trim_end_matches("min") {
        minutes if minutes.len() < value(key).len() => minutes.parse::<u32>().unwrap() * 60,
        seconds => seconds.trim_end_matches('s').parse().unwrap(),
    };
    assert_eq!(value("Restart"), "on-failure");
    assert_eq!(seconds("StartLimitIntervalSec"), 0, "no start counts against a limit");
    let (first, longest) = (seconds("RestartSec"), seconds("RestartMaxDelaySec"));
    assert!((2..=10).contains(&first) && (first..=60).contains(&longest), "{first} s to {longest} s");
    assert!(!value("RestartPreventExitStatus").split_whitespace().any(|code| code == "74"));
}
