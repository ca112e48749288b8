//! What each command does, but for the long-running ones.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use magicapi_config::{Catalogue, Environment, Flags, Loaded, Sources, StoreUrl};
use magicapi_model::price::ModelRow;

use crate::cli::{self, Cli, Command, Common, Exporters, Keys, Models, Providers};
use crate::{catalogue, demo, logs, parts, redaction, serve};

mod exporters;
mod spool;
mod way;

/// The configuration, or this machine, does not allow what was asked.
const UNUSABLE: u8 = 2;

/// Runs one command.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let catalogue = match catalogue::catalogue() {
        Ok(catalogue) => catalogue,
        Err(error) => return fail(&format!("this build cannot be used: {error}")),
    };
    let sources = sources(cli.common);
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(sources, catalogue),
        Command::Demo { once } => demo::run(once, sources, catalogue),
        Command::Check => check(&sources, &catalogue),
        Command::Schema => answer(&format!("{:#}\n", magicapi_config::schema(&catalogue))),
        Command::Config => config(&sources, &catalogue),
        Command::Mock(arguments) => mock(arguments),
        Command::Providers(Providers::List) => providers(&sources, &catalogue),
        Command::Models(Models::List { provider }) => models(provider.as_deref()),
        Command::Exporters(Exporters::List { json }) => exporters::list(json, &sources, &catalogue),
        Command::Exporters(Exporters::Test { exporter, json }) => {
            exporters::test(&exporter, json, &sources, &catalogue)
        }
        Command::Spool(command) => spool::run(command, &sources, &catalogue),
        Command::Logs(command) => log_command(command, &sources, &catalogue),
        Command::Keys(Keys::Create { name, print: _ }) => create_key(&name),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "magicapi-ai-gateway", &mut script);
            answer(&String::from_utf8_lossy(&script))
        }
    }
}

/// Where the configuration comes from.
fn sources(common: Common) -> Sources {
    Sources {
        file: common.config,
        flags: Flags { data_dir: common.data_dir, ..Flags::default() },
        env: Environment::from_process(),
    }
}

/// Prints a command's answer. A reader that has gone (`| head`) is no error.
pub(crate) fn answer(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// Says on stderr why a command ends.
pub(crate) fn fail(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    ExitCode::from(UNUSABLE)
}

/// Runs a future on a small runtime of its own.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, std::io::Error> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Loads, and makes all parts that can be made offline.
fn checked(sources: &Sources, catalogue: &Catalogue) -> Result<Loaded, String> {
    let loaded = magicapi_config::load(sources, catalogue).map_err(|problems| problems.to_string())?;
    parts::snapshot(&loaded)?;
    redaction::redactor(&loaded, catalogue, None)?;
    let workshop = crate::exporters::Workshop { registry: std::sync::Arc::default(), data_dir: None };
    workshop.make(&loaded, None).map_err(|problems| problems.join("\n"))?;
    Ok(loaded)
}

fn check(sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    match checked(sources, catalogue) {
        Ok(loaded) => {
            let mut text = String::new();
            for notice in &loaded.notices {
                let _ = writeln!(text, "note: {notice}");
            }
            let what =
                loaded.file.as_ref().map_or("the environment".to_owned(), |file| file.display().to_string());
            let _ = writeln!(text, "ok: {what} (configuration {})", loaded.hash);
            answer(&text)
        }
        Err(problems) => fail(&problems),
    }
}

fn config(sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    match magicapi_config::load(sources, catalogue) {
        Ok(loaded) => {
            let mut text = String::new();
            for value in &loaded.origins {
                let _ = writeln!(text, "{} = {}  # {}", value.key, value.value, value.origin);
            }
            answer(&text)
        }
        Err(problems) => fail(&problems.to_string()),
    }
}

fn mock(arguments: magicapi_mock::MockArgs) -> ExitCode {
    match block_on(magicapi_mock::run(arguments)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => fail(&format!("mock: {error}")),
    }
}

fn providers(sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    let loaded = match magicapi_config::load(sources, catalogue) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems.to_string()),
    };
    let mut text = format!("{:<14} {:<11} {:<46} {}\n", "NAME", "CONFIGURED", "BASE URL", "KEY");
    let entries = &loaded.config.providers;
    for entry in entries {
        let spec = catalogue.providers.iter().find(|spec| spec.name == entry.catalogue);
        let url =
            entry.base_url.as_deref().or_else(|| spec.and_then(|spec| spec.default_base_url)).unwrap_or("-");
        let key = if entry.api_key.is_some() { "set" } else { "-" };
        let _ = writeln!(text, "{:<14} {:<11} {url:<46} {key}", entry.name, "yes");
    }
    for spec in catalogue.providers.iter().filter(|spec| !entries.iter().any(|entry| entry.name == spec.name))
    {
        let url = spec.default_base_url.unwrap_or("-");
        let key = spec.key_env.unwrap_or("none needed");
        let _ = writeln!(text, "{:<14} {:<11} {url:<46} {key}", spec.name, "no");
    }
    answer(&text)
}

fn models(provider: Option<&str>) -> ExitCode {
    let table = match parts::built_in_prices() {
        Ok(table) => table,
        Err(problem) => return fail(&problem),
    };
    let rows = magicapi_providers::catalogue().unwrap_or_default();
    if let Some(name) = provider.filter(|name| !rows.iter().any(|row| row.name == *name)) {
        let known: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        return fail(&format!("no provider is named `{name}`; known: {}", known.join(", ")));
    }
    let mut text = format!(
        "{:<60} {:<12} {:>10} {:>10} {:>9} {:>9}  {}\n",
        "MODEL", "MODE", "MAX IN", "MAX OUT", "$/M IN", "$/M OUT", "CAPABILITIES"
    );
    for row in rows.iter().filter(|row| provider.is_none_or(|name| row.name == name)) {
        for model in table.rows_of(&row.name) {
            let _ = writeln!(text, "{}", model_line(&model));
        }
    }
    answer(&text)
}

fn model_line(row: &ModelRow) -> String {
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    let base = row.price.get("standard").and_then(|sizes| sizes.get("base"));
    let rate = |key: &str| base.and_then(|rates| rates.get(key)).map_or("-".to_owned(), ToString::to_string);
    format!(
        "{:<60} {:<12} {:>10} {:>10} {:>9} {:>9}  {}",
        format!("{}/{}", row.provider, row.model),
        row.mode,
        number(row.max_input),
        number(row.max_output),
        rate("input"),
        rate("output"),
        row.caps.join(",")
    )
}

fn log_command(command: logs::LogsCommand, sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    let config = match magicapi_config::load(sources, catalogue) {
        Ok(loaded) => loaded.config,
        Err(problems) => return fail(&problems.to_string()),
    };
    let database = match &config.store.url {
        StoreUrl::Sqlite(path) => Some(path.as_path()),
        StoreUrl::None => None,
    };
    match block_on(logs::run(command, &config.data_dir, database)) {
        Ok(code) => code,
        Err(error) => fail(&error.to_string()),
    }
}

fn create_key(name: &str) -> ExitCode {
    let made = match magicapi_policies::create(name) {
        Ok(made) => made,
        Err(problem) => return fail(&format!("keys create: {problem}")),
    };
    answer(&format!(
        "key:  {key}\nhash: {hash}\n\nGive the key to its user; it is not stored. Configure it as a variable (several with commas):\n\n\
         GATEWAY_API_KEYS={name}:{key}\n\nor its hash in the file:\n\n\
         auth:\n  mode: keys\n  keys:\n    - {{ name: {name}, hash: \"{hash}\" }}\n",
        key = made.key.expose(),
        hash = made.hash,
        name = made.name,
    ))
}
