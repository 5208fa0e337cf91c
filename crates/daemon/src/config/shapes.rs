//! The shapes of strings: path, address, network, origin …, and the message for anything else.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::Uri;
use actix_web::http::uri::Authority;
use notation::{shortened, suggestion};

/// Longest `daemon.run_dir`, in bytes: the path of a socket has at most 107, and `/gateway-admin.sock` takes 19.
const RUN_DIR_BYTES_MAX: usize = 107 - "/gateway-admin.sock".len();

pub(super) fn path(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("a path must not be empty".to_owned())
    } else if text.contains('\0') {
        Err("a path must not contain a zero byte".to_owned())
    } else if text.starts_with("~/") {
        Err(format!("`{}`: `~` is not expanded; write the whole path", shortened(text)))
    } else {
        Ok(())
    }
}

pub(super) fn run_dir(text: &str) -> Result<(), String> {
    path(text)?;
    if text.len() > RUN_DIR_BYTES_MAX {
        let length = text.len();
        return Err(format!(
            "a path of {length} bytes is too long for sockets; use at most {RUN_DIR_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}

pub(super) fn address(text: &str) -> Result<(), String> {
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "`{}` is not an address with a port; write it like `127.0.0.1:8700` or `[::]:8700`",
            shortened(text)
        )),
    }
}

pub(super) fn user_agent(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(concat!("newswire/", env!("CARGO_PKG_VERSION")).to_owned());
    }
    if text.len() > 256 || !text.chars().all(|c| matches!(c, ' '..='~')) || text.trim() != text {
        return Err(format!(
            "`{}` is not a User-Agent; write at most 256 printable ASCII characters, without spaces around them",
            shortened(text)
        ));
    }
    Ok(text.to_owned())
}

/// A text that is compared as it is, hence without invisible characters.
pub(super) fn text(text: &str) -> Result<(), String> {
    if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
        return Err("expected a text without spaces around it and without control characters".to_owned());
    }
    Ok(())
}

/// A category, as in the list of sources.
pub(super) fn category(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 64;
    let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if text.is_empty() || text.len() > BYTES_MAX || !plain {
        return Err(format!(
            "`{}` is not a category; write one word of letters, digits, `-`, `_` and `.` of at most {BYTES_MAX} bytes",
            shortened(text)
        ));
    }
    Ok(text.to_owned())
}

/// What names in NATS may begin with: it is part of the name of a stream, of a bucket and of subjects.
pub(super) fn nats_name(text: &str) -> Result<(), String> {
    const BYTES_MAX: usize = 32;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if text.is_empty() || text.len() > BYTES_MAX || !plain {
        return Err(format!(
            "`{}` is not a name for NATS; write at most {BYTES_MAX} letters, digits, `-` and `_`",
            shortened(text)
        ));
    }
    Ok(())
}

pub(super) fn one_of(text: &str, words: &[&'static str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let hint = suggestion(text, words.iter().copied());
    Err(format!("`{}` is not one of {}{hint}", shortened(text), words.join(", ")))
}

/// `ADDRESS/PREFIX`; an address alone becomes the network of that one address.
pub(super) fn network(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "`{}` is not a network; write it like `10.1.0.0/16`, `fd00::/8` or `192.0.2.7`",
            shortened(text)
        )
    };
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    let address = address.parse::<IpAddr>().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) if is_digits(digits) => digits.parse::<u8>().map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    if prefix > longest {
        return Err(format!("`{}`: a prefix has at most {longest} bits here", shortened(text)));
    }
    Ok(format!("{address}/{prefix}"))
}

pub(super) fn host(text: &str) -> Result<String, String> {
    let shaped = text.parse::<Authority>().ok().filter(|a| !a.as_str().contains('@'));
    match shaped {
        Some(authority) if !authority.host().is_empty() && !text.contains('*') => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(format!(
            "`{}` is not a host; write it like `news.example.org` or `news.example.org:8443`",
            shortened(text)
        )),
    }
}

pub(super) fn origin(text: &str) -> Result<String, String> {
    if text.contains('*') {
        let text = shortened(text);
        return Err(format!("`{text}` is not an origin; list each origin, such as `https://example.org`"));
    }
    let wrong = || {
        let text = shortened(text);
        format!(
            "`{text}` is not an origin; write it like `https://example.org`, without a path or a final slash"
        )
    };
    let uri = web_uri(text).ok_or_else(wrong)?;
    if uri.path() != "/" || text.ends_with('/') || uri.query().is_some() {
        return Err(wrong());
    }
    // A browser never sends the usual port.
    let usual = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    Ok(text.strip_suffix(usual).unwrap_or(text).to_ascii_lowercase())
}

pub(super) fn public_url(text: &str) -> Result<String, String> {
    let uri = web_uri(text).filter(|uri| uri.query().is_none() && !text.contains('#'));
    match uri {
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
        None => Err(format!(
            "`{}` is not a web address; write it like `https://news.example.org`",
            shortened(text)
        )),
    }
}

/// An `http` or `https` address with a host and without user and password.
fn web_uri(text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
    (web && host).then_some(uri)
}

pub(super) fn nats_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<Uri>().ok();
    let shaped = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("nats" | "tls")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if shaped {
        Ok(text.to_owned())
    } else {
        let text = without_password(text);
        Err(format!("`{}` is not a NATS address; write it like `nats://10.0.0.5:4222`", shortened(&text)))
    }
}

/// An address of a page without a query.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<Uri>().ok();
    let shaped = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    if shaped && !text.contains('#') {
        return Ok(text.to_owned());
    }
    let text = without_password(text);
    Err(format!("`{}` is not an address; write it like `http://10.0.0.5:8222`", shortened(&text)))
}

/// The address of a proxy. What connects reads it once more, and is stricter about hosts.
pub(super) fn proxy(text: &str) -> Result<(), String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let is_known = matches!(uri.scheme_str(), Some("http" | "https" | "socks5" | "socks5h"));
        let is_reachable = uri.authority().is_some_and(|authority| {
            let port = authority.as_str().rsplit('@').next().and_then(|at| at.strip_prefix(authority.host()));
            let port = port.is_some_and(|port| {
                port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
            });
            !authority.host().is_empty() && port
        });
        is_known && is_reachable && matches!(uri.path(), "" | "/") && uri.query().is_none()
    });
    match uri {
        Some(_) if !text.contains('#') => Ok(()),
        _ if text.trim().eq_ignore_ascii_case("direct") => Err(format!(
            "`{text}` is a word for `proxy` of one source; without a proxy for all, write `\"\"` or leave the key out"
        )),
        _ => Err(format!(
            "`{}` is not a proxy; write it like `http://proxy.example:3128` or `socks5://proxy.example:1080`",
            shortened(&without_password(text))
        )),
    }
}

/// An address with the text before its `@` hidden.
pub(super) fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://***@{host}"),
            None => format!("***@{host}"),
        },
        None => text.to_owned(),
    }
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
