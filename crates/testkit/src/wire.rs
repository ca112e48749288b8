//! A client that shows the wire: HTTP/1.1 with the transfer framing undone by hand, so that a test sees what was written
//! when, and whether a body ended as its framing says. Also the HTTP/2 client for what only streams show.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::DEADLINE;

/// Waits for `step`, at most [`DEADLINE`].
pub async fn patiently<T>(what: &str, step: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, step).await;
    done.unwrap_or_else(|_| panic!("{what}: did not happen within {DEADLINE:?}"))
}

/// Waits until `seen` gives something, at most [`DEADLINE`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, seen: impl FnMut() -> F) -> T {
    until_within(DEADLINE, what, seen).await
}

/// Waits until `seen` gives something, at most so long.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut seen: impl FnMut() -> F,
) -> T {
    let found = async {
        loop {
            if let Some(found) = seen().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(patience, found).await;
    found.unwrap_or_else(|_| panic!("{what}: did not happen within {patience:?}"))
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The next of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// One transfer chunk; of a body with a length, what one read brought.
    Data(Vec<u8>),
    /// The body ended as its framing says.
    End,
    /// The connection ended before the body did.
    Cut,
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// The transfer chunks, one by one.
    pub parts: Vec<Vec<u8>>,
    /// Whether the body ended as its framing says.
    pub whole: bool,
}

impl Answer {
    /// The body.
    pub fn body(&self) -> Vec<u8> {
        self.parts.concat()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body()).expect("a JSON body")
    }

    /// The data of each event, however its lines end.
    pub fn events(&self) -> Vec<String> {
        events(&self.text())
    }
}

/// The data of each event of a stream, as a client after the WHATWG grammar sees it.
pub fn events(stream: &str) -> Vec<String> {
    let plain = stream.replace("\r\n", "\n").replace('\r', "\n");
    let data = |block: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    let blocks = plain.split("\n\n").filter(|block| block.lines().any(|line| line.starts_with("data:")));
    blocks.map(data).collect()
}

enum Framing {
    Chunked,
    Length(usize),
    UntilClose,
    Done,
}

/// A connection.
pub struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
    framing: Framing,
}

impl Wire {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = patiently("connecting", TcpStream::connect(address)).await.expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        Self { socket, buffer: Vec::new(), framing: Framing::Done }
    }

    /// Writes.
    pub async fn send(&mut self, bytes: &[u8]) {
        patiently("sending", self.socket.write_all(bytes)).await.expect("a peer that reads");
    }

    /// Writes; `false` when the peer does not take it any more.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        patiently("sending", self.socket.write_all(bytes)).await.is_ok()
    }

    /// More bytes of the answer; `false` at the connection's end.
    async fn more(&mut self) -> bool {
        let read = patiently("reading", self.socket.read_buf(&mut self.buffer)).await;
        read.is_ok_and(|read| read > 0)
    }

    /// The next answer's head; `None` when the connection ends before it.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = parse_head(&self.buffer[..end]);
                self.buffer.drain(..end + 4);
                if head.status == 100 {
                    continue;
                }
                self.framing = framing(&head);
                return Some(head);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next part of the body.
    pub async fn part(&mut self) -> Part {
        loop {
            if let Some(part) = self.take() {
                return part;
            }
            if !self.more().await {
                return if matches!(self.framing, Framing::UntilClose) { Part::End } else { Part::Cut };
            }
        }
    }

    fn take(&mut self) -> Option<Part> {
        match self.framing {
            Framing::Done | Framing::Length(0) => Some(Part::End),
            Framing::Length(left) if !self.buffer.is_empty() => {
                let taken = left.min(self.buffer.len());
                self.framing = Framing::Length(left - taken);
                Some(Part::Data(self.buffer.drain(..taken).collect()))
            }
            Framing::UntilClose if !self.buffer.is_empty() => {
                Some(Part::Data(std::mem::take(&mut self.buffer)))
            }
            Framing::Length(_) | Framing::UntilClose => None,
            Framing::Chunked => self.take_chunk(),
        }
    }

    fn take_chunk(&mut self) -> Option<Part> {
        let line = find(&self.buffer, b"\r\n")?;
        let size = std::str::from_utf8(&self.buffer[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        let end = line + 2 + size;
        if self.buffer.len() < end + 2 {
            return None;
        }
        let data = self.buffer[line + 2..end].to_vec();
        self.buffer.drain(..end + 2);
        if size == 0 {
            self.framing = Framing::Done;
            return Some(Part::End);
        }
        Some(Part::Data(data))
    }

    /// The whole answer; `None` when the connection ends before its head.
    pub async fn answer(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let mut answer = Answer { head, ..Answer::default() };
        loop {
            match self.part().await {
                Part::Data(data) => answer.parts.push(data),
                Part::End => {
                    answer.whole = true;
                    return Some(answer);
                }
                Part::Cut => return Some(answer),
            }
        }
    }

    /// Closes so that the peer sees a reset.
    pub fn reset(self) {
        // `set_linger` is deprecated in tokio for its other values; zero never blocks.
        let _ = self.socket.set_zero_linger();
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse_head(bytes: &[u8]) -> Head {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Head { status, headers }
}

fn framing(head: &Head) -> Framing {
    if head.status == 204 || head.status == 304 {
        return Framing::Done;
    }
    if head.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        return Framing::Chunked;
    }
    match head.header("content-length").map(|length| length.parse().expect("a length")) {
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    }
}

/// A request with a body of known length.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let headers: Vec<_> = headers.iter().copied().chain([("content-length", length.as_str())]).collect();
    let mut out = request_head(method, path, &headers);
    out.extend_from_slice(body);
    out
}

/// The head of a request, as given.
pub fn request_head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\n");
    for (name, value) in headers {
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// One transfer chunk.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// An HTTP/2 connection by prior knowledge.
#[derive(Clone)]
pub struct Wire2(h2::client::SendRequest<Bytes>);

/// A request over HTTP/2. Dropping it resets the stream.
pub struct Exchange2 {
    answer: h2::client::ResponseFuture,
    // Kept: with it goes the right to reset.
    _request: h2::SendStream<Bytes>,
}

impl Wire2 {
    /// Connects; the connection lives as long as its requests and this handle.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = patiently("connecting", TcpStream::connect(address)).await.expect("a connection");
        let (sender, connection) = patiently("HTTP/2", h2::client::handshake(socket)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Exchange2 {
        let mut request = http::Request::builder().method(method).uri(format!("http://gateway{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut sender = patiently("HTTP/2", self.0.clone().ready()).await.expect("an open connection");
        let (answer, mut sending) = sender.send_request(request, false).expect("a stream");
        sending.send_data(Bytes::copy_from_slice(body), true).expect("a body");
        Exchange2 { answer, _request: sending }
    }
}

impl Exchange2 {
    /// The status and the body, of which [`h2::RecvStream::data`] gives the next part.
    pub async fn head(self) -> (u16, h2::RecvStream) {
        let answer = patiently("an answer's head", self.answer).await.expect("a head");
        (answer.status().as_u16(), answer.into_body())
    }
}

/// The rest of an HTTP/2 body; `false` when it was reset.
pub async fn rest(body: &mut h2::RecvStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match patiently("a body", body.data()).await {
            None => return (all, true),
            Some(Err(_)) => return (all, false),
            Some(Ok(data)) => {
                let _ = body.flow_control().release_capacity(data.len());
                all.extend_from_slice(&data);
            }
        }
    }
}
