//! Every advice of every verdict, carried out once: the sickness is made from outside, the `next:` lines are run as they are
//! printed, and both programs are well after that, or the command has shown what it promises.

use std::{fs, os::unix::fs::PermissionsExt as _};

use e2e::{
    Behaviour,
    Binary::{self, Gateway, Ingestd},
    StartOptions, wait_for,
};
use rustix::process::Signal;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    carry_out::{Cure, Deed},
    debuggers::debugger_on,
    disks::{FileSystem, remove, with_a_full_disk, with_a_store, with_an_obedient_disk, with_store},
    feeds,
    groups::{Group, throttle, without_memory},
    loops::{park_main, park_worker},
    parking::is_possible,
    places::{can_unshare, second_gateway, with_the_gateway_apart},
    processes::{as_stranger, leave_descriptors, of_another_user, stranger},
    reports::with_a_pipe,
    row::{DoctorRun, Expected, Outsider, Patient, SETTLED, SOON, has, is_root, run, wait_state},
    run_folder::without_the_wire,
};

/// A row of the long form.
macro_rules! rows {
    ($($name:ident => $body:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "part of the long form: scripts/drill --foreign"]
        async fn $name() -> anyhow::Result<()> {
            $body.await
        }
    )*};
}

rows! {
    stopped_processes_are_continued => stopped();
    stopped_processes_of_others_are_continued_with_sudo => stopped_seen_by_a_stranger();
    a_group_frozen_by_version_1_is_thawed => frozen("freezer", "freezer.state", "FROZEN", DoctorRun::default());
    a_group_frozen_by_version_2_is_thawed => frozen("unified", "cgroup.freeze", "1", DoctorRun::default());
    a_frozen_group_is_thawed_with_sudo => frozen("freezer", "freezer.state", "FROZEN", stranger());
    a_process_held_by_a_debugger_goes_on_without_it => held_by_a_debugger();
    a_dead_gateway_is_started => dead(Gateway, "gateway-dead");
    a_dead_daemon_is_started => dead(Ingestd, "daemon-dead");
    two_dead_processes_are_started => both_dead();
    a_gateway_is_started_once_its_port_is_free => port_taken();
    a_gateway_is_started_once_the_other_has_another_address => port_of_another_gateway();
    another_gateway_that_is_sick_is_examined => sick_second_gateway();
    a_blocked_gateway_is_restarted => blocked(Gateway, DoctorRun::default());
    a_blocked_daemon_is_restarted => blocked(Ingestd, DoctorRun::default());
    a_blocked_gateway_is_restarted_with_sudo => blocked(Gateway, stranger());
    a_blocked_process_of_another_user_is_restarted_as_that_user => blocked_of_another_user();
    lost_sockets_are_made_anew => run_folder_gone();
    a_lost_socket_of_the_wire_is_made_anew => wire_socket_gone();
    a_cut_wire_is_connected_by_a_restart => wire_cut();
    a_renamed_store_is_put_back => store_renamed(false);
    a_store_with_an_empty_folder_in_its_place_is_put_back => store_renamed(true);
    a_deleted_store_is_restored_from_a_backup => store_deleted();
    a_hidden_store_is_uncovered => store_covered();
    an_unmounted_store_is_mounted => store_unmounted();
    a_throttled_gateway_gets_more_processor => throttled();
    a_gateway_without_memory_gets_more => short_of_memory();
    a_gateway_that_may_begin_no_thread_may_again => without_threads();
    a_gateway_without_descriptors_gets_more => without_descriptors(Some(1024));
    a_gateway_that_may_not_have_more_descriptors_gets_them_by_a_restart => without_descriptors(None);
    a_full_disk_is_cleared_and_the_daemon_started => full_disk();
    a_frozen_disk_is_thawed => frozen_disk();
    a_slow_disk_is_looked_at => slow_disk();
    a_log_goes_on_when_its_reader_does => log_blocked(false);
    a_log_that_is_not_read_goes_on_after_a_restart => log_blocked(true);
    a_broken_configuration_is_corrected => configuration_broken();
    a_changed_address_is_taken_by_a_restart => listens_elsewhere_by_file();
    an_address_from_a_variable_is_given_to_the_doctor_too => listens_elsewhere_by_variable();
    failing_feeds_are_looked_at => feeds_failing();
    feeds_without_a_network_are_looked_at => feeds_refused();
    a_slow_feed_is_paused => slow_feed();
    what_a_user_may_not_see_is_seen_with_sudo => unseen();
    a_gateway_in_another_network_is_seen_from_there => elsewhere();
}

async fn stopped() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stop(Ingestd).await?;
    Cure::of("SIGSTOP ingestd", &["daemon-stopped"]).helps(&mut patient).await?;
    patient.stop(Gateway).await?;
    patient.stop(Ingestd).await?;
    Cure::of("SIGSTOP both", &["gateway-stopped"]).helps(&mut patient).await
}

async fn stopped_seen_by_a_stranger() -> anyhow::Result<()> {
    if !as_stranger() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    patient.stop(Gateway).await?;
    let cure = Cure::of("third user: SIGSTOP gateway", &["gateway-stopped", "unknown", "event-loop-blocked"]);
    Cure { run: stranger(), ..cure }.helps(&mut patient).await
}

async fn frozen(controller: &str, file: &str, value: &str, run: DoctorRun<'_>) -> anyhow::Result<()> {
    if run.user.is_some() && !as_stranger() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new(controller) else { return Ok(()) };
    group.add(patient.id(Gateway))?;
    group.set(file, value)?;
    sleep(SETTLED).await;
    let sickness = format!("cgroup freezer ({controller})");
    Cure { run, ..Cure::of(&sickness, &["gateway-stopped"]) }.helps(&mut patient).await
}

async fn held_by_a_debugger() -> anyhow::Result<()> {
    if !has("gdb") {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    let debugger = debugger_on(patient.id(Gateway)).await?;
    sleep(SETTLED).await;
    let ended = Deed::at("end the debugger", move |_| {
        drop(debugger);
        Ok(())
    });
    Cure { deeds: vec![ended], ..Cure::of("gdb holds the gateway", &["held-by-debugger"]) }
        .helps(&mut patient)
        .await
}

async fn dead(program: Binary, code: &str) -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(program)?;
    let sickness = format!("{} kill -9", program.name());
    Cure::of(&sickness, &[code]).helps(&mut patient).await
}

async fn both_dead() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    patient.stack.kill(Ingestd)?;
    let deeds = vec![Deed::not_needed("name their configuration")];
    Cure { deeds, ..Cure::of("both kill -9", &["not-running"]) }.helps(&mut patient).await
}

async fn port_taken() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    let e2e::http::Address::Tcp(address) = patient.stack.gateway() else { anyhow::bail!("a port") };
    let listener = TcpListener::bind(address).await?;
    let ended = Deed::at("End it as its owner does", move |_| {
        drop(listener);
        Ok(())
    });
    Cure { deeds: vec![ended], ..Cure::of("foreign process holds the port", &["orphan-listener"]) }
        .helps(&mut patient)
        .await
}

async fn port_of_another_gateway() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    patient.stack.kill(Gateway)?;
    let own = format!("{:?}", patient.stack.path("run2").display().to_string());
    let other = patient.stack.start_extra(Gateway, "second.toml", &[("daemon.run_dir", &*own)])?;
    patient.stack.wait_serving().await?;
    let moved = Deed::at("change one of them", move |_| {
        drop(other);
        Ok(())
    });
    Cure { deeds: vec![moved], ..Cure::of("another gateway holds the port", &["other-gateway"]) }
        .helps(&mut patient)
        .await
}

async fn sick_second_gateway() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let second = second_gateway(&patient).await?;
    second.signal(Signal::STOP)?;
    wait_state(second.id(), "T").await?;
    let examined = format!("--pid {}", second.id());
    let continued = Deed::at(&examined, |_| second.signal(Signal::CONT));
    Cure { deeds: vec![continued], ..Cure::of("second gateway is stopped", &["other-gateway"]) }
        .helps(&mut patient)
        .await
}

async fn blocked(program: Binary, run: DoctorRun<'_>) -> anyhow::Result<()> {
    if !is_possible() || (run.user.is_some() && !as_stranger()) {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    if run.user.is_some() {
        // What a stranger can see are the answers of the gateway: both workers have none.
        park_worker(&mut patient).await?;
    }
    block(&mut patient, program).await?;
    let sickness = format!("a loop of {} is blocked", program.name());
    Cure { run, ..Cure::of(&sickness, &["event-loop-blocked"]) }.helps(&mut patient).await
}

async fn block(patient: &mut Patient, program: Binary) -> anyhow::Result<()> {
    match program {
        Gateway => park_worker(patient).await?,
        _ => park_main(patient).await?,
    }
    sleep(SETTLED).await;
    Ok(())
}

async fn blocked_of_another_user() -> anyhow::Result<()> {
    if !is_possible() || !as_stranger() {
        return Ok(());
    }
    let mut patient = of_another_user().await?;
    block(&mut patient, Gateway).await?;
    let cure = Cure::of("a loop of another user's gateway is blocked", &["event-loop-blocked"]);
    cure.helps(&mut patient).await?;
    // What it makes is that user's.
    let owner = |name: &str| -> anyhow::Result<u32> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata(patient.stack.path(name))?.uid())
    };
    anyhow::ensure!(
        owner("run/gateway-admin.sock")? == owner("run/ingestd-admin.sock")?,
        "another user runs it now"
    );
    Ok(())
}

async fn run_folder_gone() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    fs::remove_dir_all(patient.stack.path("run"))?;
    sleep(SETTLED).await;
    let deeds =
        vec![restarted(Ingestd, "restart newswire-ingestd"), restarted(Gateway, "restart newswire-gateway")];
    Cure { deeds, ..Cure::of("run_dir deleted", &["run-dir-gone"]) }.helps(&mut patient).await
}

/// A person restarts a process in his own way.
fn restarted(program: Binary, at: &str) -> Deed<'_> {
    Deed::at(at, move |patient| {
        patient.stack.kill(program)?;
        patient.stack.start(program)
    })
}

async fn wire_socket_gone() -> anyhow::Result<()> {
    let (mut patient, _none) = without_the_wire(false).await?;
    let deeds = vec![restarted(Ingestd, "restart newswire-ingestd")];
    let cure = Cure::of("ingestd.sock deleted, gateway restarted", &["run-dir-gone"]);
    Cure { deeds, ..cure }.helps(&mut patient).await
}

async fn wire_cut() -> anyhow::Result<()> {
    if !as_stranger() || !has("curl") {
        return Ok(());
    }
    let mut patient = of_another_user().await?;
    patient.stack.kill(Gateway)?;
    let socket = patient.stack.path("run/ingestd.sock");
    std::os::unix::fs::chown(&socket, Some(0), Some(0))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    patient.stack.start(Gateway)?;
    patient.stack.wait_serving().await?;
    sleep(SETTLED * 4).await;
    Cure::of("the gateway may not connect to ingestd.sock", &["wire-cut"]).helps(&mut patient).await
}

/// The store is lost; the daemon notices that within seconds and ends. A person puts it back as `put_back` does.
async fn store_lost<'a>(
    sickness: &str,
    mut patient: Patient,
    words: &[(&str, &str)],
    put_back: Option<Deed<'a>>,
) -> anyhow::Result<()> {
    patient.stack.process(Ingestd)?.wait_exit(SOON).await?;
    sleep(SETTLED).await;
    let cure = Cure::of(sickness, &["store-gone"]);
    let cure = Cure { deeds: put_back.into_iter().collect(), words, run: without_stacks(), ..cure };
    cure.helps(&mut patient).await
}

/// The words of the advice that leads a person to the store.
const PUT_BACK: &str = "Put it back first";
/// Then nothing is to be restored.
const COPY_IS_NEEDLESS: &[(&str, &str)] = &[("newswire log restore COPY", "newswire log verify")];

async fn store_renamed(replaced: bool) -> anyhow::Result<()> {
    let patient = with_a_store().await?;
    let store = patient.stack.path("data");
    let moved = store.with_extension("old");
    fs::rename(&store, &moved)?;
    if replaced {
        fs::create_dir(&store)?;
    }
    let text = [&moved, &store].map(|path| path.display().to_string());
    let put_back = Deed::at(PUT_BACK, |_| run("mv", &["-T", &text[0], &text[1]]));
    let sickness = if replaced { "store replaced by an empty folder" } else { "store renamed" };
    store_lost(sickness, patient, COPY_IS_NEEDLESS, Some(put_back)).await
}

async fn store_deleted() -> anyhow::Result<()> {
    let patient = with_a_store().await?;
    let path = |name: &str| patient.stack.path(name).display().to_string();
    let (copy, config) = (path("copy"), path("newswire.toml"));
    let newswire = Binary::Newswire.path()?.display().to_string();
    run(&newswire, &["log", "backup", &copy, "--config", &config])?;
    remove(&patient.stack.path("data"))?;
    store_lost("store deleted", patient, &[("COPY", &copy)], None).await
}

async fn store_covered() -> anyhow::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let patient = with_a_store().await?;
    let store = patient.stack.path("data").display().to_string();
    run("mount", &["-t", "tmpfs", "tmpfs", &store])?;
    let uncovered = Deed::at(PUT_BACK, |_| run("umount", &[&store]));
    let result = store_lost("store hidden by a mount", patient, COPY_IS_NEEDLESS, Some(uncovered)).await;
    // Fails if the advice has helped.
    run("umount", &["-l", &store]).ok();
    result
}

async fn store_unmounted() -> anyhow::Result<()> {
    let Some(disk) = FileSystem::ext4()? else { return Ok(()) };
    let patient = with_store(&disk.store()).await?;
    sleep(SETTLED).await;
    disk.unmount()?;
    let mounted = Deed::at(PUT_BACK, |_| disk.mount());
    store_lost("store unmounted", patient, COPY_IS_NEEDLESS, Some(mounted)).await
}

async fn throttled() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new("cpu") else { return Ok(()) };
    group.add(patient.id(Gateway))?;
    throttle(&group, 1).await?;
    Cure::of("CPU quota 1 %", &["throttled"]).helps(&mut patient).await
}

async fn short_of_memory() -> anyhow::Result<()> {
    let Some((mut patient, group, streams)) = without_memory().await? else { return Ok(()) };
    let result =
        Cure::of("the gateway waits for memory", &["memory-pressure"]).carried_out(&mut patient).await;
    drop(streams);
    result?;
    sleep(SETTLED * 3).await;
    // What failed for want of memory may need a restart; the doctor says so then.
    let cure = Cure { verdict: Expected::ANY, ..Cure::of("the gateway waited for memory", &[]) };
    let result = cure.helps(&mut patient).await;
    drop(group);
    result
}

async fn without_threads() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let Some(group) = Group::new("pids") else { return Ok(()) };
    group.add(patient.id(Gateway))?;
    group.set("pids.max", &group.get("pids.current"))?;
    sleep(SETTLED).await;
    Cure::of("pids.max reached", &["tasks-exhausted"]).helps(&mut patient).await
}

async fn without_descriptors(hard: Option<i64>) -> anyhow::Result<()> {
    if !has("prlimit") {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    leave_descriptors(patient.id(Gateway), 0, hard)?;
    // The shell that restarts it may have more open.
    let deeds = hard.is_none().then(|| Deed::not_needed("raise LimitNOFILE=")).into_iter().collect();
    let sickness = format!("fd limit reached, hard limit {hard:?}");
    Cure { deeds, ..Cure::of(&sickness, &["descriptors-exhausted"]) }.helps(&mut patient).await
}

async fn full_disk() -> anyhow::Result<()> {
    let Some(disk) = FileSystem::tmpfs("64m")? else { return Ok(()) };
    let mut patient = with_a_full_disk(&disk).await?;
    let other = disk.mount_point().join("other");
    let freed = Deed::at("free some space", |_| Ok(fs::remove_file(&other)?));
    let deeds = vec![freed, Deed::not_needed("lower store.retention_bytes")];
    Cure { deeds, ..Cure::of("disk full", &["disk-full"]) }.helps(&mut patient).await
}

async fn frozen_disk() -> anyhow::Result<()> {
    let Some(disk) = FileSystem::ext4()? else { return Ok(()) };
    let mut patient = with_store(&disk.store()).await?;
    let _frozen = disk.freeze()?;
    patient.origin.publish("feed-0", "One more to record");
    sleep(SETTLED * 2).await;
    Cure::of("fsfreeze of the store's file system", &["disk-stalled"]).helps(&mut patient).await
}

async fn slow_disk() -> anyhow::Result<()> {
    let Some((mut patient, order)) = with_an_obedient_disk().await? else { return Ok(()) };
    fs::write(&order, "sync 3000")?;
    for article in 0..3 {
        patient.origin.publish("feed-0", &format!("Number {article}"));
    }
    sleep(SETTLED * 2).await;
    let replaced = Deed::at("is the disk busy", |_| Ok(fs::remove_file(&order)?));
    Cure { deeds: vec![replaced], ..Cure::of("each fdatasync 3 s", &["disk-stalled", "store-slow"]) }
        .helps(&mut patient)
        .await
}

async fn log_blocked(restarts: bool) -> anyhow::Result<()> {
    let (mut patient, pipe) = with_a_pipe(Gateway).await?;
    pipe.fill()?;
    let _stream = patient.stack.subscribe("/news/stream");
    sleep(SETTLED * 2).await;
    let path = pipe.path.display().to_string();
    let mut reader = None;
    let reads = Deed::at("let it read on", |_| {
        if !restarts {
            reader = Some(Outsider::start("cat", &[&path])?);
        }
        Ok(())
    });
    Cure { deeds: vec![reads], ..Cure::of("stderr pipe full", &["log-blocked"]) }.helps(&mut patient).await
}

async fn configuration_broken() -> anyhow::Result<()> {
    let mut patient = Patient::well().await?;
    let file = patient.stack.path("broken.toml");
    fs::write(&file, "[gateway\nlisten = ")?;
    let good = fs::read(patient.stack.path("newswire.toml"))?;
    let corrected = Deed::at("config check", |_| Ok(fs::write(&file, &good)?));
    let run = DoctorRun { config: Some("broken.toml"), ..without_stacks() };
    Cure { run, deeds: vec![corrected], ..Cure::of("configuration broken", &["configuration-broken"]) }
        .helps(&mut patient)
        .await?;
    let run = DoctorRun { config: Some("broken.toml"), ..without_stacks() };
    patient.expect_of("configuration corrected", run, Expected::FINE).await.map(drop)
}

/// The doctor without the stacks of threads, which take long on a busy machine.
fn without_stacks() -> DoctorRun<'static> {
    DoctorRun { arguments: &["--no-stacks"], ..DoctorRun::default() }
}

/// The gateway has started with another address than that of the file, which was changed later or is not all.
async fn listens_elsewhere(by_variable: bool) -> anyhow::Result<Patient> {
    let mut patient = Patient::prepared(2).await?;
    let e2e::http::Address::Tcp(configured) = patient.stack.gateway() else { anyhow::bail!("a port") };
    let now = e2e::free_address()?;
    if by_variable {
        let variable = ("NEWSWIRE_GATEWAY__LISTEN".to_owned(), now.to_string());
        let options = StartOptions { environment: vec![variable], ..StartOptions::default() };
        patient.stack.set_start_options(Gateway, options);
    } else {
        patient.stack.set("gateway.listen", &format!("\"{now}\""));
    }
    patient.stack.start(Ingestd)?;
    patient.stack.start(Gateway)?;
    let listens = async || e2e::http::fetch(&now.into(), "/ready", SOON).await.ok();
    wait_for("the gateway", SOON, listens).await?;
    patient.stack.set("gateway.listen", &format!("\"{configured}\""));
    sleep(SETTLED * 4).await;
    Ok(patient)
}

async fn listens_elsewhere_by_file() -> anyhow::Result<()> {
    let mut patient = listens_elsewhere(false).await?;
    let cure = Cure::of("gateway.listen was changed after the start", &[]);
    Cure { verdict: Expected::unknown(&[]), run: without_stacks(), ..cure }.helps(&mut patient).await
}

async fn listens_elsewhere_by_variable() -> anyhow::Result<()> {
    let mut patient = listens_elsewhere(true).await?;
    let cure = Cure::of("a variable of the gateway has another address", &[]);
    let cure = Cure { verdict: Expected::unknown(&[]), run: without_stacks(), ..cure };
    let hands = cure.carried_out(&mut patient).await?;
    anyhow::ensure!(!hands.printed.contains("gateway.listen is"), "{}", hands.printed);
    Ok(())
}

async fn feeds_failing() -> anyhow::Result<()> {
    let mut patient = feeds::prepared(20, Some(&Behaviour::Status(503, Vec::new()))).await?;
    patient.start().await?;
    sleep(SETTLED * 2).await;
    let answer = Deed::at("every step of its visit", |patient| {
        (0..20).for_each(|number| patient.origin.set_behaviour(&format!("feed-{number}"), Behaviour::Honest));
        Ok(())
    });
    let cure = Cure::of("20 of 20 feeds answer 503", &["feeds-failing"]);
    Cure { deeds: vec![answer], words: &[(" ID ", " feed-3 ")], ..cure }.helps(&mut patient).await
}

async fn feeds_refused() -> anyhow::Result<()> {
    let mut patient = feeds::refused().await?;
    let cure = Cure::of("20 of 20 feeds refuse the connection", &["feeds-failing"]);
    // Nothing of ours is sick, and these feeds stay as they are.
    Cure { words: &[(" ID ", " feed-3 ")], ..cure }.carried_out(&mut patient).await.map(drop)
}

async fn slow_feed() -> anyhow::Result<()> {
    let mut patient = feeds::prepared(2, None).await?;
    patient.origin.set_behaviour("feed-1", Behaviour::SilentHead);
    patient.start().await?;
    sleep(SETTLED * 3).await;
    let cure = Cure::of("a feed hangs", &[]);
    Cure { verdict: Expected::SLOW_FEEDS, run: without_stacks(), ..cure }.helps(&mut patient).await
}

async fn unseen() -> anyhow::Result<()> {
    if !as_stranger() {
        return Ok(());
    }
    let mut patient = Patient::well().await?;
    fs::set_permissions(patient.stack.path("run"), fs::Permissions::from_mode(0o700))?;
    let cure = Cure::of("third user: both are well", &[]);
    Cure { verdict: Expected::unknown(&[]), run: stranger(), ..cure }.helps(&mut patient).await
}

async fn elsewhere() -> anyhow::Result<()> {
    if !can_unshare() || !has("ip") || !has("nsenter") {
        return Ok(());
    }
    let mut patient = with_the_gateway_apart().await?;
    // Until then it may be starting.
    sleep(SETTLED * 3).await;
    let cure = Cure::of("gateway in a net namespace of its own", &[]);
    let cure = Cure { verdict: Expected::unknown(&[]), run: without_stacks(), ..cure };
    let hands = cure.carried_out(&mut patient).await?;
    anyhow::ensure!(hands.printed.contains("VERDICT healthy"), "{}", hands.printed);
    Ok(())
}
