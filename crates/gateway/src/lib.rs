//! MagicAPI Gateway (L4): the command line, and the only crate that names every part.
//!
//! A build with a plug-in of one's own is `use my_exporter as _;` and [`run`] in a `main.rs`.

use std::ffi::OsString;
use std::process::ExitCode;

mod admin_client;
mod catalogue;
mod cli;
mod commands;
mod data_dir;
mod demo;
mod exporters;
mod health;
mod journals;
mod log;
mod logs;
mod parts;
mod pipeline;
mod reach;
mod redaction;
mod reload;
mod serve;
mod signals;

// Without a name for it the crate would not be linked, and its exporters would be missing.
use magicapi_exporters as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the program with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap, too; it knows where to print and what to return.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Another crate may switch on a second provider: the choice is made here, once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    commands::run(cli)
}
