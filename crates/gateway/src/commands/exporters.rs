//! `exporters list | test`: how exporters are doing, and whether one works.
//!
//! Exit status of `test`: 0 the record arrived, 1 it did not, 2 it could not be tried.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use magicapi_admin::{TrialStepView, TrialView};
use magicapi_config::{Catalogue, Loaded, Sources, StoreUrl};
use magicapi_plugin::MetricRegistry;
use magicapi_store::{REQUEST_LOG, Store, StoreOptions};
use magicapi_telemetry::{ExporterSetup, Telemetry};
use serde::Deserialize;
use serde_json::{Value, json};

use super::way::{Way, gateway, read};
use super::{answer, block_on, fail};
use crate::exporters::Workshop;
use crate::logs::{escaped, printable};
use crate::redaction;

/// The record did not arrive.
const NOT_ARRIVED: u8 = 1;
/// `init`, an export, metrics and health with their own timeouts, the longest of which an operator may raise.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long the store may take to write the record.
const CLOSE: Duration = Duration::from_secs(10);

/// `exporters test`.
pub(super) fn test(name: &str, json: bool, sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    let loaded = match magicapi_config::load(sources, catalogue) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems.to_string()),
    };
    let tried = block_on(try_out(name, &loaded)).unwrap_or_else(|error| Err(error.to_string()));
    match tried {
        Ok((trial, place)) => {
            let text = if json {
                format!("{}\n", serde_json::to_string(&trial).unwrap_or_default())
            } else {
                describe(&trial, &place)
            };
            let printed = answer(&text);
            if trial.passed { printed } else { ExitCode::from(NOT_ARRIVED) }
        }
        Err(problem) => fail(&format!("exporters test: {problem}")),
    }
}

/// Where an exporter was tried.
struct TestPlace {
    how: String,
    /// Where a page is served.
    page: String,
}

async fn try_out(name: &str, loaded: &Loaded) -> Result<(TrialView, TestPlace), String> {
    match Way::find(&loaded.config.data_dir).await? {
        Way::Gateway(client) => {
            let path = format!("/api/v1/exporters/{}/test", escaped(name));
            let body = client.post(&path, PATIENCE).await.map_err(|error| error.to_string())?;
            let page = format!("http://{}/metrics", client.address());
            let how = format!("through the gateway that runs at {}", client.address());
            Ok((read(&body)?, TestPlace { how, page }))
        }
        Way::Alone(lock) => {
            let trial = alone(name, loaded, lock.is_some())?;
            let file = loaded.file.as_ref();
            let from = file.map_or("the environment".to_owned(), |file| file.display().to_string());
            let listen = loaded.config.admin.listen.addresses.first();
            let page = listen.map_or("the admin plane's /metrics".to_owned(), |address| {
                format!("http://{address}/metrics, once the gateway runs")
            });
            Ok((trial, TestPlace { how: format!("no gateway runs; made from {from}"), page }))
        }
    }
}

/// Tries an exporter that this process makes. `has_dir`: the data directory is this process's.
fn alone(name: &str, loaded: &Loaded, has_dir: bool) -> Result<TrialView, String> {
    let workshop = Workshop {
        registry: Arc::new(MetricRegistry::default()),
        data_dir: has_dir.then(|| loaded.config.data_dir.clone()),
    };
    let store = match &loaded.config.store.url {
        StoreUrl::Sqlite(path) if name == REQUEST_LOG => {
            let retention = &loaded.config.store.retention;
            let (retention_age, retention_size) = (retention.age, retention.size);
            let options = StoreOptions { path: path.clone(), retention_age, retention_size, journal: None };
            if !has_dir {
                return Err("there is no data directory yet: start the gateway once".to_owned());
            }
            Some(Store::open(options).map_err(|error| error.to_string())?)
        }
        _ => None,
    };
    let made = workshop.make(loaded, store.as_ref()).map_err(|problems| problems.join("\n"))?;
    let mut known: Vec<String> = made.iter().map(|setup| setup.name.clone()).collect();
    let Some(setup) = made.into_iter().find(|setup: &ExporterSetup| setup.name == name) else {
        if !matches!(loaded.config.store.url, StoreUrl::None) && name != REQUEST_LOG {
            known.push(REQUEST_LOG.to_owned());
        }
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(format!("no exporter is named `{name}`; there are: {known}"));
    };
    let names = loaded.config.telemetry.config.clone();
    // Nothing has been counted, but gauges have values: enough for a back end to take.
    let catalogue = crate::catalogue::catalogue().map_err(|error| error.to_string())?;
    let redactor = redaction::redactor(loaded, &catalogue, None)?;
    let mut trial = magicapi_telemetry::try_alone(setup, names, Telemetry::disabled().snapshot());
    for says in trial.steps.iter_mut().filter_map(|step| step.says.as_mut()) {
        // A back end may repeat what it was sent.
        *says = redactor.text(says).into_owned();
    }
    if let Some(store) = store {
        store.close(CLOSE).map_err(|error| error.to_string())?;
    }
    Ok(trial.into())
}

fn describe(trial: &TrialView, place: &TestPlace) -> String {
    let mut text = format!("exporter {} ({}): {}\n", trial.exporter, trial.kind, place.how);
    for step in &trial.steps {
        let _ = writeln!(text, "  {}", step_line(step, trial.record.as_deref(), &place.page));
        if let Some(remedy) = &step.remedy {
            let _ = writeln!(text, "           remedy: {remedy}");
        }
    }
    let page = trial.steps.iter().any(|step| step.stage == "page");
    let verdict = match (trial.passed, page) {
        (true, false) => "arrived: it works",
        (true, true) => "it sends nothing by itself: its page is made, and served to whoever fetches it",
        (false, true) => "its page cannot be made",
        (false, false) => "did not arrive",
    };
    let _ = writeln!(text, "{verdict}");
    text
}

fn step_line(step: &TrialStepView, record: Option<&str>, page: &str) -> String {
    let mut line = format!("{:<8} {:<9}", step.stage, step.end);
    if step.stage == "record"
        && let Some(id) = record
    {
        let _ = write!(line, " {id} in {} ms", step.ms);
    }
    if let Some(says) = &step.says {
        let _ = write!(line, " {}", printable(says));
    }
    if step.stage == "page" {
        let _ = write!(line, ", served at {page}");
    }
    line.trim_end().to_owned()
}

/// What is shown of one exporter. Unknown fields are left alone: the gateway may be newer.
#[derive(Deserialize)]
struct Row {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    breaker: String,
    health: String,
    health_reason: Option<String>,
    queue_records: u64,
    queue_bytes: u64,
    spool_records: u64,
    spool_bytes: u64,
    dead_letters: u64,
    oldest_age_ms: Option<u64>,
    sent: u64,
    retried: u64,
    rejected: u64,
    ambiguous: u64,
    dropped_by_reason: std::collections::BTreeMap<String, u64>,
    #[serde(default)]
    refusing: bool,
    spool_error: Option<String>,
    last_error: Option<String>,
    last_error_at: Option<String>,
}

/// `exporters list`.
pub(super) fn list(json: bool, sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    let running = block_on(running(sources, catalogue)).unwrap_or_else(|error| Err(error.to_string()));
    let running = running.unwrap_or_else(|problem| {
        // What is compiled in is worth knowing above all when the configuration names something else.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr().lock(),
            format_args!("note: it is not looked whether a gateway runs: {problem}\n"),
        );
        None
    });
    if json {
        let document = json!({ "running": running, "compiled_in": compiled_in_json(catalogue) });
        return answer(&format!("{document}\n"));
    }
    let mut text = String::new();
    if let Some(rows) = running {
        match serde_json::from_value::<Vec<Row>>(rows) {
            Ok(rows) => show(&rows, &mut text),
            Err(error) => {
                return fail(&format!("exporters list: the gateway's answer cannot be read ({error})"));
            }
        }
    }
    compiled_in(catalogue, &mut text);
    answer(&text)
}

/// The exporters of the gateway that runs; `None` when none does.
async fn running(sources: &Sources, catalogue: &Catalogue) -> Result<Option<Value>, String> {
    let loaded = magicapi_config::load(sources, catalogue).map_err(|problems| problems.to_string())?;
    let Ok(client) = gateway(&loaded.config.data_dir).await? else { return Ok(None) };
    let body = client.get("/api/v1/exporters").await.map_err(|error| error.to_string())?;
    let mut document: Value = read(&body)?;
    Ok(document.get_mut("data").map(Value::take))
}

fn show(rows: &[Row], text: &mut String) {
    let _ = writeln!(
        text,
        "{:<16} {:<14} {:<9} {:<9} {:<8} {:>16} {:>16} {:>8} {:>9} {:>8} {:>8} {:>9} {:>7}",
        "RUNNING",
        "TYPE",
        "STATE",
        "BREAKER",
        "HEALTH",
        "QUEUE",
        "SPOOL",
        "OLDEST",
        "SENT",
        "RETRIED",
        "REJECTED",
        "AMBIGUOUS",
        "DEAD"
    );
    for row in rows {
        let depth = |records: u64, bytes: u64| format!("{records} ({})", size(bytes));
        let oldest = row.oldest_age_ms.map_or("-".to_owned(), |ms| format!("{}s", ms / 1000));
        let _ = writeln!(
            text,
            "{:<16} {:<14} {:<9} {:<9} {:<8} {:>16} {:>16} {:>8} {:>9} {:>8} {:>8} {:>9} {:>7}",
            row.name,
            row.kind,
            row.state,
            row.breaker,
            row.health,
            depth(row.queue_records, row.queue_bytes),
            depth(row.spool_records, row.spool_bytes),
            oldest,
            row.sent,
            row.retried,
            row.rejected,
            row.ambiguous,
            row.dead_letters
        );
        if !row.dropped_by_reason.is_empty() {
            let reasons = row.dropped_by_reason.iter().map(|(reason, count)| format!("{reason} {count}"));
            let _ = writeln!(text, "  dropped: {}", reasons.collect::<Vec<_>>().join(", "));
        }
        if row.refusing {
            let _ = writeln!(text, "  full: new requests are refused (`when_full: refuse`)");
        }
        if let Some(error) = &row.spool_error {
            let _ = writeln!(text, "  spool: {}", printable(error));
        }
        if let Some(reason) = &row.health_reason {
            let _ = writeln!(text, "  health: {}", printable(reason));
        }
        if let Some(error) = &row.last_error {
            let at = row.last_error_at.as_deref().map_or(String::new(), |at| format!(" ({at})"));
            let _ = writeln!(text, "  last error{at}: {}", printable(error));
        }
    }
    let _ = writeln!(text, "\nCompiled in, with their settings:\n");
}

/// `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        },
    )
}

fn compiled_in(catalogue: &Catalogue, text: &mut String) {
    for plugin in &catalogue.plugins {
        let _ = writeln!(text, "{}", plugin.name);
        for key in plugin.settings.keys() {
            let default = key.default.as_ref().map_or(String::new(), |value| format!(" (default {value})"));
            let env = key.env.as_ref().map_or(String::new(), |name| format!(" [{name}]"));
            let _ = writeln!(text, "  {}{env}{default}: {}", key.name, key.doc);
        }
    }
}

fn compiled_in_json(catalogue: &Catalogue) -> Vec<Value> {
    let settings = |plugin: &magicapi_config::PluginSpec| -> Vec<Value> {
        let keys = plugin.settings.keys().iter();
        keys.map(
            |key| json!({ "name": key.name, "variable": key.env, "default": key.default, "doc": key.doc }),
        )
        .collect()
    };
    catalogue
        .plugins
        .iter()
        .map(|plugin| json!({ "name": plugin.name, "settings": settings(plugin) }))
        .collect()
}
