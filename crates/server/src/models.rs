//! `/v1/models` from the catalogue: the configured providers' models, each `id` as the caller must write it.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use magicapi_config::AuthMode;
use magicapi_dialects::openai_chat::Operation;
use magicapi_kernel::Identity;
use magicapi_model::{Error, ErrorKind, Secret};
use serde_json::{Value, json};

use crate::path::Call;
use crate::route::OWN_PROVIDER;
use crate::snapshot::{ProviderSlot, Snapshot};

/// The list or one model, as far as the caller may use them; `None` when the request is to be sent to a provider: it
/// names one, wants to change something, or the caller brings its own key.
pub(crate) fn answer(
    snapshot: &Snapshot,
    call: &Call,
    parts: &Parts,
    presented: &[Secret],
    identity: Option<&Identity>,
) -> Result<Option<Bytes>, Error> {
    let asks_models = matches!(call.operation, Operation::Models | Operation::Model)
        && matches!(parts.method, Method::GET | Method::HEAD);
    let own_key = snapshot.config.auth.mode == AuthMode::Passthrough && !presented.is_empty();
    if !asks_models || call.provider.is_some() || parts.headers.contains_key("x-provider") || own_key {
        return Ok(None);
    }
    let rows = list(snapshot, identity);
    if call.operation == Operation::Models {
        return Ok(Some(json!({ "object": "list", "data": rows }).to_string().into()));
    }
    let wanted = unescaped(call.below_base.trim_start_matches("/models/"));
    let found = rows.into_iter().find(|row| row["id"] == wanted.as_str());
    found.map(|row| Some(row.to_string().into())).ok_or_else(|| {
        let shown: String = wanted.chars().take(120).collect();
        Error::client(
            ErrorKind::UnknownModel,
            format!("no configured provider lists the model `{shown}`; `GET /v1/models` lists them all"),
        )
        .param("model")
    })
}

fn list(snapshot: &Snapshot, identity: Option<&Identity>) -> Vec<Value> {
    let configured = snapshot.slots().into_iter().filter(|slot| slot.configured);
    configured.flat_map(|slot| rows_of(snapshot, slot, identity)).collect()
}

fn rows_of(snapshot: &Snapshot, slot: &Arc<ProviderSlot>, identity: Option<&Identity>) -> Vec<Value> {
    let may_use =
        |model: &str| identity.is_none_or(|identity| snapshot.access.allows(identity, &slot.name, model));
    let Ok(provider) = &slot.provider else { return Vec::new() };
    let rows = snapshot.prices.rows_of(provider.catalogue_name());
    rows.iter()
        .filter(|row| may_use(&row.model))
        .map(|row| {
            json!({
                "id": id_for_callers(snapshot, slot, &row.model),
                "object": "model",
                "created": 0,
                "owned_by": slot.name,
            })
        })
        .collect()
}

/// The bare name where it leads to this provider, else `provider/model`.
fn id_for_callers(snapshot: &Snapshot, slot: &ProviderSlot, model: &str) -> String {
    let prefix_is_a_provider = model.split_once('/').is_some_and(|(head, _)| snapshot.slot(head).is_some());
    let leads_here = match snapshot.only_provider_of(model) {
        Some(only) => only.name == slot.name,
        None => slot.name == OWN_PROVIDER,
    };
    if leads_here && !prefix_is_a_provider { model.to_owned() } else { format!("{}/{model}", slot.name) }
}

/// Percent escapes undone once.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(unescaped("org%2Fmodel%20name"), "org/model name");
        assert_eq!(unescaped("100%"), "100%");
        assert_eq!(unescaped("%252F"), "%2F");
    }
}
