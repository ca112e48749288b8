//! MagicAPI Gateway with one exporter more.

use std::process::ExitCode;

// Names the crate: what nobody names is not linked, and its plug-in would be missing.
use my_exporter as _;

fn main() -> ExitCode {
    magicapi_ai_gateway::run(std::env::args_os())
}
