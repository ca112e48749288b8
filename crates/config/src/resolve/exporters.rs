//! Which exporters run: `ENABLED_EXPORTERS` or `telemetry.exporters`, never both; neither = `prometheus`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use magicapi_plugin::{ContentLevel, SettingsSpec, TlsVariables};
use serde_json::{Map, Value};

use super::meaningless;
use super::pipeline::pipeline;
use super::reach::reach;
use super::settings;
use crate::catalogue::{PluginSpec, REQUEST_LOG};
use crate::context::Context;
use crate::diagnostics::{Diagnostic, Place};
use crate::raw;
use crate::schema::split;
use crate::types::{ExporterEntry, Source};

/// The variable that lists exporters.
pub(super) const LIST: &str = "ENABLED_EXPORTERS";
/// The original system's switch for one of them.
pub(super) const ALIAS: &str = "ENABLE_ELASTICSEARCH";
const KEY: &str = "telemetry.exporters";
const PROMETHEUS: &str = "prometheus";
const ELASTICSEARCH: &str = "elasticsearch";

pub(super) fn exporters(
    cx: &mut Context<'_>,
    file: Option<Vec<Map<String, Value>>>,
    captured: ContentLevel,
) -> Vec<ExporterEntry> {
    // An empty list in the variable is a list: it switches all exporters off.
    let list = cx.env.exact(LIST);
    let alias = alias(cx);
    let Some(entries) = file else { return from_variables(cx, list, alias, captured) };
    if let Some(variable) = list.map(|_| LIST).or(alias.then_some(ALIAS)) {
        let problem = format!("both {variable} and `{KEY}` name exporters");
        let problem =
            cx.near(KEY, problem).remedy(format!("keep one of them: unset {variable}, or drop the key"));
        cx.report(problem);
        return Vec::new();
    }
    let mut read: Vec<ExporterEntry> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let Some(entry) = from_file(cx, index, entry, captured) else { continue };
        if let Some(first) = read.iter().position(|other| other.name == entry.name) {
            let problem = format!("the name `{}` is that of `{KEY}[{first}]`", entry.name);
            let key = format!("{KEY}[{index}].name");
            let problem = cx.near(&key, problem).remedy("give each a `name` of its own");
            cx.report(problem);
        }
        refuse_shared_paths(cx, &read, &entry, index);
        read.push(entry);
    }
    read
}

/// The settings that bear a mark.
fn marked<'a>(settings: &'a SettingsSpec, mark: &'a str) -> impl Iterator<Item = &'a String> {
    let properties = settings.schema().get("properties").and_then(Value::as_object);
    let is_marked = move |property: &Value| property.get(mark) == Some(&Value::Bool(true));
    properties.into_iter().flatten().filter(move |(_, property)| is_marked(property)).map(|(key, _)| key)
}

/// The settings marked `x-as-written`: what `${…}` puts into them may be a secret, and nothing tells it apart.
fn as_written(cx: &Context<'_>, settings: Option<&SettingsSpec>, at: &str) -> Map<String, Value> {
    let marked = settings.into_iter().flat_map(|settings| marked(settings, "x-as-written"));
    marked.filter_map(|key| Some((key.clone(), cx.written(&format!("{at}.{key}"))?))).collect()
}

/// A file that a setting marked `x-unique` names belongs to one entry alone.
fn refuse_shared_paths(cx: &mut Context<'_>, read: &[ExporterEntry], entry: &ExporterEntry, index: usize) {
    let Some(plugin) = cx.catalogue.plugin(&entry.kind) else { return };
    for key in marked(&plugin.settings, "x-unique") {
        let path =
            |entry: &ExporterEntry| std::path::absolute(entry.settings.values().get(key)?.as_str()?).ok();
        let Some(ours) = path(entry) else { continue };
        let same = |other: &&ExporterEntry| other.kind == entry.kind && path(other).as_ref() == Some(&ours);
        if let Some(other) = read.iter().find(same) {
            let problem = format!("{} is written by the exporter `{}` already", ours.display(), other.name);
            let problem = cx.near(&format!("{KEY}[{index}].{key}"), problem);
            cx.report(problem.remedy("give each exporter a file of its own"));
        }
    }
}

/// Whether the user named `prometheus` in `ENABLED_EXPORTERS`.
pub(super) fn names_prometheus(cx: &Context<'_>) -> bool {
    cx.env.get(LIST).is_some_and(|list| list.split(',').any(|name| name.trim() == PROMETHEUS))
}

fn alias(cx: &mut Context<'_>) -> bool {
    match cx.env.get(ALIAS).map(|text| text.trim().to_ascii_lowercase()).as_deref() {
        None | Some("false" | "0" | "no") => false,
        Some("true" | "1" | "yes") => {
            cx.notice(ALIAS, format!("read as `{ELASTICSEARCH}` in {LIST}; write it there"));
            true
        }
        Some(other) => {
            cx.variable_problem(ALIAS, KEY, format!("expected `true` or `false`, found `{other}`"));
            false
        }
    }
}

fn from_variables(
    cx: &mut Context<'_>,
    list: Option<&str>,
    alias: bool,
    captured: ContentLevel,
) -> Vec<ExporterEntry> {
    let written: Vec<&str> = match list {
        Some(list) => list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
        // A build without it has nothing to switch on.
        None => cx.catalogue.plugin(PROMETHEUS).map(|plugin| plugin.name).into_iter().collect(),
    };
    let mut seen = BTreeSet::new();
    for name in &written {
        if !seen.insert(*name) {
            cx.variable_problem(LIST, KEY, format!("`{name}` stands in it twice"));
        }
    }
    let mut names: Vec<(&str, &str)> = written.into_iter().map(|name| (name, LIST)).collect();
    if alias && !seen.contains(ELASTICSEARCH) {
        names.push((ELASTICSEARCH, ALIAS));
    }
    let mut entries = Vec::new();
    for (name, variable) in names {
        let Some(plugin) = cx.catalogue.plugin(name) else {
            unknown(cx, name, variable);
            continue;
        };
        let source = if list.is_none() && variable == LIST { Source::Default } else { Source::Environment };
        entries.push(from_environment(cx, plugin, (entries.len(), variable), source, captured));
    }
    entries
}

fn unknown(cx: &mut Context<'_>, name: &str, variable: &str) {
    let place = Place::Env(variable.into());
    let problem = if name == REQUEST_LOG {
        Diagnostic::new(place, KEY, format!("`{name}` is on by itself, unless `store.url` is `none`"))
            .remedy("leave it out")
    } else {
        let known: Vec<&str> = cx.catalogue.plugins().map(|plugin| plugin.name).collect();
        let problem = format!("unknown exporter `{name}`; known: {}", known.join(", "));
        Diagnostic::new(place, KEY, problem).nearest(name, known)
    };
    cx.report(problem);
}

fn from_environment(
    cx: &mut Context<'_>,
    plugin: &PluginSpec,
    (index, variable): (usize, &str),
    source: Source,
    captured: ContentLevel,
) -> ExporterEntry {
    let at = format!("{KEY}[{index}]");
    if source == Source::Environment {
        cx.set_by_env(format!("{at}.type"), variable);
    }
    let settings = settings::from_environment(cx, plugin, &at);
    let mut written = raw::Pipeline::default();
    if let Some(tls) = plugin.settings.tls() {
        written.tls.ca_file = tls_file(cx, &format!("{at}.tls.ca_file"), tls, |tls| tls.ca_file);
        written.tls.cert = tls_file(cx, &format!("{at}.tls.cert"), tls, |tls| tls.cert);
        written.tls.key = tls_file(cx, &format!("{at}.tls.key"), tls, |tls| tls.key);
    }
    let pipeline = pipeline(cx, &at, &written, captured, plugin.settings.default_max_age());
    let reach = reach(cx, &at, written, (plugin.name, Some(&plugin.settings)), &settings);
    let (kind, name, as_written) = (plugin.name.into(), plugin.name.into(), Map::new());
    ExporterEntry { kind, name, settings, as_written, pipeline, reach, source }
}

/// A file of the key `tls`, from the variable that stands for all that the exporter sends or from those of its parts,
/// which must agree: the exporter has one client.
fn tls_file(
    cx: &mut Context<'_>,
    key: &str,
    tls: &TlsVariables,
    variable: impl Fn(&TlsVariables) -> &'static str,
) -> Option<PathBuf> {
    let (env, of_all) = (cx.env, variable(tls));
    let of_parts = || tls.parts.iter().map(&variable);
    let Some(first) = of_parts().find(|name| env.get(name).is_some()) else {
        return cx.variable(key, of_all).map(PathBuf::from);
    };
    let file = cx.variable(key, first);
    if let Some(other) = of_parts().find(|name| env.get(name).or(env.get(of_all)) != file) {
        let says = [other, of_all].into_iter().find(|name| env.get(name).is_some());
        let what = says
            .map_or_else(|| format!("says nothing for {other}"), |name| format!("is not what {name} says"));
        let problem = cx.at(key, format!("{what}, and an exporter has one client")).remedy(
            "give all parts the same, or name an exporter for each in a file (--config), with a `tls` of its own",
        );
        cx.report(problem);
    }
    file.map(PathBuf::from)
}

fn from_file(
    cx: &mut Context<'_>,
    index: usize,
    entry: Map<String, Value>,
    captured: ContentLevel,
) -> Option<ExporterEntry> {
    let at = format!("{KEY}[{index}]");
    let kind = entry.get("type").and_then(Value::as_str)?.to_owned();
    let (written, settings) = split(entry);
    let spec = cx.catalogue.plugin(&kind).map(|plugin| &plugin.settings);
    meaningless::refuse(cx, &at, (&kind, spec), &written);
    let written: raw::Pipeline = match serde_path_to_error::deserialize(Value::Object(written)) {
        Ok(written) => written,
        Err(error) => {
            let key = format!("{at}.{}", error.path());
            let problem = cx.near(&key, error.into_inner().to_string());
            cx.report(problem);
            return None;
        }
    };
    let max_age = spec.and_then(SettingsSpec::default_max_age);
    let pipeline = pipeline(cx, &at, &written, captured, max_age);
    let name = written.name.clone().unwrap_or_else(|| kind.clone());
    let reach = reach(cx, &at, written, (&kind, spec), &settings);
    if name == REQUEST_LOG {
        let problem = cx.near(&format!("{at}.name"), format!("the name `{name}` is the embedded log's own"));
        cx.report(problem);
    }
    let as_written = as_written(cx, spec, &at);
    Some(ExporterEntry { kind, name, settings, as_written, pipeline, reach, source: Source::File { index } })
}
