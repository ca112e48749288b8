//! The page as a real Prometheus reads it (Debian package `prometheus`; without it the test says that it is skipped).
#![allow(clippy::expect_used, clippy::panic, reason = "clippy sees no test here")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use magicapi_exporters as _;
use magicapi_plugin::{Host, Http, MetricRegistry, Settings, TelemetryExporter, plugins};
use serde_json::{Value, json};

/// Ends it when the test does.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One request's head.
fn head(socket: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Serves the page to whoever asks, in the form that he asks for.
fn serve(exporter: Box<dyn TelemetryExporter>, registry: Arc<MetricRegistry>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let head = head(&mut socket);
            let accept = head.lines().find_map(|line| line.strip_prefix("Accept: ")).unwrap_or_default();
            let page = exporter.scrape(&registry.snapshot(), accept).expect("a page");
            let (kind, length) = (page.content_type, page.body.len());
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = socket.write_all(&[head.as_bytes(), &page.body].concat());
        }
    });
    address
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free address").local_addr().expect("an address").port()
}

/// What Prometheus answers to a query, as a number.
fn query(port: u16, query: &str) -> Option<f64> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let query = query.replace('(', "%28").replace(')', "%29").replace(',', "%2C");
    let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nhost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let answer: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
    answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}

#[test]
fn a_real_prometheus_takes_native_histograms() {
    let registry = Arc::new(MetricRegistry::default());
    let took = registry.meter("gateway").f64_histogram("took").with_unit("s").build();
    for value in [0.0, 0.2, 0.3, 0.5, 0.5, 0.5, 2.0, 40.0, 1000.0] {
        took.record(value, &[]);
    }
    registry.meter("gateway").u64_counter("asked").build().add(7, &[]);
    let plugin = plugins().into_iter().find(|plugin| plugin.name() == "prometheus").expect("the plug-in");
    let backend = magicapi_compliance::Backend::answering(|_| http::Response::new("".into()));
    let http: Http = backend.host().http().clone();
    let host = Host::new(http, registry.meter("prometheus"), None);
    let exporter = plugin.create_exporter(Settings::from(json!({})), host).expect("an exporter");
    let address = serve(exporter, registry);

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("prometheus.yml");
    let jobs = json!({ "scrape_configs": [ { "job_name": "gateway", "scrape_interval": "1s", "scrape_timeout": "1s",
        "static_configs": [ { "targets": [address] } ] } ] });
    std::fs::write(&file, jobs.to_string()).expect("a file");
    let port = free_port();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--enable-feature=native-histograms")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        println!("skipped: prometheus is missing (Debian package `prometheus`)");
        return;
    };
    let _prometheus = Prometheus(child);
    let deadline = Instant::now() + Duration::from_mins(2);
    let count = loop {
        if let Some(count) = query(port, "histogram_count(gateway_took_seconds)") {
            break count;
        }
        assert!(Instant::now() < deadline, "no native histogram came");
        thread::sleep(Duration::from_millis(200));
    };
    let near = |found: Option<f64>, wanted: f64| {
        let found = found.expect("an answer");
        assert!((found / wanted - 1.0).abs() < 0.1, "{found} is not about {wanted}");
    };
    near(Some(count), 9.0);
    near(query(port, "histogram_sum(gateway_took_seconds)"), 1044.0);
    near(query(port, "histogram_quantile(0.5,gateway_took_seconds)"), 0.5);
    near(query(port, "histogram_quantile(1,gateway_took_seconds)"), 1000.0);
    near(query(port, "histogram_fraction(0.6,3,gateway_took_seconds)"), 1.0 / 9.0);
    near(query(port, "gateway_asked_total"), 7.0);
}
