//! Which addresses the guard refuses.

use proptest::prelude::*;
use url::{Host, Url};

use super::*;

/// Spellings of addresses that are not public, as hosts of a URL.
const CLOSED: [&str; 88] = [
    // Loopback, in every spelling that a URL allows.
    "127.0.0.1",
    "127.0.0.1.",
    "127.0.0.2",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "017700000001",
    "127。0。0。1",
    "１２７.0.0.1",
    "①②⑦.0.0.1",
    "%31%32%37.0.0.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    // This network.
    "0",
    "0.0.0.0",
    "0.1.2.3",
    "0x0",
    "[::]",
    // Private, carrier-grade NAT, link-local with the metadata services.
    "10.0.0.1",
    "10.255.255.255",
    "012.0.0.1",
    "167772161",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    "3232235521",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "169.254.0.0",
    "168.63.129.16",
    // Assignments, documentation, benchmarks, relays.
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "198.51.100.7",
    "203.0.113.255",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    // Multicast, reserved, broadcast.
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    // IPv4 inside IPv6: mapped.
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[0:0:0:0:0:ffff:192.168.0.1]",
    // Compatible.
    "[::127.0.0.1]",
    "[::10.0.0.1]",
    "[::2]",
    // Translated (SIIT).
    "[::ffff:0:127.0.0.1]",
    // NAT64.
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::1]",
    "[64:ff9b:1::808:808]",
    // 6to4.
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2002:c0a8:101:1::1]",
    // Teredo: a private server, and private clients with inverted bits.
    "[2001:0:a00:1::f7f7:f7f7]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[2001::f5ff:fffe]",
    // IPv6's own.
    "[fc00::1]",
    "[fd12:3456:789a::1]",
    "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[fe00::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[100::1]",
    "[4000::1]",
    "[5f00::1]",
];

const OPEN: [&str; 21] = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.169.0.0",
    "198.17.255.255",
    "223.255.255.255",
    "[2606:4700:4700::1111]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::8.8.8.8]",
    "[2002:808:808::1]",
    "[2001:0:4136:e378:8000:63bf:f7f7:f7f7]",
];

fn parsed(host: &str) -> IpAddr {
    let url = Url::parse(&format!("http://{host}/feed")).unwrap();
    match url.host().unwrap() {
        Host::Ipv4(ip) => ip.into(),
        Host::Ipv6(ip) => ip.into(),
        Host::Domain(name) => panic!("{host} was parsed as the name {name}"),
    }
}

#[test]
fn every_spelling_of_an_address_that_is_not_public_is_refused() {
    for host in CLOSED {
        let verdict = check(&Policy::default(), parsed(host), 80);
        assert!(verdict.is_err_and(|why| why.contains("not public")), "{host} passed");
    }
}

#[test]
fn public_addresses_next_to_special_networks_are_allowed() {
    for host in OPEN {
        assert_eq!(check(&Policy::default(), parsed(host), 443), Ok(()), "{host}");
    }
}

#[test]
fn only_web_ports_are_allowed() {
    let public = parsed("8.8.8.8");
    for port in [80, 443] {
        assert_eq!(check(&Policy::default(), public, port), Ok(()), "{port}");
    }
    for port in [0, 8080, 8443, 22, 25, 53, 110, 143, 465, 587, 3306, 5432, 6379, 9200, 11211, 27017, 65535] {
        let verdict = check(&Policy::default(), public, port);
        assert!(verdict.is_err_and(|why| why.contains(&format!("port {port}"))), "{port} passed");
    }
}

#[test]
fn fetch_ports_permits_other_ports_of_public_addresses_and_of_no_others() {
    let policy = Policy { ports: vec![443, 8443], ..Policy::default() };
    for check in [check, check_named] {
        assert_eq!(check(&policy, parsed("8.8.8.8"), 8443), Ok(()));
        let why = check(&policy, parsed("8.8.8.8"), 80).unwrap_err();
        assert_eq!(why, "port 80 is not a web port (fetch.ports = [443, 8443]); add it there to permit it");
        assert!(check(&policy, parsed("10.0.0.1"), 8443).is_err_and(|why| why.contains("not public")));
    }
}

#[test]
fn fetch_allow_permits_an_address_at_any_port() {
    let policy = Policy { allow: vec!["127.0.0.1".parse().unwrap()], ..Policy::default() };
    assert_eq!(check(&policy, parsed("127.0.0.1"), 6379), Ok(()));
    assert_eq!(check(&policy, parsed("[::ffff:127.0.0.1]"), 80), Ok(()));
    for host in ["127.0.0.2", "[::1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]"] {
        assert!(check(&policy, parsed(host), 80).is_err(), "{host}");
    }
    let everything = Policy { allow_private: true, ..Policy::default() };
    for host in CLOSED {
        assert_eq!(check(&everything, parsed(host), 25), Ok(()), "{host}");
    }
}

#[test]
fn a_refusal_names_the_purpose_of_the_address_and_the_remedy() {
    let why = check(&Policy::default(), parsed("169.254.169.254"), 80).unwrap_err();
    assert_eq!(why, "169.254.169.254 is link-local, not public; add it to fetch.allow to permit it");
}

#[test]
fn a_network_is_read_and_written() {
    for (text, written) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.168.1.7", "192.168.1.7/32"),
        ("::1", "::1/128"),
        ("::/0", "::/0"),
        ("fd00::/8", "fd00::/8"),
        ("::1/128", "::1/128"),
    ] {
        assert_eq!(text.parse::<Cidr>().unwrap().to_string(), written);
    }
    for text in [
        "",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "::/129",
        "10.0.0.0/999",
        "10/8",
        "x/8",
    ] {
        let complaint = text.parse::<Cidr>().unwrap_err().to_string();
        assert!(complaint.contains(&format!("{text:?}")), "{complaint}");
    }
    let complaint = "10.1.0.0/8".parse::<Cidr>().unwrap_err().to_string();
    assert_eq!(
        complaint,
        "\"10.1.0.0/8\" has bits set beyond its prefix; write 10.0.0.0/8 for the network or leave out the /prefix"
    );
}

#[test]
fn a_network_contains_its_first_and_last_address_and_no_other() {
    let network: Cidr = "172.16.0.0/12".parse().unwrap();
    for (host, inside) in
        [("172.16.0.0", true), ("172.31.255.255", true), ("172.15.255.255", false), ("172.32.0.0", false)]
    {
        assert_eq!(network.contains(parsed(host)), inside, "{host}");
    }
    let all: Cidr = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains(parsed("8.8.8.8")) && all.contains(parsed("[::ffff:8.8.8.8]")));
    assert!(!all.contains(parsed("[2606:4700::1]")));
}

/// Every way to hide an IPv4 address in an IPv6 address.
fn embedded(v4: Ipv4Addr) -> [Ipv6Addr; 5] {
    let bits = u128::from(v4.to_bits());
    [
        Ipv6Addr::from_bits(0xffff << 32 | bits),
        Ipv6Addr::from_bits(bits),
        Ipv6Addr::from_bits(0x0064_ff9b << 96 | bits),
        Ipv6Addr::from_bits(0x2002 << 112 | bits << 80 | 1),
        Ipv6Addr::from_bits(0x2001_0000 << 96 | 0x0808_0808 << 64 | u128::from(!v4.to_bits())),
    ]
}

proptest! {
    #[test]
    fn a03_an_address_inside_another_is_refused_exactly_when_it_is_refused_itself(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let alone = check(&Policy::default(), v4.into(), 80).is_ok();
        for v6 in embedded(v4) {
            prop_assert_eq!(check(&Policy::default(), v6.into(), 80).is_ok(), alone, "{} in {}", v4, v6);
        }
    }

    #[test]
    fn special_addresses_are_refused_inside_others(n in 0..CLOSED.len()) {
        if let IpAddr::V4(v4) = parsed(CLOSED[n]) {
            for v6 in embedded(v4) {
                prop_assert!(check(&Policy::default(), v6.into(), 80).is_err(), "{} in {}", v4, v6);
            }
        }
    }

    #[test]
    fn nothing_outside_global_unicast_is_allowed_except_a_checked_embedded_address(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits);
        let global = bits >> 125 == 1;
        let translated = bits >> 32 == 0 || bits >> 32 == 0xffff || bits >> 32 == 0x0064_ff9b << 64;
        prop_assert!(global || translated || check(&Policy::default(), v6.into(), 80).is_err());
    }
}
