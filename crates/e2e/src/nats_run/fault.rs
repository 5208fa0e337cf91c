//! The faults: what is done, for how long, and what it may cost.

use std::{fmt, time::Duration};

use rustix::process::Signal;
use tokio::time::sleep;

use super::{Member, MemberRole, NatsRun, STREAM};
use crate::{Binary, PathState};

/// A fault of NATS, of the network, or of our programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatsFault {
    /// None: how it is without.
    None,
    /// SIGKILL to the leader of the stream.
    LeaderKilled,
    /// SIGSTOP to the leader of the stream.
    LeaderPaused,
    /// SIGKILL to all servers at once.
    AllKilled,
    /// A server that is not the leader is away.
    NodeDownForLong,
    /// The leader runs a little of the time only.
    SlowDisk,
    /// The leader comes back with an empty disk.
    NodeDataLost,
    /// All servers come back with empty disks.
    AllDataLost,
    /// All servers come back with an older copy of their files: confirmed messages are lost.
    OlderCopy,
    /// An operator purges the stream.
    Purged,
    /// An operator deletes the stream.
    Deleted,
    /// No bytes pass between a daemon and NATS.
    DaemonStalled,
    /// All connections between a daemon and NATS are closed, and new ones, too.
    DaemonCut,
    /// No bytes pass between a gateway and NATS.
    GatewayStalled,
    /// All connections between a gateway and NATS are closed, and new ones, too.
    GatewayCut,
    /// SIGKILL to a gateway.
    GatewayKilled,
    /// SIGKILL to a daemon.
    DaemonKilled,
    /// SIGKILL to a daemon, for so long that others visit its sources.
    DaemonGone,
    /// SIGSTOP to a daemon, for so long.
    DaemonAsleep,
    /// No bytes pass between a daemon and NATS, for so long.
    DaemonStalledForLong,
    /// Another daemon joins, and leaves again.
    DaemonJoined,
}

impl NatsFault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::None,
        Self::LeaderKilled,
        Self::LeaderPaused,
        Self::AllKilled,
        Self::NodeDownForLong,
        Self::SlowDisk,
        Self::NodeDataLost,
        Self::AllDataLost,
        Self::OlderCopy,
        Self::Purged,
        Self::Deleted,
        Self::DaemonStalled,
        Self::DaemonCut,
        Self::GatewayStalled,
        Self::GatewayCut,
        Self::GatewayKilled,
        Self::DaemonKilled,
        Self::DaemonGone,
        Self::DaemonAsleep,
        Self::DaemonStalledForLong,
        Self::DaemonJoined,
    ];

    /// Whether it strikes the servers of NATS, not the stream, the network or our programs.
    #[must_use]
    pub fn is_of_servers(self) -> bool {
        matches!(
            self,
            Self::LeaderKilled
                | Self::LeaderPaused
                | Self::AllKilled
                | Self::NodeDownForLong
                | Self::SlowDisk
                | Self::NodeDataLost
                | Self::AllDataLost
        )
    }

    /// Whether sources go from one daemon to another by it.
    #[must_use]
    pub fn moves_sources(self) -> bool {
        matches!(
            self,
            Self::DaemonGone | Self::DaemonAsleep | Self::DaemonStalledForLong | Self::DaemonJoined
        )
    }

    /// Whether clients must be told that their ids are worth nothing any more.
    #[must_use]
    pub fn resets(self) -> bool {
        matches!(self, Self::AllDataLost | Self::OlderCopy | Self::Purged | Self::Deleted)
    }
}

impl fmt::Display for NatsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::LeaderKilled => "the leader's server killed",
            Self::LeaderPaused => "the leader's server paused",
            Self::AllKilled => "all servers killed",
            Self::NodeDownForLong => "a server down for long",
            Self::SlowDisk => "the leader slow, as with a slow disk",
            Self::NodeDataLost => "the leader's data lost",
            Self::AllDataLost => "the data of all servers lost",
            Self::OlderCopy => "an older copy of all data put back",
            Self::Purged => "the stream purged",
            Self::Deleted => "the stream deleted",
            Self::DaemonStalled => "a lost route between a daemon and NATS",
            Self::DaemonCut => "a daemon cut off from NATS",
            Self::GatewayStalled => "a lost route between a gateway and NATS",
            Self::GatewayCut => "a gateway cut off from NATS",
            Self::GatewayKilled => "a gateway killed",
            Self::DaemonKilled => "a daemon killed",
            Self::DaemonGone => "a daemon gone for longer than its lease",
            Self::DaemonAsleep => "a daemon asleep for longer than its lease",
            Self::DaemonStalledForLong => "a lost route between a daemon and NATS for longer than its lease",
            Self::DaemonJoined => "another daemon comes and goes",
        })
    }
}

impl NatsRun {
    /// Does a fault, waits, and undoes it.
    pub(super) async fn strike(&mut self, fault: NatsFault) -> anyhow::Result<()> {
        let hold = self.size.hold;
        match fault {
            NatsFault::None => sleep(hold).await,
            NatsFault::Purged => self.cluster.api().await?.purge(STREAM).await?,
            NatsFault::Deleted => self.cluster.api().await?.delete(STREAM).await?,
            NatsFault::DaemonStalled => cut(&any(&self.daemons).path, PathState::Stalled, hold).await,
            NatsFault::DaemonCut => cut(&any(&self.daemons).path, PathState::Cut, hold).await,
            NatsFault::GatewayStalled => cut(&any(&self.gateways).path, PathState::Stalled, hold).await,
            NatsFault::GatewayCut => cut(&any(&self.gateways).path, PathState::Cut, hold).await,
            NatsFault::GatewayKilled => kill(&mut self.gateways, MemberRole::Gateway, hold).await?,
            NatsFault::DaemonKilled => kill(&mut self.daemons, MemberRole::Daemon, hold).await?,
            NatsFault::DaemonGone => {
                kill(&mut self.daemons, MemberRole::Daemon, self.size.hold_lease).await?
            }
            NatsFault::DaemonAsleep => {
                let number = fastrand::usize(0..self.daemons.len());
                let daemon = self.daemons[number].stack.process(Binary::Ingestd)?;
                daemon.signal(Signal::STOP)?;
                sleep(self.size.hold_lease).await;
                daemon.signal(Signal::CONT)?;
            }
            NatsFault::DaemonStalledForLong => {
                cut(&any(&self.daemons).path, PathState::Stalled, self.size.hold_lease).await;
            }
            NatsFault::DaemonJoined => {
                let sources = &self.sources;
                let ring_events = self.size.ring_events;
                let guest = Member::start(MemberRole::Daemon, sources, &self.cluster, ring_events).await?;
                sleep(self.size.hold_lease).await;
                drop(guest);
                sleep(self.size.hold_lease).await;
            }
            _ => self.strike_servers(fault, hold).await?,
        }
        self.cluster.wait_leader().await
    }

    async fn strike_servers(&mut self, fault: NatsFault, hold: Duration) -> anyhow::Result<()> {
        let leader = self.cluster.leader_of(STREAM).await?;
        let other = (leader + 1) % self.cluster.servers().len();
        match fault {
            NatsFault::LeaderPaused => {
                self.cluster.server(leader).pause();
                sleep(hold).await;
                self.cluster.server(leader).resume();
            }
            NatsFault::SlowDisk => {
                let starved = self
                    .cluster
                    .server(leader)
                    .starve(Duration::from_millis(400), Duration::from_millis(100));
                sleep(hold).await;
                drop(starved);
            }
            NatsFault::AllKilled | NatsFault::AllDataLost => {
                self.cluster.kill_all();
                sleep(hold).await;
                if fault == NatsFault::AllDataLost {
                    self.cluster.servers().iter().try_for_each(crate::NatsServer::lose_data)?;
                }
            }
            NatsFault::OlderCopy => {
                let copies = self.cluster.copy_data()?;
                sleep(hold).await;
                self.cluster.kill_all();
                for (server, copy) in self.cluster.servers().iter().zip(&copies) {
                    server.put_back(copy)?;
                }
            }
            NatsFault::LeaderKilled | NatsFault::NodeDataLost => {
                self.cluster.server_mut(leader).kill();
                sleep(hold).await;
                if fault == NatsFault::NodeDataLost {
                    self.cluster.server(leader).lose_data()?;
                }
            }
            _ => {
                self.cluster.server_mut(other).kill();
                sleep(self.size.hold_long).await;
            }
        }
        self.cluster.restart_all().await
    }
}

fn any(members: &[Member]) -> &Member {
    &members[fastrand::usize(0..members.len())]
}

async fn cut(path: &crate::NatsPath, state: PathState, hold: Duration) {
    path.set(state);
    sleep(hold).await;
    path.set(PathState::Open);
}

async fn kill(members: &mut [Member], role: MemberRole, hold: Duration) -> anyhow::Result<()> {
    let number = fastrand::usize(0..members.len());
    let stack = &mut members[number].stack;
    stack.kill(role.program())?;
    sleep(hold).await;
    stack.start(role.program())
}
