//! NATS in tests: a server on loopback with its files in a folder of its own, three of them as a cluster, what a test asks
//! of them or does to them, and a network between them and our programs that can be cut.

mod api;
mod cluster;
mod network;
mod partition;
mod server;

pub use self::{
    api::NatsApi,
    cluster::NatsCluster,
    network::NatsNetwork,
    partition::{NatsPath, PathState},
    server::{NatsServer, Starved, nats_server_program, old_nats_server_program},
};
