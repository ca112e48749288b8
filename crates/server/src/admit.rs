//! Admission: who calls, whose key is used, and whether it may (invariant 5). The only maker of [`Admitted`].

use std::sync::Arc;

use magicapi_config::{AuthMode, OnFull};
use magicapi_kernel::{Admitted, Credential, Identity};
use magicapi_model::{Error, ErrorKind, Secret};

use crate::path::{Call, KeyUse};
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
    pub(crate) presented: &'a [Secret],
    /// The member of the body that continues something stored in the provider's account.
    pub(crate) continues: Option<&'static str>,
    /// Whether the body names models beside the one that was routed.
    pub(crate) more_models: bool,
    /// Whether the body is a form, of which parts that were not read may name another model.
    pub(crate) form: bool,
}

/// The virtual key of the caller; `None` where the mode asks for none. Needs no route, so it comes first.
pub(crate) fn identify(snapshot: &Snapshot, presented: &[Secret]) -> Result<Option<Arc<Identity>>, Error> {
    if snapshot.config.auth.mode != AuthMode::Keys {
        return Ok(None);
    }
    let found = presented.iter().find_map(|key| snapshot.access.identify(key.expose()));
    match (found, presented.is_empty()) {
        (Some(identity), _) => Ok(Some(identity)),
        (None, true) => Err(unauthenticated(
            "this gateway wants a key of its own; send `Authorization: Bearer <key>` with the key that its operator \
             gave you",
        )),
        (None, false) => {
            Err(unauthenticated("the key is not one of this gateway's; ask its operator for one"))
        }
    }
}

fn unauthenticated(message: impl Into<String>) -> Error {
    Error::client(ErrorKind::Unauthenticated, message)
}

fn no_credential(choice: &Choice, has_key: bool) -> Error {
    let name = &choice.slot.name;
    unauthenticated(if has_key {
        format!(
            "your key was not sent to `{name}`, which was found by the model's name alone; name the provider \
             yourself: `x-provider: {name}` or the model `{name}/{}`",
            choice.model.as_deref().unwrap_or("…")
        )
    } else {
        format!("no credential came; send your `{name}` key as `Authorization: Bearer <key>`")
    })
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
        match (auth.mode, self.presented.first()) {
            (AuthMode::Passthrough, Some(key)) if choice.pointed_by_caller => {
                Ok(Credential::Caller(key.clone()))
            }
            (AuthMode::Passthrough, key) if !self.snapshot.config.server.listen.is_loopback() => {
                Err(no_credential(choice, key.is_some()))
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
                if !self.presented.is_empty() {
                    return Err(no_credential(choice, true));
                }
                let name = &choice.slot.name;
                Err(unauthenticated(format!(
                    "no credential came and the gateway holds no key for `{name}`; send your `{name}` key as \
                     `Authorization: Bearer <key>`, or set `{}` for the gateway",
                    provider.key_setting()
                )))
            }
            None => Err(crate::route::not_configured(
                &choice.slot.name,
                &format!("it has no key; set `{}` for the gateway", provider.key_setting()),
            )),
        }
    }

    /// What a key that is not the caller's own may do at this path.
    fn our_key_may(&self, choice: &Choice) -> Result<(), Error> {
        let forbidden = |message: String| Err(Error::client(ErrorKind::Forbidden, message));
        let (method, path) = (self.method, self.path);
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
            KeyUse::Unlisted => forbidden(format!(
                "`{method} {path}` is not in the list of paths for the gateway's key; the operator can allow it with \
                 `auth.passthrough: [ \"{method} {path}\" ]`, or use your own `{}` key",
                choice.slot.name
            )),
        }
    }

    fn allowed_by_operator(&self) -> bool {
        let rules = &self.snapshot.config.auth.passthrough;
        rules.iter().any(|rule| rule.method == self.method.as_str() && rule.path == self.path)
    }

    fn model_access(&self, identity: &Identity, choice: &Choice) -> Result<(), Error> {
        let provider = choice.slot.name.as_str();
        let model = choice.model.as_deref().filter(|_| !self.form).unwrap_or_default();
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
        let message = format!(
            "the key `{}` may not use {what}; it may use: {}",
            identity.name,
            identity.models.join(", ")
        );
        Err(Error::client(ErrorKind::Forbidden, message).param("model"))
    }
}
