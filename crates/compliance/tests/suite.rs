//! The suite finds what it is for: an exporter that complies passes, and each fault that is put into it is named.

// clippy's leave for tests does not reach what tests call.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use magicapi_compliance::{Backend, Finding, Suite, records};
use magicapi_plugin::{
    ConfigError, Delivery, ExportError, Health, Host, HttpError, ItemOutcome, JsonSchema, MetricsSnapshot,
    RequestMetrics, Secret, Settings, SettingsSpec, Signals, TelemetryConfig, TelemetryExporter,
    TelemetryPlugin, async_trait, schemars,
};
use serde::Deserialize;
use serde_json::json;

/// Long for anything that these exporters do, short for one that hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is wrong with the exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    AcceptsUnknown,
    AnonymousError,
    BlocksForEver,
    BreaksWhenDropped,
    ConnectsEarly,
    CountsWrongly,
    DeliversAlways,
    ForgetsMetrics,
    HangsInHealth,
    InitIsBlind,
    LogsContent,
    PanicsOnBare,
    QuotesAnswers,
    QuotesSecrets,
    QuotesTokens,
    RejectsEverything,
    RetriesItself,
    WritesEarly,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Strict {
    /// Where it is.
    url: String,
    /// What opens it.
    key: Option<Secret>,
    /// How many.
    shards: Option<u8>,
    /// More of what opens it.
    tokens: Vec<Secret>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Loose {
    #[schemars(extend("env" = "lower"))]
    url: String,
    api_key: Option<String>,
    /// Several.
    tokens: Vec<String>,
    /// A name that is taken.
    batch: Option<u8>,
}

struct Plugin(Fault);

impl TelemetryPlugin for Plugin {
    fn name(&self) -> &'static str {
        "one"
    }

    fn settings(&self) -> SettingsSpec {
        let spec = match self.0 {
            Fault::AcceptsUnknown => SettingsSpec::of::<Loose>(),
            _ => SettingsSpec::of::<Strict>(),
        };
        spec.signals(Signals::RECORDS | Signals::METRICS)
    }

    fn create_exporter(
        &self,
        settings: Settings,
        host: Host,
    ) -> Result<Box<dyn TelemetryExporter>, ConfigError> {
        let Plugin(fault) = *self;
        let (url, key) = match fault {
            Fault::AcceptsUnknown => {
                let Loose { url, api_key, .. } = settings.read()?;
                (url, api_key.unwrap_or_default())
            }
            Fault::AnonymousError => {
                let read = settings.read::<Strict>();
                let Strict { url, key, .. } = read.map_err(|error| ConfigError::new("", error.message))?;
                (url, key.unwrap_or_default().expose().to_owned())
            }
            Fault::QuotesTokens => {
                let Strict { url, tokens, .. } = settings.read()?;
                (url, tokens.first().map(Secret::expose).unwrap_or_default().to_owned())
            }
            _ => {
                let Strict { url, key, .. } = settings.read()?;
                (url, key.unwrap_or_default().expose().to_owned())
            }
        };
        if matches!(fault, Fault::QuotesSecrets | Fault::QuotesTokens) && url.is_empty() {
            return Err(ConfigError::new("url", format!("missing, though the key is {key}")));
        }
        let uri = url.parse::<http::Uri>();
        if !uri.is_ok_and(|uri| uri.authority().is_some()) {
            return Err(ConfigError::new("url", "expected an address as in http://localhost:1234"));
        }
        if fault == Fault::ConnectsEarly {
            let address = url.trim_start_matches("http://").to_owned();
            let _ = std::net::TcpStream::connect(address);
        }
        if let (Fault::WritesEarly, Some(folder)) = (fault, host.data_dir()) {
            std::fs::write(folder.join("early"), "").expect("a file");
        }
        Ok(Box::new(Exporter { fault, url, key, host, busy: AtomicBool::new(false) }))
    }
}

struct Exporter {
    fault: Fault,
    url: String,
    key: String,
    host: Host,
    busy: AtomicBool,
}

impl Exporter {
    async fn send(&self, body: String) -> Result<http::Response<Bytes>, HttpError> {
        let request = Request::post(&self.url).header("x-key", self.key.trim()).body(body.into());
        self.host.http().send(request.map_err(|error| HttpError::Connect(error.to_string()))?).await
    }

    async fn sent(&self, body: String) -> Delivery {
        let mut answer = self.send(body.clone()).await;
        if self.fault == Fault::RetriesItself && answer.is_err() {
            answer = self.send(body).await;
        }
        match answer {
            Ok(answer) if answer.status().is_success() => Delivery::Delivered,
            Ok(answer) if self.fault == Fault::QuotesAnswers => {
                Delivery::Refused { reason: String::from_utf8_lossy(answer.body()).into_owned() }
            }
            Ok(answer) if answer.status() == 413 => Delivery::TooLarge,
            Ok(answer) if answer.status() == 429 || answer.status().is_server_error() => {
                Delivery::Retry { after: None }
            }
            Ok(answer) => Delivery::Refused { reason: format!("HTTP {}", answer.status()) },
            Err(HttpError::Connect(_)) => Delivery::Retry { after: None },
            Err(_) => Delivery::Unknown,
        }
    }
}

#[async_trait]
impl TelemetryExporter for Exporter {
    fn name(&self) -> &'static str {
        "one"
    }

    async fn init(&self, _: &TelemetryConfig) -> Result<(), ExportError> {
        match self.send(String::new()).await {
            Err(error) if self.fault != Fault::InitIsBlind => Err(error.to_string().into()),
            _ => Ok(()),
        }
    }

    async fn export(&self, batch: &[Arc<RequestMetrics>]) -> Delivery {
        if self.fault == Fault::BreaksWhenDropped && self.busy.swap(true, Ordering::SeqCst) {
            return Delivery::Retry { after: None };
        }
        let mut body = String::new();
        for record in batch {
            assert!(self.fault != Fault::PanicsOnBare || record.request().is_some(), "no request");
            body.push_str(&String::from_utf8_lossy(&record.otel_log_json()));
        }
        if self.fault == Fault::LogsContent {
            tracing::trace!(body, "exporting");
        }
        let delivery = self.sent(body).await;
        self.busy.store(false, Ordering::SeqCst);
        match self.fault {
            Fault::DeliversAlways => Delivery::Delivered,
            Fault::CountsWrongly => Delivery::Items(vec![ItemOutcome::Retry]),
            Fault::RejectsEverything if delivery != Delivery::Delivered => {
                Delivery::Items(vec![ItemOutcome::Rejected { reason: "no".into() }; batch.len()])
            }
            _ => delivery,
        }
    }

    async fn export_metrics(&self, _: &MetricsSnapshot) -> Delivery {
        let delivery = self.sent("metrics".into()).await;
        if self.fault == Fault::ForgetsMetrics { Delivery::Delivered } else { delivery }
    }

    async fn health(&self) -> Health {
        match self.fault {
            Fault::HangsInHealth => std::future::pending().await,
            Fault::BlocksForEver => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            _ => Health::Ok,
        }
    }
}

fn findings(plugin: &'static Plugin) -> Vec<Finding> {
    let settings = if plugin.0 == Fault::AcceptsUnknown {
        json!({"url": "http://{address}", "api_key": "canary-key"})
    } else {
        json!({"url": "http://{address}", "key": "canary-key", "tokens": ["canary-token"]})
    };
    Suite::of(plugin, &settings)
        .answering(|_| http::Response::new(Bytes::new()))
        .patience(PATIENCE)
        .findings()
}

/// Every one of these texts stands in a finding.
fn found(plugin: &'static Plugin, texts: &[&str]) {
    let findings: Vec<String> = findings(plugin).iter().map(ToString::to_string).collect();
    for text in texts {
        assert!(
            findings.iter().any(|finding| finding.contains(text)),
            "{:?}: nothing says {text:?}:\n{}",
            plugin.0,
            findings.join("\n")
        );
    }
}

#[test]
fn what_complies_passes() {
    assert_eq!(findings(&Plugin(Fault::None)), []);
}

#[test]
fn faults_of_settings_are_found() {
    found(
        &Plugin(Fault::AcceptsUnknown),
        &[
            "`url` has no documentation",
            "`url` has the variable lower",
            "`api_key` is a secret by its name",
            "`tokens` is a secret by its name",
            "`batch` is a key of the pipeline",
            "lacks #[serde(deny_unknown_fields)]",
            "an unknown setting is accepted",
        ],
    );
    found(&Plugin(Fault::AnonymousError), &["the error names no setting"]);
    found(&Plugin(Fault::QuotesSecrets), &["the error shows the secret `key`"]);
    found(&Plugin(Fault::QuotesTokens), &["the error shows the secret `tokens`"]);
    found(&Plugin(Fault::ConnectsEarly), &["create_exporter talks to the back end"]);
    found(&Plugin(Fault::WritesEarly), &["create_exporter writes files"]);
}

#[test]
fn faults_of_exports_are_found() {
    found(&Plugin(Fault::PanicsOnBare), &["odd records: panics: no request"]);
    found(&Plugin(Fault::CountsWrongly), &["1 outcomes for a batch of 0", "a plain batch is not delivered"]);
    found(
        &Plugin(Fault::DeliversAlways),
        &["that is dead: records are said", "that closes: records are said", "answers 503: records are said"],
    );
    found(&Plugin(Fault::InitIsBlind), &["that is dead: init asks, gets no answer"]);
    found(
        &Plugin(Fault::RejectsEverything),
        &["that is dead: records are rejected", "429: records are rejected"],
    );
    found(&Plugin(Fault::RetriesItself), &["that closes: the same request is sent twice"]);
    found(&Plugin(Fault::BreaksWhenDropped), &["dropped: it does not work again afterwards"]);
    found(&Plugin(Fault::ForgetsMetrics), &["metrics are said to be delivered: back end is dead"]);
}

#[test]
fn what_leaks_is_found() {
    found(&Plugin(Fault::LogsContent), &["plain records: the log shows the content of a record"]);
    found(
        &Plugin(Fault::QuotesAnswers),
        &["answers 401: a reason shows the content of a record", "answers 503: a reason shows"],
    );
}

#[test]
fn what_hangs_is_found() {
    found(&Plugin(Fault::HangsInHealth), &["plain records: health does not come to an end"]);
    found(&Plugin(Fault::BlocksForEver), &["plain records: does not come to an end within 3 s"]);
}

/// An author's own tests have a host, and see what was sent.
#[tokio::test(flavor = "current_thread")]
async fn a_back_end_shows_what_was_sent() {
    let backend = Backend::answering(|_| http::Response::new(Bytes::new()));
    let settings = Settings::from(json!({"url": "http://collector.example", "key": "canary-key"}));
    let exporter = Plugin(Fault::None).create_exporter(settings, backend.host()).expect("settings");
    assert_eq!(exporter.export(&records::batch(2)).await, Delivery::Delivered);
    let [request] = backend.requests().try_into().expect("one request");
    assert_eq!(request.headers()["x-key"], "canary-key");
    let documents = serde_json::Deserializer::from_slice(request.body()).into_iter::<serde_json::Value>();
    let names: Vec<_> = documents.map(|document| document.expect("JSON")["name"].clone()).collect();
    assert_eq!(names, ["ai_gateway_request_log"; 2]);
}
