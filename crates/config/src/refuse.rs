//! Closed by default: configurations that are valid and still do not start. Each refusal prints the lines that make it
//! legal, as variables and as YAML.

use std::net::SocketAddr;

use crate::context::Context;
use crate::diagnostics::{Diagnostic, Place};
use crate::types::{AuthMode, Config, Listen, ListenSource};

/// The reasons not to start, each where its key's value comes from.
pub(crate) fn refusals(cx: &Context<'_>, config: &Config) -> Vec<Diagnostic> {
    let placed = |refusal: Diagnostic| Diagnostic { place: cx.at(&refusal.key, "").place, ..refusal };
    refusals_of(config).into_iter().map(placed).collect()
}

/// The reasons not to run with `config`, wherever its values come from. A reload asks again: what [`crate::load`] judged
/// is not what runs once [`crate::Loaded::keep_restart_only`] has put the listeners back.
pub fn refusals_of(config: &Config) -> Vec<Diagnostic> {
    let checks = [keys_without_keys, provider_key_in_the_open, admin_without_token, planes_at_one_address];
    checks.into_iter().filter_map(|check| check(config)).collect()
}

fn refusal(key: &str, problem: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Place::Nowhere, key, problem)
}

fn keys_without_keys(config: &Config) -> Option<Diagnostic> {
    if config.auth.mode != AuthMode::Keys || !config.auth.keys.is_empty() {
        return None;
    }
    let problem = "`keys` demands a virtual key of every caller, but none is configured";
    let remedy = format!("Give each caller a key. As a variable:\n{ENV_KEYS}\nor in the file:\n{YAML_KEYS}");
    Some(refusal("auth.mode", problem).remedy(remedy))
}

fn provider_key_in_the_open(config: &Config) -> Option<Diagnostic> {
    if config.server.listen.is_loopback() || config.auth.mode == AuthMode::Keys {
        return None;
    }
    let held = config.providers.iter().filter(|entry| entry.api_key.is_some());
    let held: Vec<&str> = held.map(|entry| entry.name.as_str()).collect();
    if held.is_empty() {
        return None;
    }
    let problem = format!(
        "{} can be reached from other machines, and the gateway holds a provider key ({}) that it would lend to anybody who calls",
        beyond(&config.server.listen),
        held.join(", ")
    );
    // With a mode in the file, keys in the variable alone would change nothing.
    let also = if config.auth.explicit_mode { "\n(and take `auth.mode` out of the file)" } else { "" };
    let remedy = format!(
        "Demand a key of every caller. As a variable:\n{ENV_KEYS}{also}\nor in the file:\n{YAML_KEYS}\nOr listen on this machine only. As a variable:\n  HOST=127.0.0.1\nor in the file:\n  server:\n    listen: [ \"127.0.0.1:3000\", \"[::1]:3000\" ]\nOr configure no provider key, so that every caller brings its own."
    );
    Some(refusal("server.listen", problem).remedy(remedy))
}

fn admin_without_token(config: &Config) -> Option<Diagnostic> {
    if config.admin.listen.is_loopback() || config.admin.token.is_some() {
        return None;
    }
    let problem = format!(
        "{} can be reached from other machines, and no admin token is configured",
        beyond(&config.admin.listen)
    );
    let remedy = "Set a token. As a variable:\n  ADMIN_TOKEN=<a long random text>\nor in the file:\n  admin:\n    token: \"${ADMIN_TOKEN}\"\nOr listen on this machine only. As a variable:\n  ADMIN_LISTEN=127.0.0.1:3001\nor in the file:\n  admin:\n    listen: \"127.0.0.1:3001\"";
    Some(refusal("admin.listen", problem).remedy(remedy))
}

fn planes_at_one_address(config: &Config) -> Option<Diagnostic> {
    let (data, admin) = (&config.server.listen, &config.admin.listen);
    let pairs = data.addresses.iter().flat_map(|one| admin.addresses.iter().map(move |other| (one, other)));
    let (one, other) = pairs.into_iter().find(|(one, other)| collide(**one, **other))?;
    // The plane that somebody has moved is the one to move again.
    let (key, at, also) = match admin.source {
        ListenSource::Named => ("admin.listen", other, "requests are taken there too (`server.listen`)"),
        ListenSource::Default => ("server.listen", one, "the admin plane is there too (`admin.listen`)"),
    };
    let remedy = "Give each plane a port of its own. As variables:\n  PORT=3000\n  ADMIN_LISTEN=127.0.0.1:3001\nor in the file:\n  server:\n    listen: \"127.0.0.1:3000\"\n  admin:\n    listen: \"127.0.0.1:3001\"";
    Some(refusal(key, format!("{at} cannot be listened on twice: {also}")).remedy(remedy))
}

/// Whether one of two listeners takes the other's address. Port 0 is a free one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_ip = one.ip() == other.ip() || (everywhere && one.is_ipv4() == other.is_ipv4());
    one.port() == other.port() && one.port() != 0 && same_ip
}

const ENV_KEYS: &str = "  GATEWAY_API_KEYS=app-1:<a long random text>";
const YAML_KEYS: &str = "  auth:
    mode: keys
    keys:
      # `magicapi-ai-gateway keys create` makes a key and its hash
      - { name: app-1, hash: \"sha256:<64 hexadecimal digits>\" }";

/// The addresses that are not loopbacks.
fn beyond(listen: &Listen) -> String {
    let outside = listen.addresses.iter().filter(|address| !address.ip().to_canonical().is_loopback());
    outside.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
