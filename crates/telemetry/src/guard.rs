//! Runs an exporter's code so that neither a panic nor a hang reaches the pipeline.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::stop::StopSignal;

/// How a guarded call ended.
pub(crate) enum Guarded<T> {
    Done(T),
    Panicked(String),
    TimedOut,
    /// The order to end came, and its deadline has passed.
    TooLate,
}

/// Runs `call` to its end, its panic, the timeout or the deadline of an order to end.
pub(crate) async fn guarded<T>(
    call: impl Future<Output = T>,
    timeout: Duration,
    stop: &mut StopSignal,
) -> Guarded<T> {
    tokio::select! {
        biased;
        outcome = caught(call) => outcome.map_or_else(Guarded::Panicked, Guarded::Done),
        () = stop.too_late() => Guarded::TooLate,
        () = tokio::time::sleep(timeout) => Guarded::TimedOut,
    }
}

/// Runs `call`; a panic is an error with its text.
pub(crate) async fn caught<T>(call: impl Future<Output = T>) -> Result<T, String> {
    let mut call = pin!(call);
    std::future::poll_fn(move |context| {
        // The future is never polled again after a panic, so nothing half-done is seen.
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(panic_text(payload.as_ref()))),
        }
    })
    .await
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
