//! The address of a client, for the limits per address.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::settings::Settings;

/// The peer; behind a trusted proxy, the last address of `X-Forwarded-For` that is not a trusted proxy itself.
pub(crate) fn client_address(request: &HttpRequest, settings: &Settings) -> IpAddr {
    let is_trusted = |address: &IpAddr| settings.trusts(*address);
    let peer = request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical());
    if !is_trusted(&peer) {
        return peer;
    }
    let forwarded = request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
    let mut hops: Vec<_> = forwarded.flat_map(|value| value.split(',')).collect();
    let mut client = peer;
    while let Some(hop) = hops.pop().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) {
        client = hop.to_canonical();
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// What the limits per address count by: an IPv6 client usually has a whole /64, so that counts as one address.
pub(crate) fn rate_limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}
