//! How an exporter's worker learns that it shall end, and by when.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// An order to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Delivery goes on until then.
    pub(crate) drain_until: Instant,
    /// The exporter's own `shutdown` may take until then.
    pub(crate) end_by: Instant,
}

/// Where the order is given.
pub(crate) type StopSender = watch::Sender<Option<Stop>>;

/// Where it is awaited. Clones hear the same order. When the sender is gone, the order is to end at once.
#[derive(Clone)]
pub(crate) struct StopSignal(watch::Receiver<Option<Stop>>);

impl StopSignal {
    pub(crate) fn new() -> (StopSender, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Another that hears what this sender orders.
    pub(crate) fn of(sender: &StopSender) -> Self {
        Self(sender.subscribe())
    }

    /// The order, if it was given.
    pub(crate) fn order(&self) -> Option<Stop> {
        let order = *self.0.borrow();
        order.or_else(|| {
            let gone = self.0.has_changed().is_err();
            gone.then(|| Stop {
                drain_until: Instant::now(),
                end_by: Instant::now() + Duration::from_secs(1),
            })
        })
    }

    /// Returns once the order is given.
    pub(crate) async fn ordered(&mut self) {
        // An error means that the sender is gone, which is an order too.
        let _order = self.0.wait_for(Option::is_some).await;
    }

    /// Returns once it is too late to deliver anything.
    pub(crate) async fn too_late(&mut self) {
        self.ordered().await;
        if let Some(order) = self.order() {
            sleep_until(order.drain_until).await;
        }
    }

    /// Waits, but not past the deadline, and not for long when the order comes meanwhile: then one more try is due.
    /// `false` when it is too late for another.
    pub(crate) async fn pause(&mut self, delay: Duration) -> bool {
        match self.order() {
            None => {
                tokio::select! {
                    () = sleep(delay) => {}
                    () = self.ordered() => {}
                }
            }
            Some(order) => {
                let wake_at = (Instant::now() + delay).min(order.drain_until);
                sleep_until(wake_at).await;
            }
        }
        self.order().is_none_or(|order| Instant::now() < order.drain_until)
    }
}
