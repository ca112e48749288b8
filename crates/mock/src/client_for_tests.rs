//! A bare HTTP/1.1 client for this crate's tests: one request per connection, the transfer framing
//! undone by hand, so that what is on the wire can be looked at.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{MockOptions, MockServer, Script};

/// An answer as it came.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Sizes of the transfer chunks.
    pub(crate) chunks: Vec<usize>,
    /// The body ended the way its framing says.
    pub(crate) complete: bool,
    /// Bytes seen on the socket at all.
    pub(crate) raw: usize,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Data of every event that is JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.lines().filter_map(|l| l.strip_prefix("data:"));
        data.filter_map(|d| serde_json::from_str(d.trim()).ok()).collect()
    }
}

pub(crate) async fn server(script: Script) -> MockServer {
    MockServer::start(MockOptions { script: script.into(), record: true, ..MockOptions::default() })
        .await
        .unwrap()
}

/// A chat request, streamed or not.
pub(crate) fn chat(stream: bool) -> Value {
    serde_json::json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hi there"}]})
}

pub(crate) async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.unwrap()
}

pub(crate) fn head(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        out = out + name + ": " + value + "\r\n";
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// Sends a request, reads until the answer is complete or the connection ends.
pub(crate) async fn send(addr: SocketAddr, request: &[u8]) -> Got {
    let mut socket = connect(addr).await;
    socket.write_all(request).await.unwrap();
    let mut raw = Vec::new();
    loop {
        if let Some(got) = parse(&raw).filter(|g| g.complete) {
            return got;
        }
        if socket.read_buf(&mut raw).await.unwrap_or(0) == 0 {
            return parse(&raw).unwrap_or_default();
        }
    }
}

/// A POST of JSON under a script of its own.
pub(crate) async fn post(addr: SocketAddr, path: &str, script: Value, body: &Value) -> Got {
    let script = script.to_string();
    let request = head("POST", path, &[("x-mock", &script)], body.to_string().as_bytes());
    send(addr, &request).await
}

/// A chat request under a script, on a server of its own.
pub(crate) async fn ask(script: Value, stream: bool) -> Got {
    let server = server(Script::default()).await;
    post(server.addr(), "/v1/chat/completions", script, &chat(stream)).await
}

fn parse(raw: &[u8]) -> Option<Got> {
    let split = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&raw[..split]).into_owned();
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut got = Got { status, headers, raw: raw.len(), ..Got::default() };
    let mut rest = &raw[split + 4..];
    if status == 204 {
        got.complete = true;
        return Some(got);
    }
    if let Some(length) = got.header("content-length") {
        got.complete = rest.len() == length.parse::<usize>().unwrap();
        got.body = rest.to_vec();
        return Some(got);
    }
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if size == 0 {
            got.complete = true;
            break;
        }
        let Some(data) = rest.get(end + 2..end + 2 + size) else { break };
        got.body.extend_from_slice(data);
        got.chunks.push(size);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    Some(got)
}
