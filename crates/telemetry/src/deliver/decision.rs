//! What is decided about a parcel: before it is sent, and by the answer.

use std::time::Duration;

use magicapi_plugin::{Delivery, ItemOutcome};

/// What to do with the parcel now.
pub(super) enum Next {
    Done,
    Wait(Duration),
    Halve,
    GiveUp,
}

/// Whether the parcel may be sent.
pub(super) enum Admission {
    Send,
    /// The breaker is open, and there is a spool.
    Divert,
    TooLate,
}

/// Whether records are to be sent again, for a cause that the exporter may know.
pub(super) fn leaves_some(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Items(outcomes) => !outcomes.iter().all(ItemOutcome::is_settled),
        Delivery::Delivered | Delivery::TooLarge | Delivery::Refused { .. } => false,
        // `Retry` and `Unknown`.
        _ => true,
    }
}
