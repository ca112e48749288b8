//! What an exporter says about its back end: the last thing that it saw there.

use std::sync::{Mutex, PoisonError};

use magicapi_plugin::{Delivery, Health, ItemOutcome};

/// The worst of several.
pub(crate) fn worst_of(all: impl Iterator<Item = Health>) -> Health {
    let rank = |health: &Health| match health {
        Health::Ok => 0,
        Health::Degraded(_) => 1,
        Health::Down(_) => 2,
    };
    all.max_by_key(rank).unwrap_or(Health::Ok)
}

/// The back end's state after the last try.
pub(crate) struct LastHealth(Mutex<Health>);

impl Default for LastHealth {
    fn default() -> Self {
        Self(Mutex::new(Health::Ok))
    }
}

impl LastHealth {
    /// Remembers a state.
    pub(crate) fn set(&self, health: Health) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// The state.
    pub(crate) fn get(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what a delivery says about the state.
    pub(crate) fn after(&self, delivery: &Delivery) {
        self.set(match delivery {
            Delivery::Delivered | Delivery::TooLarge => Health::Ok,
            Delivery::Items(items) => Health::Degraded(worst(items)),
            Delivery::Retry { .. } => Health::Degraded("puts records off".into()),
            Delivery::Refused { reason } => Health::Down(reason.clone()),
            _ => Health::Degraded("does not say what became of records".into()),
        });
    }
}

fn worst(items: &[ItemOutcome]) -> String {
    let rejected = items.iter().find_map(|item| match item {
        ItemOutcome::Rejected { reason } => Some(format!("rejects records: {reason}")),
        _ => None,
    });
    rejected.unwrap_or_else(|| "puts some records off".into())
}
