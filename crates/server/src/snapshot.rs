//! What a request works with: one configuration snapshot, swapped whole (invariant 10), and what outlives it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use arc_swap::ArcSwap;
use magicapi_config::Config;
use magicapi_dialects::openai_chat::ParameterRules;
use magicapi_kernel::{Access, Ledger, Provider};
use magicapi_model::price::PriceTable;
use magicapi_telemetry::Telemetry;
use magicapi_upstream::Client;

use crate::phase::{Phase, Phases};

/// One name that a request may be sent to.
pub struct ProviderSlot {
    /// The name, as callers write it.
    pub name: String,
    /// The provider; else what is missing and how to set it.
    pub provider: Result<Arc<dyn Provider>, String>,
    /// Whether the operator set it up. Others serve only callers who bring their own key.
    pub configured: bool,
    rules: ParameterRules,
}

impl ProviderSlot {
    /// A slot; parameter rules are taken from the provider's quirks once, here.
    pub fn new(name: String, provider: Result<Arc<dyn Provider>, String>, configured: bool) -> Self {
        let rules = provider.as_ref().map_or_else(
            |_| ParameterRules::default(),
            |provider| {
                let quirks = provider.quirks();
                ParameterRules {
                    rename: quirks.rename.clone(),
                    drop: quirks.drop.clone(),
                    refuse: quirks.refuse.clone(),
                }
            },
        );
        Self { name, provider, configured, rules }
    }

    /// The provider's renames, drops and refusals.
    pub fn rules(&self) -> &ParameterRules {
        &self.rules
    }
}

/// Everything that a reload replaces.
pub struct Snapshot {
    /// The resolved configuration.
    pub config: Arc<Config>,
    /// Virtual keys.
    pub access: Arc<dyn Access>,
    /// Prices.
    pub prices: Arc<PriceTable>,
    /// The data plane's HTTP client.
    pub client: Client,
    slots: HashMap<String, Arc<ProviderSlot>>,
    by_model: HashMap<String, Vec<Arc<ProviderSlot>>>,
}

impl Snapshot {
    /// Builds a snapshot and its look-up of bare model names, which knows configured providers only.
    pub fn new(
        config: Arc<Config>,
        access: Arc<dyn Access>,
        prices: Arc<PriceTable>,
        client: Client,
        slots: Vec<ProviderSlot>,
    ) -> Self {
        let slots: HashMap<_, _> =
            slots.into_iter().map(|slot| (slot.name.clone(), Arc::new(slot))).collect();
        let mut by_model: HashMap<String, Vec<Arc<ProviderSlot>>> = HashMap::new();
        for slot in slots.values().filter(|slot| slot.configured) {
            let Ok(provider) = &slot.provider else { continue };
            for row in prices.rows_of(provider.catalogue_name()) {
                by_model.entry(row.model.clone()).or_default().push(slot.clone());
            }
        }
        Self { config, access, prices, client, slots, by_model }
    }

    /// The slot of a name.
    pub fn slot(&self, name: &str) -> Option<&Arc<ProviderSlot>> {
        self.slots.get(name)
    }

    /// All slots, by name.
    pub fn slots(&self) -> Vec<&Arc<ProviderSlot>> {
        let mut slots: Vec<_> = self.slots.values().collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        slots
    }

    /// The configured provider that alone has this model; `None` when none or several have it.
    pub fn only_provider_of(&self, model: &str) -> Option<&Arc<ProviderSlot>> {
        match self.by_model.get(model).map(Vec::as_slice) {
            Some([only]) => Some(only),
            _ => None,
        }
    }
}

/// What outlives snapshots.
pub struct Shared {
    snapshot: ArcSwap<Snapshot>,
    /// The spend ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Where taps come from.
    pub telemetry: Telemetry,
    /// Counts of the data plane.
    pub counts: Counts,
    /// Where the process stands.
    pub(crate) phases: Arc<Phases>,
}

/// Counts of the data plane, for health and metrics.
#[derive(Default)]
pub struct Counts {
    /// Requests between head read and last byte.
    pub in_flight: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Connections turned away: over the limit or out of file descriptors.
    pub connections_refused: AtomicU64,
    /// Bytes of bodies held now: requests', and answers' that are collected for reading.
    pub held_bytes: AtomicUsize,
}

impl Shared {
    /// Brings the parts together.
    pub fn new(snapshot: Snapshot, ledger: Arc<dyn Ledger>, telemetry: Telemetry) -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            ledger,
            telemetry,
            counts: Counts::default(),
            phases: Arc::default(),
        })
    }

    /// The snapshot of now; a request keeps the one that it began with.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces the snapshot; requests in flight keep theirs.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Where the process stands.
    pub fn phase(&self) -> Phase {
        self.phases.now()
    }

    /// Moves on to a phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.phases.enter(phase);
    }
}
