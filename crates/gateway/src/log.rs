//! The gateway's own log, on stderr.

use magicapi_config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Sets the log up; the error says what is wrong with `RUST_LOG`.
pub(crate) fn start(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("RUST_LOG: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).with_target(false).try_init()
        }
    };
    started.map_err(|error| error.to_string())
}
