//! Signals: SIGTERM and SIGINT drain, a second one cuts, SIGHUP reloads.

use std::sync::Arc;

use magicapi_server::{Phase, Shared};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Watches signals until the process ends. `reload` is notified on SIGHUP.
pub(crate) fn watch(shared: Arc<Shared>, reload: Arc<Notify>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => end(&shared),
                _ = interrupt.recv() => end(&shared),
                _ = hang_up.recv() => reload.notify_one(),
            }
        }
    });
    Ok(())
}

fn end(shared: &Shared) {
    if shared.phase() != Phase::Serving {
        tracing::info!("told to end again: ending at once");
        return shared.enter(Phase::Cutting);
    }
    let snapshot = shared.snapshot();
    let drain = snapshot.config.server.drain;
    tracing::info!(
        "draining: accepting for {:?}, then finishing what runs for up to {:?}; a second signal ends at once",
        drain.delay,
        drain.timeout
    );
    shared.enter(Phase::Draining);
}
