//! What tests against real servers need: a plain HTTP/1.1 client in place of the gateway's, and records.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{
    Facts, Host, Http, HttpError, HttpTransport, MetricRegistry, Outcome, RequestId, RequestMetrics,
    TelemetryConfig, async_trait,
};

/// One connection per request, no TLS, the answer read to the connection's end.
pub(crate) struct TcpTransport;

#[async_trait]
impl HttpTransport for TcpTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let authority = request.uri().authority().expect("an absolute address").as_str().to_owned();
        let mut stream = TcpStream::connect(&authority).map_err(|e| HttpError::Connect(e.to_string()))?;
        let unanswered = |e: std::io::Error| HttpError::NoAnswer(e.to_string());
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(unanswered)?;
        let path = request.uri().path_and_query().expect("a path");
        let mut head =
            format!("{} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n", request.method());
        for (name, value) in request.headers() {
            head += &[name.as_str(), ": ", value.to_str().expect("ASCII"), "\r\n"].concat();
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).map_err(unanswered)?;
        stream.write_all(request.body()).map_err(unanswered)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(unanswered)?;
        read(&answer).ok_or_else(|| HttpError::NoAnswer("no HTTP answer".into()))
    }
}

fn read(answer: &[u8]) -> Option<Response<Bytes>> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(&answer[..end]).ok()?.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut response = Response::builder().status(status);
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        chunked |= name.eq_ignore_ascii_case("transfer-encoding");
        response = response.header(name, value.trim());
    }
    let body = &answer[end + 4..];
    let body = if chunked { unchunk(body)? } else { Bytes::copy_from_slice(body) };
    response.body(body).ok()
}

fn unchunk(mut rest: &[u8]) -> Option<Bytes> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body.into());
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}

/// A host whose client is the plain one.
pub(crate) fn host() -> Host {
    Host::new(Http::new(Arc::new(TcpTransport)), Arc::new(MetricRegistry::default()).meter("test"), None)
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
    let resource = Arc::new(TelemetryConfig {
        deployment_environment: Some("test".into()),
        resource_attributes: [("k8s.pod.name".to_owned(), "pod-1".to_owned())].into(),
        ..TelemetryConfig::default()
    });
    Arc::new(RequestMetrics::seal(
        facts,
        resource,
        Some(request.to_owned().into()),
        Some(response.to_owned().into()),
        events.map(|events| events.to_owned().into()),
    ))
}

/// That many records.
pub(crate) fn batch(n: usize) -> Vec<Arc<RequestMetrics>> {
    (0..n).map(|n| record(&format!("{{\"n\":{n}}}"), "{}", None)).collect()
}
