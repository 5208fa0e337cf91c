//! What NATS says, if it is the wire.

use std::time::Duration;

use daemon::config::{Config, WireTransport};
use wire::nats::{NatsCredentials, NatsSettings, NatsSurvey, StreamLimits, SubjectNames};

use super::{
    gather::{DoctorTarget, GatherOptions},
    http,
    part::Part,
};
use crate::config_file::ConfigInPart;

/// How long all of it may take.
const NATS_WITHIN: Duration = Duration::from_secs(8);

/// Asks NATS. Without an answer of the stream, the survey says so.
pub(super) async fn examine(options: &GatherOptions, config: &ConfigInPart) -> Part<NatsSurvey> {
    let config = &config.loaded.config;
    if !is_wire(config) || options.quick || options.target != DoctorTarget::Both {
        return Part::not_asked();
    }
    match tokio::time::timeout(
        NATS_WITHIN,
        NatsSurvey::take(&settings(config), &config.wire.nats_monitor_urls),
    )
    .await
    {
        Ok(survey) => Part::from_result(survey),
        Err(_) => Part::timed_out(http::no_answer_within(NATS_WITHIN)),
    }
}

/// Whether the processes may be on different machines.
pub(super) fn is_wire(config: &Config) -> bool {
    config.wire.transport == WireTransport::Nats
}

fn settings(config: &Config) -> NatsSettings {
    let (wire, store) = (&config.wire, &config.store);
    NatsSettings {
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
        client: concat!("newswire/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
