//! Who calls: virtual keys.

use std::sync::Arc;

/// A virtual key as the request path knows it. The key itself is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The key's name, for logs and records.
    pub name: String,
    /// Its project; beats `x-project-id`.
    pub project: Option<String>,
    /// `provider/model` patterns that it may use; empty = all.
    pub models: Vec<String>,
}

/// The keys of one configuration snapshot.
pub trait Access: Send + Sync {
    /// The key that was presented, compared by its full hash in constant time.
    fn identify(&self, presented: &str) -> Option<Arc<Identity>>;

    /// Whether the key may use this model of this provider, after routing.
    fn allows(&self, identity: &Identity, provider: &str, model: &str) -> bool;
}
