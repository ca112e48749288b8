//! The command line. A command exists when it works.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

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

/// Commands that read no configuration: `--config` and `--data-dir` would do nothing there, so they are refused.
const WITHOUT_CONFIGURATION: [&str; 5] = ["schema", "mock", "models", "keys", "completions"];

impl Cli {
    /// Reads the arguments, the program's name first.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let cli = Self::from_arg_matches(&matches)?;
        let name = matches.subcommand_name().unwrap_or_default();
        let given =
            [("--config", cli.common.config.is_some()), ("--data-dir", cli.common.data_dir.is_some())];
        match given.iter().find(|(_, given)| *given && WITHOUT_CONFIGURATION.contains(&name)) {
            Some((option, _)) => Err(without_effect(&mut command, option, name)),
            None => Ok(cli),
        }
    }
}

fn without_effect(command: &mut clap::Command, option: &str, name: &str) -> clap::Error {
    let text = format!("`{option}` has no effect on `{name}`, which reads no configuration; leave it out");
    command.error(clap::error::ErrorKind::ArgumentConflict, text)
}

/// The command line as it is parsed and completed.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    for name in WITHOUT_CONFIGURATION {
        // It takes the place of the global one, so that neither help nor completions offer it.
        let hidden = |id: &'static str, option: &'static str| {
            Arg::new(id).long(option).global(true).hide(true).value_parser(clap::value_parser!(PathBuf))
        };
        command = command.mut_subcommand(name, |sub| {
            sub.arg(hidden("config", "config")).arg(hidden("data_dir", "data-dir"))
        });
    }
    command
}

/// What stands before or after any command that reads a configuration.
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
    /// Exporters: how they are doing, what is compiled in, whether one works.
    #[command(subcommand)]
    Exporters(Exporters),
    /// Records on disk: what waits for a back end, and dead letters.
    #[command(subcommand)]
    Spool(Spool),
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
    /// Lists how the running gateway's exporters are doing, then every exporter with its settings.
    List {
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Sends one marked record through an exporter and prints what its back end answered; exit status 1 when the record
    /// did not arrive.
    ///
    /// Through the running gateway; when none runs, the exporter is made from the configuration. The record has the
    /// provider `test`, the model `exporters-test` and the operation `test`; it passes no filter and is not counted. Of
    /// an exporter that serves a page the page is made.
    Test {
        /// The exporter's name: `name` in the configuration, else its type.
        exporter: String,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Spool {
    /// Lists what each exporter has on disk; with a name, that exporter's records.
    List {
        /// Only this exporter, or a directory without one: its records by id, time and model.
        exporter: Option<String>,
        /// Dead letters alone.
        #[arg(long)]
        dead: bool,
        /// Records at most.
        #[arg(long, value_name = "N", default_value_t = 100, requires = "exporter")]
        limit: usize,
        /// Prints each record whole, bodies included, as one line of JSON.
        #[arg(long, requires = "exporter")]
        content: bool,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Puts dead letters, and files that were set aside and can be read, back to be delivered; exit status 1 when
    /// something stayed.
    Replay {
        /// The exporter.
        exporter: String,
        /// One dead letter's record id, or the name of one file that was set aside; without it, all.
        id: Option<String>,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Removes an exporter's records from disk: what waits, dead letters, files that were set aside.
    Purge {
        /// The exporter, or a directory without one.
        exporter: String,
        /// Dead letters alone.
        #[arg(long)]
        dead: bool,
        /// Only files whose oldest record is older: `90s`, `2h`, `7d`.
        #[arg(long, value_name = "DURATION", value_parser = age)]
        older_than: Option<std::time::Duration>,
        /// Does it; without, it is said what would be removed (exit status 1).
        #[arg(long)]
        yes: bool,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    magicapi_config::parse_duration(text).ok_or_else(|| "write `90s`, `2h` or `7d`".to_owned())
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
