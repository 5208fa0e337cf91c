//! The address of a client, for the limits per address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::HttpRequest;

use crate::settings::Settings;

/// What the limits per address count by: an IPv4 address, or an IPv6 /64, which is what one IPv6 client usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(IpAddr);

/// An IPv6 /48, which is what one customer of a provider usually has: 65,536 addresses as [`ClientAddress`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientNetwork(u64);

impl ClientAddress {
    /// The client of a request: the peer; behind a trusted proxy, the last address of `X-Forwarded-For` that is not a
    /// trusted proxy itself.
    pub(crate) fn of_request(request: &HttpRequest, settings: &Settings) -> Self {
        let peer = request.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
        let lines = request.headers().get_all("x-forwarded-for").map(|line| line.as_bytes());
        forwarded_client(peer, lines.collect(), settings).into()
    }

    /// The IPv6 /48 that it belongs to; `None` for IPv4.
    pub(crate) fn network(self) -> Option<ClientNetwork> {
        match self.0 {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Some(ClientNetwork(u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c)))
            }
        }
    }
}

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
            v4 => v4,
        })
    }
}

#[cfg(test)]
impl std::str::FromStr for ClientAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse::<IpAddr>()?.into())
    }
}

/// Walks `X-Forwarded-For` from its end, where the nearest proxy has written. What is no address ends the walk: what
/// stands before it was not written by a trusted proxy.
fn forwarded_client(peer: IpAddr, lines: Vec<&[u8]>, settings: &Settings) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = lines.into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for hop in hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        if !settings.trusts(client) {
            break;
        }
        let Some(address) = std::str::from_utf8(hop).ok().and_then(parse_hop) else { break };
        client = address;
    }
    client
}

/// One element of `X-Forwarded-For`: an address, with or without a port, brackets and quotes.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.strip_prefix('"').and_then(|hop| hop.strip_suffix('"')).unwrap_or(hop);
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok();
    let address = hop
        .parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| in_brackets().map(IpAddr::V6))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut settings = Settings::for_tests();
        settings.trusted_proxies =
            ["127.0.0.1/32", "::1/128", "10.0.0.0/8"].map(|net| net.parse().unwrap()).into();
        let lines = lines.iter().map(|line| line.as_bytes()).collect();
        forwarded_client(peer.parse().unwrap(), lines, &settings).to_string()
    }

    #[test]
    fn the_forwarded_address_is_read_in_every_form_that_proxies_write() {
        for (hop, address) in [
            ("9.9.9.9", "9.9.9.9"),
            ("9.9.9.9:51000", "9.9.9.9"),
            ("\"9.9.9.9:51000\"", "9.9.9.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("::ffff:9.9.9.9", "9.9.9.9"),
            ("[::ffff:9.9.9.9]:80", "9.9.9.9"),
            (" 9.9.9.9\t", "9.9.9.9"),
        ] {
            assert_eq!(client("127.0.0.1", &[hop]), address, "{hop}");
        }
    }

    #[test]
    fn the_walk_ends_at_the_first_address_that_is_not_trusted_or_at_the_last_good_one() {
        assert_eq!(client("::1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("::ffff:127.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("8.8.8.8", &["9.9.9.9"]), "8.8.8.8", "the peer is not trusted");
        assert_eq!(client("::1", &["1.1.1.1, 9.9.9.9, 10.0.0.7"]), "9.9.9.9");
        assert_eq!(client("::1", &["1.1.1.1", "9.9.9.9", "10.0.0.7:80, [::1]:9"]), "9.9.9.9");
        assert_eq!(
            client("::1", &["9.9.9.9, , "]),
            "9.9.9.9",
            "an empty element means nothing (RFC 9110, 5.6.1)"
        );
        for junk in
            ["unknown", "_hidden", "9.9.9.9.9", "[9.9.9.9]", "[2001:db8::1", "9.9.9.9:99999", "\"", "[]"]
        {
            assert_eq!(client("::1", &[&format!("9.9.9.9, {junk}, 10.0.0.7")]), "10.0.0.7", "{junk}");
        }
        let settings =
            Settings { trusted_proxies: vec!["::1/128".parse().unwrap()], ..Settings::for_tests() };
        let line: &[u8] = b"\xff\xfe, 9.9.9.9";
        let client = forwarded_client("::1".parse().unwrap(), vec![line], &settings);
        assert_eq!(client.to_string(), "9.9.9.9", "what a client sent does not hide what its proxy added");
    }

    #[test]
    fn an_address_is_a_whole_64_and_its_network_a_48() {
        let of = |address: &str| address.parse::<ClientAddress>().unwrap();
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("2001:db8:1:2::1").network(), of("2001:db8:1:3::1").network());
        assert_ne!(of("2001:db8:1:2::1").network(), of("2001:db8:2:2::1").network());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("192.0.2.1").network(), None);
    }
}
