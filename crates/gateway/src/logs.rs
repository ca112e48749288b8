//! `logs tail | show | search`: the embedded request log on the command line.
//!
//! While a gateway runs its admin API answers; when none does the command takes the data directory's lock and reads
//! the file itself. Exit status: 0 found, 1 nothing found, 2 the log cannot be read.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use magicapi_kernel::{LogQuery, LogRow};

mod filters;
mod source;
mod table;
#[cfg(test)]
mod tests;

use self::filters::Filters;
pub(crate) use self::filters::escaped;
use self::source::{Failure, Live, Source};
pub(crate) use self::table::printable;
use self::table::{Entry, Line, header};

/// Nothing was found.
const NOTHING: u8 = 1;
/// The log cannot be read.
const UNUSABLE: u8 = 2;
/// Rows asked for at a time; the API's limit.
const PAGE: usize = 500;

/// What is asked of the request log.
#[derive(Subcommand)]
pub(crate) enum LogsCommand {
    /// Prints the latest requests, then each new one as it ends.
    Tail(Box<Tail>),
    /// Prints one record: request, response, every stream event.
    Show {
        /// The record's id, with or without `msg_`.
        id: String,
    },
    /// Prints the requests that match, newest first.
    Search(Box<Search>),
}

/// `logs tail`.
#[derive(Args)]
pub(crate) struct Tail {
    /// Requests to begin with.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Goes on with new requests (the default while a gateway runs).
    #[arg(short, long, overrides_with = "no_follow")]
    follow: bool,
    /// Ends after the latest requests.
    #[arg(long)]
    no_follow: bool,
    #[command(flatten)]
    filters: Filters,
    /// Prints one JSON document per request.
    #[arg(long)]
    json: bool,
}

/// `logs search`.
#[derive(Args)]
pub(crate) struct Search {
    /// A text anywhere in the record: names, request, response, stream events.
    text: Option<String>,
    /// Requests at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    filters: Filters,
    /// Prints one JSON document per request.
    #[arg(long)]
    json: bool,
}

/// Runs one command; `database` is the file of `store.url`, `None` when there is no store.
pub(crate) async fn run(command: LogsCommand, data_dir: &Path, database: Option<&Path>) -> ExitCode {
    let done = match Source::open(data_dir, database).await {
        Err(failure) => Err(failure),
        Ok(source) => match command {
            LogsCommand::Tail(tail) => run_tail(&source, *tail).await,
            LogsCommand::Show { id } => show(&source, &id).await,
            LogsCommand::Search(search) => run_search(&source, *search).await,
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOTHING),
        // The reader has gone (`| head`): it has what it wanted.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure);
            ExitCode::from(UNUSABLE)
        }
    }
}

/// One request as one line.
pub(crate) fn line(row: &LogRow) -> String {
    Line::of(row).to_string()
}

async fn run_tail(source: &Source, tail: Tail) -> Result<bool, Failure> {
    let query = tail.filters.query()?;
    let follow = tail.follow || !tail.no_follow;
    // Before the list, so that nothing ends unseen between the two.
    let live = if follow { source.follow(&query).await? } else { None };
    let mut latest = collect(source, query, tail.lines).await?;
    latest.reverse();
    let mut out = Output::new(tail.json);
    for entry in &latest {
        out.entry(entry)?;
    }
    let Some(live) = live else {
        if tail.follow {
            say(&"no gateway runs: there is nothing to follow");
        }
        return Ok(!latest.is_empty());
    };
    let seen = latest.iter().map(|entry| entry.line.seq).collect();
    follow_on(live, &seen, &mut out).await?;
    Ok(true)
}

async fn follow_on(mut live: Live, seen: &HashSet<i64>, out: &mut Output) -> Result<(), Failure> {
    while let Some(followed) = live.next().await? {
        match followed {
            Ok(entry) if seen.contains(&entry.line.seq) => {}
            Ok(entry) => out.entry(&entry)?,
            Err(missed) => say(&format!("({missed} requests went by too fast; `logs search` finds them)")),
        }
    }
    say(&"the gateway has ended");
    Ok(())
}

async fn run_search(source: &Source, search: Search) -> Result<bool, Failure> {
    let mut query = search.filters.query()?;
    query.text = search.text.or(query.text);
    let mut out = Output::new(search.json);
    let mut found = 0;
    let mut pages = Pages::new(source, query, search.limit);
    while let Some(entries) = pages.next().await? {
        found += entries.len();
        for entry in &entries {
            out.entry(entry)?;
        }
    }
    Ok(found > 0)
}

async fn show(source: &Source, id: &str) -> Result<bool, Failure> {
    let Some(document) = source.get(id).await? else {
        say(&format!("no record has the id `{id}`; `logs search` lists those there are"));
        return Ok(false);
    };
    let mut out = io::stdout().lock();
    // For eyes with line breaks, for programs as it is stored. What cannot be read as JSON is shown as it is.
    let pretty =
        io::stdout().is_terminal().then(|| serde_json::from_slice::<serde_json::Value>(&document).ok());
    match pretty.flatten() {
        Some(document) => writeln!(out, "{document:#}"),
        None => out.write_all(&document).and_then(|()| out.write_all(b"\n")),
    }
    .and_then(|()| out.flush())?;
    Ok(true)
}

async fn collect(source: &Source, query: LogQuery, wanted: usize) -> Result<Vec<Entry>, Failure> {
    let mut found = Vec::new();
    let mut pages = Pages::new(source, query, wanted);
    while let Some(entries) = pages.next().await? {
        found.extend(entries);
    }
    Ok(found)
}

/// Asks page after page until there are enough rows or no more.
struct Pages<'s> {
    source: &'s Source,
    query: LogQuery,
    wanted: usize,
    ended: bool,
}

impl<'s> Pages<'s> {
    fn new(source: &'s Source, query: LogQuery, wanted: usize) -> Self {
        Self { source, query, wanted, ended: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, Failure> {
        if self.ended || self.wanted == 0 {
            return Ok(None);
        }
        self.query.limit = Some(self.wanted.min(PAGE));
        let (entries, next) = self.source.list(&self.query).await?;
        self.wanted = self.wanted.saturating_sub(entries.len());
        self.ended = next.is_none();
        self.query.cursor = next;
        Ok(Some(entries))
    }
}

/// Where answers go: a table with a head, or JSON.
struct Output {
    json: bool,
    begun: bool,
}

impl Output {
    fn new(json: bool) -> Self {
        Self { json, begun: false }
    }

    /// Written at once: somebody may be watching.
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", entry.json)?;
        } else {
            if !self.begun {
                writeln!(out, "{}", header())?;
            }
            writeln!(out, "{}", entry.line)?;
        }
        self.begun = true;
        out.flush()
    }
}

/// What is not an answer goes to stderr; nothing can be done when that is closed.
fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "logs: {text}");
}
