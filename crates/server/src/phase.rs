//! Where the process stands between start and end, and who hears of it: the listeners of every step, streams of the cut
//! alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serving,
    /// Told to end: `/ready` is 503, requests are still taken and finished.
    Draining,
    /// Streams that are left get an error frame and end.
    Cutting,
}

/// The process's phase. It only moves on.
pub(crate) struct Phases {
    now: AtomicU8,
    changed: watch::Sender<Phase>,
    /// Apart from `changed`: who is registered here is woken once, by what it waits for.
    cut: watch::Sender<bool>,
}

impl Default for Phases {
    fn default() -> Self {
        Self {
            now: AtomicU8::new(Phase::Serving as u8),
            changed: watch::Sender::new(Phase::Serving),
            cut: watch::Sender::new(false),
        }
    }
}

impl Phases {
    /// The phase of now. One atomic load.
    pub(crate) fn now(&self) -> Phase {
        match self.now.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Cutting,
        }
    }

    /// Moves on to a phase; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.now.fetch_max(phase as u8, Ordering::AcqRel);
        self.changed.send_modify(|now| *now = phase.max(*now));
        if phase == Phase::Cutting {
            self.cut.send_replace(true);
        }
    }

    /// Hears of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Phase> {
        self.changed.subscribe()
    }

    /// Returns once what is left is cut.
    pub(crate) async fn cutting(&self) {
        // The sender lives as long as this.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }
}

/// Wakes a stream when the process cuts what is left. Registered once per task, not per chunk.
pub(crate) struct Cut {
    phases: Arc<Phases>,
    registered: Option<(Waker, CutFuture)>,
}

type CutFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Cut {
    pub(crate) fn new(phases: &Arc<Phases>) -> Self {
        Self { phases: phases.clone(), registered: None }
    }

    /// Whether the stream must end now; else the task is woken when it must.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.phases.now() == Phase::Cutting {
            return true;
        }
        if self.registered.as_ref().is_some_and(|(waker, _)| waker.will_wake(cx.waker())) {
            return false;
        }
        let phases = self.phases.clone();
        // A task that has used its budget up would be told to come again, and not be registered.
        let cutting = tokio::task::unconstrained(async move { phases.cutting().await });
        let mut cut: CutFuture = Box::pin(cutting);
        let is_cut = matches!(cut.as_mut().poll(cx), Poll::Ready(()));
        self.registered = Some((cx.waker().clone(), cut));
        is_cut
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::{Cut, Phase, Phases};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A wake-up by another phase would use the registration up, if the stream was polled for another reason just before.
    #[test]
    fn a_stream_is_woken_by_the_cut_and_by_no_other_phase() {
        let phases = Arc::new(Phases::default());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut cut = Cut::new(&phases);
        assert!(!cut.poll(&mut cx));
        phases.enter(Phase::Draining);
        assert!(!cut.poll(&mut cx));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        phases.enter(Phase::Cutting);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(cut.poll(&mut cx));
    }

    #[test]
    fn a_phase_never_goes_back() {
        let phases = Phases::default();
        let changes = phases.changes();
        phases.enter(Phase::Cutting);
        phases.enter(Phase::Draining);
        assert_eq!((phases.now(), *changes.borrow()), (Phase::Cutting, Phase::Cutting));
    }
}
