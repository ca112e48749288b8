//! A request as a scripted back end reads it from its socket: head and whole body, unpacked.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A request, unpacked.
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the body as sent.
    pub packed: usize,
    /// The body without its content encoding.
    pub body: Vec<u8>,
}

impl Asked {
    /// The next request on a connection; `received` is what was read beyond the last one. `None` when the connection
    /// ends, or sends what is no request.
    pub async fn read(socket: &mut TcpStream, received: &mut Vec<u8>) -> Option<Self> {
        let head = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(received.drain(..end + 4).collect()).ok()?;
            }
            (socket.read_buf(received).await.ok()? > 0).then_some(())?;
        };
        let pairs = head.lines().filter_map(|line| line.split_once(':'));
        let headers: BTreeMap<_, _> =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while received.len() < length {
            (socket.read_buf(received).await.ok()? > 0).then_some(())?;
        }
        let packed: Vec<u8> = received.drain(..length).collect();
        let mut body = Vec::new();
        match headers.get("content-encoding").map(String::as_str) {
            Some("gzip") => GzDecoder::new(&packed[..]).read_to_end(&mut body).ok()?,
            Some("deflate") => ZlibDecoder::new(&packed[..]).read_to_end(&mut body).ok()?,
            _ => Read::read_to_end(&mut &packed[..], &mut body).ok()?,
        };
        let mut words = head.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        Some(Self { method, path, headers, packed: packed.len(), body })
    }

    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}
