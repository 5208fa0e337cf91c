//! `crowd SOURCES ADDRESS CLIENTS`: feeds that publish all the while, and clients of a gateway that listen all the while,
//! around daemons that somebody else installs, restarts and kills.
//!
//! It writes the list of its feeds to the file SOURCES, then obeys lines on its standard input: `mark` prints what has
//! happened since the mark before, as one line of JSON; `end`, or the end of input, stops the feeds, waits until every
//! client has everything, and prints what was lost or doubled. Exit 0: nothing was.

use std::{fmt::Write as _, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use e2e::{Format, Origin, Subscriber, faults, say, wait_for};
use serde_json::json;
use tokio::sync::mpsc;

/// Feeds.
const FEEDS: usize = 6;
/// Pause between two new items.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// How long the last item may take to reach the last client.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sources, address, clients] = arguments.as_slice() else {
        anyhow::bail!("usage: crowd SOURCES ADDRESS CLIENTS");
    };
    let address: SocketAddr = address.parse().context("ADDRESS is not like 127.0.0.1:8700")?;
    let clients: usize = clients.parse().context("CLIENTS is not a number")?;
    let origin = Arc::new(Origin::start().await?);
    write_sources(&origin, Path::new(sources))?;
    let publisher = tokio::spawn(publish(Arc::clone(&origin)));
    let crowd: Vec<_> =
        (0..clients).map(|_| Subscriber::start(address.into(), "/news/stream?snapshot=1000")).collect();
    let mut orders = orders();
    let mut before = Figures::default();
    while let Some(order) = orders.recv().await.filter(|order| order != "end") {
        anyhow::ensure!(order == "mark", "`{order}` is neither mark nor end");
        let now = Figures::of(&crowd);
        say(&now.since(&before, &origin));
        before = now;
    }
    publisher.abort();
    end(&origin, &crowd).await
}

/// The lines of standard input, which only a thread of its own can wait for.
fn orders() -> mpsc::Receiver<String> {
    let (orders, received) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if orders.blocking_send(line).is_err() {
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
        let url = origin.feed(&name, Format::of(number));
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

/// What happened to the clients.
#[derive(Default)]
struct Figures {
    items: usize,
    connections: usize,
    /// Tries that found nobody listening.
    refused: usize,
    /// Clients that a browser would have given up for.
    closed: usize,
}

impl Figures {
    fn of(crowd: &[Subscriber]) -> Self {
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

async fn end(origin: &Origin, crowd: &[Subscriber]) -> anyhow::Result<()> {
    let published = origin.published();
    let total: usize = published.values().map(Vec::len).sum();
    let caught_up = wait_for("everybody to have everything", CAUGHT_UP_WITHIN, async || {
        crowd.iter().all(|client| client.count("item") >= total).then_some(())
    })
    .await;
    let faults: Vec<String> = crowd.iter().flat_map(|client| faults(&published, &client.records())).collect();
    let figures = Figures::of(crowd);
    say(&json!({
        "published": total,
        "clients": crowd.len(),
        "delivered": figures.items,
        "connections": figures.connections,
        "refused": figures.refused,
        "faults": faults.len(),
    })
    .to_string());
    caught_up?;
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
