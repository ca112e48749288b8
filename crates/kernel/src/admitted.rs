//! Admission as a type (invariant 5).

use std::sync::Arc;

use crate::{Identity, Provider};

/// Proof that a request passed identity, model access and limits for one provider. The upstream client asks for it.
/// Only the server's `admit.rs` may make one: `Admitted::new` is a disallowed method everywhere else.
#[derive(Clone)]
pub struct Admitted {
    provider: Arc<dyn Provider>,
    identity: Option<Arc<Identity>>,
}

impl Admitted {
    /// For `admit.rs` alone.
    pub fn new(provider: Arc<dyn Provider>, identity: Option<Arc<Identity>>) -> Self {
        Self { provider, identity }
    }

    /// The provider that the request was admitted to.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }

    /// The virtual key, when there is one.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }
}
