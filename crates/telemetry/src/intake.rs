//! The hand-over from the request path to the assembly threads.
//!
//! Its bound is the memory budget: every entry holds a reservation. The request path pushes one pointer under a lock
//! that nobody holds for longer than that takes, and wakes a thread only when one sleeps; a woken thread lingers for a
//! moment, so that under load the price of a wake-up is shared by many requests.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a woken thread waits for more.
const LINGER: Duration = Duration::from_millis(10);

/// Entries that one thread takes at a time, so that several threads share a burst.
const SHARE: usize = 64;

#[derive(Debug)]
pub(crate) struct Intake<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    sleepers: usize,
    closed: bool,
}

impl<T> Default for Intake<T> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), sleepers: 0, closed: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }
}

impl<T> Intake<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an entry over; gives it back when the intake is closed.
    pub(crate) fn push(&self, entry: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(entry);
        }
        state.waiting.push_back(entry);
        let asleep = state.sleepers > 0;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Moves some entries to `into`, waiting for the first; `false` once the intake is closed and empty.
    pub(crate) fn take(&self, into: &mut Vec<T>) -> bool {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            state.sleepers += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
            if !state.closed {
                drop(state);
                std::thread::sleep(LINGER);
                state = self.lock();
            }
        }
        let count = state.waiting.len().min(SHARE);
        into.extend(state.waiting.drain(..count));
        true
    }

    /// Takes no more; what is there is still handed out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// What nobody took, when the threads did not get to it in time.
    pub(crate) fn rest(&self) -> Vec<T> {
        self.lock().waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Intake;

    #[test]
    fn every_entry_is_taken_once_and_a_closed_intake_gives_back() {
        let intake = Arc::new(Intake::default());
        let taken = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (intake, taken) = (intake.clone(), taken.clone());
                std::thread::spawn(move || {
                    let mut some = Vec::new();
                    while intake.take(&mut some) {
                        taken.fetch_add(some.drain(..).sum::<usize>(), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..5000 {
            intake.push(1).expect("open");
        }
        intake.close();
        assert_eq!(intake.push(1), Err(1));
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(taken.load(Ordering::Relaxed), 5000);
    }
}
