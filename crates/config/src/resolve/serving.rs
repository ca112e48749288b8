//! Server, admin plane, data directory, store, ledger, log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use magicapi_model::Secret;

use super::listen;
use crate::context::Context;
use crate::raw;
use crate::types::{
    Admin, AuthMode, Drain, Ledger, Limits, Log, LogFormat, OnFull, Retention, Server, Store, StoreUrl,
    TlsFiles,
};
use crate::units::{Size, Span};

const WEEK: Duration = Duration::from_hours(7 * 24);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DEFAULT_DATABASE: &str = "magicapi.db";

pub(super) fn server(cx: &mut Context<'_>, file: raw::Server) -> Server {
    let limits = &file.limits;
    Server {
        listen: listen::server(cx, file.listen),
        tls: file.tls.map(|tls| TlsFiles { cert: tls.cert, key: tls.key }),
        heartbeat: cx.positive("server.heartbeat", file.heartbeat, Duration::from_secs(15)),
        limits: Limits {
            header_bytes: held(cx.positive_size("server.limits.header_bytes", limits.header_bytes, 64 * KIB)),
            header_read: cx.positive(
                "server.limits.header_read",
                limits.header_read,
                Duration::from_secs(30),
            ),
            body_rate: limits.body_rate.map_or(KIB, |size| size.0),
            connections: limits.connections.unwrap_or(10_000),
            body: held(cx.positive_size("server.limits.body", limits.body, 64 * MIB)),
            upload: cx.positive_size("server.limits.upload", limits.upload, GIB),
        },
        drain: Drain {
            delay: duration(file.drain.delay, Duration::from_secs(5)),
            timeout: duration(file.drain.timeout, Duration::from_mins(10)),
        },
    }
}

pub(super) fn admin(cx: &mut Context<'_>, file: raw::Admin) -> Admin {
    let listen = listen::admin(cx, file.listen);
    let token = match cx.variable("admin.token", "ADMIN_TOKEN") {
        Some(token) => Some(Secret::new(token.trim())),
        None => file.token,
    };
    Admin { listen, token, metrics: file.metrics.unwrap_or_default(), hosts: file.hosts }
}

/// `--data-dir`, `DATA_DIR`, the file, systemd's `$STATE_DIRECTORY`, `./magicapi-data`.
pub(super) fn data_dir(cx: &mut Context<'_>, file: Option<PathBuf>) -> PathBuf {
    const KEY: &str = "data_dir";
    if let Some(path) = cx.flags.data_dir.clone() {
        cx.set_by_flag(KEY);
        return path;
    }
    if let Some(path) = cx.variable(KEY, "DATA_DIR") {
        return path.into();
    }
    if let Some(path) = file {
        return path;
    }
    // systemd separates several directories by colons; the first is ours.
    match cx.variable(KEY, "STATE_DIRECTORY").and_then(|list| list.split(':').next()) {
        Some(path) => path.into(),
        None => "./magicapi-data".into(),
    }
}

pub(super) fn store(cx: &mut Context<'_>, file: &raw::Store, data_dir: &Path) -> Store {
    let url = match file.url.as_deref() {
        None => StoreUrl::Sqlite(data_dir.join(DEFAULT_DATABASE)),
        Some(url) => store_url(cx, url, data_dir),
    };
    Store {
        url,
        retention: Retention {
            age: cx.positive("store.retention.age", file.retention.age, WEEK),
            size: cx.positive_size("store.retention.size", file.retention.size, 2 * GIB),
        },
    }
}

fn store_url(cx: &mut Context<'_>, url: &str, data_dir: &Path) -> StoreUrl {
    let expected = "`sqlite://FILE` or `none`";
    let problem = match url.split_once("://") {
        _ if url == "none" => return StoreUrl::None,
        Some(("sqlite", path)) if !path.is_empty() => return StoreUrl::Sqlite(data_dir.join(path)),
        Some(("sqlite", _)) => format!("expected {expected}; the file is missing"),
        Some(("postgres" | "postgresql", _)) => {
            format!("PostgreSQL is not supported yet in this version; use {expected}")
        }
        // A URL of another kind may hold a password: its scheme is all that is shown.
        Some((scheme, _)) => format!("expected {expected}, found the scheme `{scheme}`"),
        None => format!("expected {expected}; for a SQLite file write `sqlite://` in front of its path"),
    };
    cx.problem("store.url", problem);
    StoreUrl::None
}

pub(super) fn ledger(file: &raw::Ledger, mode: AuthMode) -> Ledger {
    let default = if mode == AuthMode::Keys { OnFull::Refuse } else { OnFull::Count };
    Ledger { on_full: file.on_full.unwrap_or(default), explicit: file.on_full.is_some() }
}

pub(super) fn log(cx: &mut Context<'_>) -> Log {
    let filter = cx.variable("RUST_LOG", "RUST_LOG").unwrap_or("info").into();
    let format = match cx.variable("LOG_FORMAT", "LOG_FORMAT") {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            let problem = cx.at("LOG_FORMAT", format!("expected `text` or `json`, found `{other}`"));
            cx.report(problem.nearest(other, ["text", "json"]));
            LogFormat::Text
        }
    };
    Log { filter, format }
}

/// A size that must be held in memory.
pub(super) fn bytes(written: Option<Size>, default: u64) -> usize {
    held(written.map_or(default, |size| size.0))
}

fn held(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn duration(written: Option<Span>, default: Duration) -> Duration {
    written.map_or(default, |span| span.0)
}
