//! Feeds that hang, fail, or are large, and clients that misbehave: seldom a fault of the programs.

use std::{net::Ipv4Addr, time::Duration};

use e2e::{
    Behaviour,
    Binary::{Gateway, Ingestd},
    Origin, TestSource, TestStack,
    http::Address,
    wait_for,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UdpSocket, UnixStream},
    time::sleep,
};

use crate::row::{Expected, Patient, SETTLED, SOON, has, is_root, through_shell};

/// 20 feeds at these addresses, and both at work.
async fn twenty(url: impl Fn(&Origin, usize) -> String) -> anyhow::Result<Patient> {
    let origin = Origin::start().await?;
    let sources: Vec<_> =
        (0..20).map(|number| TestSource::new(&format!("feed-{number}"), url(&origin, number))).collect();
    Ok(Patient { stack: TestStack::new(&sources)?, origin })
}

/// Both at work, and each of 20 feeds refuses the connection.
pub(crate) async fn refused() -> anyhow::Result<Patient> {
    // The port of a listener that was closed.
    let closed = e2e::free_address()?;
    let mut patient = twenty(|_, number| format!("http://{closed}/{number}")).await?;
    patient.start().await?;
    sleep(SETTLED * 2).await;
    Ok(patient)
}

const FAILING: Expected<'static> = Expected::fault(&["feeds-failing"], &["20"]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn a_silent_resolver() -> anyhow::Result<()> {
    if !is_root() || !has("unshare") {
        return Ok(());
    }
    // The port of name servers, at an address of this test alone.
    let [high, low] = u16::try_from(std::process::id() % 65_000)?.to_be_bytes();
    let address = Ipv4Addr::new(127, 53, high, low.max(2));
    let _silent = UdpSocket::bind((address, 53)).await?;
    let mut patient = twenty(|_, number| format!("http://host-{number}.newswire.test/feed")).await?;
    let file = patient.stack.path("resolv.conf");
    std::fs::write(&file, format!("nameserver {address}\n"))?;
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.display());
    let mut options = through_shell(&script);
    options.through.splice(0..0, ["unshare", "--mount"].map(str::to_owned));
    patient.stack.set_start_options(Ingestd, options);
    patient.start().await?;
    for (more, at) in [(14, 14), (26, 40)] {
        sleep(Duration::from_secs(more)).await;
        let expected = Expected::fault(&["feeds-failing"], &["20", "resol|dns|name"]);
        patient.expect(&format!("resolver silent, 20 of 20 feeds fail, +{at} s"), expected).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_feed_refuses_the_connection() -> anyhow::Result<()> {
    let patient = refused().await?;
    patient.expect("20 of 20 feeds refuse the connection", FAILING).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn every_feed_answers_503() -> anyhow::Result<()> {
    let mut patient = prepared(20, Some(&Behaviour::Status(503, Vec::new()))).await?;
    patient.start().await?;
    sleep(SETTLED * 2).await;
    patient.expect("20 of 20 feeds answer 503", FAILING).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn every_feed_is_html() -> anyhow::Result<()> {
    let mut patient = prepared(20, None).await?;
    for number in 0..20 {
        patient.origin.set_document(&format!("feed-{number}"), "<!doctype html><title>Log in</title>");
    }
    patient.start().await?;
    sleep(SETTLED * 2).await;
    patient.expect("20 of 20 feeds are a login page", FAILING).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn one_feed_of_twenty_fails() -> anyhow::Result<()> {
    let mut patient = prepared(20, None).await?;
    patient.origin.set_behaviour("feed-3", Behaviour::Status(404, Vec::new()));
    patient.start().await?;
    sleep(SETTLED * 2).await;
    patient.expect("1 of 20 feeds fails", Expected::FINE).await.map(drop)
}

/// So many feeds that behave so, and everything about visits unlimited.
pub(crate) async fn prepared(feeds: usize, behaviour: Option<&Behaviour>) -> anyhow::Result<Patient> {
    let mut patient = Patient::prepared(feeds).await?;
    for (key, value) in [("fetch.host_in_flight", "1000"), ("fetch.timeout_total", "\"120s\"")] {
        patient.stack.set(key, value);
    }
    patient.stack.set("fetch.timeout_first_byte", "\"100s\"");
    for number in 0..feeds {
        let Some(behaviour) = behaviour else { break };
        patient.origin.set_behaviour(&format!("feed-{number}"), behaviour.clone());
    }
    Ok(patient)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn three_hundred_feeds_hang() -> anyhow::Result<()> {
    let mut patient = prepared(300, Some(&Behaviour::SilentHead)).await?;
    patient.start().await?;
    sleep(SETTLED * 4).await;
    for run in 1..=6 {
        patient.expect(&format!("300 hanging feeds, run {run}"), Expected::SLOW_FEEDS).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn ten_thousand_feeds_are_slow() -> anyhow::Result<()> {
    let mut patient = prepared(10_000, Some(&Behaviour::Late(Duration::from_secs(20)))).await?;
    patient.start().await?;
    sleep(SETTLED * 6).await;
    patient.expect("10,000 slow feeds", Expected::SLOW_FEEDS).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn six_feeds_are_large() -> anyhow::Result<()> {
    let mut patient = prepared(6, None).await?;
    for number in 0..6 {
        patient.origin.publish_article(&format!("feed-{number}"), "A long one", 6 << 20);
    }
    patient.start().await?;
    sleep(SETTLED).await;
    patient.expect("6 feeds of 6 MiB", Expected::FINE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn clients_do_not_read() -> anyhow::Result<()> {
    let patient = Patient::well().await?;
    let Address::Tcp(address) = patient.stack.gateway() else { anyhow::bail!("a port") };
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = TcpStream::connect(address).await?;
        client.write_all(b"GET /news/stream?snapshot=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        clients.push(client);
    }
    for number in 0..20 {
        patient.origin.publish_article("feed-0", &format!("Long, {number}"), 200_000);
    }
    sleep(SETTLED * 2).await;
    patient.expect("clients that do not read", Expected::FINE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn requests_pile_up_at_the_admin_sockets() -> anyhow::Result<()> {
    for (request, sickness) in [
        ("GET /watch HTTP/1.1\r\nhost: ", "400 half requests at the admin socket"),
        ("GET /stacks HTTP/1.1\r\nhost: localhost\r\n\r\n", "400 /stacks at the admin socket"),
    ] {
        let patient = Patient::well().await?;
        let mut open = Vec::new();
        for program in [Gateway, Ingestd] {
            let Address::Unix(path) = patient.stack.admin(program) else { anyhow::bail!("a path") };
            for _ in 0..200 {
                let connected = async || UnixStream::connect(&path).await.ok();
                let mut connection = wait_for("a place in the queue", SOON, connected).await?;
                connection.write_all(request.as_bytes()).await?;
                open.push(connection);
            }
        }
        patient.expect(sickness, Expected::FINE).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn no_feed_is_listed() -> anyhow::Result<()> {
    let mut patient = Patient { stack: TestStack::new(&[])?, origin: Origin::start().await? };
    patient.start().await?;
    patient.expect("no sources at all", Expected::FINE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of the long form: scripts/drill --foreign"]
async fn half_of_the_feeds_hang() -> anyhow::Result<()> {
    let mut patient = prepared(20, None).await?;
    for number in 0..10 {
        patient.origin.set_behaviour(&format!("feed-{number}"), Behaviour::SilentHead);
    }
    patient.start().await?;
    sleep(SETTLED * 4).await;
    patient.expect("10 of 20 feeds hang", Expected::SLOW_FEEDS).await.map(drop)
}
