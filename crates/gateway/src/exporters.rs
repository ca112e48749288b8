//! From configured exporters to running ones.

use std::path::PathBuf;
use std::sync::Arc;

use magicapi_config::{Config, ExporterEntry, Loaded};
use magicapi_plugin::{ConfigError, Host, MetricRegistry, Needs, Signals, TelemetryPlugin};
use magicapi_store::{REQUEST_LOG, Store};
use magicapi_telemetry::{CaptureSettings, ExporterSetup, PipelineSettings, WhenFull};
use magicapi_upstream::{ClientOptions, ExporterOptions, exporter_http};

use crate::parts::{self, Problem};
use crate::pipeline;
use crate::reach;

/// What exporters are made with, whatever the configuration.
pub(crate) struct Workshop {
    /// Where their metrics go.
    pub(crate) registry: Arc<MetricRegistry>,
    /// `data_dir`, when it can be written.
    pub(crate) data_dir: Option<PathBuf>,
}

impl Workshop {
    /// Makes every configured exporter, without connecting it, and the embedded log when there is a store.
    pub(crate) fn make(
        &self,
        loaded: &Loaded,
        store: Option<&Store>,
    ) -> Result<Vec<ExporterSetup>, Vec<Problem>> {
        let client = parts::client_options(loaded).map_err(|problem| vec![problem])?;
        let plugins = magicapi_plugin::plugins();
        let mut made = Vec::new();
        let mut problems = Vec::new();
        for entry in &loaded.config.telemetry.exporters {
            // The configuration knows registered kinds only.
            let Some(plugin) = plugins.iter().find(|plugin| plugin.name() == entry.kind) else { continue };
            match self.one(*plugin, entry, &client) {
                Ok(setup) => made.push(setup),
                Err(error) => {
                    let problem = loaded.exporter_problem(entry, &plugin.settings(), &error);
                    problems.push(problem.to_string());
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        made.extend(store.map(request_log));
        Ok(made)
    }

    fn one(
        &self,
        plugin: &'static dyn TelemetryPlugin,
        entry: &ExporterEntry,
        shared: &ClientOptions,
    ) -> Result<ExporterSetup, ConfigError> {
        let options = reach::options(entry, shared)?;
        let fingerprint = fingerprint(entry, &options);
        let http = exporter_http(options).map_err(|error| ConfigError::new("", error.message))?;
        let host = Host::new(http, self.registry.meter(plugin.name()), self.data_dir.clone());
        let exporter = plugin.create_exporter(entry.settings.clone(), host)?;
        Ok(ExporterSetup {
            name: entry.name.clone(),
            kind: plugin.name(),
            exporter,
            pipeline: pipeline::settings(&entry.pipeline),
            signals: signals(plugin),
            needs: plugin.settings().needed(),
            exclusive: plugin.settings().is_exclusive(),
            fingerprint,
        })
    }
}

/// Stands for everything that the exporter was made of. It holds no secret: those enter it as a hash.
fn fingerprint(entry: &ExporterEntry, options: &ExporterOptions) -> String {
    let settings = serde_json::to_string(entry.settings.values()).unwrap_or_default();
    let header = options.header.as_ref().map(|(name, value)| (name, value.as_bytes()));
    let key = options.client.identity.as_ref().map(|identity| (&identity.cert_pem, &identity.key_pem));
    let proxy = &options.client.proxy;
    let secrets = format!("{settings} {header:?} {key:?} {:?} {:?}", proxy.http, proxy.https);
    let hash = magicapi_policies::hash_of(&secrets);
    format!("{} {:?} {:?} {hash:02x?}", entry.kind, entry.pipeline, options.client)
}

fn signals(plugin: &dyn TelemetryPlugin) -> Signals {
    let spec = plugin.settings();
    [Signals::RECORDS, Signals::METRICS, Signals::SCRAPE]
        .into_iter()
        .filter(|signal| spec.takes(*signal))
        .reduce(|all, signal| all | signal)
        .unwrap_or(Signals::RECORDS)
}

/// The embedded log is an exporter like any, but for the spool: its back end is on the same disk.
fn request_log(store: &Store) -> ExporterSetup {
    ExporterSetup {
        name: REQUEST_LOG.into(),
        kind: REQUEST_LOG,
        exporter: store.request_log(),
        pipeline: PipelineSettings {
            batch_age: std::time::Duration::from_millis(100),
            when_full: WhenFull::DropOldest,
            ..PipelineSettings::default()
        },
        signals: Signals::RECORDS,
        needs: Needs::default(),
        exclusive: true,
        fingerprint: REQUEST_LOG.into(),
    }
}

/// What of the bodies is captured.
pub(crate) fn capture(config: &Config) -> CaptureSettings {
    let capture = &config.telemetry.capture;
    CaptureSettings {
        bodies: capture.bodies,
        max_request: capture.max_request,
        max_response: capture.max_response,
        max_chunks: capture.max_chunks,
        memory: capture.memory,
    }
}
