//! Runs the gateway: parts together, listeners up, until told to end; then drain, flush, close.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use magicapi_admin::AdminState;
use magicapi_config::{AuthMode, Catalogue, Config, Listen, Loaded, LogFormat, Sources};
use magicapi_kernel::Ledger;
use magicapi_plugin::MetricRegistry;
use magicapi_server::{Phase, Shared, TlsAcceptor};
use magicapi_store::{NoLedger, REQUEST_LOG, Store};
use magicapi_telemetry::redact::Redactor;
use magicapi_telemetry::{Telemetry, TelemetrySettings};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tracing_appender::non_blocking::WorkerGuard;

use crate::commands::fail;
use crate::data_dir::{self, Data, DataDir, Note, Token};
use crate::exporters::{self, Workshop};
use crate::health::Health;
use crate::reload::Reloader;
use crate::{log, parts, redaction, signals};

/// How long exporters and the store may take to write what they hold, after the last request.
const FLUSH: Duration = Duration::from_secs(10);

/// Runs the gateway in the foreground.
pub(crate) fn run(sources: Sources, catalogue: Catalogue) -> ExitCode {
    let loaded = match magicapi_config::load(&sources, &catalogue) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems.to_string()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}")),
    };
    runtime.block_on(async {
        let gateway = match start(sources, catalogue, loaded) {
            Ok(gateway) => gateway,
            Err(problem) => return fail(&problem),
        };
        gateway.announce();
        gateway.run().await
    })
}

/// A gateway whose parts are up and whose listeners are bound.
pub(crate) struct Gateway {
    /// What requests share.
    pub(crate) shared: Arc<Shared>,
    /// The store, when there is one.
    pub(crate) store: Option<Arc<Store>>,
    /// Where requests are taken.
    pub(crate) address: String,
    /// Where the admin plane is.
    pub(crate) admin_address: String,
    listeners: Vec<TcpListener>,
    admin_listeners: Vec<TcpListener>,
    admin: Option<AdminState>,
    tls: Option<TlsAcceptor>,
    token: Token,
    /// Its lock, held to the end.
    data_dir: Option<DataDir>,
    note: Option<Note>,
    /// The last to go: writes the lines that wait.
    log: WorkerGuard,
}

/// Brings the parts up. Exporters connect beside traffic, so nothing here waits for a back end.
pub(crate) fn start(sources: Sources, catalogue: Catalogue, loaded: Loaded) -> Result<Gateway, String> {
    let config = loaded.config.clone();
    let log = begin(&loaded)?;
    let Data { dir, store, mut degraded } = Data::open(&loaded)?;
    let workshop = Workshop {
        registry: Arc::new(MetricRegistry::default()),
        data_dir: dir.as_ref().map(|dir| dir.path().to_owned()),
    };
    let token = data_dir::admin_token(config.admin.token.as_ref(), dir.as_ref(), &mut degraded)?;
    let redactor = redaction::redactor(&loaded, &catalogue, Some(token.secret()))?;
    let telemetry = telemetry(&loaded, &workshop, redactor, store.as_deref())?;
    let snapshot = parts::snapshot(&loaded)?;
    let shared = Shared::new(snapshot, ledger(&config, store.as_deref()), telemetry);
    crate::health::observe(&workshop.registry, &shared);
    take_up_journals(&workshop.registry, &shared, store.as_ref());
    let tls = config.server.tls.as_ref().map(TlsAcceptor::new).transpose();
    let tls = tls.map_err(|error| format!("server.tls: {error}"))?;
    let listeners = bind(&config.server.listen, "PORT or `server.listen`")?;
    let admin_listeners = bind(&config.admin.listen, "ADMIN_LISTEN or `admin.listen`")?;
    let (address, admin_address) = (url(&listeners, tls.is_some()), url(&admin_listeners, false));
    let note = dir.as_ref().and_then(|dir| {
        let noted = dir.note(&admin_address, token.secret());
        noted.inspect_err(|error| tracing::warn!(%error, "commands will not find this gateway")).ok()
    });
    let reloader = Arc::new(Reloader {
        sources,
        catalogue,
        shared: shared.clone(),
        store: store.clone(),
        tls: tls.clone(),
        workshop,
        token: token.secret().clone(),
        current: Mutex::new(loaded),
    });
    obey(&shared, reloader.clone())?;
    let health = Arc::new(Health::new(shared.clone(), store.clone(), reloader, degraded));
    let admin = AdminState {
        token: token.secret().clone(),
        metrics: config.admin.metrics,
        hosts: crate::health::admin_hosts(&config),
        logs: store.as_ref().map(crate::health::log_reader),
        telemetry: shared.telemetry.clone(),
        health,
    };
    Ok(Gateway {
        shared,
        store,
        address,
        admin_address,
        listeners,
        admin_listeners,
        admin: Some(admin),
        tls,
        token,
        data_dir: dir,
        note,
        log,
    })
}

/// `setting`: what chooses another address.
fn bind(listen: &Listen, setting: &str) -> Result<Vec<TcpListener>, String> {
    magicapi_server::bind(listen).map_err(|error| format!("{error}; choose another with {setting}"))
}

/// What comes before any part: the log, and room for connections.
fn begin(loaded: &Loaded) -> Result<WorkerGuard, String> {
    let log = log::start(&loaded.config.log)?;
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    // Each connection takes a descriptor; the soft limit is often far below the hard one.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    Ok(log)
}

fn ledger(config: &Config, store: Option<&Store>) -> Arc<dyn Ledger> {
    if store.is_none() && config.auth.mode == AuthMode::Keys {
        tracing::warn!("keys are in use, but there is no store: spend is counted, not written");
    }
    store.map_or_else(|| Arc::new(NoLedger::default()) as Arc<dyn Ledger>, Store::ledger)
}

/// Shows the journals. Requests that an earlier process was killed over have their rows too; one that is there stays.
fn take_up_journals(registry: &Arc<MetricRegistry>, shared: &Arc<Shared>, store: Option<&Arc<Store>>) {
    crate::journals::observe(registry, shared, store);
    for facts in shared.telemetry.take_unbooked() {
        shared.ledger.record(magicapi_server::recovered_entry(&facts, &shared.telemetry));
    }
}

/// From here on signals and changed files are heeded: before anybody is told that the gateway listens.
fn obey(shared: &Arc<Shared>, reloader: Arc<Reloader>) -> Result<(), String> {
    let asked = Arc::new(Notify::new());
    signals::watch(shared.clone(), asked.clone())
        .map_err(|error| format!("cannot watch signals: {error}"))?;
    reloader.start(asked);
    Ok(())
}

fn telemetry(
    loaded: &Loaded,
    workshop: &Workshop,
    redactor: Arc<Redactor>,
    store: Option<&Store>,
) -> Result<Telemetry, String> {
    let config = &loaded.config;
    let made = workshop.make(loaded, store).map_err(|problems| problems.join("\n"))?;
    let mut names = config.telemetry.config.clone();
    names
        .service_instance_id
        .get_or_insert_with(|| magicapi_model::RequestId::mint().to_string().replace("msg_", ""));
    let settings = TelemetrySettings {
        config: names,
        threads: config.telemetry.threads,
        capture: exporters::capture(config),
        redactor: Some(redactor),
        metrics_interval: config.telemetry.metrics_interval,
        spool_dir: workshop.data_dir.as_ref().map(|dir| dir.join("spool")),
        durable: config
            .telemetry
            .durable
            .as_ref()
            .zip(workshop.data_dir.as_ref())
            .map(|(durable, dir)| crate::pipeline::durable(durable, dir)),
    };
    Telemetry::start(settings, workshop.registry.clone(), made).map_err(|error| format!("telemetry: {error}"))
}

/// Which providers have a key and which exporters run, for the log.
fn running(config: &Config, has_store: bool) -> String {
    let held = config.providers.iter().filter(|entry| entry.api_key.is_some());
    let held: Vec<&str> = held.map(|entry| entry.name.as_str()).collect();
    let keys = match held.as_slice() {
        [] if config.auth.mode == AuthMode::Keys => "no provider key".to_owned(),
        [] => "no provider key: callers must bring their own".to_owned(),
        held => format!("providers with a key: {}", held.join(", ")),
    };
    let exporters = config.telemetry.exporters.iter().map(|entry| entry.name.as_str());
    let exporters: Vec<&str> = exporters.chain(has_store.then_some(REQUEST_LOG)).collect();
    let exporters = if exporters.is_empty() { "none".to_owned() } else { exporters.join(", ") };
    format!("{keys}; exporters: {exporters}")
}

/// The first listener's address as a URL.
fn url(listeners: &[TcpListener], tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let address = listeners.first().and_then(|listener| listener.local_addr().ok());
    address.map_or_else(String::new, |address| format!("{scheme}://{address}"))
}

impl Gateway {
    /// Says where it is and what runs in it. A token that was made just now is shown once, to a reader at a terminal.
    pub(crate) fn announce(&self) {
        tracing::info!(address = self.address, admin = self.admin_address, "listening");
        let snapshot = self.shared.snapshot();
        tracing::info!("{}", running(&snapshot.config, self.store.is_some()));
        let at_a_terminal = snapshot.config.log.format == LogFormat::Text && std::io::stderr().is_terminal();
        match (self.token.shown(at_a_terminal), &self.token) {
            // Printed, not logged: logs travel.
            (Some(line), _) => drop(writeln!(std::io::stderr().lock(), "{line}")),
            (None, Token::Kept(_, path)) => tracing::info!("admin token kept in {}", path.display()),
            (None, _) => {}
        }
    }

    /// Serves until told to end, then finishes what runs, flushes and closes.
    pub(crate) async fn run(mut self) -> ExitCode {
        let stop_admin = Arc::new(Notify::new());
        let admin = self.admin.take().map(|state| {
            let stop = stop_admin.clone();
            let listeners = std::mem::take(&mut self.admin_listeners);
            tokio::spawn(magicapi_admin::serve(state, listeners, async move { stop.notified().await }))
        });
        let unhealthy = self.watch_required();
        magicapi_server::serve(self.shared.clone(), std::mem::take(&mut self.listeners), self.tls.take())
            .await;
        stop_admin.notify_one();
        if let Some(admin) = admin {
            let _ = tokio::time::timeout(Duration::from_secs(2), admin).await;
        }
        self.close().await;
        if unhealthy.is_finished() { ExitCode::from(2) } else { ExitCode::SUCCESS }
    }

    /// An exporter with `require_healthy` that does not start in time ends the process.
    fn watch_required(&self) -> tokio::task::JoinHandle<()> {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let found = shared.telemetry.unhealthy().await;
            tracing::error!(exporter = found.exporter, error = found.error, "`require_healthy`: ending");
            shared.enter(Phase::Cutting);
        })
    }

    async fn close(self) {
        let telemetry = self.shared.telemetry.clone();
        let store = self.store.clone();
        let flushed = tokio::task::spawn_blocking(move || {
            telemetry.shutdown(FLUSH);
            if let Some(store) = store
                && let Err(error) = store.close(FLUSH)
            {
                tracing::error!(%error, "the store could not be closed in time");
            }
        });
        let _ = flushed.await;
        drop(self.note);
        drop(self.data_dir);
        tracing::info!("ended");
        drop(self.log);
    }
}
