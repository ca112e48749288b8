//! Reload: on SIGHUP and when a file changes. Validated whole, then swapped; a bad file keeps the old configuration.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use magicapi_config::{Catalogue, Loaded, Sources};
use magicapi_model::Secret;
use magicapi_server::{Shared, TlsAcceptor};
use magicapi_store::Store;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::exporters::{self, Workshop};
use crate::{parts, redaction};

/// Editors write a file in several steps; this much quiet means that they are done.
const QUIET: Duration = Duration::from_millis(250);

/// What a reload needs.
pub(crate) struct Reloader {
    pub(crate) sources: Sources,
    pub(crate) catalogue: Catalogue,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) workshop: Workshop,
    /// The admin plane's: no record may show it.
    pub(crate) token: Secret,
    /// What is in force.
    pub(crate) current: Mutex<Loaded>,
}

impl Reloader {
    /// Files whose change calls for a reload.
    fn files(&self) -> Vec<PathBuf> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let config = &current.config;
        let tls = config.server.tls.iter().flat_map(|tls| [tls.cert.clone(), tls.key.clone()]);
        let others = [current.file.clone(), config.prices.file.clone(), config.upstream.ca_file.clone()];
        let reaches = config.telemetry.exporters.iter().map(|entry| &entry.reach);
        let trusted = reaches.flat_map(|reach| {
            let pair = reach.identity.iter().flat_map(|(cert, key)| [cert, key]);
            reach.ca_file.iter().chain(pair).cloned()
        });
        others.into_iter().flatten().chain(tls).chain(trusted).collect()
    }

    /// Reloads whenever it is asked to or a file changes; for the life of the process. Files are watched once this
    /// returns.
    pub(crate) fn start(self: Arc<Self>, asked: Arc<Notify>) {
        let mut watched = self.files();
        let mut watching = watch(&watched, &asked);
        tokio::spawn(async move {
            loop {
                asked.notified().await;
                while tokio::time::timeout(QUIET, asked.notified()).await.is_ok() {}
                let this = self.clone();
                // Reading files and making exporters may block.
                let _ = tokio::task::spawn_blocking(move || this.reload()).await;
                let files = self.files();
                if files != watched {
                    drop(watching);
                    watching = watch(&files, &asked);
                    watched = files;
                }
            }
        });
    }

    fn reload(&self) {
        match self.try_reload() {
            Ok(hash) => tracing::info!(configuration = hash, "configuration reloaded"),
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "configuration not reloaded; the old one stays in force");
                }
            }
        }
        if let Some(tls) = &self.tls
            && let Err(error) = tls.reread()
        {
            tracing::error!(%error, "certificate not reread; the old one stays in force");
        }
    }

    fn try_reload(&self) -> Result<String, Vec<String>> {
        let mut loaded = magicapi_config::load(&self.sources, &self.catalogue)
            .map_err(|problems| problems.problems().iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        for key in loaded.keep_restart_only(&current, &self.catalogue) {
            tracing::warn!(key, "changed, but takes a restart; the old value stays in force");
        }
        // The new file may be fit for the listeners that it names and not for those that are open.
        let refusals = magicapi_config::refusals_of(&loaded.config);
        if !refusals.is_empty() {
            return Err(refusals.iter().map(ToString::to_string).collect());
        }
        let snapshot = parts::snapshot(&loaded).map_err(|problem| vec![problem])?;
        let made = self.workshop.make(&loaded, self.store.as_deref())?;
        let redactor = redaction::redactor(&loaded, &self.catalogue, Some(&self.token))
            .map_err(|problem| vec![problem])?;
        let telemetry = &self.shared.telemetry;
        telemetry
            .reload(exporters::capture(&loaded.config), Some(redactor), made)
            .map_err(|error| vec![error.to_string()])?;
        if let Some(store) = &self.store {
            let retention = &loaded.config.store.retention;
            store.set_retention(retention.age, retention.size);
        }
        self.shared.replace(snapshot);
        for notice in loaded.notices.iter().filter(|notice| !current.notices.contains(notice)) {
            tracing::warn!("{notice}");
        }
        let hash = loaded.hash.clone();
        *current = loaded;
        Ok(hash)
    }

    /// The hash of what is in force.
    pub(crate) fn hash(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).hash.clone()
    }
}

/// Directories are watched, not files: editors and mounted secrets replace a file by renaming.
fn watch(files: &[PathBuf], asked: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let directories: Vec<PathBuf> = files
        .iter()
        .filter_map(|file| std::path::absolute(file).ok()?.parent().map(std::path::Path::to_owned))
        .collect();
    let names: Vec<_> =
        files.iter().filter_map(|file| file.file_name().map(std::ffi::OsStr::to_owned)).collect();
    let asked = asked.clone();
    let changed = move |event: notify::Result<notify::Event>| {
        let ours = |path: &PathBuf| {
            // Kubernetes swaps the `..data` link of a mounted directory.
            path.file_name().is_some_and(|name| name == "..data" || names.iter().any(|known| known == name))
        };
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(ours)) {
            asked.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(changed)
        .map_err(|error| tracing::warn!(%error, "files are not watched; send SIGHUP to reload"))
        .ok()?;
    for directory in directories {
        if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
            tracing::warn!(directory = %directory.display(), %error, "not watched; send SIGHUP to reload");
        }
    }
    Some(watcher)
}
