//! Every effective value under its key, secrets masked, with its origin: what `config` prints, what the hash is made
//! of, and the defaults in the schema.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use magicapi_plugin::Sight;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::address::{self, MASK};
use crate::catalogue::Catalogue;
use crate::load::{Sources, load};
use crate::resolve;
use crate::types::{
    Admin, Auth, Config, ExporterEntry, Only, Pipeline, ProviderEntry, Reach, ReachAuth, ReachProxy,
    Redaction, Server, StoreUrl, Telemetry, Timeouts, Upstream,
};
use crate::units::{hex, show_duration, show_size};

/// One effective value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The key, as a dotted path; the variable's name where only a variable sets it (`RUST_LOG`).
    pub key: String,
    /// The value; secrets are `***`.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Env(String),
    /// The file; line and column count from 1.
    File {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File { line, column } => write!(f, "file {line}:{column}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The effective values with their origins.
pub(crate) fn with_origins(
    config: &Config,
    catalogue: &Catalogue,
    origin: impl Fn(&str) -> Origin,
) -> Vec<Effective> {
    let show = |(key, value): (String, Value)| {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Effective { origin: origin(&key), key, value }
    };
    values(config, catalogue).into_iter().map(show).collect()
}

/// See [`crate::Loaded::hash`].
pub(crate) fn hash(values: &[Effective]) -> String {
    let mut hasher = Sha256::new();
    for one in values {
        hasher.update(format!("{}={}\n", one.key, one.value));
    }
    hex(&hasher.finalize()[..8])
}

/// What holds with nothing configured.
pub(crate) fn defaults() -> Vec<(String, Value)> {
    let catalogue = Catalogue::default();
    load(&Sources::default(), &catalogue).map(|loaded| values(&loaded.config, &catalogue)).unwrap_or_default()
}

/// What holds in an exporter's entry that gives none of the pipeline's keys; its plug-in may say how long waiting makes
/// sense.
pub(crate) fn pipeline_defaults(max_age: Option<Duration>) -> Vec<(String, Value)> {
    let mut list = List(Vec::new());
    pipeline(&mut list, &str::to_owned, &resolve::default_pipeline(max_age));
    list.0
}

/// Every value under its key; a key without a value is left out.
pub(crate) fn values(config: &Config, catalogue: &Catalogue) -> Vec<(String, Value)> {
    let mut list = List(Vec::new());
    server(&mut list, &config.server);
    admin(&mut list, &config.admin);
    list.path("data_dir", Some(&config.data_dir));
    match &config.store.url {
        StoreUrl::Sqlite(path) => {
            // As the user writes it: relative to the data directory.
            let path = path.strip_prefix(&config.data_dir).unwrap_or(path);
            list.put("store.url", format!("sqlite://{}", path.display()));
        }
        StoreUrl::None => list.put("store.url", "none"),
    }
    list.duration("store.retention.age", config.store.retention.age);
    list.size("store.retention.size", config.store.retention.size);
    list.put("ledger.on_full", word(config.ledger.on_full));
    auth(&mut list, &config.auth);
    upstream(&mut list, &config.upstream);
    timeouts(&mut list, &config.timeouts);
    config.providers.iter().for_each(|entry| provider(&mut list, entry));
    list.path("prices.file", config.prices.file.as_deref());
    telemetry(&mut list, &config.telemetry);
    for (index, entry) in config.telemetry.exporters.iter().enumerate() {
        exporter(&mut list, index, entry, catalogue);
    }
    list.put("RUST_LOG", config.log.filter.as_str());
    list.put("LOG_FORMAT", word(config.log.format));
    list.0
}

struct List(Vec<(String, Value)>);

impl List {
    fn put(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.0.push((key.into(), value.into()));
    }

    fn duration(&mut self, key: impl Into<String>, duration: Duration) {
        self.put(key, show_duration(duration));
    }

    fn size(&mut self, key: impl Into<String>, bytes: u64) {
        self.put(key, show_size(bytes));
    }

    fn path(&mut self, key: impl Into<String>, path: Option<&Path>) {
        if let Some(path) = path {
            self.put(key, path.display().to_string());
        }
    }

    fn text(&mut self, key: impl Into<String>, text: Option<&str>) {
        if let Some(text) = text {
            self.put(key, address::masked(text));
        }
    }

    fn secret(&mut self, key: impl Into<String>, is_set: bool) {
        if is_set {
            self.put(key, MASK);
        }
    }
}

fn addresses(list: &[SocketAddr]) -> Value {
    list.iter().map(ToString::to_string).collect()
}

fn server(list: &mut List, server: &Server) {
    list.put("server.listen", addresses(&server.listen.addresses));
    list.path("server.tls.cert", server.tls.as_ref().map(|tls| tls.cert.as_path()));
    list.path("server.tls.key", server.tls.as_ref().map(|tls| tls.key.as_path()));
    list.duration("server.heartbeat", server.heartbeat);
    list.size("server.limits.header_bytes", server.limits.header_bytes as u64);
    list.duration("server.limits.header_read", server.limits.header_read);
    list.size("server.limits.body_rate", server.limits.body_rate);
    list.put("server.limits.connections", server.limits.connections);
    list.size("server.limits.body", server.limits.body as u64);
    list.size("server.limits.upload", server.limits.upload);
    list.duration("server.drain.delay", server.drain.delay);
    list.duration("server.drain.timeout", server.drain.timeout);
}

fn admin(list: &mut List, admin: &Admin) {
    list.put("admin.listen", addresses(&admin.listen.addresses));
    list.secret("admin.token", admin.token.is_some());
    list.put("admin.metrics", word(admin.metrics));
    list.put("admin.hosts", admin.hosts.clone());
}

fn auth(list: &mut List, auth: &Auth) {
    list.put("auth.mode", word(auth.mode));
    for (index, key) in auth.keys.iter().enumerate() {
        let at = format!("auth.keys[{index}]");
        list.put(format!("{at}.name"), key.name.as_str());
        // Enough to tell hashes apart; the whole would let anybody try out weak keys.
        list.put(
            format!("{at}.hash"),
            key.hash.get(..15).map(|start| format!("{start}…")).unwrap_or_default(),
        );
        list.text(format!("{at}.project"), key.project.as_deref());
        list.put(format!("{at}.models"), key.models.clone());
    }
    let rules = auth.passthrough.iter().map(|rule| format!("{} {}", rule.method, rule.path));
    list.put("auth.passthrough", rules.collect::<Value>());
}

fn upstream(list: &mut List, upstream: &Upstream) {
    list.text("upstream.proxy", upstream.proxy.as_deref());
    for (name, proxy) in [("HTTPS_PROXY", &upstream.https_proxy), ("HTTP_PROXY", &upstream.http_proxy)] {
        list.text(name, proxy.as_deref().filter(|_| *proxy != upstream.proxy));
    }
    if !upstream.no_proxy.is_empty() {
        list.put("NO_PROXY", upstream.no_proxy.clone());
    }
    list.path("upstream.tls.ca_file", upstream.ca_file.as_deref());
}

fn timeouts(list: &mut List, timeouts: &Timeouts) {
    let limit = |limit: Option<Duration>| limit.map_or_else(|| "none".into(), show_duration);
    list.duration("timeouts.connect", timeouts.connect);
    list.duration("timeouts.first_token", timeouts.first_token);
    list.duration("timeouts.idle", timeouts.idle);
    list.put("timeouts.attempt", limit(timeouts.attempt));
    list.put("timeouts.total", limit(timeouts.total));
}

fn provider(list: &mut List, entry: &ProviderEntry) {
    let at = format!("providers.{}", entry.name);
    list.put(format!("{at}.type"), entry.catalogue.as_str());
    list.secret(format!("{at}.api_key"), entry.api_key.is_some());
    list.text(format!("{at}.base_url"), entry.base_url.as_deref());
    list.put(format!("{at}.on_client_gone"), word(entry.on_client_gone));
    list.put(format!("{at}.trace"), entry.trace);
}

fn telemetry(list: &mut List, telemetry: &Telemetry) {
    list.put("telemetry.service_name", telemetry.config.service_name.as_str());
    list.text("DEPLOYMENT_ENVIRONMENT", telemetry.config.deployment_environment.as_deref());
    for (name, value) in &telemetry.config.resource_attributes {
        list.put(format!("OTEL_RESOURCE_ATTRIBUTES.{name}"), value.as_str());
    }
    list.put("telemetry.durable", telemetry.durable.is_some());
    if let Some(journal) = &telemetry.durable {
        list.put("telemetry.journal.fsync", word(journal.fsync));
        list.size("telemetry.journal.disk", journal.disk);
    }
    list.put("telemetry.threads", telemetry.threads);
    list.put("telemetry.metrics_on_data_plane", telemetry.metrics_on_data_plane);
    list.duration("telemetry.metrics.interval", telemetry.metrics_interval);
    let capture = &telemetry.capture;
    list.put("telemetry.capture.bodies", word(capture.bodies));
    list.size("telemetry.capture.max_request", capture.max_request as u64);
    list.size("telemetry.capture.max_response", capture.max_response as u64);
    list.size("telemetry.capture.max_chunks", capture.max_chunks as u64);
    list.size("telemetry.capture.memory", capture.memory as u64);
    redaction(list, &telemetry.redaction);
}

fn redaction(list: &mut List, redaction: &Redaction) {
    list.put("telemetry.redact.pii", redaction.pii.iter().map(word).collect::<Value>());
    for (index, pattern) in redaction.patterns.iter().enumerate() {
        list.put(format!("telemetry.redact.patterns[{index}].name"), pattern.name.as_str());
        list.put(format!("telemetry.redact.patterns[{index}].regex"), pattern.regex.as_str());
    }
    if redaction.paths.is_empty() {
        list.put("telemetry.redact.paths", Value::Array(Vec::new()));
    }
    for (index, path) in redaction.paths.iter().enumerate() {
        list.put(format!("telemetry.redact.paths[{index}]"), path.as_str());
    }
    list.put("telemetry.redact.replace", word(redaction.replace));
    list.secret("telemetry.redact.hash_key", redaction.hash_key.is_some());
}

fn exporter(list: &mut List, index: usize, entry: &ExporterEntry, catalogue: &Catalogue) {
    let at = |key: &str| format!("telemetry.exporters[{index}].{key}");
    list.put(at("type"), entry.kind.as_str());
    list.put(at("name"), entry.name.as_str());
    for (name, value) in entry.settings.values() {
        let value = entry.as_written.get(name).unwrap_or(value);
        list.put(at(name), catalogue.map_values(&entry.kind, (name, value), &mut masked));
    }
    pipeline(list, &at, &entry.pipeline);
    reach(list, &at, &entry.reach);
}

fn pipeline(list: &mut List, at: &impl Fn(&str) -> String, pipeline: &Pipeline) {
    list.put(at("content"), word(pipeline.content));
    only(list, at, &pipeline.only);
    let sample = &pipeline.sample;
    list.put(at("sample.rate"), sample.rate);
    if sample.rate < 1.0 {
        list.put(at("sample.keep.errors"), sample.keep_errors);
    }
    if let Some(bound) = sample.keep_slower_than {
        list.duration(at("sample.keep.slower_than"), bound);
    }
    if let Some(bound) = sample.keep_cost_over {
        list.put(at("sample.keep.cost_usd_over"), bound.usd());
    }
    list.put(at("require_healthy"), pipeline.require_healthy);
    list.duration(at("init_timeout"), pipeline.init_timeout);
    list.duration(at("timeout"), pipeline.timeout);
    list.put(at("concurrency"), pipeline.concurrency);
    if let Some(requests) = pipeline.rate_limit.requests {
        list.put(at("rate_limit.requests"), requests);
    }
    if let Some(bytes) = pipeline.rate_limit.bytes {
        list.size(at("rate_limit.bytes"), bytes);
    }
    list.put(at("batch.records"), pipeline.batch.records);
    list.size(at("batch.bytes"), pipeline.batch.bytes as u64);
    list.duration(at("batch.age"), pipeline.batch.age);
    list.size(at("buffer.memory"), pipeline.buffer.memory as u64);
    list.size(at("buffer.disk"), pipeline.buffer.disk);
    list.duration(at("buffer.max_age"), pipeline.buffer.max_age);
    list.put(at("buffer.when_full"), word(pipeline.buffer.when_full));
    list.duration(at("retry.first"), pipeline.retry.first);
    list.duration(at("retry.longest"), pipeline.retry.longest);
    list.duration(at("retry.max_age"), pipeline.retry.max_age);
    list.put(at("breaker.failures"), pipeline.breaker.failures);
    list.duration(at("breaker.refused"), pipeline.breaker.refused);
    list.size(at("dead_letters.disk"), pipeline.dead_letters.disk);
    list.duration(at("dead_letters.max_age"), pipeline.dead_letters.max_age);
}

fn reach(list: &mut List, at: &impl Fn(&str) -> String, reach: &Reach) {
    list.path(at("tls.ca_file"), reach.ca_file.as_deref());
    if let Some((cert, key)) = &reach.identity {
        list.path(at("tls.cert"), Some(cert));
        list.path(at("tls.key"), Some(key));
    }
    list.text(at("tls.server_name"), reach.server_name.as_deref());
    match &reach.proxy {
        ReachProxy::Inherited => {}
        ReachProxy::Direct => list.put(at("proxy"), "none"),
        ReachProxy::Url(url) => list.put(at("proxy"), address::masked(url.expose())),
    }
    match &reach.auth {
        None => {}
        Some(ReachAuth::Basic { username, .. }) => {
            list.put(at("auth.basic.username"), username.as_str());
            list.secret(at("auth.basic.password"), true);
        }
        Some(ReachAuth::Bearer(_)) => list.secret(at("auth.bearer"), true),
        Some(ReachAuth::Header { name, .. }) => {
            list.put(at("auth.header.name"), name.as_str());
            list.secret(at("auth.header.value"), true);
        }
    }
}

fn only(list: &mut List, at: &impl Fn(&str) -> String, only: &Only) {
    let outcomes: Vec<String> = only.outcome.iter().map(|outcome| outcome.as_str().to_owned()).collect();
    let lists = [
        ("status", &only.status),
        ("outcome", &outcomes),
        ("provider", &only.provider),
        ("model", &only.model),
        ("operation", &only.operation),
        ("key", &only.key),
    ];
    for (key, words) in lists.into_iter().filter(|(_, words)| !words.is_empty()) {
        list.put(at(&format!("only.{key}")), words.clone());
    }
    if let Some(cost) = only.min_cost {
        list.put(at("only.min_cost_usd"), cost.usd());
    }
    if let Some(latency) = only.min_latency {
        list.duration(at("only.min_latency"), latency);
    }
    if let Some(code) = only.min_status_code {
        list.put(at("only.min_status_code"), code);
    }
}

/// The file's word for a value of an enumeration.
pub(crate) fn word(value: impl Serialize) -> String {
    let word = serde_json::to_value(value).unwrap_or_default();
    word.as_str().unwrap_or_default().into()
}

/// A single value of a setting. One that is no secret itself may still hold one: URLs have passwords and queries.
fn masked(value: &Value, sight: Sight) -> Value {
    match value {
        _ if sight != Sight::Open => MASK.into(),
        Value::String(text) => address::masked(text).into(),
        other => other.clone(),
    }
}
