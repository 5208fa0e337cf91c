//! Control groups that freeze, throttle or starve a process.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use e2e::{
    Binary::{self, Gateway, Ingestd},
    TestSubscriber, log_line, wait_for,
};
use tokio::time::sleep;

use crate::row::{Expected, Patient, SETTLED, SOON, through_shell};

/// A control group of one controller; its processes go back to its parent when it is dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    /// `None`, with a printed reason, if this machine has no such controller or this user may not use it.
    pub(crate) fn new(controller: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = Path::new("/sys/fs/cgroup").join(controller);
        let path = parent.join(format!("newswire-foreign-{}-{number}", std::process::id()));
        let made = parent.join("cgroup.procs").exists() && fs::create_dir(&path).is_ok();
        if !made {
            log_line(&format!("SKIPPED: no control group can be made in {}", parent.display()));
        }
        made.then_some(Self(path))
    }

    pub(crate) fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    }

    pub(crate) fn get(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn add(&self, process: u32) -> anyhow::Result<()> {
        self.set("cgroup.procs", &process.to_string())
    }

    /// A number of a file such as `cpu.stat`.
    pub(crate) fn counter(&self, file: &str, name: &str) -> u64 {
        let text = self.get(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What there is to undo depends on the controller.
        for (file, value) in [
            ("freezer.state", "THAWED"),
            ("cgroup.freeze", "0"),
            ("memory.limit_in_bytes", "-1"),
            ("memory.oom_control", "0"),
        ] {
            if self.0.join(file).exists() {
                self.set(file, value).ok();
            }
        }
        let parent = self.0.parent().unwrap_or(&self.0).join("cgroup.procs");
        for process in self.get("cgroup.procs").lines() {
            fs::write(&parent, process).ok();
        }
        fs::remove_dir(&self.0).ok();
    }
}

async fn frozen(program: Binary, controller: &str, file: &str, value: &str) -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new(controller) else { return Ok(()) };
    group.add(patient.id(program))?;
    group.set(file, value)?;
    sleep(SETTLED).await;
    let code: &'static [&'static str] =
        if program == Gateway { &["gateway-stopped"] } else { &["daemon-stopped"] };
    let sickness = format!("cgroup freezer ({controller}), {}", program.name());
    patient.expect(&sickness, Expected::fault(code, &["frozen|freez"])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_freezer_of_version_2_holds_the_gateway() -> anyhow::Result<()> {
    let controller = if Path::new("/sys/fs/cgroup/unified").exists() { "unified" } else { "" };
    frozen(Gateway, controller, "cgroup.freeze", "1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_freezer_of_version_1_holds_the_gateway() -> anyhow::Result<()> {
    frozen(Gateway, "freezer", "freezer.state", "FROZEN").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_freezer_of_version_1_holds_the_daemon() -> anyhow::Result<()> {
    frozen(Ingestd, "freezer", "freezer.state", "FROZEN").await
}

/// Lets a group have so many percent of one processor, and waits until it has been held back a few times.
pub(crate) async fn throttle(group: &Group, percent: u32) -> anyhow::Result<()> {
    group.set("cpu.cfs_period_us", "100000")?;
    group.set("cpu.cfs_quota_us", &(percent * 1000).to_string())?;
    let throttled = async || (group.counter("cpu.stat", "nr_throttled") > 10).then_some(());
    wait_for("the group to be throttled", SOON, throttled).await
}

async fn throttled(program: Binary, percent: u32) -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new("cpu") else { return Ok(()) };
    group.add(patient.id(program))?;
    throttle(&group, percent).await?;
    for run in 1..=2 {
        let sickness = format!("CPU quota {percent} % {}, run {run}", program.name());
        patient.expect(&sickness, Expected::fault(&["throttled"], &[program.name()])).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_quota_of_the_processor_throttles_the_gateway() -> anyhow::Result<()> {
    throttled(Gateway, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_quota_of_the_processor_throttles_the_daemon() -> anyhow::Result<()> {
    throttled(Ingestd, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_quota_of_the_processor_and_large_feeds_quarantine_no_feed() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new("cpu") else { return Ok(()) };
    group.add(patient.id(Ingestd))?;
    for number in 0..2 {
        patient.origin.publish_article(&format!("feed-{number}"), "A long one", 7 << 20);
    }
    throttle(&group, 3).await?;
    let expected = Expected::fault(&["throttled"], &["newswire-ingestd"]);
    let result = patient.expect("CPU quota 3 % ingestd, 7-MB feeds", expected).await;
    // Longer than a document may take by the clock.
    sleep(Duration::from_secs(75)).await;
    let log = patient.stack.process(Ingestd)?.log();
    let blamed: Vec<_> = log.lines().filter(|line| line.contains("quarantine")).collect();
    anyhow::ensure!(blamed.is_empty(), "a good feed was blamed: {blamed:?}");
    result.map(drop)
}

async fn without_tasks(program: Binary) -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new("pids") else { return Ok(()) };
    group.add(patient.id(program))?;
    group.set("pids.max", &group.get("pids.current"))?;
    sleep(SETTLED).await;
    let sickness = format!("pids.max reached, {}", program.name());
    let says = [program.name()];
    let expected = Expected::fault(&["tasks-exhausted"], &says);
    patient.expect(&sickness, expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_gateway_may_begin_no_thread() -> anyhow::Result<()> {
    without_tasks(Gateway).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_daemon_may_begin_no_thread() -> anyhow::Result<()> {
    without_tasks(Ingestd).await
}

/// Limits a group to its own memory and little more: what the kernel keeps of files must go.
fn leave_little_memory(group: &Group) -> anyhow::Result<()> {
    let own = group.counter("memory.stat", "rss");
    // The least that the kernel takes; of what it keeps for itself, nothing tells from outside.
    let limit = (1..200_u64).map(|number| own + number * (256 << 10));
    let taken =
        limit.into_iter().find(|bytes| group.set("memory.limit_in_bytes", &bytes.to_string()).is_ok());
    anyhow::ensure!(taken.is_some(), "the kernel takes no limit above {own} bytes");
    Ok(())
}

/// Both at work, the program in a group of the memory controller from its start.
async fn in_a_memory_group(program: Binary) -> anyhow::Result<Option<(Patient, Group)>> {
    let Some(group) = Group::new("memory") else { return Ok(None) };
    let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", group.0.display());
    Ok(Some((Patient::started_with(program, through_shell(&script)).await?, group)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn the_kernel_ends_a_daemon_that_is_over_its_memory() -> anyhow::Result<()> {
    let Some((mut patient, group)) = in_a_memory_group(Ingestd).await? else { return Ok(()) };
    leave_little_memory(&group)?;
    for number in 0..2 {
        patient.origin.publish_article(&format!("feed-{number}"), "A long one", 6 << 20);
    }
    let process = patient.id(Ingestd);
    crate::row::wait_state(process, "Z").await?;
    let expected = Expected::fault(&["daemon-dead"], &["memory|killed"]);
    patient.expect("memory limit: ingestd ended by the kernel", expected).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_gateway_that_gets_no_memory_waits_for_it() -> anyhow::Result<()> {
    let Some((patient, group, streams)) = without_memory().await? else { return Ok(()) };
    let expected = Expected::fault(&["memory-pressure"], &["memory", "newswire-gateway"]);
    let result = patient.expect("memory limit: the gateway waits for memory", expected).await;
    drop(streams);
    drop(group);
    result.map(drop)
}

/// Both at work, and every thread of the gateway waits for memory: drop the clients and the group before the processes.
pub(crate) async fn without_memory() -> anyhow::Result<Option<(Patient, Group, Vec<TestSubscriber>)>> {
    let Some((patient, group)) = in_a_memory_group(Gateway).await? else { return Ok(None) };
    // Threads wait in the kernel then, instead of being ended.
    if group.set("memory.oom_control", "1").is_err() {
        log_line("SKIPPED: this kernel cannot leave a group without memory");
        return Ok(None);
    }
    leave_little_memory(&group)?;
    let streams: Vec<_> = (0..200).map(|_| patient.stack.subscribe("/news/stream?snapshot=1000")).collect();
    let out_of_memory = async || (group.counter("memory.oom_control", "under_oom") == 1).then_some(());
    wait_for("the group to be out of memory", SOON, out_of_memory).await?;
    sleep(SETTLED).await;
    Ok(Some((patient, group, streams)))
}
