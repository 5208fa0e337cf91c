//! Whether a request is for this gateway: the host that it names.

use actix_web::{
    HttpRequest,
    http::{Version, header::HOST},
};

use crate::settings::Settings;

/// Whether the host is a served one: a page in a browser can reach a loopback port under its own host name (DNS
/// rebinding), and must not read anything there. A request that names its host in the target (absolute form) means that
/// one, whatever its `Host` says (RFC 9112, section 3.2.2).
pub(super) fn is_served_host(request: &HttpRequest, settings: &Settings) -> bool {
    let mut hosts = request.headers().get_all(HOST);
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        // HTTP/1.0 needs no host, and a browser always names one.
        (None, None) if request.version() < Version::HTTP_11 => Some("localhost"),
        _ => return false,
    };
    let target = request.uri();
    let host = match (target.scheme_str(), target.authority()) {
        (None, None) => host,
        // Behind a proxy that ends TLS, clients see `https`.
        (Some("http" | "https"), Some(authority)) => Some(authority.as_str()),
        _ => None,
    };
    host.is_some_and(|host| is_served(host, settings))
}

fn is_served(host: &str, settings: &Settings) -> bool {
    if settings.any_host {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "localhost" | "127.0.0.1" | "[::1]")
        || settings.hosts.iter().any(|served| *served == name || *served == host.to_ascii_lowercase())
}
