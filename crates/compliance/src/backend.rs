//! What stands at the other end of an exporter: the [`Http`] of its host, and an address for exporters that open
//! sockets themselves. Both answer alike, well or with one fault.

use std::fmt::{self, Display, Formatter};
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use magicapi_plugin::{Host, Http, HttpError, HttpTransport, MetricRegistry, async_trait};

use crate::sockets;

/// What a back end says to a request.
pub(crate) type Answer = Arc<dyn Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync>;

/// How a back end behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It answers as the author says.
    Well,
    /// Nobody listens.
    Dead,
    /// It takes a request and never answers.
    Silent,
    /// It takes a request and closes the connection.
    Closing,
    /// It speaks another protocol.
    Garbage,
    /// It answers every request with this status, and quotes what it was sent.
    Status(u16),
    /// It answers 200 with a page that means nothing to anybody.
    Page,
}

impl Display for Behaviour {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("is well"),
            Self::Dead => f.write_str("is dead"),
            Self::Silent => f.write_str("never answers"),
            Self::Closing => f.write_str("closes"),
            Self::Garbage => f.write_str("speaks another protocol"),
            Self::Status(status) => write!(f, "answers {status}"),
            Self::Page => f.write_str("answers with a page"),
        }
    }
}

pub(crate) struct State {
    answer: Answer,
    behaviour: Mutex<Behaviour>,
    /// What its errors quote: secrets and content.
    quotes: String,
    requests: Mutex<Vec<Request<Bytes>>>,
    /// Connections to the address; those of [`Http`] are not counted.
    pub(crate) connections: AtomicUsize,
}

impl State {
    pub(crate) fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request; `None` when there is none to a behaviour without one.
    pub(crate) fn answer(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let quotes = &self.quotes;
        match self.behaviour() {
            Behaviour::Well => Some((self.answer)(request)),
            Behaviour::Page => Some(Response::new(format!("<html>Welcome! {quotes}\u{fffd}</html>").into())),
            Behaviour::Status(status) => {
                let body =
                    format!("{{\"error\":{{\"type\":\"x\",\"reason\":{quotes:?}}},\"errors\":[{quotes:?}]}}");
                let answer = Response::builder().status(status).header("retry-after", "1");
                answer.body(body.into()).ok()
            }
            _ => None,
        }
    }
}

/// A scripted back end, for tests of an exporter: its host's HTTP client leads there, whatever the address.
pub struct Backend {
    state: Arc<State>,
    registry: Arc<MetricRegistry>,
    /// Where its sockets listen, or nobody does.
    pub(crate) address: SocketAddr,
}

impl Backend {
    /// One that answers every request so.
    ///
    /// # Panics
    /// When this machine has no free port on its loopback.
    pub fn answering(answer: impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        #[expect(clippy::expect_used, reason = "a test that cannot go on panics")]
        Self::new(Arc::new(answer), Behaviour::Well, String::new()).expect("a free port on 127.0.0.1")
    }

    pub(crate) fn new(answer: Answer, behaviour: Behaviour, quotes: String) -> std::io::Result<Self> {
        let state = Arc::new(State {
            answer,
            behaviour: Mutex::new(behaviour),
            quotes,
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let address = sockets::listen(&state)?;
        Ok(Self { state, registry: Arc::default(), address })
    }

    /// Changes how it behaves from now on.
    pub(crate) fn turn(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// A host whose HTTP client leads here.
    pub fn host(&self) -> Host {
        self.host_in(None)
    }

    pub(crate) fn host_in(&self, data_dir: Option<&Path>) -> Host {
        let http = Http::new(Arc::new(Transport(self.state.clone())));
        Host::new(http, self.registry.meter("test"), data_dir.map(Into::into))
    }

    /// What the exporter counted.
    pub fn metrics(&self) -> &Arc<MetricRegistry> {
        &self.registry
    }

    /// Takes the requests that came since the last call.
    pub fn requests(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut *self.state.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&self) {
        self.requests();
        self.connections();
    }

    /// Takes the number of connections to the address since the last call.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.swap(0, Ordering::SeqCst)
    }
}

/// The HTTP client of the host.
struct Transport(Arc<State>);

#[async_trait]
impl HttpTransport for Transport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if let Some(answer) = self.0.answer(&request) {
            return Ok(answer);
        }
        match self.0.behaviour() {
            Behaviour::Dead => Err(HttpError::Connect("connection refused".into())),
            Behaviour::Silent => pending().await,
            Behaviour::Garbage => Err(HttpError::NoAnswer("what came is not HTTP".into())),
            _ => Err(HttpError::NoAnswer("the connection was closed".into())),
        }
    }
}
