//! Which addresses are public, and which networks the operator allows.
//!
//! The resolved address is checked, never its spelling: `2130706433`, `0x7f.1`, `127。0。0。1` and `[::ffff:127.0.0.1]` are
//! all loopback here. An IPv4 address inside an IPv6 address (mapped, compatible, NAT64, 6to4, Teredo) is checked too,
//! since a gateway on the path may extract it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::Policy;

/// A network such as `10.0.0.0/8` or `::1/128`; a bare address is the network of that address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCidr {
    /// Not an address.
    #[error("{0:?} is not an IP address or network; write it like 10.0.0.0/8, fd00::/8 or 192.168.1.7")]
    Address(String),
    /// Not a prefix length for that family.
    #[error("{text:?} has no prefix length from 0 to {max}")]
    Prefix {
        /// As it was written.
        text: String,
        /// The longest prefix of its family.
        max: u8,
    },
    /// Bits beyond the prefix are set, so its meaning is unclear.
    #[error(
        "{text:?} has bits set beyond its prefix; write {network} for the network or leave out the /prefix"
    )]
    HostBits {
        /// As it was written.
        text: String,
        /// The network that contains it.
        network: Cidr,
    },
}

/// The bits of an address, on the left of 128, and how many there are.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl Cidr {
    /// Whether it has all addresses of its family.
    pub(crate) fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    /// Whether the address is in this network. An IPv4 address that is written as an IPv6 one (`::ffff:1.2.3.4`)
    /// is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((network, family), (address, other)) = (bits(self.network), bits(address.to_canonical()));
        family == other && (network ^ address) & mask(self.prefix) == 0
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadCidr::Address(text.to_owned()))?;
        let max = bits(address).1;
        let bad_prefix = || BadCidr::Prefix { text: text.to_owned(), max };
        let prefix = match prefix {
            None => max,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|n| *n <= max).ok_or_else(bad_prefix)?
            }
            Some(_) => return Err(bad_prefix()),
        };
        let network = match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(
                v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0),
            )),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask(prefix))),
        };
        if network == address {
            Ok(Self { network, prefix })
        } else {
            Err(BadCidr::HostBits { text: text.to_owned(), network: Self { network, prefix } })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// IPv4 networks that are not public (IANA special-purpose registry), and one public address with a private meaning.
const SPECIAL_V4: [(u32, u8, &str); 17] = [
    (0x0000_0000, 8, "this network"),
    (0x0a00_0000, 8, "private"),
    (0x6440_0000, 10, "carrier-grade NAT"),
    (0x7f00_0000, 8, "loopback"),
    (0xa8_3f_81_10, 32, "a cloud's metadata"), // 168.63.129.16, Azure
    (0xa9fe_0000, 16, "link-local"),
    (0xac10_0000, 12, "private"),
    (0xc000_0000, 24, "a protocol assignment"),
    (0xc000_0200, 24, "documentation"),
    (0xc058_6300, 24, "a 6to4 relay"),
    (0xc0a8_0000, 16, "private"),
    (0xc612_0000, 15, "benchmarking"),
    (0xc633_6400, 24, "documentation"),
    (0xcb00_7100, 24, "documentation"),
    (0xe000_0000, 4, "multicast"),
    (0xf000_0000, 4, "reserved"),
    (0xffff_ffff, 32, "broadcast"),
];

/// The purpose of an address that is not public.
fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let inside = |network: u32, prefix: u8| (bits ^ network) >> (32 - prefix) == 0;
    SPECIAL_V4.iter().find(|(network, prefix, _)| inside(*network, *prefix)).map(|(_, _, what)| *what)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let s = address.segments();
    let low = |n: usize| Ipv4Addr::from_bits(u32::from(s[n]) << 16 | u32::from(s[n + 1]));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // Mapped, compatible, NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => special_v4(low(6)),
        // 6to4.
        [0x2002, ..] => special_v4(low(1)),
        // Teredo: the server, and the client with all bits inverted.
        [0x2001, 0, ..] => special_v4(low(2)).or_else(|| special_v4(Ipv4Addr::from_bits(!low(6).to_bits()))),
        [0x2001, 0..0x200, ..] => Some("a protocol assignment"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => Some("documentation"),
        [0x2000..0x4000, ..] => None,
        [0x64, 0xff9b, 1, ..] => Some("local NAT64"),
        [0xfc00..0xfe00, ..] => Some("private"),
        [0xfe80..0xfec0, ..] => Some("link-local"),
        [0xfec0..0xff00, ..] => Some("site-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        _ => Some("reserved"),
    }
}

/// The purpose of an address that is not public; `None` if it is public.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

/// Whether an address belongs to the public internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    special(address).is_none()
}

/// Checks whether a connection to an address and port that the operator configured is allowed.
///
/// # Errors
/// Why it is not, such as `127.0.0.1 is loopback, not public; add it to fetch.allow to permit it`.
pub(crate) fn check(policy: &Policy, address: IpAddr, port: u16) -> Result<(), String> {
    if policy.allow.iter().any(|network| network.contains(address)) {
        return Ok(());
    }
    check_public(policy, address, port).map_err(|refusal| match refusal {
        Refusal::Special(..) => format!("{refusal}; add it to fetch.allow to permit it"),
        Refusal::Port(port) => port.to_string(),
    })
}

/// The same for an address that a feed, a page or a redirect names: of [`Policy::allow`] only a network of everything
/// counts.
///
/// # Errors
/// Why it is not allowed.
pub(crate) fn check_named(policy: &Policy, address: IpAddr, port: u16) -> Result<(), String> {
    if policy.allow.iter().any(|network| network.is_everything() && network.contains(address)) {
        return Ok(());
    }
    check_public(policy, address, port).map_err(|refusal| match refusal {
        Refusal::Special(..) => {
            format!("{refusal}; fetch.allow counts only for a source whose own address lies in it")
        }
        Refusal::Port(port) => port.to_string(),
    })
}

/// Checks the port of a public address.
///
/// # Errors
/// The port is not one of [`Policy::ports`].
pub(crate) fn check_port(policy: &Policy, port: u16) -> Result<(), RefusedPort> {
    if policy.ports.contains(&port) {
        return Ok(());
    }
    Err(RefusedPort { port, allowed: policy.ports.clone() })
}

/// A port that is not one of [`Policy::ports`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port} is not a web port (fetch.ports = {allowed:?}); add it there to permit it")]
pub(crate) struct RefusedPort {
    port: u16,
    allowed: Vec<u16>,
}

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("{0} is {1}, not public")]
    Special(IpAddr, &'static str),
    #[error(transparent)]
    Port(#[from] RefusedPort),
}

fn check_public(policy: &Policy, address: IpAddr, port: u16) -> Result<(), Refusal> {
    if policy.allow_private {
        return Ok(());
    }
    if let Some(what) = special(address) {
        return Err(Refusal::Special(address, what));
    }
    Ok(check_port(policy, port)?)
}

#[cfg(test)]
mod tests;
