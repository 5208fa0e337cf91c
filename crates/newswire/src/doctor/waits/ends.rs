//! Which processes hold the ends of pipes and sockets, by one look through the descriptors of all processes.
//!
//! Only root sees those of other users; [`Ends::blind_to`] counts the processes that could not be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use procfs::process::{FDPermissions, FDTarget, Process, all_processes};

/// Something with two ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    /// By its inode.
    Pipe(u64),
    /// A pipe with a name.
    Fifo(PathBuf),
    /// One end of a connection, by its inode.
    Socket(u64),
}

/// A descriptor that holds a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelEnd {
    pub(crate) pid: i32,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// The ends of some channels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    by_channel: BTreeMap<Channel, Vec<ChannelEnd>>,
    /// Processes whose descriptors this user may not see.
    pub(crate) blind_to: u32,
}

impl Channel {
    pub(crate) fn of(target: &FDTarget) -> Option<Self> {
        match target {
            FDTarget::Pipe(inode) => Some(Self::Pipe(*inode)),
            FDTarget::Socket(inode) => Some(Self::Socket(*inode)),
            // Whether it is a pipe with a name, only its file system could tell: the caller does, within a deadline.
            _ => None,
        }
    }
}

impl Ends {
    /// Looks for the holders of these channels.
    pub(crate) fn of(wanted: &BTreeSet<Channel>) -> Self {
        let mut ends = Self::default();
        if wanted.is_empty() {
            return ends;
        }
        for process in all_processes().into_iter().flatten().flatten() {
            match process.fd() {
                Ok(open) => open.flatten().for_each(|fd| {
                    let channel = match &fd.target {
                        FDTarget::Path(path) => Some(Channel::Fifo(path.clone())),
                        target => Channel::of(target),
                    };
                    let mode = fd.mode();
                    let end = ChannelEnd {
                        pid: process.pid(),
                        reads: mode.contains(FDPermissions::READ),
                        writes: mode.contains(FDPermissions::WRITE),
                    };
                    if let Some(channel) = channel.filter(|channel| wanted.contains(channel)) {
                        let known = ends.by_channel.entry(channel).or_default();
                        if !known.contains(&end) {
                            known.push(end);
                        }
                    }
                }),
                Err(_) => ends.blind_to += u32::from(process.is_alive()),
            }
        }
        ends
    }

    /// Adds what a further look found.
    pub(crate) fn extend(&mut self, more: Self) {
        self.by_channel.extend(more.by_channel);
        self.blind_to = self.blind_to.max(more.blind_to);
    }

    pub(crate) fn holders(&self, channel: &Channel) -> impl Iterator<Item = ChannelEnd> + '_ {
        self.by_channel.get(channel).into_iter().flatten().copied()
    }

    /// The processes that hold the end of a pipe from which it is read.
    pub(crate) fn readers(&self, channel: &Channel) -> Vec<i32> {
        self.holders(channel).filter(|end| end.reads).map(|end| end.pid).collect()
    }

    /// The processes that hold the end of a pipe into which it is written.
    pub(crate) fn writers(&self, channel: &Channel) -> Vec<i32> {
        self.holders(channel).filter(|end| end.writes).map(|end| end.pid).collect()
    }
}

/// What a descriptor of a process is, if it has two ends.
pub(crate) fn channel_of(pid: i32, fd: i32) -> Option<Channel> {
    Channel::of(&target_of(pid, fd)?)
}

/// What a descriptor of a process is.
pub(crate) fn target_of(pid: i32, fd: i32) -> Option<FDTarget> {
    Some(Process::new(pid).ok()?.fd_from_fd(fd).ok()?.target)
}

#[cfg(test)]
mod tests {
    use std::{
        io::pipe,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_process_that_holds_the_other_end_of_a_pipe_is_found() {
        let (reader, writer) = pipe().unwrap();
        let mut child = Command::new("sleep").arg("600").stdin(reader).stdout(Stdio::null()).spawn().unwrap();
        let me = std::process::id().cast_signed();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let channel = channel_of(me, fd).unwrap();
        let ends = Ends::of(&BTreeSet::from([channel.clone()]));
        assert_eq!(ends.readers(&channel), [child.id().cast_signed()]);
        assert_eq!(ends.writers(&channel), [me]);
        child.kill().unwrap();
        child.wait().unwrap();
        let ends = Ends::of(&BTreeSet::from([channel.clone()]));
        assert!(ends.readers(&channel).is_empty());
    }
}
