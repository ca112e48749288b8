//! Which way leads to a target: directly, through a forward proxy (`http://` targets, absolute-form requests) or
//! through a tunnel (`https://` targets, CONNECT). Decided once per origin.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use magicapi_model::{Error, ErrorKind};

use crate::options::ProxySettings;

/// One proxy, ready to dial.
pub(crate) struct Proxy {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `host:port`, for messages; never the user-info.
    pub(crate) place: String,
    /// Whether the proxy itself is reached by TLS.
    pub(crate) tls: bool,
    pub(crate) authorization: Option<HeaderValue>,
}

impl Proxy {
    fn parse(uri: &Uri, key: &str) -> Result<Self, Error> {
        let bad = |what: &str| {
            let message = format!("the {key} proxy {what}; expected http://[user:password@]host:port");
            Error::gateway(ErrorKind::Internal, message)
        };
        let tls = match uri.scheme_str() {
            // `HTTP_PROXY=proxy:3128` is customary.
            None | Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(bad("has a scheme that is not supported")),
        };
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        let host = authority.host();
        if host.is_empty() {
            return Err(bad("has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authorization = basic(authority);
        Ok(Self {
            host: unbracketed(host).to_owned(),
            port,
            place: format!("{host}:{port}"),
            tls,
            authorization,
        })
    }
}

/// The way to one origin.
#[derive(Clone)]
pub(crate) enum Route {
    Direct,
    Forward(Arc<Proxy>),
    Tunnel(Arc<Proxy>),
}

/// The proxies and the targets that are spared them.
pub(crate) struct Proxies {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    spared: Vec<Rule>,
}

impl Proxies {
    pub(crate) fn new(settings: &ProxySettings) -> Result<Self, Error> {
        let parse =
            |uri: &Option<Uri>, key| uri.as_ref().map(|uri| Proxy::parse(uri, key).map(Arc::new)).transpose();
        Ok(Self {
            http: parse(&settings.http, "HTTP")?,
            https: parse(&settings.https, "HTTPS")?,
            spared: settings.no_proxy.iter().filter_map(|text| Rule::parse(text)).collect(),
        })
    }

    /// The way to a target; `host` without brackets.
    pub(crate) fn route(&self, tls: bool, host: &str, port: u16) -> Route {
        let proxy = if tls { &self.https } else { &self.http };
        let Some(proxy) = proxy else { return Route::Direct };
        if is_loopback(host) || self.spared.iter().any(|rule| rule.matches(host, port)) {
            return Route::Direct;
        }
        if tls { Route::Tunnel(proxy.clone()) } else { Route::Forward(proxy.clone()) }
    }
}

/// A proxy would reach its own loopback, never ours.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// One entry of `NO_PROXY`.
struct Rule {
    what: What,
    port: Option<u16>,
}

enum What {
    Any,
    /// The name itself and everything below it; without leading dot, lower case.
    Name(String),
    /// An address block; a single address has its full length.
    Block(IpAddr, u8),
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self { what: What::Any, port: None });
        }
        if let Some((ip, bits)) = text.split_once('/') {
            return match (unbracketed(ip).parse::<IpAddr>(), bits.parse::<u8>()) {
                (Ok(ip), Ok(bits)) if bits <= width(ip) => {
                    Some(Self { what: What::Block(ip, bits), port: None })
                }
                _ => {
                    tracing::warn!(
                        entry = text,
                        "an entry of NO_PROXY is not an address block; it is ignored"
                    );
                    None
                }
            };
        }
        let (host, port) = split_port(text);
        let host = unbracketed(host);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Self { what: What::Block(ip, width(ip)), port });
        }
        let name = host.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self { what: What::Name(name), port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match &self.what {
            What::Any => true,
            What::Name(name) => is_at_or_below(host.trim_end_matches('.'), name),
            What::Block(net, bits) => host.parse::<IpAddr>().is_ok_and(|ip| in_block(ip, *net, *bits)),
        }
    }
}

fn is_at_or_below(host: &str, name: &str) -> bool {
    let Some(start) = host.len().checked_sub(name.len()) else { return false };
    let (Some(above), Some(tail)) = (host.get(..start), host.get(start..)) else { return false };
    tail.eq_ignore_ascii_case(name) && (above.is_empty() || above.ends_with('.'))
}

fn in_block(ip: IpAddr, net: IpAddr, bits: u8) -> bool {
    match (ip.to_canonical(), net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => {
            let shift = 32 - u32::from(bits);
            ip.to_bits().checked_shr(shift).unwrap_or(0) == net.to_bits().checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(ip), IpAddr::V6(net)) => {
            let shift = 128 - u32::from(bits);
            ip.to_bits().checked_shr(shift).unwrap_or(0) == net.to_bits().checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

const fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// `host:port` in two; a bare IPv6 address has colons and no port.
fn split_port(text: &str) -> (&str, Option<u16>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    }
}

/// An IPv6 literal without its brackets; anything else as it is.
pub(crate) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The user-info of an address as a `Basic` credential.
pub(crate) fn basic(authority: &http::uri::Authority) -> Option<HeaderValue> {
    let (info, _) = authority.as_str().rsplit_once('@')?;
    let text = format!("Basic {}", STANDARD.encode(percent_decoded(info)));
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let Some((pair, after)) = tail.split_at_checked(2)
            && let Some(decoded) =
                std::str::from_utf8(pair).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            out.push(decoded);
            rest = after;
            continue;
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Proxies, Route};
    use crate::options::ProxySettings;

    fn is_direct(rules: &[&str], host: &str, port: u16) -> bool {
        let proxies = Proxies::new(&ProxySettings {
            http: None,
            https: Some("http://proxy:3128".parse().expect("uri")),
            no_proxy: rules.iter().map(|&rule| rule.to_owned()).collect(),
        });
        matches!(proxies.expect("proxies").route(true, host, port), Route::Direct)
    }

    #[test]
    fn no_proxy_table() {
        for (rule, host, port, direct) in [
            ("", "api.openai.com", 443, false),
            ("*", "api.openai.com", 443, true),
            ("openai.com", "api.openai.com", 443, true),
            ("openai.com", "openai.com", 443, true),
            ("openai.com", "OpenAI.com.", 443, true),
            ("openai.com", "notopenai.com", 443, false),
            (".openai.com", "api.openai.com", 443, true),
            ("*.openai.com", "api.openai.com", 443, true),
            ("api.openai.com", "openai.com", 443, false),
            ("openai.com:443", "openai.com", 443, true),
            ("openai.com:8443", "openai.com", 443, false),
            (" openai.com ", "openai.com", 443, true),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "11.1.2.3", 443, false),
            ("10.0.0.0/8", "ten.example", 443, false),
            ("0.0.0.0/0", "8.8.8.8", 443, true),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3:80", "10.1.2.3", 443, false),
            ("10.1.2.3", "10.1.2.4", 443, false),
            ("fd00::/8", "fd12::1", 443, true),
            ("[fd12::1]:443", "fd12::1", 443, true),
            ("fd12::1", "fd12::1", 443, true),
            ("::/0", "10.1.2.3", 443, false),
            ("10.0.0.0/33", "10.1.2.3", 443, false),
            // Loopback is always reached directly.
            ("", "localhost", 443, true),
            ("", "127.0.0.9", 443, true),
            ("", "::1", 443, true),
        ] {
            assert_eq!(is_direct(&[rule], host, port), direct, "{rule} {host}:{port}");
        }
        assert!(is_direct(&["a.example", "b.example"], "x.b.example", 443));
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let settings = ProxySettings {
            http: Some("http://us%40er:p%3Aw%@proxy.corp:3128".parse().expect("uri")),
            ..ProxySettings::default()
        };
        let Route::Forward(proxy) = Proxies::new(&settings).expect("proxies").route(false, "x.example", 80)
        else {
            panic!("a forward proxy");
        };
        assert_eq!(proxy.place, "proxy.corp:3128");
        // us@er:p:w%
        assert_eq!(proxy.authorization.as_ref().expect("basic"), "Basic dXNAZXI6cDp3JQ==");
        let shown = format!("{settings:?} {:?}", proxy.authorization);
        assert!(!shown.contains("p%3A") && !shown.contains("dXNA"), "{shown}");
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_named() {
        let settings = ProxySettings {
            https: Some("socks5://u:secret@p:1".parse().expect("uri")),
            ..Default::default()
        };
        let error = Proxies::new(&settings).err().expect("refused").to_string();
        assert!(
            error.contains("HTTPS") && error.contains("not supported") && !error.contains("secret"),
            "{error}"
        );
    }
}
