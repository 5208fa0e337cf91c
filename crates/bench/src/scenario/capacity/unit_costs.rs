//! What one of each costs: measured by the other scenarios, or assumed where a deployment decides.

use crate::report::Row;

/// What a cost is: its value, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitCost {
    name: &'static str,
    unit: &'static str,
    pub(super) value: f64,
    origin: &'static str,
}

macro_rules! unit_costs {
    ($($(#[$doc:meta])* $field:ident = $value:expr, $unit:literal, $name:literal, $origin:literal;)*) => {
        /// All of them.
        #[derive(Clone, Debug)]
        pub(super) struct UnitCosts { $($(#[$doc])* pub(super) $field: UnitCost,)* }

        impl UnitCosts {
            pub(super) const USUAL: Self = Self {
                $($field: UnitCost { name: $name, unit: $unit, value: $value, origin: $origin },)*
            };

            fn all(&self) -> Vec<UnitCost> { vec![$(self.$field,)*] }
        }
    };
}

unit_costs! {
    /// A visit that brings a document.
    visit_200 = 2000.0, "µs", "daemon: CPU of a visit with a document", "scale: 1,400 with nine new items; and 600 for TLS, assumed";
    visit_304 = 800.0, "µs", "daemon: CPU of a visit with 304", "scale: 180; and 600 for TLS, assumed";
    unchanged_share = 0.6, "", "share of visits with 304", "assumed";
    body_bytes = 20_000.0, "B", "bytes of a document, compressed, with TLS", "assumed: 60 KB of feed";
    unchanged_bytes = 6_000.0, "B", "bytes of a 304 with TLS", "assumed";
    host_spacing = 1.0, "s", "spacing of visits to a host", "fetch.host_spacing";
    daemon_memory = 250.0, "MB", "daemon: memory without sources", "Sizing: 80, and fetch.memory_bytes";
    visited_bytes = 3100.0, "B", "daemon: memory of a source that it visits", "scale";
    listed_bytes = 800.0, "B", "daemon: memory of a source of its list that another visits", "assumed";
    taken_over = 0.9, "ms", "daemon: time to take a source over", "measured once: 2,918 sources in 2.6 s, on a busy machine";
    event_bytes = 2500.0, "B", "bytes of an event with its headers", "assumed";
    publish_daemon = 80.0, "µs", "daemon: CPU to publish an event", "nats: 30 to 80 more than on the local wire, in bursts";
    publish_server = 85.0, "µs", "NATS: CPU of a stored message, on each replica", "nats: 67 to 97 with one reader, 82 to 140 on each of three";
    deliver_server = 5.0, "µs", "NATS: CPU of a message to one reader more", "assumed";
    direct_get = 10.0, "µs", "NATS: CPU of a direct get", "measured once: 32 at a time";
    subject_bytes = 320.0, "B", "NATS: memory of a subject", "measured once: 600,000 subjects";
    server_memory = 500.0, "MB", "NATS: memory besides", "measured once: 15 at rest, 400 while it writes";
    stream_rate = 10_000.0, "1/s", "NATS: messages that one stream stores", "one core of its leader";
    state_bytes = 900.0, "B", "NATS: checkpoint of a state", "assumed";
    seen_bytes = 3000.0, "B", "NATS: checkpoint of the items seen", "35 and 76 for each of 40 items";
    notice_bytes = 700.0, "B", "NATS: notice of a visit", "assumed";
    intake = 60.0, "µs", "gateway: CPU to take an event in", "nats: 20 to 35 more than from the local wire, in bursts";
    notice = 25.0, "µs", "gateway: CPU to take a notice in", "assumed";
    gateway_memory = 90.0, "MB", "gateway: memory without clients", "Sizing";
    known_source_bytes = 2000.0, "B", "gateway: memory of a source", "Sizing: 1 to 3 KB";
    listed_json_bytes = 700.0, "B", "gateway: bytes of a source that it reads at its start", "assumed";
    client_bytes = 16_400.0, "B", "gateway: memory of a client, with the kernel's", "idle: 11 KiB; and 5 KiB of its socket";
    delivery = 13.0, "µs", "gateway: CPU of a delivery", "broadcast: 10 to 17";
    heartbeat = 26.0, "µs", "gateway: CPU of a heartbeat", "idle: 2.6 per second";
    left_out = 0.7, "µs", "gateway: CPU of an event that a filter leaves out, per client", "filtered: one at a time; 0.08 ten at once";
    connect = 50.0, "µs", "gateway: CPU of a new stream", "idle";
    delivered_bytes = 2700.0, "B", "bytes of a delivery on the network", "an event, and TCP";
    heartbeat_s = 10.0, "s", "a client without events gets a heartbeat every", "gateway.heartbeat";
    retry_s = 2.0, "s", "clients that lost a gateway come back within", "1 to 3 s, spread";
    lease_s = 11.0, "s", "a lost daemon is noticed after", "leases of 10 s, read every second";
}

impl UnitCosts {
    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |cost: UnitCost| Row::new(cost.name, cost.unit, cost.value, None).remark(cost.origin);
        self.all().into_iter().map(row).collect()
    }
}

/// One machine of the bill, and how much of it is used while all of them run.
#[derive(Clone, Copy, Debug)]
pub(super) struct MachineShape {
    pub(super) cores: f64,
    pub(super) memory_gb: f64,
    pub(super) gbit: f64,
    /// Share of cores and network that is planned with.
    pub(super) busy: f64,
    /// Share of memory that is planned with.
    pub(super) filled: f64,
}

impl MachineShape {
    pub(super) const USUAL: Self = Self { cores: 16.0, memory_gb: 64.0, gbit: 10.0, busy: 0.5, filled: 0.75 };

    pub(super) fn usable_cores(&self) -> f64 {
        self.cores * self.busy
    }

    pub(super) fn usable_memory_gb(&self) -> f64 {
        self.memory_gb * self.filled
    }

    pub(super) fn usable_gbit(&self) -> f64 {
        self.gbit * self.busy
    }
}

/// What something needs altogether.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    pub(super) cores: f64,
    pub(super) memory_gb: f64,
    pub(super) gbit: f64,
}

impl Needs {
    /// How many machines these needs fill, and by what.
    pub(super) fn machines(&self, shape: &MachineShape) -> (f64, &'static str) {
        let by = [
            (self.cores / shape.usable_cores(), "cores"),
            (self.memory_gb / shape.usable_memory_gb(), "memory"),
            (self.gbit / shape.usable_gbit(), "network"),
        ];
        let (machines, limit) = by.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        (machines.ceil().max(1.0), limit)
    }

    pub(super) fn times(&self, count: f64) -> Self {
        Self { cores: self.cores * count, memory_gb: self.memory_gb * count, gbit: self.gbit * count }
    }
}
