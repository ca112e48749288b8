//! A telemetry back end that takes everything: HTTP/1.1 and HTTP/2, the bulk API of Elasticsearch, plain or gzip, gRPC, and a
//! plain yes to whatever else is posted. It keeps nothing. `sink LISTEN`, as `host:port`.

use std::io::Write;
use std::net::SocketAddr;

use flate2::write::GzDecoder;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let listen: SocketAddr = std::env::args().nth(1).ok_or("usage: sink LISTEN")?.parse()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(listen))
}

async fn serve(listen: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that leaves is no error here.
            let builder = Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service_fn(take)).await;
        });
    }
}

async fn take(request: Request<Incoming>) -> Result<Response<String>, Failure> {
    let bulk = request.uri().path().ends_with("/_bulk");
    let kind = request.headers().get("content-type").cloned();
    let kind = kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let mut lines = Lines::of(request.headers().contains_key("content-encoding"));
    let mut body = std::pin::pin!(request.into_body());
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        if let (true, Ok(data)) = (bulk, frame?.into_data()) {
            lines.write_all(&data)?;
        }
    }
    let lines = lines.count();
    let answer = match kind.as_str() {
        "application/grpc" => {
            return Ok(Response::builder()
                .header("content-type", kind)
                .header("grpc-status", "0")
                .body(String::new())?);
        }
        "application/x-protobuf" => String::new(),
        // Two lines for each document.
        _ if bulk => {
            let items = vec![r#"{"create":{"status":201}}"#; lines / 2].join(",");
            format!(r#"{{"errors":false,"items":[{items}]}}"#)
        }
        _ => r#"{"status":"green","valid":true}"#.to_owned(),
    };
    let kind = if kind == "application/x-protobuf" { kind } else { "application/json".to_owned() };
    Ok(Response::builder().header("content-type", kind).body(answer)?)
}

/// Counts the lines of a body.
enum Lines {
    Plain(Newlines),
    Packed(GzDecoder<Newlines>),
}

#[derive(Default)]
struct Newlines(usize);

impl Lines {
    fn of(packed: bool) -> Self {
        if packed { Self::Packed(GzDecoder::new(Newlines::default())) } else { Self::Plain(Newlines::default()) }
    }

    fn count(self) -> usize {
        match self {
            Self::Plain(lines) => lines.0,
            Self::Packed(lines) => lines.finish().map_or(0, |lines| lines.0),
        }
    }
}

impl Write for Lines {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(lines) => lines.write(data),
            Self::Packed(lines) => lines.write(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Write for Newlines {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0 += data.iter().filter(|byte| **byte == b'\n').count();
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
