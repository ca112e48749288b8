//! How a stream learns that the process will not wait for it any longer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use crate::snapshot::{Phase, Shared};

/// Wakes a stream when the process cuts what is left. Registered once per task and phase, not per chunk.
pub(crate) struct Cut {
    shared: Arc<Shared>,
    /// Each change of phase uses a registration up, also the one that does not cut.
    registered: Option<(Waker, Phase, CutFuture)>,
}

/// Whether a client left by itself; otherwise a connection that ends while the process cuts was cut by it.
#[derive(Clone, Default)]
pub(crate) struct Left(Option<Arc<AtomicBool>>);

impl Left {
    /// One that several hold.
    pub(crate) fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// Notes a client that is gone now.
    pub(crate) fn note(&mut self, shared: &Shared) {
        if shared.phase() != Phase::Cutting {
            self.0.get_or_insert_default().store(true, Ordering::Relaxed);
        }
    }

    /// Whether the process ended the request, not its client.
    pub(crate) fn was_cut(&self, shared: &Shared) -> bool {
        let left = self.0.as_ref().is_some_and(|left| left.load(Ordering::Relaxed));
        !left && shared.phase() == Phase::Cutting
    }
}

/// Notes that the client left when it is dropped before the answer's head was given.
pub(crate) struct Waiting {
    /// What is noted.
    pub(crate) left: Left,
    /// The process.
    pub(crate) shared: Arc<Shared>,
    /// Whether the head was given.
    pub(crate) answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.left.note(&self.shared);
        }
    }
}

type CutFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Cut {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), registered: None }
    }

    /// Whether the stream must end now; else the task is woken when it must.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.shared.phase();
        if now == Phase::Cutting {
            return true;
        }
        let holds = |(waker, then, _): &(Waker, Phase, _)| waker.will_wake(cx.waker()) && *then == now;
        if self.registered.as_ref().is_some_and(holds) {
            return false;
        }
        let mut phase = self.shared.phase_changed.subscribe();
        let mut cut: CutFuture = Box::pin(async move {
            // The sender lives as long as the process.
            let _ = phase.wait_for(|phase| *phase == Phase::Cutting).await;
        });
        let is_cut = matches!(cut.as_mut().poll(cx), Poll::Ready(()));
        self.registered = Some((cx.waker().clone(), now, cut));
        is_cut
    }
}
