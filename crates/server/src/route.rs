//! Which provider gets a request (design, "Which provider gets a request").
//!
//! `x-provider`, else the path's or the model name's prefix, else the one configured provider that has the model, else
//! the dialect's own provider.

use std::sync::Arc;

use http::HeaderMap;
use magicapi_kernel::Provider;
use magicapi_model::{Error, ErrorKind};

use crate::path::Call;
use crate::snapshot::{ProviderSlot, Snapshot};

/// The provider of the OpenAI dialect: its models need no prefix.
pub(crate) const OWN_PROVIDER: &str = "openai";

/// The outcome of routing.
pub(crate) struct Choice {
    /// Where it goes.
    pub(crate) slot: Arc<ProviderSlot>,
    /// The model as the provider spells it.
    pub(crate) model: Option<String>,
    /// Whether the caller itself pointed there: only then may its own credential go along.
    pub(crate) pointed_by_caller: bool,
}

impl Choice {
    /// The provider, or a clear error of what it lacks.
    pub(crate) fn provider(&self) -> Result<&Arc<dyn Provider>, Error> {
        self.slot.provider.as_ref().map_err(|missing| not_configured(&self.slot.name, missing))
    }
}

/// The error for a known provider that lacks something.
pub(crate) fn not_configured(name: &str, missing: &str) -> Error {
    Error::client(
        ErrorKind::ProviderNotConfigured,
        format!("the provider `{name}` is known but not set up here: {missing}"),
    )
}

/// Whether the caller names the provider elsewhere than in the model.
pub(crate) fn points(call: &Call, headers: &HeaderMap) -> Result<bool, Error> {
    Ok(call.provider.is_some() || header(headers, "x-provider")?.is_some())
}

/// Chooses the provider.
pub(crate) fn choose(
    snapshot: &Snapshot,
    call: &Call,
    headers: &HeaderMap,
    requested: Option<&str>,
) -> Result<Choice, Error> {
    let model = requested.map(str::to_owned);
    if let Some(name) = header(headers, "x-provider")? {
        let slot = known(snapshot, name, "the header `x-provider`")?;
        return Ok(Choice { slot, model, pointed_by_caller: true });
    }
    if let Some(name) = &call.provider {
        let slot = known(snapshot, name, "the path")?;
        let model = requested.map(|model| without_prefix(model, name).to_owned());
        return Ok(Choice { slot, model, pointed_by_caller: true });
    }
    if let Some((name, rest)) = requested.and_then(|model| model.split_once('/'))
        && let Some(slot) = snapshot.slot(name)
        && !rest.is_empty()
    {
        return Ok(Choice { slot: slot.clone(), model: Some(rest.to_owned()), pointed_by_caller: true });
    }
    if let Some(slot) = requested.and_then(|model| snapshot.only_provider_of(model)) {
        // For the dialect's own provider the catalogue adds nothing to what the path says already.
        let pointed_by_caller = slot.name == OWN_PROVIDER;
        return Ok(Choice { slot: slot.clone(), model, pointed_by_caller });
    }
    let slot = known(snapshot, OWN_PROVIDER, "the path")?;
    Ok(Choice { slot, model, pointed_by_caller: true })
}

/// `provider/model` below `/proxy/provider/`: the prefix says the same thing twice.
fn without_prefix<'a>(model: &'a str, provider: &str) -> &'a str {
    model.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model)
}

fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        Error::client(ErrorKind::InvalidRequest, format!("the header `{name}` is not visible ASCII text"))
            .param(name)
    })?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

fn known(snapshot: &Snapshot, name: &str, named_by: &str) -> Result<Arc<ProviderSlot>, Error> {
    snapshot.slot(name).or_else(|| snapshot.slot(&name.to_ascii_lowercase())).cloned().ok_or_else(|| {
        let names: Vec<&str> = snapshot.slots().into_iter().map(|slot| slot.name.as_str()).collect();
        let shown: String = name.chars().take(60).collect();
        let meant = magicapi_config::nearest(&shown, names.iter().copied());
        let meant = meant.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
        let message = format!(
            "{named_by} names the provider `{shown}`, which does not exist; {meant}known: {}",
            names.join(", ")
        );
        let error = Error::client(ErrorKind::UnknownProvider, message);
        if named_by.contains("x-provider") { error.param("x-provider") } else { error }
    })
}
