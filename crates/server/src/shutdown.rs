//! How a request learns that the process will not wait for it any longer, and whether its client left before that.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use magicapi_model::{Error, ErrorKind};

use crate::snapshot::{Phase, Shared};

/// Wakes a stream when the process cuts what is left. Registered once per task and phase, not per chunk.
pub(crate) struct Cut {
    shared: Arc<Shared>,
    /// Each change of phase uses a registration up, also the one that does not cut.
    registered: Option<(Waker, Phase, CutFuture)>,
}

/// The error of what is cut.
pub(crate) fn cut_off() -> Error {
    Error::gateway(ErrorKind::ShuttingDown, "the gateway is shutting down; ask again")
}

/// Does this work, unless the process cuts what is left before it is done.
pub(crate) async fn unless_cut<T>(
    shared: &Shared,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        done = work => done,
        () = shared.cutting() => Err(cut_off()),
    }
}

/// When a client left by itself; otherwise a connection that ends while the process cuts was cut by it.
#[derive(Clone, Default)]
pub(crate) struct Left(Option<Arc<OnceLock<Instant>>>);

impl Left {
    /// One that several hold.
    pub(crate) fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// Notes a client that is gone now.
    pub(crate) fn note(&mut self, shared: &Shared) {
        if shared.phase() != Phase::Cutting {
            let _ = self.0.get_or_insert_default().set(Instant::now());
        }
    }

    /// When it left.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.as_ref()?.get().copied()
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
