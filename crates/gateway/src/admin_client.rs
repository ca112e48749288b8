//! The commands' way to a running gateway: its admin API, found through the note that it leaves in its data directory.
//!
//! One connection per question, over loopback: no pool, no redirects, no TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use magicapi_model::Secret;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::data_dir::NOTE;

/// A loopback answers at once, or nobody is there.
const CONNECT: Duration = Duration::from_secs(5);
/// A search may take half a minute, and wait for its turn before.
const ANSWER: Duration = Duration::from_mins(1);
/// A stream says something every 15 s.
const SILENCE: Duration = Duration::from_mins(1);

/// A running gateway's admin API.
pub(crate) struct AdminClient {
    address: SocketAddr,
    token: Secret,
    /// Where it was found, for messages.
    note: PathBuf,
}

/// What the gateway leaves in its data directory while it runs.
#[derive(Deserialize)]
struct Note {
    admin: String,
    token: Secret,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// Nobody is there: the note is older than the gateway's end, or the admin plane is stuck.
    Unreachable(String),
    /// An answer, but not the one that was asked for; the text is the gateway's own.
    Refused(StatusCode, String),
    /// The note or the answer cannot be used.
    Unusable(String),
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Unusable(text) => f.write_str(text),
            Self::Refused(status, text) => write!(f, "the gateway refused ({}): {text}", status.as_u16()),
        }
    }
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name.
    pub(crate) name: String,
    /// Its data.
    pub(crate) data: String,
}

/// A stream of events.
pub(crate) struct Events {
    body: Incoming,
    received: Vec<u8>,
}

impl AdminClient {
    /// The gateway of this data directory, when its note is there. Whether it still runs shows the first question.
    pub(crate) fn find(data_dir: &Path) -> Result<Option<Self>, ClientError> {
        let path = data_dir.join(NOTE);
        let unusable = |why: String| {
            let advice = "restart the gateway, it writes the file anew; or remove the file if none runs";
            ClientError::Unusable(format!("{}: {why}; {advice}", path.display()))
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!("{}: {error}; run this as the gateway's own user", path.display());
                return Err(ClientError::Unusable(text));
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        // The error is not shown: it could quote the token.
        let note: Note = serde_json::from_str(&text).map_err(|_| unusable("not a gateway's note".into()))?;
        let address = note.admin.strip_prefix("http://").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| unusable(format!("`{}` is no http address", note.admin)))?;
        Ok(Some(Self { address: reachable(address), token: note.token, note: path }))
    }

    /// The body of a 200.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, ClientError> {
        self.whole(Method::GET, path, ANSWER).await
    }

    /// Has something done that may take so long, and gives the body of its 200.
    pub(crate) async fn post(&self, path: &str, patience: Duration) -> Result<Bytes, ClientError> {
        self.whole(Method::POST, path, patience).await
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn whole(&self, method: Method, path: &str, patience: Duration) -> Result<Bytes, ClientError> {
        let body = self.ask(method, path, "application/json", patience).await?;
        let body =
            timeout(ANSWER, body.collect()).await.map_err(|_| self.unreachable(&"the answer stopped"))?;
        Ok(body.map_err(|error| self.unreachable(&error))?.to_bytes())
    }

    /// A stream of events.
    pub(crate) async fn events(&self, path: &str) -> Result<Events, ClientError> {
        Ok(Events {
            body: self.ask(Method::GET, path, "text/event-stream", ANSWER).await?,
            received: Vec::new(),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        patience: Duration,
    ) -> Result<Incoming, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            // Whatever it listens on, we come over this machine.
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {}", self.token.expose()))
            .header(ACCEPT, accept)
            .body(Empty::<Bytes>::new())
            .map_err(|_| ClientError::Unusable(format!("`{path}` cannot be asked for")))?;
        let connect = async {
            let stream = timeout(CONNECT, TcpStream::connect(self.address)).await??;
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (mut sender, connection) = connect.await.map_err(|error| self.unreachable(&error))?;
        // It ends with the answer, or with the command.
        tokio::spawn(connection);
        let answer = timeout(patience, sender.send_request(request)).await;
        let answer =
            answer.map_err(|_| self.unreachable(&"no answer"))?.map_err(|error| self.unreachable(&error))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let status = answer.status();
        let text =
            answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(ClientError::Refused(status, refusal(&text)))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable(format!(
            "{} says that a gateway's admin plane is at {}, but it does not answer ({why})",
            self.note.display(),
            self.address
        ))
    }
}

impl Events {
    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.received.drain(..end + 2).collect();
                if let Some(event) = Event::read(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(event));
                }
                continue;
            }
            let frame = timeout(SILENCE, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| silence("the gateway has gone silent"))? else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| silence(&format!("the gateway has gone ({error})")))?;
            self.received.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref));
        }
    }
}

impl Event {
    /// Reads one block; `None` for a comment. The gateway writes `name: value`, one line of data, and no `\r`.
    fn read(block: &str) -> Option<Self> {
        let field = |name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        Some(Self { name: field("event")?, data: field("data").unwrap_or_default() })
    }
}

fn silence(text: &str) -> ClientError {
    ClientError::Unreachable(text.to_owned())
}

/// Listening everywhere is an address to listen on, not one to go to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The text of `{"error":{"message"}}`.
pub(crate) fn refusal(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = document.as_ref().and_then(|document| document["error"]["message"].as_str());
    message.unwrap_or("no reason given").to_owned()
}
