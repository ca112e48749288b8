//! How a stream learns that the process will not wait for it any longer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::snapshot::{Phase, Shared};

/// Wakes a stream when the process cuts what is left. Registered once per task and phase, not per chunk.
pub(crate) struct Cut {
    shared: Arc<Shared>,
    /// Each change of phase uses a registration up, also the one that does not cut.
    registered: Option<(Waker, Phase, CutFuture)>,
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
