//! Daemons, gateways and clients around three nats-servers, and every fault of them in turn; counts what was lost and doubled,
//! and how often a client was told that its id is worth nothing any more.
//!
//! ```text
//! row: publish ─► do the fault, and a while later undo it ─► stop publishing ─► every client has everything ─► count
//! ```

mod audit;
mod fault;
mod member;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

pub use self::fault::NatsFault;
use self::{
    audit::{HopAudit, HopCounts, KnownIds},
    member::{Member, MemberRole},
};
use crate::{DocumentFormat, Hops, NatsCluster, Origin, TestSource, TestSubscriber, log_line, wait_for};

/// The name of the stream.
const STREAM: &str = "newswire";
/// Hosts of the sources: all sources of one are visited by one daemon.
const HOSTS: u8 = 100;
/// Categories, over which the sources are spread.
const CATEGORIES: usize = 20;
/// Deadline for the gateways to be ready and for every client to have all items, counted from the end of a fault.
const SETTLED_WITHIN: Duration = Duration::from_secs(240);

/// How large a run is.
#[derive(Clone, Debug)]
pub struct NatsRunSize {
    /// Daemons, which divide one list of sources among them (`ingestd.share_group`).
    pub daemons: usize,
    /// Gateways.
    pub gateways: usize,
    /// Sources.
    pub sources: usize,
    /// Clients, of which every 300th, and at least four, get all events, and the others those of one category.
    pub clients: usize,
    /// The time between two visits of a source, such as `1s`.
    pub visit_every: String,
    /// Pause between two items, over all sources.
    pub publish_every: Duration,
    /// How long a fault lasts.
    pub hold: Duration,
    /// How long a server is down in [`NatsFault::NodeDownForLong`].
    pub hold_long: Duration,
    /// How long a daemon is gone until others visit its sources: longer than its lease.
    pub hold_lease: Duration,
    /// Events that a gateway has in memory: fewer than a run publishes, so that it reads older ones from NATS.
    pub ring_events: u32,
    /// How long a client stays with a gateway.
    pub stay: Range<Duration>,
}

impl NatsRunSize {
    /// A run of minutes.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            daemons: 2,
            gateways: 3,
            sources: 2_000,
            clients: 3_000,
            visit_every: "15s".to_owned(),
            publish_every: Duration::from_millis(100),
            hold: Duration::from_secs(15),
            hold_long: Duration::from_secs(90),
            hold_lease: Duration::from_secs(40),
            ring_events: 2_000,
            stay: Duration::from_secs(10)..Duration::from_secs(60),
        }
    }

    /// All faults within two minutes.
    #[must_use]
    pub fn brief() -> Self {
        Self {
            sources: 24,
            clients: 30,
            gateways: 2,
            visit_every: "1s".to_owned(),
            hold: Duration::from_secs(2),
            hold_long: Duration::from_secs(4),
            hold_lease: Duration::from_secs(16),
            ring_events: 100,
            stay: Duration::from_secs(1)..Duration::from_secs(8),
            ..Self::whole()
        }
    }
}

/// What one fault did.
#[derive(Clone, Debug)]
pub struct FaultRow {
    /// Which fault.
    pub fault: NatsFault,
    /// Items published since the row before.
    pub published: usize,
    /// Items delivered since then, over all clients.
    pub delivered: usize,
    /// Items that a client has not got.
    pub lost: usize,
    /// Items that a client got again without having been told of a reset.
    pub doubled: usize,
    /// Resets that clients were told of.
    pub resets: usize,
    /// Events that clients were told are missing.
    pub told_missing: usize,
    /// The longest time in which a client heard nothing.
    pub silence: Duration,
    /// From the end of the fault until every client had everything.
    pub settled: Duration,
    /// Everything that is wrong, in words; empty if nothing is.
    pub faults: Vec<String>,
}

impl FaultRow {
    /// The head of the table.
    pub const HEAD: &'static str = "| fault | published | delivered | lost | doubled | resets expected | resets unexpected | \
                                    told missing | longest silence, s | settled after, s |\n| --- | --- | --- | --- | --- | \
                                    --- | --- | --- | --- | --- |";
}

impl fmt::Display for FaultRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, unexpected) = if self.fault.resets() { (self.resets, 0) } else { (0, self.resets) };
        write!(
            f,
            "| {} | {} | {} | {} | {} | {expected} | {unexpected} | {} | {:.1} | {:.1} |",
            self.fault,
            self.published,
            self.delivered,
            self.lost,
            self.doubled,
            self.told_missing,
            self.silence.as_secs_f64(),
            self.settled.as_secs_f64()
        )
    }
}

/// A client with its check.
struct Hopper {
    client: TestSubscriber,
    audit: HopAudit,
    /// `None`: it gets all events.
    category: Option<usize>,
}

/// Everything that runs.
pub struct NatsRun {
    size: NatsRunSize,
    // Dropped in this order: clients, our programs, NATS.
    clients: Vec<Hopper>,
    publisher: SteadyPublisher,
    daemons: Vec<Member>,
    gateways: Vec<Member>,
    cluster: NatsCluster,
    origin: Arc<Origin>,
    sources: Vec<TestSource>,
    /// Items that were published and counted in a row.
    counted: usize,
    /// As [`Origin::asked_anew`], at the end of the row before.
    asked_anew: usize,
    before: HopCounts,
}

impl NatsRun {
    /// Starts everything and waits until each client is served.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(size: NatsRunSize) -> anyhow::Result<Self> {
        let program = crate::nats_server_program().context("nats-server is needed")?;
        let cluster = NatsCluster::start(&program).await?;
        let origin = Arc::new(Origin::start_on_hosts(HOSTS).await?);
        let sources: Vec<_> = (0..size.sources).map(|number| source(&origin, number, &size)).collect();
        let (mut daemons, mut gateways) = (Vec::new(), Vec::new());
        for _ in 0..size.daemons {
            daemons.push(Member::start(MemberRole::Daemon, &sources, &cluster, size.ring_events).await?);
        }
        for _ in 0..size.gateways {
            gateways.push(Member::start(MemberRole::Gateway, &[], &cluster, size.ring_events).await?);
        }
        let publisher = SteadyPublisher::start(Arc::clone(&origin), size.sources, size.publish_every);
        let (counted, asked_anew, before) = Default::default();
        let mut run = Self {
            size,
            clients: Vec::new(),
            publisher,
            daemons,
            gateways,
            cluster,
            origin,
            sources,
            counted,
            asked_anew,
            before,
        };
        run.wait_ready().await?;
        run.start_clients().await?;
        Ok(run)
    }

    async fn start_clients(&mut self) -> anyhow::Result<()> {
        let known: Arc<Mutex<KnownIds>> = Arc::default();
        let gateways: Vec<_> = self.gateways.iter().map(|member| member.stack.gateway()).collect();
        let of_all = (self.size.clients / 300).max(4);
        for number in 0..self.size.clients {
            let category = (number >= of_all).then_some(number % CATEGORIES);
            let filter = category.map(|category| format!("&category=c{category}")).unwrap_or_default();
            let audit = HopAudit::new(&known);
            let (record, hops) =
                (audit.clone(), Hops { gateways: gateways.clone(), stay: self.size.stay.clone() });
            // After a reset, everything of this run comes again.
            let path = format!("/news/stream?since=3h{filter}");
            let client = TestSubscriber::start_hopping(hops, &path, move |event| record.record(&event));
            self.clients.push(Hopper { client, audit, category });
        }
        wait_for("every client's first block", SETTLED_WITHIN, async || {
            self.clients.iter().all(|hopper| !hopper.client.last_event_id().is_empty()).then_some(())
        })
        .await
    }

    /// Runs one row. A fault of the product is in the row and ends nothing.
    ///
    /// # Errors
    /// If the fault could not be done, or our programs ended by themselves.
    pub async fn row(&mut self, fault: NatsFault) -> anyhow::Result<FaultRow> {
        // Or two faults would happen at once.
        self.cluster.wait_replicated(STREAM).await?;
        self.clients.iter().for_each(|hopper| _ = hopper.client.take_silence());
        self.publisher.set_paused(false);
        sleep(Duration::from_secs(1)).await;
        self.strike(fault).await.with_context(|| format!("{fault}"))?;
        let ended = Instant::now();
        let ready = self.wait_ready().await;
        self.publisher.set_paused(true);
        let published = self.origin.published();
        let numbers = numbers_by_category(&published);
        let complete = wait_for("all items at all clients, in one epoch", SETTLED_WITHIN, async || {
            // A client that had everything before may be told of a new epoch last.
            let epoch = self.common_epoch().await?;
            let has_all = |hopper: &Hopper| {
                hopper.client.closed().is_some()
                    || (hopper.client.last_event_id().starts_with(&epoch)
                        && hopper.audit.missing(numbers.of(hopper.category)).is_empty())
            };
            self.clients.iter().all(has_all).then_some(())
        })
        .await;
        let settled = ended.elapsed();
        let total = published.values().map(Vec::len).sum::<usize>();
        let mut row = self.count(fault, &numbers, settled);
        row.published = total - self.counted;
        self.counted = total;
        row.faults.extend([ready, complete].into_iter().filter_map(Result::err).map(|e| format!("{e:#}")));
        let asked_anew = self.origin.asked_anew();
        let again = asked_anew - std::mem::replace(&mut self.asked_anew, asked_anew);
        if again > 0 {
            row.faults
                .push(format!("{again} feeds were asked for without the validators that are known of them"));
        }
        if fault.resets() && row.resets == 0 {
            row.faults.push("no client was told of a reset".to_owned());
        }
        Ok(row)
    }

    /// The epoch of all gateways with its hyphen, once they agree.
    async fn common_epoch(&self) -> Option<String> {
        let mut common = None;
        for member in &self.gateways {
            let ready = member.stack.json("/ready").await.ok()?;
            let (epoch, _) = ready["wire"]["head"].as_str()?.rsplit_once('-')?;
            let epoch = format!("{epoch}-");
            if *common.get_or_insert_with(|| epoch.clone()) != epoch {
                return None;
            }
        }
        common
    }

    fn count(&mut self, fault: NatsFault, numbers: &Numbers, settled: Duration) -> FaultRow {
        let (mut faults, mut lost, mut now) = (Vec::new(), 0, HopCounts::default());
        let mut silence = Duration::ZERO;
        for (number, hopper) in self.clients.iter().enumerate() {
            let missing = hopper.audit.missing(numbers.of(hopper.category));
            lost += missing.len();
            let (counts, new_faults) = hopper.audit.take();
            now.add(&counts);
            silence = silence.max(hopper.client.take_silence());
            faults.extend(new_faults.into_iter().map(|fault| format!("client {number}: {fault}")));
            if !missing.is_empty() {
                let first: Vec<_> = missing.iter().take(5).collect();
                faults.push(format!("client {number} lacks {}, such as {first:?}", missing.len()));
            }
            if hopper.client.closed().is_some() {
                faults.push(format!("client {number}: {}", hopper.client.summary()));
            }
        }
        let since = now.since(&self.before);
        self.before = now;
        if !fault.resets() && since.resets > 0 {
            faults.push(format!("{} resets, where none is promised", since.resets));
        }
        let HopCounts { delivered, doubled, resets, told_missing } = since;
        FaultRow {
            fault,
            published: 0,
            delivered,
            lost,
            doubled,
            resets,
            told_missing,
            silence,
            settled,
            faults,
        }
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        for member in &mut self.gateways {
            member.stack.wait_ready().await?;
        }
        Ok(())
    }

    /// Prints the ends of all logs.
    pub fn show_logs(&self) {
        self.daemons.iter().chain(&self.gateways).for_each(|member| member.stack.show_logs());
        log_line(&self.cluster.logs());
    }
}

/// The numbers of the published items: all, and of each category.
struct Numbers {
    all: HashSet<u64>,
    of: BTreeMap<usize, HashSet<u64>>,
    none: HashSet<u64>,
}

impl Numbers {
    fn of(&self, category: Option<usize>) -> &HashSet<u64> {
        category.map_or(&self.all, |category| self.of.get(&category).unwrap_or(&self.none))
    }
}

fn numbers_by_category(published: &crate::Published) -> Numbers {
    let mut numbers = Numbers { all: HashSet::new(), of: BTreeMap::new(), none: HashSet::new() };
    for (source, guids) in published {
        let Some(number) = source.strip_prefix("feed-").and_then(|number| number.parse::<usize>().ok())
        else {
            continue;
        };
        let own = numbers.of.entry(number % CATEGORIES).or_default();
        for guid in guids.iter().filter_map(|guid| audit::number_of(guid)) {
            own.insert(guid);
            numbers.all.insert(guid);
        }
    }
    numbers
}

fn source(origin: &Origin, number: usize, size: &NatsRunSize) -> TestSource {
    let name = format!("feed-{number}");
    let host = u8::try_from(number % usize::from(HOSTS)).unwrap_or_default() + 1;
    let url = origin.add_feed_on(host, &name, DocumentFormat::of(number));
    TestSource {
        category: Some(format!("c{}", number % CATEGORIES)),
        every: size.visit_every.clone(),
        ..TestSource::new(&name, url)
    }
}

/// Publishes at a steady pace; paused at first.
struct SteadyPublisher {
    task: tokio::task::JoinHandle<()>,
    pauses: Arc<Mutex<bool>>,
}

impl SteadyPublisher {
    fn start(origin: Arc<Origin>, sources: usize, every: Duration) -> Self {
        let pauses = Arc::new(Mutex::new(true));
        let paused = Arc::clone(&pauses);
        let task = tokio::spawn(async move {
            loop {
                sleep(every).await;
                let paused = paused.lock().expect("no thread panics while holding it");
                if !*paused {
                    let feed = format!("feed-{}", fastrand::usize(0..sources));
                    origin.publish(&feed, "Something happened");
                }
            }
        });
        Self { task, pauses }
    }

    /// Nothing is published after a pause has begun.
    fn set_paused(&self, paused: bool) {
        *self.pauses.lock().expect("no thread panics while holding it") = paused;
    }
}

impl Drop for SteadyPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
