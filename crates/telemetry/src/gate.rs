//! `when_full: refuse`: whether new requests are refused because an exporter could not keep their records.
//!
//! Each such exporter has a [`Valve`], which the spool or, without one, the queue's side shuts and opens; the request
//! path reads the [`Gate`], one atomic number for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many exporters are full.
#[derive(Default)]
pub(crate) struct Gate(AtomicUsize);

impl Gate {
    /// Whether new requests are refused.
    pub(crate) fn is_shut(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// One exporter's part of the gate; it opens when it is dropped.
pub(crate) struct Valve {
    gate: Arc<Gate>,
    exporter: String,
    shut: AtomicBool,
    /// The exporter is no longer wanted: whatever becomes of it, no request is refused for it.
    retired: AtomicBool,
}

impl Valve {
    pub(crate) fn new(gate: &Arc<Gate>, exporter: &str) -> Arc<Self> {
        let (shut, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { gate: gate.clone(), exporter: exporter.to_owned(), shut, retired })
    }

    /// Opens it for good.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.set(false);
    }

    /// Whether this exporter is full.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    /// Notes whether it is, and says so once per change. While it is shut, `held` bytes must go below half of `bound`
    /// before it opens for their sake: an exporter on the edge must not refuse every other request.
    pub(crate) fn hold(&self, disk_is_full: bool, held: usize, bound: usize) {
        let threshold = if self.is_shut() { bound / 2 } else { bound };
        self.set(disk_is_full && held > threshold);
    }

    /// See [`Self::hold`].
    pub(crate) fn set(&self, shut: bool) {
        let shut = shut && !self.retired.load(Ordering::Acquire);
        if self.shut.swap(shut, Ordering::AcqRel) == shut {
            return;
        }
        let exporter = self.exporter.as_str();
        if shut {
            self.gate.0.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                exporter,
                "exporter: full in memory and on disk; new requests are refused (`when_full: refuse`)"
            );
        } else {
            self.gate.0.fetch_sub(1, Ordering::Relaxed);
            tracing::info!(exporter, "exporter: there is room again; requests are taken");
        }
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Gate, Valve};

    #[test]
    fn the_gate_is_shut_while_any_exporter_is_full() {
        let gate = Arc::new(Gate::default());
        let (one, other) = (Valve::new(&gate, "one"), Valve::new(&gate, "other"));
        one.hold(false, 101, 100);
        assert!(!gate.is_shut(), "the disk takes it");
        one.hold(true, 100, 100);
        assert!(!gate.is_shut(), "it fits");
        one.hold(true, 101, 100);
        one.hold(true, 51, 100);
        assert!(gate.is_shut() && one.is_shut() && !other.is_shut(), "not before half is free");
        other.set(true);
        one.hold(true, 50, 100);
        assert!(gate.is_shut() && !one.is_shut());
        drop(other);
        assert!(!gate.is_shut(), "who leaves refuses nothing");
        one.set(true);
        one.retire();
        one.set(true);
        assert!(!gate.is_shut(), "nor does who is no longer wanted");
    }
}
