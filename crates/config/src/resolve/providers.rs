//! The configured providers: those of the file, and those whose variables are set.

use std::collections::BTreeMap;

use magicapi_model::Secret;

use super::upstream::url_problem;
use crate::catalogue::ProviderSpec;
use crate::context::Context;
use crate::raw;
use crate::types::{Auth, AuthMode, OnClientGone, ProviderEntry};

/// In order of their names.
pub(super) fn providers(
    cx: &mut Context<'_>,
    file: BTreeMap<String, raw::Provider>,
    auth: &Auth,
) -> Vec<ProviderEntry> {
    let mut entries: BTreeMap<String, ProviderEntry> = BTreeMap::new();
    for (name, provider) in file {
        if let Some(entry) = file_entry(cx, &name, provider) {
            entries.insert(name, entry);
        }
    }
    let catalogue = cx.catalogue;
    for spec in &catalogue.providers {
        apply_variables(cx, spec, &mut entries);
    }
    for entry in entries.values() {
        complete(cx, entry, auth);
    }
    entries.into_values().collect()
}

fn file_entry(cx: &mut Context<'_>, name: &str, file: raw::Provider) -> Option<ProviderEntry> {
    let at = format!("providers.{name}");
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(is_name) {
        let problem = cx.near("providers", format!("the name `{name}` cannot be used"));
        cx.report(problem.remedy("a provider's name has letters, digits, `-` and `_`"));
        return None;
    }
    let catalogue = file.catalogue.unwrap_or_else(|| name.to_owned());
    if cx.catalogue.provider(&catalogue).is_none() {
        let known = cx.catalogue.providers.iter().map(|spec| spec.name);
        let problem = cx.near(&at, format!("no provider `{catalogue}` is known")).nearest(&catalogue, known);
        cx.report(
            problem.remedy("for a server of your own give the `type` that it speaks, such as `type: openai`"),
        );
        return None;
    }
    Some(ProviderEntry {
        name: name.into(),
        catalogue,
        api_key: file.api_key,
        base_url: file.base_url.and_then(|url| base_url_of(cx, &format!("{at}.base_url"), &url)),
        on_client_gone: file.on_client_gone.unwrap_or_default(),
        trace: file.trace.unwrap_or(false),
    })
}

/// A catalogue entry's variables set the provider of that name, and configure it when the file does not.
fn apply_variables(cx: &mut Context<'_>, spec: &ProviderSpec, entries: &mut BTreeMap<String, ProviderEntry>) {
    let key = spec.key_env.filter(|variable| cx.env.get(variable).is_some());
    let url = Some(spec.base_url_env.as_str()).filter(|variable| cx.env.get(variable).is_some());
    let Some(variable) = key.or(url) else { return };
    if let Some(other) = entries.get(spec.name).filter(|entry| entry.catalogue != spec.name) {
        let text = format!("set but not read: the file's `{}` is of type `{}`", spec.name, other.catalogue);
        cx.notice(variable, text);
        return;
    }
    let at = format!("providers.{}", spec.name);
    let entry = entries.entry(spec.name.into()).or_insert_with(|| {
        cx.set_by_env(format!("{at}.type"), variable);
        ProviderEntry {
            name: spec.name.into(),
            catalogue: spec.name.into(),
            api_key: None,
            base_url: None,
            on_client_gone: OnClientGone::default(),
            trace: false,
        }
    });
    if let Some(key) = key.and_then(|variable| cx.variable(&format!("{at}.api_key"), variable)) {
        entry.api_key = Some(Secret::new(key.trim()));
    }
    let at = format!("{at}.base_url");
    if let Some(url) = url.and_then(|variable| cx.variable(&at, variable)) {
        entry.base_url = base_url_of(cx, &at, url);
    }
}

fn base_url_of(cx: &mut Context<'_>, key: &str, url: &str) -> Option<String> {
    let url = url.trim();
    let problem = url_problem(url).or_else(|| {
        let problem = if url.contains(['?', '#']) {
            "expected a URL without `?` and `#`"
        } else if url.contains('@') {
            "expected a URL without user and password; the key belongs into `api_key`"
        } else if url.trim_end_matches('/').ends_with("/chat/completions") {
            "expected the part before `/chat/completions`: the gateway adds the path of each request"
        } else {
            return None;
        };
        Some(problem.into())
    });
    match problem {
        None => Some(url.trim_end_matches('/').into()),
        Some(problem) => {
            cx.problem(key, problem);
            None
        }
    }
}

/// A provider whose address everybody has to know for themselves (`azure`) is easily configured by half.
fn complete(cx: &mut Context<'_>, entry: &ProviderEntry, auth: &Auth) {
    let Some(spec) = cx.catalogue.provider(&entry.catalogue).filter(|spec| spec.default_base_url.is_none())
    else {
        return;
    };
    let at = format!("providers.{}", entry.name);
    // The variables belong to the entry that has the catalogue's own name.
    let own = entry.name == spec.name;
    if entry.base_url.is_none() {
        let key = format!("{at}.base_url");
        if cx.problems.iter().any(|problem| problem.key == key) {
            return;
        }
        let form = if own { format!("{} or `{key}`", spec.base_url_env) } else { format!("`{key}`") };
        let problem =
            cx.near(&key, format!("`{}` has no address, and the catalogue has none for it", entry.name));
        cx.report(problem.remedy(format!("set {form}")));
    } else if entry.api_key.is_none() && spec.needs_key {
        // Whoever names the mode knows that callers bring their own keys.
        if auth.explicit_mode && auth.mode == AuthMode::Passthrough {
            return;
        }
        let key = format!("{at}.api_key");
        let form = match spec.key_env.filter(|_| own) {
            Some(variable) => format!("{variable} or `{key}`"),
            None => format!("`{key}`"),
        };
        let problem = cx.near(&key, format!("`{}` has an address but no key", entry.name));
        cx.report(
            problem.remedy(format!("set {form}, or `auth.mode: passthrough` when callers bring their own")),
        );
    }
}
