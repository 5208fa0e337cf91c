//! `newswire doctor` where the kernel withholds something from the real processes: processor time, threads, the disk, the files
//! of the store, the sockets. What this machine does not permit is skipped, and says so.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use e2e::{Binary, Origin, StartOptions, TestStack, free_address, http, log_line, scenario, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(90);

/// The verdict of the doctor: code, line and next steps.
async fn diagnose(stack: &TestStack) -> (String, String, Vec<String>) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = tokio::process::Command::new(Binary::Newswire.path().unwrap());
    command.args(["doctor", "--json", "--no-stacks", "--config"]).arg(config).current_dir(stack.folder());
    let output = tokio::time::timeout(SOON, command.output()).await.unwrap().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let verdict = &json["verdict"];
    let next = verdict["next"].as_array().unwrap().iter().map(text).collect();
    let found = (text(&verdict["code"]), text(&verdict["line"]), next);
    log_line(&format!("{found:?}"));
    found
}

/// Asks the doctor until the verdict is this one: a busy machine may hide it for a while, a wrong doctor does for ever.
async fn expect(stack: &TestStack, code: &str) -> (String, Vec<String>) {
    let verdict = async || {
        let (found, line, next) = diagnose(stack).await;
        (found == code).then_some((line, next))
    };
    wait_for(&format!("the verdict {code}"), SOON, verdict).await.unwrap()
}

/// Both processes, and the origin of their feeds.
async fn both_running() -> (TestStack, Origin) {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    stack.start_both().await.unwrap();
    (stack, origin)
}

/// A control group of version 1 that is removed in the end; its processes go back to the group that they came from.
struct TestGroup {
    folder: PathBuf,
    home: PathBuf,
}

impl TestGroup {
    /// `None` if the machine has no such hierarchy, or does not let this user change it.
    fn new(controller: &str) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        });
        let found = own.and_then(|own| {
            let home = Path::new("/sys/fs/cgroup").join(controller).join(own.trim_start_matches('/'));
            let folder = home.join(format!("newswire-test-{}", std::process::id()));
            fs::create_dir(&folder).ok().map(|()| Self { folder, home })
        });
        if found.is_none() {
            log_line(&format!("SKIPPED: no control group of {controller} (version 1) may be made here"));
        }
        found
    }

    fn write(&self, name: &str, value: &str) {
        fs::write(self.folder.join(name), value).unwrap();
    }

    fn take(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        fs::write(self.folder.join("freezer.state"), "THAWED").ok();
        for pid in fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default().lines() {
            fs::write(self.home.join("cgroup.procs"), pid).ok();
        }
        fs::remove_dir(&self.folder).ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_has_used_up_its_quota_is_throttled() {
    let (mut stack, _origin) = both_running().await;
    let Some(group) = TestGroup::new("cpu") else { return };
    group.write("cpu.cfs_period_us", "100000");
    group.write("cpu.cfs_quota_us", "1000");
    group.take(stack.process(Binary::Gateway).unwrap().id());
    let (line, next) = expect(&stack, "throttled").await;
    assert!(line.contains(&format!("{}, 1 % of a processor", group.folder.display())), "{line}");
    assert!(next[0].starts_with("echo -1 > "), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_its_control_group_freezes_is_continued_and_not_killed() {
    let (mut stack, _origin) = both_running().await;
    let Some(group) = TestGroup::new("freezer") else { return };
    group.take(stack.process(Binary::Gateway).unwrap().id());
    group.write("freezer.state", "FROZEN");
    let (line, next) = expect(&stack, "gateway-stopped").await;
    assert!(line.contains(&group.folder.display().to_string()), "{line}");
    // The advice is followed as it is printed.
    assert!(Command::new("sh").args(["-c", &next[0]]).status().unwrap().success(), "{next:?}");
    let address = stack.gateway();
    let answers =
        async || http::fetch(&address, "/health", SOON).await.ok().filter(|(status, _)| *status == 200);
    wait_for("the gateway to answer again", SOON, answers).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_may_start_no_thread_is_reported_with_the_group() {
    let (mut stack, _origin) = both_running().await;
    let Some(group) = TestGroup::new("pids") else { return };
    group.take(stack.process(Binary::Gateway).unwrap().id());
    // Below what it has: it need not start more for this.
    group.write("pids.max", "2");
    let (line, _) = expect(&stack, "tasks-exhausted").await;
    assert!(line.contains("of 2 threads (pids.max)") && line.contains("newswire-gateway"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_whose_sockets_are_deleted_are_found_and_reported() {
    let (stack, _origin) = both_running().await;
    fs::remove_dir_all(stack.path("run")).unwrap();
    let (line, next) = expect(&stack, "run-dir-gone").await;
    assert!(line.contains("gateway-admin.sock is deleted"), "{line}");
    assert!(next.iter().all(|step| !step.contains("kill -9")), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateway_beside_a_healthy_one_is_reported() {
    let (stack, _origin) = both_running().await;
    let address = format!("\"{}\"", free_address().unwrap());
    let admin_dir = format!("{:?}", stack.path("second").display().to_string());
    let changes = [("gateway.listen", address.as_str()), ("gateway.admin_dir", admin_dir.as_str())];
    let second = stack.start_extra(Binary::Gateway, "second.toml", &changes).unwrap();
    let socket = stack.path("second/gateway-admin.sock");
    wait_for("the second gateway", SOON, async || socket.exists().then_some(())).await.unwrap();
    second.signal(Signal::STOP).unwrap();
    let (line, next) = expect(&stack, "other-gateway").await;
    assert!(line.contains(&format!("pid {}", second.id())), "{line}");
    assert_eq!(next, [format!("newswire doctor --pid {}", second.id())]);
}

/// Delays each `fdatasync` by three seconds.
const SLOW_SYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int fdatasync(int fd) {
  struct timespec delay = {3, 0};
  nanosleep(&delay, 0);
  int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  return next(fd);
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_seconds_for_each_sync_is_stalled_in_every_look() {
    let origin = Arc::new(Origin::start().await.unwrap());
    let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
    let (source, library) = (stack.path("slow.c"), stack.path("slow.so"));
    fs::write(&source, SLOW_SYNC).unwrap();
    let compiler =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    if !compiler.is_ok_and(|status| status.success()) {
        return log_line("SKIPPED: a disk that is slow needs a C compiler");
    }
    let environment = vec![("LD_PRELOAD".to_owned(), library.display().to_string())];
    stack.set_start_options(Binary::Ingestd, StartOptions { environment, ..StartOptions::default() });
    stack.start_both().await.unwrap();
    // Each visit finds something new, so that there is something to sync.
    let publisher = scenario::FeedPublisher::start(origin, 2);
    expect(&stack, "disk-stalled").await;
    for _ in 0..3 {
        let (code, line, _) = diagnose(&stack).await;
        assert_eq!(code, "disk-stalled", "{line}");
        assert!(line.contains(" mounted at "), "{line}");
    }
    publisher.stop().await;
}
