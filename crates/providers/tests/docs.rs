//! `docs/providers.md` says what the catalogue says, or this fails. `UPDATE_DOCS=1` writes it anew.

use std::path::Path;

use magicapi_kernel::UsageInStreams;
use magicapi_providers::{Auth, Row, catalogue};

const HEAD: &str = "# Providers

Written from `crates/providers/data/catalogue.json` by `UPDATE_DOCS=1 cargo test -p magicapi-providers`; do not edit it here.

A provider is named by the header `x-provider`, by a prefix of the model (`groq/openai/gpt-oss-120b`) or by the file. One that needs a key
is used with the caller's or, when its variable is set, with the gateway's; Ollama and vLLM are used once their base URL is set. Every base
URL can be changed by its variable or by `providers.<name>.base_url`; at another address than the provider's own no key is demanded.

";

const EDITS: &str = "
## What is changed in a chat request

A body goes through untouched but for these parameters. What is dropped is named in the response header `x-gateway-params-dropped` and
in the record. A parameter that the provider itself answers with an error is left to it.

";

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "–".to_owned() } else { text }
}

fn list(names: impl Iterator<Item = String>) -> String {
    or_dash(names.collect::<Vec<_>>().join(", "))
}

fn auth(row: &Row) -> String {
    match &row.auth {
        Auth::Bearer => "`Authorization: Bearer`".to_owned(),
        Auth::Header { name, jwt_as_bearer: false } => code(name),
        Auth::Header { name, jwt_as_bearer: true } => format!("`{name}`; a token: `Authorization: Bearer`"),
    }
}

fn addresses(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        "| name | provider | base URL | its variable | key variable | key is sent as |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(|row| {
        let base_url = or_dash(row.base_url.as_deref().map(code).unwrap_or_default());
        let key = or_dash(row.key_env.as_deref().map(code).unwrap_or_default());
        let (name, title, variable, auth) = (&row.name, &row.title, &row.base_url_env, auth(row));
        format!("| `{name}` | {title} | {base_url} | `{variable}` | {key} | {auth} |")
    }));
    lines
}

fn edits(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        "| name | renamed | dropped | refused | usage in streams |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(|row| {
        let renamed = list(row.rename.iter().map(|(ours, theirs)| format!("`{ours}` → `{theirs}`")));
        let dropped = list(row.drop.iter().map(|name| code(name)));
        let refused = list(row.refuse.iter().map(|(name, why)| format!("`{name}`: {why}")));
        let usage = match row.usage_in_streams {
            UsageInStreams::Ask => "asked for",
            UsageInStreams::Always => "always there",
        };
        format!("| `{}` | {renamed} | {dropped} | {refused} | {usage} |", row.name)
    }));
    lines
}

fn notes(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![String::new(), "## Notes and sources".to_owned()];
    for row in rows {
        lines.extend([String::new(), format!("**{}**", row.title), String::new()]);
        lines.extend(row.notes.iter().map(|note| format!("- {note}")));
        let renamed = row.rate_limit_headers.iter();
        lines.extend(
            renamed.map(|(theirs, standard)| format!("- The caller gets `{theirs}` as `{standard}`.")),
        );
        lines.push(format!("- Source: {}.", row.source.join("; ")));
    }
    lines
}

#[test]
#[allow(clippy::disallowed_methods)] // a test may be told by the environment to write its file
fn the_page_is_the_catalogue() {
    let rows = catalogue().expect("the catalogue");
    let text = |lines: Vec<String>| lines.join("\n") + "\n";
    let page = [HEAD, &text(addresses(rows)), EDITS, &text(edits(rows)), &text(notes(rows))].concat();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/providers.md is written");
    }
    let stored = std::fs::read_to_string(&path).expect("docs/providers.md");
    assert!(stored == page, "docs/providers.md is stale; run UPDATE_DOCS=1 cargo test -p magicapi-providers");
}
