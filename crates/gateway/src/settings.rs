//! What the operator configured, checked and ready for use; a reload replaces it as a whole.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use daemon::config::Config;
use ipnet::IpNet;

use crate::{
    auth::{authenticator::Authenticator, operator::OperatorToken},
    error::GatewayError,
    limits::Limits,
};

/// The `[gateway]` section, with the files it names.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) clients_max: usize,
    pub(crate) clients_per_address_max: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) drain: Duration,
    /// Host names that are served besides the loopback ones.
    pub(crate) hosts: Vec<String>,
    /// Every host name is served: none is configured, and the address is a public one.
    pub(crate) any_host: bool,
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
            heartbeat: gateway.heartbeat,
            drain: gateway.drain,
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

    /// Whether the address is that of a trusted proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// The host name of `gateway.public_url`.
fn public_host(gateway: &daemon::config::GatewaySection) -> Option<String> {
    let url = url::Url::parse(gateway.public_url.as_deref()?).ok()?;
    url.host_str().map(str::to_owned)
}
