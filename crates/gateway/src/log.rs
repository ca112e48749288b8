//! The gateway's own log, on stderr. Lines are written by a thread of their own: a reader of stderr that stalls must not
//! stall requests. What it cannot take is dropped.

use magicapi_config::{Log, LogFormat};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written.
const WAITING_LINES: usize = 16_384;

/// Sets the log up; the error says what is wrong with `RUST_LOG`. Lines that wait are written when the guard is dropped.
pub(crate) fn start(log: &Log) -> Result<WorkerGuard, String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| {
        format!("RUST_LOG: {error}; expected a level such as `info`, or `info,access=off`")
    })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_target(false)
            .try_init(),
    };
    started.map_err(|error| error.to_string())?;
    Ok(guard)
}
