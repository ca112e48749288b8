//! What the client costs: processor time of its thread per request and per streamed chunk, against a bare hyper
//! connection, A B A B interleaved on loopback; then HTTP/1.1 against HTTP/2 over TLS.
//!
//! `cargo run --release -p magicapi-upstream --example overhead`
#![expect(clippy::print_stdout, reason = "its output is the figures")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use magicapi_kernel::Admitted;
use magicapi_upstream::{Client, ClientOptions, Http2Choice, RequestBody};
use tokio::net::{TcpListener, TcpStream};

#[path = "../src/tests/stub.rs"]
mod stub;

use stub::admitted;

type Fault = Box<dyn Error + Send + Sync>;

const REQUESTS: u32 = 20_000;
const ROUNDS: usize = 15;
const STREAMS: [u32; 4] = [1, 8, 64, 400];
const CHUNKS: u32 = 200;
const ANSWER: &[u8] = &[b'a'; 1024];
const CHUNK: &[u8] = &[b'c'; 180];

/// Processor time of this thread, in nanoseconds.
fn used() -> Result<u64, Fault> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("schedstat")?.parse()?)
}

async fn answer(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Fault>>, hyper::Error> {
    let streamed = request.uri().path() == "/stream";
    request.into_body().collect().await?;
    if !streamed {
        return Ok(Response::new(Either::Left(Full::new(Bytes::from_static(ANSWER)))));
    }
    let chunks = stream::unfold(0, |sent| async move {
        // Streams drift apart, as those of a provider do.
        static TURN: AtomicU64 = AtomicU64::new(0);
        let turn = TURN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        tokio::time::sleep(Duration::from_millis(5 + turn)).await;
        (sent < CHUNKS).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(CHUNK))), sent + 1))
    });
    Ok(Response::new(Either::Right(StreamBody::new(Box::pin(chunks)))))
}

async fn serve(tcp: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>) -> Result<(), Fault> {
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tcp), service_fn(answer))
            .await?);
    };
    let io = tls.accept(tcp).await?;
    if io.get_ref().1.alpn_protocol() == Some(b"h2") {
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        return Ok(http2.serve_connection(TokioIo::new(io), service_fn(answer)).await?);
    }
    Ok(hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .await?)
}

/// A server on a thread of its own, so that the client's thread does the client's work alone.
fn server(tls: Option<tokio_rustls::TlsAcceptor>) -> Result<SocketAddr, Fault> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> Result<(), Fault> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (tcp, _) = listener.accept().await?;
                tokio::spawn(serve(tcp, tls.clone()));
            }
        })
    });
    Ok(address)
}

/// A request as the gateway sends it: the values are slices of a shared buffer, as they come from the caller's head.
fn request(url: &str) -> Result<Request<()>, Fault> {
    const HEAD: &[u8] = b"application/json/some-customary-length";
    let mut request = Request::post(url).body(())?;
    let names =
        ["accept", "user-agent", "content-type", "authorization", "x-stainless-lang", "x-stainless-os"];
    for name in names {
        let value = http::HeaderValue::from_maybe_shared(Bytes::from_static(HEAD))?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

const BODY: &[u8] = &[b'b'; 200];

async fn bare(address: SocketAddr, callers: u32) -> Result<f64, Fault> {
    let open = (0..callers).map(|_| async move {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        Ok::<_, Fault>(sender)
    });
    let senders = try_join_all(open).await?;
    let before = used()?;
    let calls = senders.into_iter().map(|mut sender| async move {
        for _ in 0..REQUESTS / callers {
            let mut request = request("/one")?.map(|()| Full::new(Bytes::from_static(BODY)));
            request.headers_mut().insert("host", "127.0.0.1".parse()?);
            let mut body = sender.send_request(request).await?.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
        }
        Ok::<_, Fault>(())
    });
    try_join_all(calls).await?;
    Ok((used()? - before) as f64 / f64::from(REQUESTS / callers * callers))
}

async fn pooled(client: &Client, admitted: &Admitted, url: &str, callers: u32) -> Result<f64, Fault> {
    let round = |each: u32| async move {
        let calls = (0..callers).map(|_| async move {
            for _ in 0..each {
                let request = request(url)?.map(|()| RequestBody::Full(Bytes::from_static(BODY)));
                let mut body = client.send(admitted, request).await?.into_body();
                while let Some(frame) = body.frame().await {
                    frame?;
                }
            }
            Ok::<_, Fault>(())
        });
        try_join_all(calls).await
    };
    // Connections are opened before the clock starts, as in `bare`.
    round(1).await?;
    let before = used()?;
    let each = if url.ends_with("/stream") { 1 } else { REQUESTS / callers };
    round(each).await?;
    Ok((used()? - before) as f64 / f64::from(each * callers))
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn authority() -> Result<(Vec<u8>, tokio_rustls::TlsAcceptor), Fault> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((certificate.pem().into_bytes(), Arc::new(config).into()))
}

async fn against_bare_hyper() -> Result<(), Fault> {
    for which in ["first", "second"] {
        let start = std::time::Instant::now();
        Client::new(ClientOptions::default())?;
        println!("Client::new, {which}: {:?}", start.elapsed());
    }
    let address = server(None)?;
    let url = format!("http://{address}/one");
    let admitted = admitted(&url)?;
    for callers in [1, 32] {
        let client = Client::new(ClientOptions::default())?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            a.push(bare(address, callers).await?);
            b.push(pooled(&client, &admitted, &url, callers).await?);
        }
        let (a, b) = (median(&mut a), median(&mut b));
        println!(
            "plain, {callers:2} callers: bare {a:6.0} ns, client {b:6.0} ns per request: {:+.0} ns",
            b - a
        );
    }
    Ok(())
}

async fn http1_against_http2() -> Result<(), Fault> {
    let (pem, acceptor) = authority()?;
    let address = server(Some(acceptor))?;
    let url = format!("https://{address}/one");
    let admitted = admitted(&url)?;
    let make = |http2| {
        let extra_ca_pem = vec![pem.clone()];
        Client::new(ClientOptions { http2, extra_ca_pem, ..ClientOptions::default() })
    };
    let (one, two) = (make(Http2Choice::Never)?, make(Http2Choice::Auto)?);
    for callers in [1, 32] {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            a.push(pooled(&one, &admitted, &url, callers).await?);
            b.push(pooled(&two, &admitted, &url, callers).await?);
        }
        let (a, b) = (median(&mut a), median(&mut b));
        println!("TLS, {callers:2} callers: HTTP/1.1 {a:6.0} ns, HTTP/2 {b:6.0} ns per request");
    }
    let url = format!("https://{address}/stream");
    for streams in STREAMS {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            a.push(pooled(&one, &admitted, &url, streams).await? / f64::from(CHUNKS));
            b.push(pooled(&two, &admitted, &url, streams).await? / f64::from(CHUNKS));
        }
        let (a, b) = (median(&mut a), median(&mut b));
        println!("TLS, {streams:3} streams: HTTP/1.1 {a:6.0} ns, HTTP/2 {b:6.0} ns per chunk");
    }
    println!("HTTP/1.1 {:?}\nHTTP/2   {:?}", one.stats(), two.stats());
    Ok(())
}

fn main() -> Result<(), Fault> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        against_bare_hyper().await?;
        http1_against_http2().await
    })
}
