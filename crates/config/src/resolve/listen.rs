//! Addresses: `HOST`, `PORT`, `ADMIN_LISTEN`, `server.listen`, `admin.listen`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::context::Context;
use crate::raw::OneOrMany;
use crate::types::{Listen, ListenSource};

const SERVER: &str = "server.listen";
const ADMIN: &str = "admin.listen";
const SERVER_PORT: u16 = 3000;
const ADMIN_PORT: u16 = 3001;

/// The data plane: `HOST` replaces the addresses and keeps the port, `PORT` replaces the port and keeps the addresses.
pub(super) fn server(cx: &mut Context<'_>, written: Option<OneOrMany>) -> Listen {
    if let Some(listen) = cx.flags.listen.clone() {
        cx.set_by_flag(SERVER);
        return listen;
    }
    let mut listen = file(cx, SERVER, written).unwrap_or_else(|| both_loopbacks(SERVER_PORT));
    if let Some(port) = port(cx) {
        listen.addresses.iter_mut().for_each(|address| address.set_port(port));
        listen.addresses.dedup();
    }
    if let Some(host) = cx.variable(SERVER, "HOST") {
        let port = listen.addresses.first().map_or(SERVER_PORT, SocketAddr::port);
        match hosts(host.trim()) {
            Some(found) => listen = with_port(found, port),
            None => cx.variable_problem("HOST", SERVER, host_problem(host)),
        }
    }
    listen
}

/// The admin plane.
pub(super) fn admin(cx: &mut Context<'_>, written: Option<OneOrMany>) -> Listen {
    if let Some(listen) = cx.flags.admin_listen.clone() {
        cx.set_by_flag(ADMIN);
        return listen;
    }
    let listen = file(cx, ADMIN, written);
    if let Some(text) = cx.variable(ADMIN, "ADMIN_LISTEN") {
        let parts = text.split(',').map(|part| (ADMIN.to_owned(), part.trim().to_owned())).collect();
        return addresses(cx, parts).unwrap_or_else(|| both_loopbacks(ADMIN_PORT));
    }
    listen.unwrap_or_else(|| both_loopbacks(ADMIN_PORT))
}

fn port(cx: &mut Context<'_>) -> Option<u16> {
    let text = cx.variable(SERVER, "PORT")?;
    let port = text.trim().parse().ok();
    if port.is_none() {
        let problem = format!("expected a port, a whole number from 0 to 65535, found `{text}`");
        cx.variable_problem("PORT", SERVER, problem);
    }
    port
}

fn file(cx: &mut Context<'_>, key: &str, written: Option<OneOrMany>) -> Option<Listen> {
    let parts: Vec<_> = match written? {
        OneOrMany::One(text) => vec![(key.to_owned(), text)],
        OneOrMany::Many(texts) => {
            texts.into_iter().enumerate().map(|(index, text)| (format!("{key}[{index}]"), text)).collect()
        }
    };
    if parts.is_empty() {
        cx.problem(key, "expected at least one address, found an empty list");
    }
    addresses(cx, parts)
}

/// Reads `host:port` texts, each with the key that it belongs to.
fn addresses(cx: &mut Context<'_>, parts: Vec<(String, String)>) -> Option<Listen> {
    let mut addresses = Vec::new();
    let mut source = ListenSource::Default;
    for (key, text) in parts {
        match address(&text) {
            Ok(found) => {
                if found.source == ListenSource::Named {
                    source = ListenSource::Named;
                }
                addresses.extend(found.addresses);
            }
            Err(problem) => cx.problem(&key, problem),
        }
    }
    (!addresses.is_empty()).then_some(Listen { addresses, source })
}

fn address(text: &str) -> Result<Listen, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen { addresses: vec![address], source: ListenSource::Named });
    }
    let expected =
        "expected an address with its port, such as `127.0.0.1:3000`, `[::1]:3000` or `localhost:3000`";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{expected}, found `{text}`"));
    };
    let Ok(port) = port.parse() else { return Err(format!("{expected}, found `{text}`")) };
    match hosts(host) {
        // Without brackets the port of an IPv6 address cannot be told from its last group.
        Some(Hosts::One(IpAddr::V6(_))) | None => {
            Err(format!("{expected}, found `{text}`; names other than `localhost` are not looked up"))
        }
        Some(found) => Ok(with_port(found, port)),
    }
}

#[derive(Clone, Copy)]
enum Hosts {
    Loopbacks,
    One(IpAddr),
}

fn hosts(text: &str) -> Option<Hosts> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Hosts::Loopbacks);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(Hosts::One)
}

fn with_port(hosts: Hosts, port: u16) -> Listen {
    match hosts {
        Hosts::Loopbacks => both_loopbacks(port),
        Hosts::One(ip) => Listen { addresses: vec![SocketAddr::new(ip, port)], source: ListenSource::Named },
    }
}

fn both_loopbacks(port: u16) -> Listen {
    let addresses =
        vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    Listen { addresses, source: ListenSource::Default }
}

fn host_problem(host: &str) -> String {
    format!(
        "expected an IP address such as `127.0.0.1`, `::1` or `0.0.0.0`, or `localhost`, found `{host}`; other names are not looked up"
    )
}
