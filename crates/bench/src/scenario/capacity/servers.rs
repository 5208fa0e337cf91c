//! What the NATS servers of a wire carry: three of them, each with everything.

use super::{
    delivery::WireLoad,
    unit_costs::{MachineShape, Needs, UnitCosts},
};

/// Servers of a cluster, each of which has a copy of everything.
pub(super) const SERVERS: f64 = 3.0;
/// Leases and heartbeats that a daemon sends a second: one each every 2 s.
const SIGNS_PER_DAEMON: f64 = 0.5;
/// Subjects of a source: its events, its state, the items that were seen.
const SUBJECTS_PER_SOURCE: f64 = 3.0;
const HEARTBEAT_BYTES: f64 = 400.0;

/// What one cluster of three has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct NatsLoad {
    /// Messages that are stored, per second.
    pub(super) stored: f64,
    /// Messages to readers, per second: events, notices and heartbeats to every gateway.
    pub(super) delivered: f64,
    /// Bytes a second that the leader sends to the two others.
    pub(super) replicated_bytes: f64,
    /// Bytes a second to gateways.
    pub(super) delivered_bytes: f64,
    /// The part of what one stream can store that the busiest takes.
    pub(super) stream_used: f64,
    /// Of each server, on its disk.
    pub(super) disk_gb: f64,
    /// Of the server that leads all streams: the most that one can have to do.
    pub(super) leader: Needs,
}

impl NatsLoad {
    /// Of a wire with so many gateways, which keeps the events of so many days. One visit in ten changes what was seen.
    pub(super) fn new(wire: &WireLoad, gateways: f64, days: f64, costs: &UnitCosts) -> Self {
        const CHANGES_SEEN: f64 = 0.1;
        let signs = wire.daemons * SIGNS_PER_DAEMON;
        let seen = wire.visits * CHANGES_SEEN;
        let checkpoints = wire.visits + seen;
        let stored = wire.events + checkpoints + signs;
        let delivered = gateways * (wire.events + wire.visits + signs);
        let stored_bytes = wire.events * costs.event_bytes.value
            + wire.visits * costs.state_bytes.value
            + seen * costs.seen_bytes.value
            + signs * HEARTBEAT_BYTES;
        let delivered_bytes = gateways
            * (wire.events * costs.event_bytes.value
                + wire.visits * costs.notice_bytes.value
                + signs * HEARTBEAT_BYTES);
        let kept = wire.events * 86_400.0 * days * costs.event_bytes.value;
        let of_sources = wire.sources * (costs.state_bytes.value + costs.seen_bytes.value);
        let subjects = wire.sources * SUBJECTS_PER_SOURCE * costs.subject_bytes.value;
        let cpu = stored * costs.publish_server.value + delivered * costs.deliver_server.value;
        Self {
            stored,
            delivered,
            replicated_bytes: stored_bytes * (SERVERS - 1.0),
            delivered_bytes,
            stream_used: wire.events.max(checkpoints) / costs.stream_rate.value,
            disk_gb: (kept + of_sources) / 1e9,
            leader: Needs {
                cores: cpu / 1e6,
                memory_gb: (costs.server_memory.value * 1e6 + subjects) / 1e9,
                gbit: (stored_bytes * SERVERS + delivered_bytes) * 8.0 / 1e9,
            },
        }
    }

    /// Whether one machine can be the leader of all streams, and else what is too much for it.
    pub(super) fn limit(&self, shape: &MachineShape) -> &'static str {
        match self.leader.machines(shape) {
            _ if self.stream_used > 1.0 => "too much for one stream",
            (machines, what) if machines > 1.0 => match what {
                "cores" => "too much for the cores of one machine",
                "memory" => "too much for the memory of one machine",
                _ => "too much for the network of one machine",
            },
            (_, what) => what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_with_twice_the_gateways_sends_twice_and_stores_the_same() {
        let wire = WireLoad {
            daemons: 20.0,
            sources: 1e6,
            events: 16.0,
            visits: 50.0,
            clients: 1e6,
            received: 0.01,
        };
        let of = |gateways| NatsLoad::new(&wire, gateways, 7.0, &UnitCosts::USUAL);
        assert!((of(20.0).delivered / of(10.0).delivered - 2.0).abs() < 1e-9);
        assert!((of(20.0).stored - of(10.0).stored).abs() < 1e-9);
        assert_eq!(of(10.0).limit(&MachineShape::USUAL), "memory");
        let flooded = NatsLoad::new(&WireLoad { events: 1e6, ..wire }, 10.0, 7.0, &UnitCosts::USUAL);
        assert_eq!(flooded.limit(&MachineShape::USUAL), "too much for one stream");
    }
}
