//! How many clients a gateway carries, how many gateways that takes, and what happens when one is lost.

use super::unit_costs::{MachineShape, Needs, UnitCosts};

/// What a wire carries, altogether.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireLoad {
    pub(super) daemons: f64,
    pub(super) sources: f64,
    /// Events a second.
    pub(super) events: f64,
    /// Visits a second.
    pub(super) visits: f64,
    pub(super) clients: f64,
    /// Events that a client is sent, per second.
    pub(super) received: f64,
}

/// The gateways of one wire, each on a machine of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatewayPlan {
    pub(super) gateways: f64,
    pub(super) clients_of_each: f64,
    /// Of one gateway.
    pub(super) needs: Needs,
    /// What fills its machine.
    pub(super) limit: &'static str,
    /// Clients that a gateway could serve if each were sent every event.
    pub(super) unfiltered: f64,
}

/// Clients that are planned for one gateway at most: `gateway.clients_max` is set to twice as many.
const CLIENTS_MAX: f64 = 200_000.0;

impl WireLoad {
    /// CPU seconds per second of a client that is sent so many events a second.
    fn client_cores(&self, received: f64, costs: &UnitCosts) -> f64 {
        let heartbeats = (1.0 / costs.heartbeat_s.value - received).max(0.0);
        let left_out = (self.events - received).max(0.0);
        (received * costs.delivery.value
            + heartbeats * costs.heartbeat.value
            + left_out * costs.left_out.value)
            / 1e6
    }

    /// What a gateway needs without clients.
    fn gateway_alone(&self, costs: &UnitCosts) -> Needs {
        let memory = costs.gateway_memory.value * 1e6 + self.sources * costs.known_source_bytes.value;
        let bytes = self.events * costs.event_bytes.value + self.visits * costs.notice_bytes.value;
        Needs {
            cores: (self.events * costs.intake.value + self.visits * costs.notice.value) / 1e6,
            memory_gb: memory / 1e9,
            gbit: bytes * 8.0 / 1e9,
        }
    }

    fn with_clients(&self, clients: f64, received: f64, costs: &UnitCosts) -> Needs {
        let alone = self.gateway_alone(costs);
        Needs {
            cores: alone.cores + clients * self.client_cores(received, costs),
            memory_gb: alone.memory_gb + clients * costs.client_bytes.value / 1e9,
            gbit: alone.gbit + clients * received * costs.delivered_bytes.value * 8.0 / 1e9,
        }
    }

    /// Clients that fit into a gateway that fills its machine, and what it is filled by.
    fn clients_max(&self, received: f64, costs: &UnitCosts, shape: &MachineShape) -> (f64, &'static str) {
        let alone = self.gateway_alone(costs);
        let one = self.with_clients(1.0, received, costs);
        let by = [
            ((shape.usable_cores() - alone.cores) / (one.cores - alone.cores), "cores"),
            ((shape.usable_memory_gb() - alone.memory_gb) / (one.memory_gb - alone.memory_gb), "memory"),
            ((shape.usable_gbit() - alone.gbit) / (one.gbit - alone.gbit), "network"),
            (CLIENTS_MAX, "the most clients that are planned for one process"),
        ];
        let (clients, limit) = by.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default();
        (clients.max(0.0).floor(), limit)
    }

    pub(super) fn gateways(&self, costs: &UnitCosts, shape: &MachineShape) -> GatewayPlan {
        let (most, limit) = self.clients_max(self.received, costs, shape);
        // One may be lost, and the others carry its clients.
        let gateways = (self.clients / most.max(1.0)).ceil() + 1.0;
        let clients_of_each = self.clients / gateways;
        let needs = self.with_clients(clients_of_each, self.received, costs);
        let (unfiltered, _) = self.clients_max(self.events, costs, shape);
        GatewayPlan { gateways, clients_of_each, needs, limit, unfiltered }
    }
}

/// What the other gateways of a wire notice when some are lost at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Herd {
    /// New streams a second at each of the others.
    pub(super) connects: f64,
    /// Cores of each that these take meanwhile.
    pub(super) cores: f64,
    /// Cores of each that all of its clients take afterwards.
    pub(super) cores_after: f64,
}

impl GatewayPlan {
    /// The loss of so many gateways at once.
    pub(super) fn herd(&self, lost: f64, wire: &WireLoad, costs: &UnitCosts) -> Herd {
        let left = (self.gateways - lost).max(1.0);
        let connects = lost * self.clients_of_each / left / costs.retry_s.value;
        let clients = wire.clients / left;
        Herd {
            connects,
            cores: connects * costs.connect.value / 1e6,
            cores_after: wire.with_clients(clients, wire.received, costs).cores,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: UnitCosts = UnitCosts::USUAL;
    const SHAPE: MachineShape = MachineShape::USUAL;
    const WIRE: WireLoad = WireLoad {
        daemons: 20.0,
        sources: 1e6,
        events: 16.0,
        visits: 50.0,
        clients: 1e6,
        received: 1.0 / 60.0,
    };

    #[test]
    fn the_gateways_that_are_left_carry_all_clients_when_one_is_lost() {
        let plan = WIRE.gateways(&COSTS, &SHAPE);
        let left = WIRE.with_clients(WIRE.clients / (plan.gateways - 1.0), WIRE.received, &COSTS);
        assert!(left.cores <= SHAPE.usable_cores() && left.memory_gb <= SHAPE.usable_memory_gb(), "{left:?}");
        let herd = plan.herd(1.0, &WIRE, &COSTS);
        let moved = herd.connects * COSTS.retry_s.value * (plan.gateways - 1.0);
        assert!(
            (moved / plan.clients_of_each - 1.0).abs() < 1e-9,
            "each client of the lost one comes back once"
        );
    }

    #[test]
    fn more_events_for_each_client_take_more_gateways() {
        let few = WIRE.gateways(&COSTS, &SHAPE).gateways;
        let many = WireLoad { received: 10.0, ..WIRE }.gateways(&COSTS, &SHAPE).gateways;
        assert!(many > few, "{few} {many}");
    }

    #[test]
    fn sources_that_fill_the_memory_leave_room_for_no_client() {
        let (clients, limit) = WireLoad { sources: 1e8, ..WIRE }.clients_max(WIRE.received, &COSTS, &SHAPE);
        assert!(clients < 1.0 && limit == "memory", "{clients} {limit}");
    }
}
