//! The embedded request log on the command line.
use std::path::Path;
use std::process::ExitCode;
/// Reads the log.
#[derive(clap::Subcommand)]
pub(crate) enum LogsCommand {
    /// Placeholder.
    Tail,
}
pub(crate) async fn run(_command: LogsCommand, _data_dir: &Path) -> ExitCode {
    ExitCode::from(2)
}
pub(crate) fn line(row: &magicapi_kernel::LogRow) -> String {
    format!("{} {} {}", row.id, row.status_code, row.outcome)
}
