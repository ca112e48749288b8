//! `spool list | replay | purge`: what exporters have on disk, through the running gateway or on the files themselves.
//!
//! Exit status: 0 done, 1 nothing or not all of it was done, 2 it could not be tried.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use magicapi_admin::{
    PurgedView, ReplayedView, SpoolFileView, SpoolListView, SpoolRecordsView, SpoolTotalsView,
};
use magicapi_config::{Catalogue, Config, Sources, StoreUrl};
use magicapi_plugin::Signals;
use magicapi_store::{DataDirLock, REQUEST_LOG};
use magicapi_telemetry::{PipelineSettings, Purge, Spools};
use serde::Serialize;

use super::exporters::size;
use super::way::{Way, read};
use super::{answer, block_on, fail};
use crate::admin_client::AdminClient;
use crate::cli::Spool;
use crate::logs::{escaped, printable};
use crate::pipeline;

/// Not all of it was done.
const NOT_DONE: u8 = 1;
/// A replay reads and writes up to 256 MiB of dead letters.
const PATIENCE: Duration = Duration::from_mins(10);

/// Runs one command.
pub(super) fn run(command: Spool, sources: &Sources, catalogue: &Catalogue) -> ExitCode {
    let config = match magicapi_config::load(sources, catalogue) {
        Ok(loaded) => loaded.config,
        Err(problems) => return fail(&problems.to_string()),
    };
    let done = block_on(async {
        match Files::open(&config, catalogue).await {
            Ok(files) => files.run(command).await,
            Err(problem) => Err(problem),
        }
    });
    match done.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(Done { text, all }) => {
            let printed = answer(&text);
            if all { printed } else { ExitCode::from(NOT_DONE) }
        }
        Err(problem) => fail(&format!("spool: {problem}")),
    }
}

/// What a command prints, and whether all of it was done.
struct Done {
    text: String,
    all: bool,
}

/// The files, and who works on them.
enum Files {
    /// The gateway that runs.
    Gateway(AdminClient),
    /// This process.
    Own {
        spools: Spools,
        /// Nobody else opens them meanwhile.
        _lock: Option<DataDirLock>,
    },
}

impl Files {
    async fn open(config: &Config, catalogue: &Catalogue) -> Result<Self, String> {
        Ok(match Way::find(&config.data_dir).await? {
            Way::Gateway(client) => Self::Gateway(client),
            Way::Alone(lock) => {
                let kinds = catalogue.plugins.iter().filter(|kind| kind.settings.takes(Signals::RECORDS));
                let kinds: Vec<&str> = kinds.map(|kind| kind.name).collect();
                let entries =
                    config.telemetry.exporters.iter().filter(|entry| kinds.contains(&entry.kind.as_str()));
                let mut exporters: Vec<_> =
                    entries.map(|entry| (entry.name.clone(), pipeline::settings(&entry.pipeline))).collect();
                if !matches!(config.store.url, StoreUrl::None) {
                    exporters.push((REQUEST_LOG.to_owned(), PipelineSettings::default()));
                }
                Self::Own { spools: Spools::of_nobody(config.data_dir.join("spool"), exporters), _lock: lock }
            }
        })
    }

    async fn run(&self, command: Spool) -> Result<Done, String> {
        match command {
            Spool::List { exporter: None, dead, json, .. } => {
                let mut list = self.list().await?;
                list.data.retain(|one| !dead || one.dead.files > 0);
                Ok(shown(&list, json, true, table))
            }
            Spool::List { exporter: Some(exporter), dead, limit, content, json } => {
                let records = self.records(&exporter, dead, limit, content).await?;
                let describe = if content { whole } else { lines };
                Ok(shown(&records, json, true, describe))
            }
            Spool::Replay { exporter, id, json } => {
                let replayed = self.replay(&exporter, id.as_deref()).await?;
                let all = replayed.kept.is_empty();
                Ok(shown(&replayed, json, all, |replayed| describe_replay(replayed, &exporter)))
            }
            Spool::Purge { exporter, dead, older_than, yes, json } => {
                let purge = Purge { dead_only: dead, older_than, dry: !yes };
                let purged = self.purge(&exporter, &purge).await?;
                Ok(shown(&purged, json, yes, |purged| describe_purge(purged, &exporter)))
            }
        }
    }

    async fn list(&self) -> Result<SpoolListView, String> {
        match self {
            Self::Gateway(client) => ask(client, false, "/api/v1/spool").await,
            Self::Own { spools, .. } => Ok(spools.list().map_err(|error| error.to_string())?.into()),
        }
    }

    async fn records(
        &self,
        exporter: &str,
        dead: bool,
        limit: usize,
        content: bool,
    ) -> Result<SpoolRecordsView, String> {
        match self {
            Self::Gateway(client) => {
                let name = escaped(exporter);
                let path = format!("/api/v1/spool/{name}?dead={dead}&limit={limit}&content={content}");
                ask(client, false, &path).await
            }
            Self::Own { spools, .. } => {
                let records = spools.records(exporter, dead, limit).map_err(|error| error.to_string())?;
                Ok(SpoolRecordsView::of(records, content))
            }
        }
    }

    async fn replay(&self, exporter: &str, id: Option<&str>) -> Result<ReplayedView, String> {
        match self {
            Self::Gateway(client) => {
                let id = id.map_or(String::new(), |id| format!("?id={}", escaped(id)));
                ask(client, true, &format!("/api/v1/spool/{}/replay{id}", escaped(exporter))).await
            }
            Self::Own { spools, .. } => {
                Ok(spools.replay(exporter, id).map_err(|error| error.to_string())?.into())
            }
        }
    }

    async fn purge(&self, exporter: &str, purge: &Purge) -> Result<PurgedView, String> {
        match self {
            Self::Gateway(client) => {
                let age = purge
                    .older_than
                    .map_or(String::new(), |age| format!("&older_than={}ms", age.as_millis()));
                let (name, dead, dry) = (escaped(exporter), purge.dead_only, purge.dry);
                ask(client, true, &format!("/api/v1/spool/{name}/purge?dead={dead}&dry_run={dry}{age}")).await
            }
            Self::Own { spools, .. } => {
                let purged = spools.purge(exporter, purge).map_err(|error| error.to_string())?;
                Ok(PurgedView::of(purged, purge.dry))
            }
        }
    }
}

async fn ask<T: serde::de::DeserializeOwned>(
    client: &AdminClient,
    changes: bool,
    path: &str,
) -> Result<T, String> {
    let body = if changes { client.post(path, PATIENCE).await } else { client.get(path).await };
    read(&body.map_err(|error| error.to_string())?)
}

/// One JSON document, or what people read.
fn shown<T: Serialize>(what: &T, json: bool, all: bool, describe: impl FnOnce(&T) -> String) -> Done {
    let text =
        if json { format!("{}\n", serde_json::to_string(what).unwrap_or_default()) } else { describe(what) };
    Done { text, all }
}

fn table(list: &SpoolListView) -> String {
    if list.data.is_empty() {
        return "nothing is on disk\n".to_owned();
    }
    let mut text = format!(
        "{:<20} {:<8} {:>6} {:>9} {:>11}  {}\n",
        "EXPORTER", "KIND", "FILES", "RECORDS", "BYTES", "OLDEST (UTC)"
    );
    for one in &list.data {
        let name = printable(&one.exporter);
        let mut row = |kind: &str, totals: &SpoolTotalsView| {
            if totals.files > 0 {
                let oldest = totals.oldest.as_deref().unwrap_or("-");
                let (files, records, bytes) = (totals.files, totals.records, size(totals.bytes));
                let _ = writeln!(text, "{name:<20} {kind:<8} {files:>6} {records:>9} {bytes:>11}  {oldest}");
            }
        };
        row("waiting", &one.waiting);
        row("dead", &one.dead);
        for reason in &one.reasons {
            let _ = writeln!(text, "  {} dead: {}", reason.records, printable(&reason.reason));
        }
        unreadable(&name, &one.unreadable, &mut text);
        if let Some(error) = &one.error {
            let _ = writeln!(text, "{name:<20} cannot be read: {error}");
        }
        if one.orphaned {
            let _ = writeln!(
                text,
                "  orphaned: no exporter named {name} is configured, nothing delivers this; configure it again, or \
                 `spool purge {name}`"
            );
        }
    }
    text
}

fn unreadable(name: &str, files: &[SpoolFileView], text: &mut String) {
    for file in files {
        let (records, bytes) = (file.records, size(file.bytes));
        let _ =
            writeln!(text, "{name:<20} {:<8} {:>6} {records:>9} {bytes:>11}  {}", "corrupt", 1, file.file);
        let _ = writeln!(text, "  {}", printable(&file.reason));
    }
}

fn lines(records: &SpoolRecordsView) -> String {
    let mut text = String::new();
    for record in &records.data {
        let name = |name: &Option<String>| name.as_deref().map_or_else(|| "-".to_owned(), printable);
        let _ = write!(
            text,
            "{}  {}  {:<7}  {}/{}",
            record.timestamp,
            record.id,
            record.state,
            name(&record.provider),
            name(&record.model)
        );
        if let Some(reason) = &record.reason {
            let _ = write!(text, "  {}", printable(reason));
        }
        text.push('\n');
    }
    for file in &records.unreadable {
        let _ = writeln!(
            text,
            "cannot be read: {} ({} records): {}",
            file.file,
            file.records,
            printable(&file.reason)
        );
    }
    if records.more {
        let _ = writeln!(text, "there are more; see --limit");
    }
    if text.is_empty() { "nothing is on disk\n".to_owned() } else { text }
}

/// Records as they are exported, a line each.
fn whole(records: &SpoolRecordsView) -> String {
    records
        .data
        .iter()
        .filter_map(|one| one.record.as_ref())
        .flat_map(|record| [record.get(), "\n"])
        .collect()
}

fn describe_replay(replayed: &ReplayedView, exporter: &str) -> String {
    let mut text = format!("{} records of {exporter} wait to be delivered again\n", replayed.records);
    for kept in &replayed.kept {
        let _ = writeln!(text, "not {}: {}", printable(&kept.id), printable(&kept.reason));
    }
    text
}

fn describe_purge(purged: &PurgedView, exporter: &str) -> String {
    let (files, records, bytes) = (purged.files, purged.records, size(purged.bytes));
    let what = format!("{records} records in {files} files ({bytes}) of {exporter}");
    let mut text = if purged.dry_run {
        format!("would remove {what}; add --yes to do it\n")
    } else {
        format!("removed {what}\n")
    };
    if purged.busy > 0 {
        let _ = writeln!(text, "{} files are on their way to the back end and stay", purged.busy);
    }
    text
}
