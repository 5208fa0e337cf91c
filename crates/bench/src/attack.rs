//! Attacks on the gateway: what one attacker's connections do, and what other clients notice.

pub(crate) mod attacker;
pub(crate) mod catalogue;
pub(crate) mod honest;
pub(crate) mod memory;
pub(crate) mod probe;
