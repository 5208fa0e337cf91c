//! The configuration, in the shapes that the parts of this daemon need.

use std::path::PathBuf;

use anyhow::Context as _;
use daemon::{
    config::{Config, WireTransport},
    metrics::MetricsRegistry,
    program::LossOfLog,
};
use fetch::{Policy, Visitor, schedule::IntervalBounds};
use news::ProxyUrl;
use sources::CredentialFiles;
use wire::nats::{NatsConnection, NatsCredentials, NatsError, NatsSettings, StreamLimits, SubjectNames};

use crate::{disk_space::SpaceBounds, queue::limiter::VisitLimits};

/// The sections of the configuration that this daemon uses, and what it uses of another one.
pub(crate) const SECTIONS: &[&str] = &[
    "daemon",
    "ingestd",
    "store",
    "fetch",
    "wire",
    "log",
    "gateway.ring_events",
    "gateway.ring_bytes",
    "gateway.public_url",
];

pub(crate) fn interval_bounds(config: &Config) -> IntervalBounds {
    IntervalBounds { interval_min: config.fetch.interval_min, interval_max: config.fetch.interval_max }
}

pub(crate) fn visit_limits(config: &Config) -> VisitLimits {
    VisitLimits {
        in_flight: config.fetch.in_flight,
        host_in_flight: config.fetch.host_in_flight,
        host_spacing: config.fetch.host_spacing,
        memory_bytes: usize::try_from(config.fetch.memory_bytes).unwrap_or(usize::MAX),
    }
}

pub(crate) fn space_bounds(config: &Config) -> SpaceBounds {
    SpaceBounds { bytes_min: config.store.free_bytes_min, percent_min: config.store.free_percent_min }
}

pub(crate) fn credential_files(config: &Config) -> CredentialFiles {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    CredentialFiles::new(&config.ingestd.sources, credentials)
}

pub(crate) fn store_options(config: &Config, loss: LossOfLog) -> store::StoreOptions {
    store::StoreOptions {
        cache_bytes: config.store.cache_bytes,
        retention: store::Retention {
            age: config.store.retention_age,
            events: config.store.retention_events,
            bytes: config.store.retention_bytes,
        },
        new_bytes_max: config.fetch.new_bytes_max,
        share: store::SourceShare {
            percent: config.store.source_share_percent,
            ring: store::EventTotals {
                events: config.gateway.ring_events as u64,
                bytes: config.gateway.ring_bytes,
            },
            ..store::SourceShare::default()
        },
        accept_loss: loss == LossOfLog::Accepted,
    }
}

/// `None` unless `wire.transport` is `nats`. Reads the files that it names.
///
/// # Errors
/// [`NatsError`] if a file or an address cannot be used.
pub(crate) fn nats(config: &Config) -> Result<Option<NatsSettings>, NatsError> {
    let (wire, store) = (&config.wire, &config.store);
    if wire.transport != WireTransport::Nats {
        return Ok(None);
    }
    let settings = NatsSettings {
        urls: wire.nats_urls.clone(),
        names: SubjectNames::new(&wire.nats_name),
        credentials: NatsCredentials {
            credentials_file: wire.nats_credentials_file.clone(),
            nkey_file: wire.nats_nkey_file.clone(),
        },
        ca_file: wire.nats_ca_file.clone(),
        replicas: usize::try_from(wire.nats_replicas).unwrap_or(1),
        limits: StreamLimits {
            age: store.retention_age,
            events: store.retention_events,
            bytes: store.retention_bytes,
        },
        client: concat!("newswire-ingestd/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    NatsConnection::check(&settings)?;
    Ok(Some(settings))
}

pub(crate) fn visitor(config: &Config, metrics_registry: &MetricsRegistry) -> anyhow::Result<Visitor> {
    let allow = config.fetch.allow.iter().map(|cidr| cidr.parse()).collect::<Result<_, _>>();
    let policy = Policy {
        timeout_connect: config.fetch.timeout_connect,
        timeout_first_byte: config.fetch.timeout_first_byte,
        timeout_total: config.fetch.timeout_total,
        body_bytes_max: usize::try_from(config.fetch.body_bytes_max).unwrap_or(usize::MAX),
        allow: allow.context("fetch.allow")?,
        proxy: config.fetch.proxy.as_deref().map(ProxyUrl::try_new).transpose().context("fetch.proxy")?,
        ports: config.fetch.ports.clone(),
        user_agent: config.fetch.user_agent.clone(),
        ..Policy::default()
    };
    let visitor = Visitor::try_new(policy)?;
    let counted = visitor.clone();
    metrics_registry.register_counter(
        "newswire_ingestd_clients_displaced_total",
        "HTTP clients evicted because sources have more distinct proxies and certificate authorities than are kept",
        move || counted.clients_evicted(),
    );
    Ok(visitor)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use daemon::config::{self, Reloader};

    use super::*;

    #[test]
    fn a_reload_reports_the_keys_of_the_gateway_that_this_daemon_uses_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("newswire.toml");
        fs::write(&file, "").unwrap();
        let loaded = config::load(Some(&file), []).unwrap();
        let reloader = Reloader::new(Some(file.clone()), loaded).for_sections(SECTIONS);
        let changed =
            "ring_events = 9\nring_bytes = 99999\npublic_url = \"https://n.example\"\nclients_max = 9\n";
        fs::write(&file, format!("[gateway]\n{changed}")).unwrap();
        let mut changes = reloader.read().unwrap().changes;
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        let reported: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.live)).collect();
        let expected = ["gateway.public_url", "gateway.ring_bytes", "gateway.ring_events"];
        assert_eq!(reported, expected.map(|key| (key, false)));
    }
}
