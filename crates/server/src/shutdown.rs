//! What becomes of a request when the process will not wait for it any longer, and whether its client left before that.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use magicapi_model::{Error, ErrorKind};

use crate::phase::Phase;
use crate::snapshot::Shared;

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
        () = shared.phases.cutting() => Err(cut_off()),
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
