//! Which `Host` a request may name: without this check a web page could reach a loopback listener under a name of its
//! own (DNS rebinding).
//!
//! The header is read strictly, as a name or an address with an optional port, and nothing is built from it: it admits
//! or refuses, and never takes part in routing (the advisory of `Host: localhost:4000/#@x`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The hosts of one listener besides loopback.
pub(crate) struct AllowedHosts {
    hosts: Vec<Host>,
    /// It listens on every address of the machine: then each of them is a configured one. An address as `Host` is no
    /// way in for a page elsewhere, whose own name the header would carry.
    any_address: bool,
}

/// A host, without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl AllowedHosts {
    /// Takes names and addresses, with or without port. What cannot be read admits nothing.
    pub(crate) fn new(configured: &[String]) -> Self {
        let hosts: Vec<Host> = configured.iter().filter_map(|text| Host::parse_configured(text)).collect();
        let any_address =
            hosts.iter().any(|host| matches!(host, Host::Address(address) if address.is_unspecified()));
        Self { hosts, any_address }
    }

    /// Whether a request may name this host.
    pub(crate) fn admit(&self, host: &str) -> bool {
        match Host::parse(host) {
            None => false,
            Some(Host::Address(address)) if address.is_loopback() => true,
            Some(Host::Address(address)) if address.is_unspecified() => false,
            Some(Host::Address(_)) if self.any_address => true,
            Some(Host::Name(name)) if name == "localhost" => true,
            Some(host) => self.hosts.contains(&host),
        }
    }
}

impl Host {
    /// A configured one may be an IPv6 address without brackets.
    fn parse_configured(text: &str) -> Option<Self> {
        match text.trim().parse::<Ipv6Addr>() {
            Ok(address) => Some(Self::Address(address.into())),
            Err(_) => Self::parse(text.trim()),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']')?;
            (Self::Address(address.parse::<Ipv6Addr>().ok()?.into()), port)
        } else {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Self::parse_name(name)?, port)
        };
        is_port(port).then_some(host)
    }

    fn parse_name(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let is_name = !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_name.then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

/// Nothing, or a colon and a port.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        None => text.is_empty(),
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::AllowedHosts;

    fn hosts(configured: &[&str]) -> AllowedHosts {
        let configured: Vec<String> = configured.iter().map(|host| (*host).to_owned()).collect();
        AllowedHosts::new(&configured)
    }

    #[test]
    fn loopback_literals_are_admitted_with_any_port() {
        for host in [
            "localhost",
            "LocalHost:3001",
            "127.0.0.1",
            "127.0.0.1:3001",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:3001",
            "[0:0:0:0:0:0:0:1]:80",
        ] {
            assert!(hosts(&[]).admit(host), "{host:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for host in [
            "",
            ":3001",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "localhost:+80",
            "localhost:80:80",
            "localhost:4000/#@x",
            "localhost/",
            "localhost#",
            "localhost?",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost.",
            "localhost.evil.example",
            "evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "0.0.0.0",
            "10.0.0.1:3001",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::1%lo]",
            "[localhost]",
            " localhost",
            "local host",
            "localhost\t",
            "lоcalhost",
        ] {
            assert!(!hosts(&[]).admit(host), "{host:?}");
        }
    }

    #[test]
    fn configured_names_and_addresses_are_admitted() {
        let hosts = hosts(&["Admin.Example.com", "10.0.0.5:3001", "fd00::5", "[fd00::6]:3001", "bad host/"]);
        for host in [
            "admin.example.com:443",
            "ADMIN.example.com",
            "10.0.0.5",
            "10.0.0.5:9",
            "[fd00::5]:3001",
            "[fd00::6]",
        ] {
            assert!(hosts.admit(host), "{host:?}");
        }
        for host in ["example.com", "x.admin.example.com", "10.0.0.6", "[fd00::7]", "bad host/", "bad"] {
            assert!(!hosts.admit(host), "{host:?}");
        }
    }

    #[test]
    fn listening_everywhere_admits_addresses_but_no_names() {
        for everywhere in ["0.0.0.0:3001", "[::]:3001"] {
            let hosts = hosts(&[everywhere]);
            assert!(hosts.admit("10.0.0.5:3001") && hosts.admit("[fd00::5]"));
            assert!(!hosts.admit("evil.example") && !hosts.admit("0.0.0.0"));
        }
    }
}
