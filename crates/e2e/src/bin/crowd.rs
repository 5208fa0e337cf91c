//! `crowd SOURCES ADDRESS CLIENTS`: feeds that publish continuously and connected clients of a gateway, around daemons
//! that another program installs, restarts and kills.
//!
//! It writes the list of its feeds to the file SOURCES, then reads commands from standard input: `mark` prints what has
//! happened since the previous mark as one line of JSON; `end` or the end of input stops the feeds, waits until every
//! client has all items, and prints what was lost or duplicated. Exit 0: nothing was.

use std::{fmt::Write as _, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{DocumentFormat, Origin, TestSubscriber, faults, log_line, wait_for};
use serde_json::json;
use tokio::sync::mpsc;

/// Feeds.
const FEEDS: usize = 6;
/// Pause between two new items.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// Deadline for the last item to reach the last client.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sources, address, clients] = arguments.as_slice() else {
        anyhow::bail!("usage: crowd SOURCES ADDRESS CLIENTS");
    };
    let address: SocketAddr =
        address.parse().context("ADDRESS: expected HOST:PORT such as 127.0.0.1:8700")?;
    let clients: usize = clients.parse().context("CLIENTS: expected a number")?;
    let origin = Arc::new(Origin::start().await?);
    write_sources(&origin, Path::new(sources))?;
    let publisher = tokio::spawn(publish(Arc::clone(&origin)));
    let crowd: Vec<_> =
        (0..clients).map(|_| TestSubscriber::start(address.into(), "/news/stream?snapshot=1000")).collect();
    let mut commands = read_commands();
    let mut before = Figures::default();
    while let Some(command) = commands.recv().await.filter(|command| command != "end") {
        anyhow::ensure!(command == "mark", "unknown command `{command}`; expected mark or end");
        let now = Figures::of(&crowd);
        log_line(&now.since(&before, &origin));
        before = now;
    }
    publisher.abort();
    end(&origin, &crowd).await
}

/// The lines of standard input, read on a separate thread because reading blocks.
fn read_commands() -> mpsc::Receiver<String> {
    let (commands, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if commands.blocking_send(line).is_err() {
                return;
            }
        }
    });
    received
}

fn write_sources(origin: &Origin, to: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    for number in 0..FEEDS {
        let name = format!("feed-{number}");
        let url = origin.add_feed(&name, DocumentFormat::of(number));
        write!(
            text,
            "[[source]]\nid = \"{name}\"\nname = \"Feed {number}\"\nurl = \"{url}\"\nevery = \"1s\"\n\n"
        )?;
    }
    std::fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

async fn publish(origin: Arc<Origin>) {
    for number in 0_usize.. {
        origin.publish(&format!("feed-{}", number % FEEDS), &format!("Item {number}"));
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
}

/// Totals over all clients.
#[derive(Default)]
struct Figures {
    items: usize,
    connections: usize,
    /// Attempts that were refused.
    refused: usize,
    /// Clients that stopped for good, as a browser would.
    closed: usize,
}

impl Figures {
    fn of(crowd: &[TestSubscriber]) -> Self {
        let mut figures = Self::default();
        for client in crowd {
            let connections = client.connections();
            let refused = |ended: &String| ended.to_lowercase().contains("refused");
            figures.items += client.count("item");
            figures.connections += connections.len();
            figures.refused += connections.iter().filter(|c| c.ended.as_ref().is_some_and(refused)).count();
            figures.closed += usize::from(client.closed().is_some());
        }
        figures
    }

    fn since(&self, before: &Self, origin: &Origin) -> String {
        json!({
            "published": origin.published().values().map(Vec::len).sum::<usize>(),
            "delivered": self.items - before.items,
            "connections": self.connections - before.connections,
            "refused": self.refused - before.refused,
            "closed_for_good": self.closed - before.closed,
        })
        .to_string()
    }
}

async fn end(origin: &Origin, crowd: &[TestSubscriber]) -> anyhow::Result<()> {
    let published = origin.published();
    let total: usize = published.values().map(Vec::len).sum();
    let caught_up = wait_for("every client to have all items", CAUGHT_UP_WITHIN, async || {
        crowd.iter().all(|client| client.count("item") >= total).then_some(())
    })
    .await;
    let faults: Vec<String> = crowd.iter().flat_map(|client| faults(&published, &client.records())).collect();
    let figures = Figures::of(crowd);
    log_line(
        &json!({
            "published": total,
            "clients": crowd.len(),
            "delivered": figures.items,
            "connections": figures.connections,
            "refused": figures.refused,
            "faults": faults.len(),
        })
        .to_string(),
    );
    caught_up?;
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
