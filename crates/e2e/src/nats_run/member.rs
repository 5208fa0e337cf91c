//! One of our programs with a folder, as on a machine of its own, and its path to NATS.

use crate::{Binary, NatsCluster, NatsPath, TestSource, TestStack, Transport};

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberRole {
    Daemon,
    Gateway,
}

impl MemberRole {
    pub(super) fn program(self) -> Binary {
        match self {
            Self::Daemon => Binary::Ingestd,
            Self::Gateway => Binary::Gateway,
        }
    }
}

/// A program at work.
pub(super) struct Member {
    pub(super) stack: TestStack,
    pub(super) path: NatsPath,
}

const SETTINGS: [(&str, &str); 5] = [
    ("wire.nats_replicas", "3"),
    ("fetch.interval_max", "\"15s\""),
    ("gateway.drain", "\"1s\""),
    ("gateway.heartbeat", "\"2s\""),
    ("store.source_share_percent", "100"),
];

impl Member {
    pub(super) async fn start(
        role: MemberRole,
        sources: &[TestSource],
        cluster: &NatsCluster,
        ring_events: u32,
    ) -> anyhow::Result<Self> {
        let addresses: Vec<_> = cluster.servers().iter().map(crate::NatsServer::address).collect();
        let path = NatsPath::start(&addresses).await?;
        let mut stack = TestStack::with_transport(sources, &Transport::Nats(path.urls()))?;
        for (key, value) in SETTINGS {
            stack.set(key, value);
        }
        stack.set("gateway.ring_events", &ring_events.to_string());
        if role == MemberRole::Daemon {
            stack.set("ingestd.share_group", "\"all\"");
        }
        stack.start(role.program())?;
        Ok(Self { stack, path })
    }
}
