//! Admission: who calls, whose key is used, and whether it may (invariant 5). The only maker of [`Admitted`].

use std::sync::Arc;

use magicapi_config::{AuthMode, OnFull};
use magicapi_kernel::{Admitted, Credential, Identity};
use magicapi_model::{Error, ErrorKind, Secret};

use crate::identify::Presented;
use crate::path::{self, Call, KeyUse};
use crate::route::Choice;
use crate::snapshot::{Shared, Snapshot};

/// What admission looks at.
pub(crate) struct Applicant<'a> {
    /// The process.
    pub(crate) shared: &'a Shared,
    /// The configuration that the request began with.
    pub(crate) snapshot: &'a Snapshot,
    /// The method and path, for `auth.passthrough`.
    pub(crate) method: &'a http::Method,
    /// The raw path.
    pub(crate) path: &'a str,
    /// What the path asks for.
    pub(crate) call: &'a Call,
    /// The credentials that came.
    pub(crate) presented: &'a Presented,
    /// The member of the body that continues something stored in the provider's account.
    pub(crate) continues: Option<&'static str>,
    /// Whether the body names models beside the one that was routed.
    pub(crate) more_models: bool,
    /// Whether the body is a form that may name another model than the one that was routed.
    pub(crate) unsure: bool,
}

/// Whose virtual key came, and which of those presented it is; `None` where the mode asks for none. Needs no route, so it
/// comes first.
pub(crate) fn identify<'p>(
    snapshot: &Snapshot,
    presented: &'p [Secret],
) -> Result<Option<(Arc<Identity>, &'p Secret)>, Error> {
    if snapshot.config.auth.mode != AuthMode::Keys {
        return Ok(None);
    }
    let found = presented.iter().find_map(|key| Some((snapshot.access.identify(key.expose())?, key)));
    match (found, presented.is_empty()) {
        (Some(found), _) => Ok(Some(found)),
        (None, true) => Err(unauthenticated(
            "this gateway wants a key of its own; send `Authorization: Bearer <key>` with the key that its operator \
             gave you",
        )),
        (None, false) => {
            Err(unauthenticated("the key is not one of this gateway's; ask its operator for one"))
        }
    }
}

/// Whether the record of a new request could be kept, where an exporter asks for that.
pub(crate) fn room_for_record(shared: &Shared) -> Result<(), Error> {
    if shared.telemetry.refuses() {
        return Err(Error::gateway(
            ErrorKind::TelemetryFull,
            "the record of this request could not be kept: an exporter with `when_full: refuse` is full, in memory and \
             on disk; try again shortly",
        ));
    }
    Ok(())
}

fn unauthenticated(message: impl Into<String>) -> Error {
    Error::client(ErrorKind::Unauthenticated, message)
}

impl Applicant<'_> {
    /// Admits the request to the chosen provider, or says why not.
    pub(crate) fn admit(
        &self,
        choice: &Choice,
        identity: Option<Arc<Identity>>,
    ) -> Result<(Admitted, Credential), Error> {
        let credential = self.credential(choice)?;
        let provider = choice.provider()?;
        if !matches!(credential, Credential::Caller(_)) {
            self.our_key_may(choice)?;
        }
        if let Some(identity) = &identity {
            self.model_access(identity, choice)?;
        }
        if self.snapshot.config.ledger.on_full == OnFull::Refuse && !self.shared.ledger.ready() {
            return Err(Error::gateway(
                ErrorKind::LedgerFull,
                "the spend ledger cannot take a row now, and `ledger.on_full` is `refuse`; try again shortly",
            ));
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place that admits")]
        let admitted = Admitted::new(provider.clone(), identity);
        Ok((admitted, credential))
    }

    fn credential(&self, choice: &Choice) -> Result<Credential, Error> {
        let auth = &self.snapshot.config.auth;
        match (auth.mode, self.presented.keys.first()) {
            (AuthMode::Passthrough, Some(key)) if choice.pointed_by_caller => {
                Ok(Credential::Caller(key.clone()))
            }
            (AuthMode::Passthrough, _) if !self.snapshot.config.server.listen.is_loopback() => {
                Err(self.no_credential(choice, None))
            }
            _ => self.ours(choice),
        }
    }

    /// The gateway's own key for the provider.
    fn ours(&self, choice: &Choice) -> Result<Credential, Error> {
        let provider = choice.provider()?;
        match provider.gateway_key() {
            Some(key) => Ok(Credential::Gateway(key.clone())),
            None if !provider.needs_key() => Ok(Credential::None),
            None if self.snapshot.config.auth.mode == AuthMode::Passthrough => {
                Err(self.no_credential(choice, Some(&provider.key_setting())))
            }
            None => Err(crate::route::not_configured(
                &choice.slot.name,
                &format!("it has no key; set `{}` for the gateway", provider.key_setting()),
            )),
        }
    }

    /// Neither the caller's key nor the gateway's is for this provider. `missing`: where the gateway's is set, when that
    /// is what it lacks.
    fn no_credential(&self, choice: &Choice, missing: Option<&str>) -> Error {
        let name = &choice.slot.name;
        if !self.presented.keys.is_empty() {
            return unauthenticated(format!(
                "your key was not sent to `{name}`, which was found by the model's name alone; name the provider \
                 yourself: `x-provider: {name}` or the model `{name}/{}`",
                choice.model.as_deref().unwrap_or("…")
            ));
        }
        let what = match (self.presented.placeholder, missing) {
            (false, None) => "no credential came".to_owned(),
            (false, Some(_)) => format!("no credential came and the gateway holds no key for `{name}`"),
            (true, None) => {
                "the word `gateway` stands for the gateway's own key, which `auth.mode: passthrough` does \
                             not use where other machines reach the gateway"
                    .to_owned()
            }
            (true, Some(_)) => {
                format!("the word `gateway` stands for the gateway's own key, and it holds none for `{name}`")
            }
        };
        let or_set = missing.map_or_else(String::new, |key| format!(", or set `{key}` for the gateway"));
        unauthenticated(format!("{what}; send your `{name}` key as `Authorization: Bearer <key>`{or_set}"))
    }

    /// What a key that is not the caller's own may do at this path.
    fn our_key_may(&self, choice: &Choice) -> Result<(), Error> {
        let forbidden = |message: String| Err(Error::client(ErrorKind::Forbidden, message));
        let path = self.path;
        if let Some(member) = self.continues {
            let message = format!(
                "`{member}` reaches into the account of the gateway's key, where what is stored has no owner yet; send \
                 the conversation itself, or use your own provider key"
            );
            return Err(Error::client(ErrorKind::Forbidden, message).param(member));
        }
        match self.call.key_use {
            KeyUse::Open => Ok(()),
            KeyUse::Never => forbidden(format!(
                "`{path}` is about the provider account itself; the gateway's key is never used for it"
            )),
            KeyUse::OwnedIds => forbidden(format!(
                "`{path}` names things in the account of the gateway's key, which have no owner yet; use your own \
                 `{}` key in `auth.mode: passthrough`",
                choice.slot.name
            )),
            KeyUse::Unlisted if self.allowed_by_operator() => Ok(()),
            KeyUse::Unlisted => Err(self.unlisted(choice)),
        }
    }

    /// The remedy of a slip first: a rule of the operator's would not help there.
    fn unlisted(&self, choice: &Choice) -> Error {
        let (method, path, name) = (self.method, self.path, &choice.slot.name);
        if self.call.lists_chats() {
            return path::not_allowed(method, path, "POST");
        }
        let below = self.call.below_base.as_str();
        let base = choice.slot.provider.as_ref().ok().map(|provider| provider.base_url());
        let once = base.and_then(|base| Some((base.without_repeated_end(below)?, path.strip_suffix(below)?)));
        if let Some((rest, mount)) = once {
            let end = below.strip_suffix(rest).unwrap_or_default();
            let message = format!(
                "the address of `{name}` ends in `{end}` already, and `{path}` repeats it; use `{mount}{rest}`"
            );
            return Error::client(ErrorKind::Forbidden, message);
        }
        let message = format!(
            "`{method} {path}` is not in the list of paths for the gateway's key; the operator can allow it with \
             `auth.passthrough: [ \"{method} {path}\" ]`, or use your own `{name}` key"
        );
        Error::client(ErrorKind::Forbidden, message)
    }

    fn allowed_by_operator(&self) -> bool {
        let rules = &self.snapshot.config.auth.passthrough;
        rules.iter().any(|rule| rule.method == self.method.as_str() && rule.path == self.path)
    }

    fn model_access(&self, identity: &Identity, choice: &Choice) -> Result<(), Error> {
        let provider = choice.slot.name.as_str();
        let model = choice.model.as_deref().filter(|_| !self.unsure).unwrap_or_default();
        if self.more_models && !identity.models.is_empty() {
            let message = format!(
                "`models` names models beside `model`, and the key `{}` is bound to a list that they are not compared \
                 with; name one model",
                identity.name
            );
            return Err(Error::client(ErrorKind::Forbidden, message).param("models"));
        }
        if self.snapshot.access.allows(identity, provider, model) {
            return Ok(());
        }
        let what = if model.is_empty() {
            format!("`{provider}` without a model that the gateway can be sure of")
        } else {
            format!("`{provider}/{model}`")
        };
        let remedy = if self.unsure {
            "; of a form it is sure that names one `model`, its provider in that (not by `x-provider` or the path), and \
             is no larger than `server.limits.body`"
        } else {
            ""
        };
        let message = format!(
            "the key `{}` may not use {what}; it may use: {}{remedy}",
            identity.name,
            identity.models.join(", ")
        );
        Err(Error::client(ErrorKind::Forbidden, message).param("model"))
    }
}
