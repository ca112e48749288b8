//! How a stream learns that the process will not wait for it any longer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::snapshot::{Phase, Shared};

/// Wakes a stream when the process cuts what is left. Registered once per task, not per chunk.
pub(crate) struct Cut {
    shared: Arc<Shared>,
    registered: Option<(Waker, CutFuture)>,
}

type CutFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Cut {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), registered: None }
    }

    /// Whether the stream must end now; else the task is woken when it must.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.shared.phase() == Phase::Cutting {
            return true;
        }
        let known = self.registered.as_ref().is_some_and(|(waker, _)| waker.will_wake(cx.waker()));
        if known {
            return false;
        }
        let mut phase = self.shared.phase_changed.subscribe();
        let mut cut: CutFuture = Box::pin(async move {
            // The sender lives as long as the process.
            let _ = phase.wait_for(|phase| *phase == Phase::Cutting).await;
        });
        let now = matches!(cut.as_mut().poll(cx), Poll::Ready(()));
        self.registered = Some((cx.waker().clone(), cut));
        now
    }
}
