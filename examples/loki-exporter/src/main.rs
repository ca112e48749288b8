//! MagicAPI Gateway with the exporter `loki`.

use std::process::ExitCode;

// Names the crate: what nobody names is not linked, and its plug-in would be missing.
use loki_exporter as _;

fn main() -> ExitCode {
    magicapi_ai_gateway::run(std::env::args_os())
}
