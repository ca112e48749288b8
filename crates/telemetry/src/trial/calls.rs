//! Trials on their way to an exporter's thread, and the wait for what it answers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use magicapi_plugin::RequestMetrics;
use tokio::sync::{Notify, oneshot};

use super::{TAKEN, TrialStep};

/// How often a waiting trial looks whether it was taken up.
const LOOK: Duration = Duration::from_millis(50);

/// Trials that wait for an exporter's thread.
#[derive(Default)]
pub(crate) struct Trials {
    waiting: Mutex<VecDeque<Call>>,
    arrived: Notify,
}

/// One of them.
pub(crate) struct Call {
    pub(crate) record: Arc<RequestMetrics>,
    pub(crate) began: Instant,
    taken: Arc<AtomicBool>,
    answer: oneshot::Sender<Vec<TrialStep>>,
}

impl Call {
    pub(crate) fn answer(self, steps: Vec<TrialStep>) {
        let _nobody_waits = self.answer.send(steps);
    }
}

impl Trials {
    /// Asks the exporter's thread, and waits: until the call was taken up for `TAKEN` and `until_begun`, from then on
    /// for `patience`.
    pub(crate) async fn ask(
        &self,
        record: Arc<RequestMetrics>,
        until_begun: Duration,
        patience: Duration,
    ) -> Vec<TrialStep> {
        let began = Instant::now();
        let taken = Arc::new(AtomicBool::new(false));
        let (answer, mut answered) = oneshot::channel();
        let call = Call { record, began, taken: taken.clone(), answer };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(call);
        self.arrived.notify_waiters();
        let mut taken_at = None;
        loop {
            match tokio::time::timeout(LOOK, &mut answered).await {
                Ok(Ok(steps)) => return steps,
                Ok(Err(_)) => return vec![TrialStep::blocked(began, "the exporter is being ended")],
                Err(_) => {}
            }
            if taken_at.is_none() && taken.load(Ordering::Relaxed) {
                taken_at = Some(Instant::now());
            }
            let over = match taken_at {
                Some(at) => at.elapsed() > patience,
                None => began.elapsed() > TAKEN + until_begun,
            };
            if over {
                return vec![TrialStep::blocked(began, "the exporter's thread does not answer")];
            }
        }
    }

    /// Returns once a call waits.
    pub(crate) async fn called(&self) {
        loop {
            // Before the look, so that a call between the two is heard.
            let arrived = self.arrived.notified();
            if !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// The calls that wait; they are taken up.
    pub(crate) fn take(&self) -> Vec<Call> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for call in &waiting {
            call.taken.store(true, Ordering::Relaxed);
        }
        waiting.into()
    }
}
