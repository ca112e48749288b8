//! An HTTP/1.1 client for tests: whole answers, streams with arrival times, and raw sockets.
//!
//! One connection per request, so that closing it is the test's decision. No redirects, no decompression, no headers
//! but `host`, `content-length` and those that the test gives.

use std::time::{Duration, Instant};

use ::http::{HeaderMap, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::DEADLINE;

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it came.
    pub body: Bytes,
}

// === impl Response ===

impl Response {
    /// A header's text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A piece of an answer's body.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// When it arrived.
    pub at: Instant,
    /// What arrived.
    pub bytes: Bytes,
}

/// An answer whose body is read piece by piece. Dropping it closes the connection.
pub struct Streaming {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

// === impl Streaming ===

impl Streaming {
    /// A header's text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// The next piece; `None` at a proper end, an error when the body was cut.
    ///
    /// # Panics
    /// When nothing happens within [`DEADLINE`].
    pub async fn next(&mut self) -> Option<Result<Chunk, hyper::Error>> {
        loop {
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("a piece in time")?;
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(Chunk { at: Instant::now(), bytes })),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Everything that is still to come, and how it ended.
    pub async fn rest(mut self) -> (Vec<Chunk>, Result<(), hyper::Error>) {
        let mut chunks = Vec::new();
        while let Some(next) = self.next().await {
            match next {
                Ok(chunk) => chunks.push(chunk),
                Err(error) => return (chunks, Err(error)),
            }
        }
        (chunks, Ok(()))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends a request and reads the whole answer.
///
/// # Panics
/// When the URL is bad, nobody listens, the answer is cut or does not come within [`DEADLINE`].
pub async fn request(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
    let mut answer = stream(method, url, headers, body).await;
    let (status, headers) = (answer.status, std::mem::take(&mut answer.headers));
    let (chunks, end) = answer.rest().await;
    end.unwrap_or_else(|error| panic!("{method} {url}: the body was cut: {error}"));
    let body: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect();
    Response { status, headers, body: body.into() }
}

/// Sends a JSON document with POST and reads the whole answer.
pub async fn post_json(url: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    request("POST", url, &with_json(headers), body.to_string()).await
}

/// Sends a JSON document with POST and gives the answer while it comes.
pub async fn stream_json(url: &str, headers: &[(&str, &str)], body: &Value) -> Streaming {
    stream("POST", url, &with_json(headers), body.to_string()).await
}

/// Reads a URL.
pub async fn get(url: &str, headers: &[(&str, &str)]) -> Response {
    request("GET", url, headers, Bytes::new()).await
}

/// Sends a request and gives the answer once its head is there.
///
/// # Panics
/// When the URL is bad, nobody listens, or no head comes within [`DEADLINE`].
pub async fn stream(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Streaming {
    let uri: Uri = url.parse().expect("a URL");
    let authority = uri.authority().expect("an authority").to_string();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header("host", &authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let exchange = async {
        let socket = TcpStream::connect(&authority).await.expect("somebody who listens");
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("a handshake");
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        (sender.send_request(request).await, connection)
    };
    let waited = tokio::time::timeout(DEADLINE, exchange).await;
    let (answer, connection) =
        waited.unwrap_or_else(|_| panic!("{method} {url}: no head within {DEADLINE:?}"));
    let answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let status: StatusCode = answer.status();
    let (head, body) = answer.into_parts();
    Streaming { status: status.as_u16(), headers: head.headers, body, connection }
}

fn with_json<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [("content-type", "application/json")].into_iter().chain(headers.iter().copied()).collect()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A socket that sends and reads exactly what the test says. Dropping it closes it.
pub struct Raw {
    socket: TcpStream,
}

// === impl Raw ===

impl Raw {
    /// Connects to the authority of a URL.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(url: &str) -> Self {
        let uri: Uri = url.parse().expect("a URL");
        let authority = uri.authority().expect("an authority").to_string();
        Self { socket: TcpStream::connect(authority).await.expect("somebody who listens") }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.socket.write_all(bytes.as_ref()).await?;
        self.socket.flush().await
    }

    /// Ends the sending side only.
    pub async fn finish_sending(&mut self) -> std::io::Result<()> {
        self.socket.shutdown().await
    }

    /// What arrives next; empty at the end.
    ///
    /// # Panics
    /// When nothing happens within [`DEADLINE`].
    pub async fn read(&mut self) -> std::io::Result<Bytes> {
        let mut buffer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(DEADLINE, self.socket.read(&mut buffer)).await;
        buffer.truncate(read.expect("bytes in time")?);
        Ok(buffer.into())
    }

    /// Reads until the text appears, or the end; gives everything that came.
    pub async fn read_until(&mut self, text: &str) -> std::io::Result<String> {
        let mut seen = Vec::new();
        loop {
            let bytes = self.read().await?;
            seen.extend_from_slice(&bytes);
            let so_far = String::from_utf8_lossy(&seen);
            if bytes.is_empty() || so_far.contains(text) {
                return Ok(so_far.into_owned());
            }
        }
    }

    /// Reads until the other side closes.
    pub async fn read_to_end(&mut self) -> std::io::Result<Bytes> {
        let mut seen = Vec::new();
        loop {
            let bytes = self.read().await?;
            if bytes.is_empty() {
                return Ok(seen.into());
            }
            seen.extend_from_slice(&bytes);
        }
    }

    /// Closes with a reset instead of a proper end.
    pub fn reset(self) -> std::io::Result<()> {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }
}
