//! What tests against real servers need: a plain HTTP/1.1 client in place of the gateway's, and records.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Facts, Host, Http, HttpError, HttpTransport, MetricRegistry, Outcome, RequestId, RequestMetrics,
    TelemetryConfig, async_trait,
};

/// One connection per request, no TLS.
pub(crate) struct PlainTransport;

#[async_trait]
impl HttpTransport for PlainTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let authority = request.uri().authority().expect("an absolute address").as_str();
        // The client of tests takes it for granted that somebody listens.
        TcpStream::connect(authority).map_err(|e| HttpError::Connect(e.to_string()))?;
        let headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
            .collect();
        let (method, url) = (request.method().as_str(), request.uri().to_string());
        let answer = magicapi_testkit::request(method, &url, &headers, request.body().clone()).await;
        let mut response = Response::new(answer.body);
        *response.status_mut() = http::StatusCode::from_u16(answer.status).expect("a status");
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

/// A host whose client is the plain one.
pub(crate) fn host() -> Host {
    Host::new(Http::new(Arc::new(PlainTransport)), Arc::new(MetricRegistry::default()).meter("test"), None)
}

/// A record with these bodies.
pub(crate) fn record(request: &str, response: &str, events: Option<&str>) -> Arc<RequestMetrics> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123);
    let mut facts = Facts::new(RequestId::mint(), at);
    facts.outcome = Outcome::Completed;
    facts.provider = Some("openai".into());
    facts.model = Some("gpt-test".into());
    facts.path = "/v1/chat/completions".into();
    facts.latency_ms = 6250;
    facts.usage.input = Some(48);
    facts.cost = magicapi_plugin::Money::from_usd(0.0456);
    let mut names = TelemetryConfig::default();
    names.deployment_environment = Some("test".into());
    names.resource_attributes = [("k8s.pod.name".to_owned(), "pod-1".to_owned())].into();
    Arc::new(RequestMetrics::seal(
        facts,
        Arc::new(names),
        Some(request.to_owned().into()),
        Some(response.to_owned().into()),
        events.map(|events| events.to_owned().into()),
    ))
}

/// That many records.
pub(crate) fn batch(n: usize) -> Vec<Arc<RequestMetrics>> {
    (0..n).map(|n| record(&format!("{{\"n\":{n}}}"), "{}", None)).collect()
}
