//! Who may call: mode, virtual keys, pass-through rules.

use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::raw;
use crate::types::{Auth, AuthMode, KeyEntry, PassthroughRule};
use crate::units::hex;

const VARIABLE: &str = "GATEWAY_API_KEYS";
const PREFIX: &str = "sha256:";
/// A shorter key can be guessed.
const SHORT: usize = 16;

pub(super) fn auth(cx: &mut Context<'_>, file: raw::Auth) -> Auth {
    let mut keys = Vec::new();
    for (index, key) in file.keys.into_iter().enumerate() {
        if let Some(entry) = file_key(cx, &format!("auth.keys[{index}]"), key, &keys) {
            keys.push(entry);
        }
    }
    variable_keys(cx, &mut keys);
    // Whoever configures keys wants them demanded.
    let default = if keys.is_empty() { AuthMode::Passthrough } else { AuthMode::Keys };
    let mode = file.mode.unwrap_or(default);
    if mode != AuthMode::Keys && !keys.is_empty() {
        cx.notice("auth.mode", "keys are configured, but this mode demands none of them");
    }
    Auth { mode, explicit_mode: file.mode.is_some(), keys, passthrough: passthrough(cx, file.passthrough) }
}

fn file_key(cx: &mut Context<'_>, at: &str, key: raw::Key, known: &[KeyEntry]) -> Option<KeyEntry> {
    let name = format!("{at}.name");
    if known.iter().any(|other| other.name == key.name) {
        cx.problem(&name, format!("two keys have the name `{}`", key.name));
        return None;
    }
    let digits = key.hash.strip_prefix(PREFIX).map(str::to_ascii_lowercase);
    let is_hash = |digits: &String| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let Some(digits) = digits.filter(is_hash) else {
        // The text is not shown: it may be the key itself, put here by mistake.
        let problem = cx.at(&format!("{at}.hash"), "expected `sha256:` and 64 hexadecimal digits");
        cx.report(problem.remedy("`magicapi-ai-gateway keys create` makes a key and its hash"));
        return None;
    };
    let hash = format!("{PREFIX}{digits}");
    Some(KeyEntry { name: key.name, hash, project: key.project, models: key.models })
}

/// `GATEWAY_API_KEYS=name:key,name:key`. The keys are hashed here and forgotten.
fn variable_keys(cx: &mut Context<'_>, keys: &mut Vec<KeyEntry>) {
    let Some(list) = cx.env.get(VARIABLE) else { return };
    if list.split(',').all(|item| item.trim().is_empty()) {
        // Whoever sets it wants callers to need a key.
        cx.variable_problem(VARIABLE, "auth.keys", "names no key; expected `name:key,name:key`");
    }
    for (position, item) in list.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
        let named = item.split_once(':').map(|(name, key)| (name.trim(), key.trim()));
        let Some((name, key)) = named.filter(|(name, key)| !name.is_empty() && !key.is_empty()) else {
            // The entry is not shown: without a name it is most likely a bare key.
            let problem = format!("entry {} is not `name:key`; expected `name:key,name:key`", position + 1);
            cx.variable_problem(VARIABLE, "auth.keys", problem);
            continue;
        };
        if keys.iter().any(|other| other.name == name) {
            cx.variable_problem(VARIABLE, "auth.keys", format!("two keys have the name `{name}`"));
            continue;
        }
        if key.chars().count() < SHORT {
            let text = format!(
                "the key of `{name}` has fewer than {SHORT} characters and can be guessed; \
                 `magicapi-ai-gateway keys create` makes a better one"
            );
            cx.notice(VARIABLE, text);
        }
        for part in ["name", "hash", "models"] {
            cx.set_by_env(format!("auth.keys[{}].{part}", keys.len()), VARIABLE);
        }
        let hash = format!("{PREFIX}{}", hex(&Sha256::digest(key.as_bytes())));
        keys.push(KeyEntry { name: name.into(), hash, project: None, models: Vec::new() });
    }
}

fn passthrough(cx: &mut Context<'_>, rules: Vec<String>) -> Vec<PassthroughRule> {
    let mut read = Vec::new();
    for (index, rule) in rules.into_iter().enumerate() {
        let parts = rule.trim().split_once(' ').map(|(method, path)| (method, path.trim()));
        let is_rule = |(method, path): &(&str, &str)| {
            method.bytes().all(|b| b.is_ascii_uppercase())
                && !method.is_empty()
                && path.starts_with('/')
                && !path.contains([' ', '?', '#'])
        };
        let key = format!("auth.passthrough[{index}]");
        match parts.filter(is_rule) {
            Some((method, path)) => {
                if let Some(why) = cx.catalogue.useless_passthrough.and_then(|useless| useless(method, path))
                {
                    cx.problem(&key, format!("`{method} {path}` {why}; leave it out"));
                }
                read.push(PassthroughRule { method: method.into(), path: path.into() });
            }
            None => cx.problem(
                &key,
                format!("expected a method in capitals and a path, such as `POST /v1/x`, found `{rule}`"),
            ),
        }
    }
    read
}
