//! A network of its own for a nats-server: a namespace with links to ours, each of which can lose all packets. Needs root.
//!
//! What must never happen here: a namespace that outlives its test.

use std::{net::Ipv4Addr, process::Command};

use anyhow::Context as _;

use crate::{log_line, on_path};

/// A namespace; removed when dropped, after what runs in it has ended.
pub struct NatsNetwork {
    name: String,
    /// The second and the third number of the first link's addresses.
    prefix: (u8, u8),
}

impl NatsNetwork {
    /// Makes a namespace with two links. Reports a skipped test and returns `None` where that is not possible.
    ///
    /// # Errors
    /// If it can be made, but not the links.
    pub fn create() -> anyhow::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() || on_path("ip").is_none() {
            log_line("SKIPPED: a network of its own needs root and ip");
            return Ok(None);
        }
        let name = format!("nw{:x}", fastrand::u32(..));
        if let Err(error) = ip(&["netns", "add", &name]) {
            log_line(&format!("SKIPPED: {error:#}"));
            return Ok(None);
        }
        let network = Self { name, prefix: (fastrand::u8(64..240), fastrand::u8(0..250)) };
        network.inside(&["link", "set", "lo", "up"])?;
        for link in 0..2 {
            let [outer, inner] = [format!("{}o{link}", network.name), format!("{}i{link}", network.name)];
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &network.name])?;
            ip(&["address", "add", &format!("{}/30", network.host(link, 1)), "dev", &outer])?;
            ip(&["link", "set", &outer, "up"])?;
            network.inside(&["address", "add", &format!("{}/30", network.address(link)), "dev", &inner])?;
            network.inside(&["link", "set", &inner, "up"])?;
        }
        Ok(Some(network))
    }

    /// The address of the server through a link, 0 or 1.
    #[must_use]
    pub fn address(&self, link: u8) -> Ipv4Addr {
        self.host(link, 2)
    }

    fn host(&self, link: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.prefix.0, self.prefix.1 + link, host)
    }

    /// From now on all packets of a link are lost, as with a cable that was pulled out.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(&self, link: u8) -> anyhow::Result<()> {
        self.inside(&["link", "set", &format!("{}i{link}", self.name), "down"])
    }

    /// Packets of a link pass again.
    ///
    /// # Errors
    /// As [`NatsNetwork::cut`].
    pub fn mend(&self, link: u8) -> anyhow::Result<()> {
        self.inside(&["link", "set", &format!("{}i{link}", self.name), "up"])
    }

    /// What comes before the command line of a program that runs inside.
    #[must_use]
    pub fn through(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    fn inside(&self, arguments: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", self.name.as_str()], arguments].concat())
    }
}

impl Drop for NatsNetwork {
    fn drop(&mut self) {
        // The links go with the namespace.
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            log_line(&format!("{error:#}"));
        }
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    anyhow::ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
