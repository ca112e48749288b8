//! The client itself: finds the origin, lends a connection, sends, and sends again where that is safe.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response, Uri};
use magicapi_kernel::Admitted;
use magicapi_model::{Error, ErrorKind, Retry};
use tokio::time::Instant;

use crate::body::{RequestBody, ResponseBody};
use crate::connect::{Connector, timed_out};
use crate::fault::{self, Fault};
use crate::h1::{H1Conn, H1Lease};
use crate::h2::{self, H2Lease, Opened, Opening, Place};
use crate::options::{ClientOptions, Http2Choice};
use crate::origin::{Limits, Origin, Speaks};
use crate::proxy::Proxies;
use crate::streams::{self, Failure};
use crate::tls::Tls;
use crate::transport::Counters;

/// A request that no pooled connection could begin goes to a new one after so many tries.
const MAX_POOLED_TRIES: usize = 8;
/// A peer that closed a connection while it was idle says so within a round trip, or a few lost packets. Whoever closes
/// later had the request, and may bill it.
pub(crate) const STALE: Duration = Duration::from_secs(3);
/// How long a connection whose task has not had its turn is waited for before another is opened.
const SETTLE: Duration = Duration::from_millis(2);

/// The one HTTP client. Cheap to clone; used from one tokio runtime.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// What the client holds and does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Open connections.
    pub connections_open: usize,
    /// Connections opened since the start.
    pub connections_opened_total: u64,
    /// Exchanges between the request's start and the end of the answer's body.
    pub streams_in_flight: usize,
    /// Open connections that carry nothing.
    pub idle: usize,
}

struct Inner {
    connector: Connector,
    proxies: Proxies,
    limits: Limits,
    /// By authority; `http` and `https` apart.
    origins: [RwLock<Origins>; 2],
    sweeping: AtomicBool,
}

type Origins = HashMap<Authority, Arc<Origin>, BuildHasherDefault<Fnv>>;

/// FNV-1a: authorities are short, and they come from the configuration, not from strangers.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A lent connection.
enum Lease {
    H1(H1Lease),
    H2(H2Lease),
}

/// Whether a request that a reused connection swallowed is sent again by the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// When the connection was closed at once and before any byte of an answer.
    OfStale,
    /// Never: the caller sends again itself, and counts what may have arrived twice.
    Never,
}

/// The request once more, if its body can be sent again.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let RequestBody::Full(bytes) = request.body() else { return None };
    let mut spare = Request::new(RequestBody::Full(bytes.clone()));
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

/// How one try went wrong.
enum Try {
    /// Never begun: the request is whole and may go to another connection.
    Again(Request<RequestBody>),
    /// The reused connection turned out to be closed: once more, on a new connection.
    Stale(Box<(Request<RequestBody>, Error)>),
    Failed(Error),
}

impl Client {
    /// Reads the CA files and proxies; opens nothing yet.
    #[expect(clippy::needless_pass_by_value, reason = "made for the one client and used up by it")]
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        let connector = Connector {
            tls: Tls::new(&options)?,
            timeout: options.connect_timeout,
            counters: Arc::default(),
        };
        Ok(Self(Arc::new(Inner {
            connector,
            proxies: Proxies::new(&options.proxy)?,
            limits: Limits::of(&options),
            origins: Default::default(),
            sweeping: AtomicBool::new(false),
        })))
    }

    /// Sends one admitted request and returns with the answer's head, whatever its status. The URI is absolute; `Host`
    /// is set from it. Dropping the future, or the answer's body before its end, closes the upstream at once.
    ///
    /// Sent again by itself only when that is safe, and on another connection: the request was never begun, or it has a
    /// [`RequestBody::Full`] and the reused connection was closed at once and before any byte of an answer.
    pub async fn send(
        &self,
        _admitted: &Admitted,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Error> {
        self.dispatch(request).await
    }

    /// What the client holds and does now.
    pub fn stats(&self) -> ClientStats {
        let counters: &Counters = &self.0.connector.counters;
        ClientStats {
            connections_open: counters.open.load(Ordering::Relaxed),
            connections_opened_total: counters.opened.load(Ordering::Relaxed),
            streams_in_flight: counters.in_flight.load(Ordering::Relaxed),
            idle: self.0.origins().iter().map(|origin| origin.idle_count()).sum(),
        }
    }

    pub(crate) async fn dispatch(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Error> {
        self.dispatch_with(request, Replay::OfStale).await
    }

    pub(crate) async fn dispatch_with(
        &self,
        mut request: Request<RequestBody>,
        replay: Replay,
    ) -> Result<Response<ResponseBody>, Error> {
        let origin = self.0.origin(request.uri())?;
        let mut fresh = false;
        for round in 0.. {
            let pooled = if fresh { None } else { warm(&origin) };
            let was_pooled = pooled.is_some();
            let lease = match pooled {
                Some(lease) => lease,
                // Boxed, since it is far larger than the rest of this future and rarely needed.
                None => Box::pin(self.open(&origin, fresh)).await?,
            };
            let sent = match lease {
                Lease::H1(lease) => over_h1(lease, request, replay).await,
                Lease::H2(lease) => over_h2(lease, request, replay).await,
            };
            request = match sent {
                Ok(response) => return Ok(response),
                Err(Try::Failed(error)) => return Err(error),
                Err(Try::Stale(both)) => {
                    let (request, error) = *both;
                    if fresh {
                        return Err(error);
                    }
                    fresh = true;
                    request
                }
                Err(Try::Again(_)) if fresh => break,
                Err(Try::Again(request)) => {
                    fresh = !was_pooled || round >= MAX_POOLED_TRIES;
                    request
                }
            };
        }
        let message =
            format!("{} closes each connection before a request; is it overloaded?", origin.place());
        Err(Error::provider(ErrorKind::ConnectionClosed, Retry::Safe, message))
    }

    /// A connection that is not in the pool: one that is about to be, or a new one.
    async fn open(&self, origin: &Arc<Origin>, fresh: bool) -> Result<Lease, Fault> {
        let deadline = Instant::now() + self.0.connector.timeout;
        loop {
            if origin.speaks() == Speaks::Http1 {
                if !fresh && let Some(lease) = settled(origin).await {
                    return Ok(lease);
                }
                return self.connect(origin, None, deadline).await;
            }
            match origin.streams.place(origin) {
                Place::Taken(lease) => return Ok(Lease::H2(lease)),
                Place::Open(opening) => return self.connect(origin, Some(opening), deadline).await,
                Place::Wait(mut ended) => {
                    let waited = tokio::time::timeout_at(deadline, ended.wait_for(Option::is_some)).await;
                    match waited {
                        Ok(Ok(how)) => {
                            if let Some(Opened::Failed(fault)) = &*how {
                                return Err(fault.clone());
                            }
                        }
                        // Its opener was dropped: look again, and open.
                        Ok(Err(_)) => {}
                        Err(_) => {
                            let doing = "waiting for an HTTP/2 connection to";
                            return Err(timed_out(self.0.connector.timeout, doing, origin.place()));
                        }
                    }
                }
            }
        }
    }

    async fn connect(
        &self,
        origin: &Arc<Origin>,
        opening: Option<Opening>,
        deadline: Instant,
    ) -> Result<Lease, Fault> {
        let connected = match self.0.connector.connect(&origin.target, deadline).await {
            Ok(connected) => connected,
            Err(fault) => {
                if let Some(opening) = opening {
                    opening.end(Opened::Failed(fault.clone()));
                }
                return Err(fault);
            }
        };
        self.watch();
        if connected.h2 || origin.limits.http2 == Http2Choice::PriorKnowledge {
            origin.learn(Speaks::Http2);
            return h2::start(connected.transport, origin, opening).await.map(Lease::H2);
        }
        origin.learn(Speaks::Http1);
        if let Some(opening) = opening {
            opening.end(Opened::Ready);
        }
        let conn = H1Conn::start(connected.transport, origin.place()).await?;
        Ok(Lease::H1(H1Lease::new(conn, origin.clone(), false)))
    }

    /// Starts the task that closes unused connections, unless it runs.
    fn watch(&self) {
        if !self.0.sweeping.swap(true, Ordering::SeqCst) {
            tokio::spawn(sweep(Arc::downgrade(&self.0), self.0.limits.sweep));
        }
    }
}

impl Inner {
    fn origin(&self, uri: &Uri) -> Result<Arc<Origin>, Error> {
        let tls = uri.scheme_str() == Some("https");
        let [plain, secure] = &self.origins;
        let origins = if tls { secure } else { plain };
        if let Some(authority) = uri.authority()
            && let Some(origin) = origins.read().unwrap_or_else(PoisonError::into_inner).get(authority)
        {
            return Ok(origin.clone());
        }
        let origin = Origin::new(uri, &self.proxies, self.limits, self.connector.counters.clone())?;
        let authority = uri.authority().cloned().unwrap_or_else(|| Authority::from_static("-"));
        let mut origins = origins.write().unwrap_or_else(PoisonError::into_inner);
        Ok(origins.entry(authority).or_insert_with(|| Arc::new(origin)).clone())
    }

    fn origins(&self) -> Vec<Arc<Origin>> {
        let all = |origins: &RwLock<Origins>| {
            origins.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>()
        };
        self.origins.iter().flat_map(all).collect()
    }
}

async fn sweep(inner: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.connector.counters.ticks.fetch_add(1, Ordering::Relaxed);
        for origin in inner.origins() {
            origin.sweep();
        }
        if inner.connector.counters.open.load(Ordering::Relaxed) == 0 {
            inner.sweeping.store(false, Ordering::SeqCst);
            // One that was opened just now found this task still there.
            let opened = inner.connector.counters.open.load(Ordering::SeqCst) > 0;
            if !opened || inner.sweeping.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}

fn warm(origin: &Arc<Origin>) -> Option<Lease> {
    match origin.speaks() {
        Speaks::Http1 => origin.warm().map(Lease::H1),
        Speaks::Http2 => origin.streams.take(origin).map(Lease::H2),
        Speaks::Unknown => None,
    }
}

async fn settled(origin: &Arc<Origin>) -> Option<Lease> {
    let mut conn = origin.settling()?;
    let ready = tokio::time::timeout(SETTLE, conn.settled()).await;
    matches!(ready, Ok(true)).then(|| Lease::H1(H1Lease::new(conn, origin.clone(), true)))
}

async fn over_h1(
    mut lease: H1Lease,
    mut request: Request<RequestBody>,
    replay: Replay,
) -> Result<Response<ResponseBody>, Try> {
    lease.origin().dress_h1(&mut request);
    // A new connection was not closed for being idle, so nothing needs to be kept for it.
    let spare = if lease.reused && replay == Replay::OfStale { spare(&request) } else { None };
    let sent = Instant::now();
    let mut failed = match lease.exchange(request).await {
        Ok(response) => return Ok(response.map(|body| ResponseBody::h1(body, lease))),
        Err(failed) => failed,
    };
    if let Some(request) = failed.as_mut().and_then(hyper::client::conn::TrySendError::take_message) {
        return Err(Try::Again(request));
    }
    let place = lease.origin().place();
    let Some(failed) = failed else {
        return Err(Try::Failed(fault::closed(place, "early", "no connection")));
    };
    let error = failed.into_error();
    let ours = fault::of_hyper(&error, place, "before its answer");
    match spare {
        Some(spare) if lease.is_silent() && sent.elapsed() < STALE => {
            Err(Try::Stale(Box::new((spare, ours))))
        }
        _ => Err(Try::Failed(ours)),
    }
}

async fn over_h2(
    lease: H2Lease,
    mut request: Request<RequestBody>,
    replay: Replay,
) -> Result<Response<ResponseBody>, Try> {
    lease.origin().dress_h2(&mut request);
    let spare = spare(&request);
    let sent = Instant::now();
    let (failure, lease) = match streams::exchange(lease, request).await {
        Ok(response) => return Ok(response.map(ResponseBody::h2)),
        Err(failed) => failed,
    };
    let refused = failure.is_refused();
    if refused {
        lease.retire();
    }
    let closed_idle = failure.is_broken() && lease.stale && lease.is_silent() && !lease.is_timed_out();
    let stale = closed_idle && sent.elapsed() < STALE && replay == Replay::OfStale;
    let error = match failure {
        Failure::Unsent(request) => return Err(Try::Again(*request)),
        Failure::Body(error) => error,
        Failure::H2(error) => fault::of_h2(&error, lease.origin().place(), "before its answer"),
    };
    match spare {
        Some(spare) if refused => Err(Try::Again(spare)),
        Some(spare) if stale => {
            // The others that carried nothing are as old; the replay is not to meet a second one.
            lease.retire();
            lease.origin().streams.retire_idle();
            Err(Try::Stale(Box::new((spare, error))))
        }
        _ => Err(Try::Failed(error)),
    }
}
