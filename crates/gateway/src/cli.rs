//! The command line. A command exists when it works.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// `--version`: version, commit and features.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("MAGICAPI_COMMIT"), "; features: default)");

/// One binary between applications and every AI provider.
#[derive(Parser)]
#[command(name = "magicapi-ai-gateway", version = VERSION, about)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What stands before or after any command.
#[derive(Args, Clone, Default)]
pub(crate) struct Common {
    /// The configuration file; without it, MAGICAPI_CONFIG, else the environment alone.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where store, token and lock live.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs the gateway (the default).
    Serve,
    /// Runs the gateway with a built-in mock provider, a store and a little traffic; needs no key and no network.
    Demo {
        /// Ends after the first traffic instead of following it.
        #[arg(long)]
        once: bool,
    },
    /// Validates the configuration offline; exit status 2 when something is wrong.
    Check,
    /// Prints the JSON Schema of the configuration file.
    Schema,
    /// Prints each effective value with its origin, secrets masked.
    Config,
    /// Runs the mock provider alone.
    Mock(magicapi_mock::MockArgs),
    /// The provider catalogue.
    #[command(subcommand)]
    Providers(Providers),
    /// The models table.
    #[command(subcommand)]
    Models(Models),
    /// Exporters that are compiled in.
    #[command(subcommand)]
    Exporters(Exporters),
    /// The embedded request log.
    #[command(subcommand)]
    Logs(crate::logs::LogsCommand),
    /// Virtual keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Prints shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
pub(crate) enum Providers {
    /// Lists the providers with address, key variable and whether they are configured.
    List,
}

#[derive(Subcommand)]
pub(crate) enum Models {
    /// Lists models with limits, capabilities and prices in US dollars per million tokens.
    List {
        /// Only this provider's.
        provider: Option<String>,
    },
}

#[derive(Subcommand)]
pub(crate) enum Exporters {
    /// Lists exporters with their settings.
    List,
}

#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Makes a virtual key and prints it with the lines that configure it. Nothing is stored.
    Create {
        /// The key's name in logs and records.
        #[arg(long, default_value = "app-1")]
        name: String,
        /// Prints it, which happens anyway: nothing else is done with it yet.
        #[arg(long, hide = true)]
        print: bool,
    },
}
