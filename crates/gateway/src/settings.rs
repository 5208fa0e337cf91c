//! What the operator configured, checked and ready for use; a reload replaces it as a whole.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use control::CredentialChanges;
use daemon::config::{Config, GatewaySection, WireTransport};
use ipnet::IpNet;

use crate::{
    auth::{authenticator::Authenticator, operator::OperatorToken},
    error::GatewayError,
    limits::Limits,
};

/// Connections of one address in addition to its streams, unless configured: pages, the page's own requests.
const OTHER_CONNECTIONS_PER_ADDRESS: u64 = 1024;
/// With rarer heartbeats, a client that reconnects after 30 s of silence does so for ever.
const HEARTBEAT_USUAL_MAX: Duration = Duration::from_secs(20);
/// Events and bytes from the past per second for each stream that an address may have, unless configured.
const REPLAY_PER_CLIENT: (u64, u64) = (64, 256 * 1024);

/// The `[gateway]` section, with the files it names.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) clients_max: usize,
    pub(crate) clients_per_address_max: usize,
    /// [`usize::MAX`] for no limit.
    pub(crate) connections_per_address: usize,
    /// 0 for no limit.
    pub(crate) addresses_per_network: u64,
    pub(crate) budgets: BudgetLimits,
    /// Bytes of answers that clients have not taken yet; 0 for no limit.
    pub(crate) unsent_bytes_max: u64,
    pub(crate) heartbeat: Duration,
    pub(crate) drain: Duration,
    /// Host names that are served besides the loopback ones.
    pub(crate) hosts: Vec<String>,
    /// Every host name is served: none is configured, and the address is a public one.
    pub(crate) any_host: bool,
    /// Whether the events come from NATS, and not from a daemon on this machine.
    pub(crate) is_nats: bool,
    pub(crate) cors_origins: Vec<String>,
    /// Pages of these origins may send the credentials that the browser has for this gateway.
    pub(crate) cors_credentials: bool,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) operator_token: OperatorToken,
    pub(crate) authenticator: Authenticator,
    /// Whether hubs may call: a public URL is configured.
    pub(crate) has_callbacks: bool,
    pub(crate) limits: Limits,
    /// Files that the process may have open.
    pub(crate) descriptors: u64,
}

/// How much one address may use per second; 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetLimits {
    pub(crate) requests: u64,
    pub(crate) replay_events: u64,
    pub(crate) replay_bytes: u64,
    /// An IPv6 /48 may use as much as so many addresses.
    pub(crate) addresses_per_network: u64,
}

impl Settings {
    /// Takes the settings from the configuration, and reads the token and key files.
    ///
    /// # Errors
    /// What is wrong with the files, or [`GatewayError::Other`].
    pub(crate) fn from_config(config: &Config, limits: Limits) -> Result<Self, GatewayError> {
        let gateway = &config.gateway;
        let proxies = gateway.trusted_proxies.iter().map(|net| net.parse()).collect::<Result<_, _>>();
        let operator_token = OperatorToken::load(gateway.operator_token_file.as_deref());
        Ok(Self {
            clients_max: gateway.clients_max,
            clients_per_address_max: gateway.clients_per_address_max,
            connections_per_address: connections_per_address(gateway),
            addresses_per_network: gateway.addresses_per_network,
            budgets: budget_limits(gateway),
            unsent_bytes_max: gateway.unsent_bytes_max,
            heartbeat: gateway.heartbeat,
            drain: gateway.drain,
            is_nats: config.wire.transport == WireTransport::Nats,
            any_host: gateway.hosts.is_empty() && !gateway.listen.ip().is_loopback(),
            // Requests to the public URL are served, too.
            hosts: gateway.hosts.iter().cloned().chain(public_host(gateway)).collect(),
            has_callbacks: gateway.public_url.is_some(),
            cors_origins: gateway.cors_origins.clone(),
            cors_credentials: gateway.cors_credentials,
            operator_token: operator_token.map_err(GatewayError::OperatorToken)?,
            authenticator: Authenticator::load(gateway)?,
            trusted_proxies: proxies.context("gateway.trusted_proxies")?,
            limits,
            descriptors: daemon::limits::raise_open_files().context("raise the limit of open files")?,
        })
    }

    /// What differs from earlier files of tokens and keys.
    pub(crate) fn credential_changes(&self, old: &Self) -> Vec<CredentialChanges> {
        let mut changes = self.authenticator.changes_since(&old.authenticator);
        changes.extend(self.operator_token.changes_since(&old.operator_token));
        changes
    }

    /// Warns in the log of what works but should be changed.
    pub(crate) fn warn(&self) {
        if let Some(warning) = rare_heartbeats(self.heartbeat) {
            tracing::warn!("{warning}");
        }
    }

    /// Whether the address is that of a trusted proxy; a canonical address, not yet cut to its network.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// The warning about a `gateway.heartbeat` that many clients do not wait for.
pub(crate) fn rare_heartbeats(heartbeat: Duration) -> Option<String> {
    (heartbeat > HEARTBEAT_USUAL_MAX).then(|| {
        format!(
            "gateway.heartbeat: with {}, clients that do not ask for heartbeats take a quiet stream for a lost \
             connection and reconnect every 30s; set it to {} or less",
            notation::write_duration(heartbeat),
            notation::write_duration(HEARTBEAT_USUAL_MAX)
        )
    })
}

/// The host name of `gateway.public_url`.
fn public_host(gateway: &GatewaySection) -> Option<String> {
    let url = url::Url::parse(gateway.public_url.as_deref()?).ok()?;
    url.host_str().map(str::to_owned)
}

/// Where a limit per address is not configured, it grows with the streams that an address may have: one key is enough for
/// a large proxy or a load test.
fn budget_limits(gateway: &GatewaySection) -> BudgetLimits {
    let clients = u64::try_from(gateway.clients_per_address_max).unwrap_or(u64::MAX);
    let (events, bytes) = REPLAY_PER_CLIENT;
    BudgetLimits {
        requests: gateway.requests_per_address.unwrap_or(clients),
        replay_events: gateway.replay_events_per_address.unwrap_or_else(|| clients.saturating_mul(events)),
        replay_bytes: gateway.replay_bytes_per_address.unwrap_or_else(|| clients.saturating_mul(bytes)),
        addresses_per_network: gateway.addresses_per_network,
    }
}

fn connections_per_address(gateway: &GatewaySection) -> usize {
    let clients = u64::try_from(gateway.clients_per_address_max).unwrap_or(u64::MAX);
    let unless_set = || clients.saturating_add(OTHER_CONNECTIONS_PER_ADDRESS);
    match gateway.connections_per_address.unwrap_or_else(unless_set) {
        0 => usize::MAX,
        connections => usize::try_from(connections).unwrap_or(usize::MAX),
    }
}

#[cfg(test)]
impl Settings {
    /// Default settings that read no file.
    pub(crate) fn for_tests() -> Self {
        Self::from_config(&Config::default(), Limits::default()).unwrap()
    }
}
