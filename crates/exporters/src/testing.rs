//! What the exporters' own tests share: records, a transport that follows a script, and what is logged.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Facts, Host, Http, HttpError, HttpTransport, MetricRegistry, Money, Outcome, RequestId, RequestMetrics,
    Settings, TelemetryConfig, TelemetryExporter, TelemetryPlugin, async_trait,
};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A record whose id and text follow from `n`.
pub(crate) fn record(n: u8) -> Arc<RequestMetrics> {
    record_with(n, format!("{{\"n\":{n}}}"))
}

/// A record whose bodies no buffer should hold once more.
pub(crate) fn large_record() -> Arc<RequestMetrics> {
    record_with(255, format!("\"{}\"", "large ".repeat(20_000)))
}

fn record_with(n: u8, body: String) -> Arc<RequestMetrics> {
    let id = RequestId::parse(&format!("msg_01956700-0000-7000-8000-0000000000{n:02x}")).expect("an id");
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123);
    let mut facts = Facts::new(id, at);
    facts.outcome = Outcome::Completed;
    facts.model = Some(format!("model-{n}"));
    facts.latency_ms = u64::from(n);
    let mut names = TelemetryConfig::default();
    names.service_version = "1.0.0".into();
    Arc::new(RequestMetrics::seal(facts, Arc::new(names), Some(body.clone().into()), Some(body.into()), None))
}

/// A record of this moment with these bodies, for back ends that take no old ones.
pub(crate) fn fresh(request: &str, response: &str, events: Option<&str>) -> Arc<RequestMetrics> {
    let mut facts = Facts::new(RequestId::mint(), SystemTime::now());
    facts.outcome = Outcome::Completed;
    let resource = Arc::new(TelemetryConfig::default());
    let body = |text: &str| text.to_owned().into();
    Arc::new(RequestMetrics::seal(
        facts,
        resource,
        Some(body(request)),
        Some(body(response)),
        events.map(body),
    ))
}

/// A record with every fact that tags and attributes are made of, of a known moment.
pub(crate) fn known() -> RequestMetrics {
    let one = record(1);
    let mut facts = one.facts().clone();
    (facts.method, facts.path) = ("POST".into(), "/v1/chat/completions".into());
    (facts.provider, facts.model) = (Some("openai".into()), Some("gpt, 4o".into()));
    (facts.project_id, facts.route) = (Some("p1".into()), Some("smart".into()));
    (facts.key_name, facts.trace_id) =
        (Some("app-1".into()), Some("4bf92f3577b34da6a3ce929d0e0e4736".into()));
    (facts.status_code, facts.latency_ms) = (200, 6250);
    (facts.usage.input, facts.usage.output) = (Some(48), Some(865));
    facts.cost = Money::from_usd(0.0456);
    facts.finish_reasons = vec!["stop".into()];
    let mut names = TelemetryConfig::default();
    names.service_version = "1.0.0".into();
    names.deployment_environment = Some("production".into());
    names.resource_attributes = [("k8s.pod.name".to_owned(), "pod-1".to_owned())].into();
    let body = |text: &'static str| Some(text.into());
    let request = body("{\"model\":\"gpt, 4o\",\"n\":1E5,\"n\":1e400}");
    RequestMetrics::seal(facts, Arc::new(names), request, body("{\"id\":\"x\"}"), body("[{\"n\":1}]"))
}

/// A batch of `n` records.
pub(crate) fn batch(n: u8) -> Vec<Arc<RequestMetrics>> {
    (0..n).map(record).collect()
}

type Answer = Result<Response<Bytes>, HttpError>;

/// Answers requests from a list and keeps them.
#[derive(Default)]
pub(crate) struct Script {
    /// `None`: never.
    answers: Mutex<VecDeque<Option<Answer>>>,
    seen: Mutex<Vec<Request<Bytes>>>,
}

impl Script {
    /// Answers with this status and body next.
    pub(crate) fn answer(self: &Arc<Self>, status: u16, body: impl Into<Bytes>) -> &Arc<Self> {
        self.then(Ok(Response::builder().status(status).body(body.into()).expect("an answer")))
    }

    /// Does this next.
    pub(crate) fn then(self: &Arc<Self>, answer: Answer) -> &Arc<Self> {
        self.answers.lock().expect("no panic").push_back(Some(answer));
        self
    }

    /// Never answers the next.
    pub(crate) fn hang(self: &Arc<Self>) -> &Arc<Self> {
        self.answers.lock().expect("no panic").push_back(None);
        self
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

#[async_trait]
impl HttpTransport for Script {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.seen.lock().expect("no panic").push(request);
        let answer = self.answers.lock().expect("no panic").pop_front();
        match answer.expect("the script is longer") {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// A host that follows the script.
pub(crate) fn host(script: &Arc<Script>) -> Host {
    Host::new(Http::new(script.clone()), Arc::new(MetricRegistry::default()).meter("test"), None)
}

/// An exporter of this kind; the error's text when the settings are wrong.
pub(crate) fn create(
    plugin: &dyn TelemetryPlugin,
    settings: Value,
    script: &Arc<Script>,
) -> Result<Box<dyn TelemetryExporter>, String> {
    plugin.create_exporter(Settings::from(settings), host(script)).map_err(|e| e.to_string())
}

/// Keeps what is logged while it is the thread's subscriber.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("no panic").clone()
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("memory");
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().expect("no panic")));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
