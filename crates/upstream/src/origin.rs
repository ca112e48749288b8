//! One origin (scheme, host, port): how to reach it, what protocol it speaks, and its pooled connections.
//!
//! HTTP/1.1 connections lie on a stack, so that the warmest is used and the surplus ages out. HTTP/2 connections are a
//! list of which the least loaded takes the next stream; see [`crate::h2`].

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, PROXY_AUTHORIZATION, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};
use magicapi_model::{Error, ErrorKind};

use crate::body::RequestBody;
use crate::connect::Target;
use crate::h1::{H1Conn, H1Lease};
use crate::h2::Streams;
use crate::options::{ClientOptions, Http2Choice};
use crate::proxy::{Proxies, Route, basic, unbracketed};
use crate::transport::Counters;

/// The pool's bounds, the same for every origin of a client.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The sweeper's period.
    pub(crate) sweep: Duration,
    /// A connection that was unused for so many sweeps is closed.
    pub(crate) idle_ticks: u64,
    pub(crate) max_idle: usize,
    pub(crate) max_streams: usize,
    pub(crate) http2: Http2Choice,
}

impl Limits {
    pub(crate) fn of(options: &ClientOptions) -> Self {
        let sweep = (options.pool_idle / 11).clamp(Duration::from_millis(5), Duration::from_secs(5));
        // Rounded down, and the first tick may come at once: never later than `pool_idle`.
        let idle_ticks = (options.pool_idle.as_millis() / sweep.as_millis().max(1)).max(1);
        Self {
            sweep,
            idle_ticks: u64::try_from(idle_ticks).unwrap_or(u64::MAX),
            max_idle: options.max_idle_per_origin,
            max_streams: (options.max_streams_per_connection as usize).max(1),
            http2: options.http2,
        }
    }
}

/// What an origin speaks, as its last connection showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// No connection yet and ALPN may choose either.
    Unknown,
    Http1,
    Http2,
}

struct Idle {
    conn: Box<H1Conn>,
    /// The tick of its last use.
    since: u64,
}

/// One origin.
pub(crate) struct Origin {
    pub(crate) target: Target,
    pub(crate) counters: Arc<Counters>,
    pub(crate) streams: Streams,
    pub(crate) limits: Limits,
    scheme: Scheme,
    /// Without user-info.
    authority: Authority,
    host: HeaderValue,
    /// From user-info in the address.
    basic: Option<HeaderValue>,
    speaks: AtomicU8,
    idle: Mutex<Vec<Idle>>,
}

impl Origin {
    pub(crate) fn new(
        uri: &Uri,
        proxies: &Proxies,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let bad = |what: &str| {
            Error::gateway(
                ErrorKind::Internal,
                format!("the upstream address {what}; expected http(s)://host[:port]"),
            )
        };
        let (Some(scheme), Some(given)) = (uri.scheme(), uri.authority()) else {
            return Err(bad("has no scheme or host"));
        };
        let tls = match scheme.as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("has a scheme that is not supported")),
        };
        let clean = given.as_str().rsplit_once('@').map_or(given.as_str(), |(_, place)| place);
        let authority: Authority = clean.parse().map_err(|_| bad("has no usable host"))?;
        let host = unbracketed(authority.host()).to_owned();
        if host.is_empty() {
            return Err(bad("has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let speaks = match limits.http2 {
            Http2Choice::PriorKnowledge => Speaks::Http2,
            Http2Choice::Auto if tls => Speaks::Unknown,
            Http2Choice::Auto | Http2Choice::Never => Speaks::Http1,
        };
        Ok(Self {
            target: Target {
                tls,
                place: format!("{}:{port}", authority.host()),
                route: proxies.route(tls, &host, port),
                host,
                port,
            },
            counters,
            streams: Streams::new(limits.max_streams),
            limits,
            scheme: scheme.clone(),
            host: HeaderValue::from_str(authority.as_str()).map_err(|_| bad("has no usable host"))?,
            authority,
            basic: basic(given),
            speaks: AtomicU8::new(speaks as u8),
            idle: Mutex::default(),
        })
    }

    /// `host:port`, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.target.place
    }

    pub(crate) fn speaks(&self) -> Speaks {
        match self.speaks.load(Ordering::Relaxed) {
            1 => Speaks::Http1,
            2 => Speaks::Http2,
            _ => Speaks::Unknown,
        }
    }

    pub(crate) fn learn(&self, speaks: Speaks) {
        self.speaks.store(speaks as u8, Ordering::Relaxed);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // The critical sections cannot panic half-way; a poisoned stack is whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The warmest HTTP/1.1 connection that can take a request now. The sweeper keeps the stack young.
    pub(crate) fn warm(self: &Arc<Self>) -> Option<H1Lease> {
        let mut idle = self.idle();
        let mut at = idle.len();
        while let Some(index) = at.checked_sub(1) {
            at = index;
            let conn = &idle.get(index)?.conn;
            if conn.is_closed() {
                idle.remove(index);
            } else if conn.is_ready() {
                let conn = idle.remove(index).conn;
                drop(idle);
                return Some(H1Lease::new(conn, self.clone(), true));
            }
        }
        None
    }

    /// A connection whose task has not yet had its turn after the last answer; ready within microseconds as a rule.
    pub(crate) fn settling(&self) -> Option<Box<H1Conn>> {
        self.idle().pop().map(|entry| entry.conn)
    }

    /// Takes a connection back after a clean end.
    pub(crate) fn keep(&self, conn: Box<H1Conn>) {
        if conn.is_closed() {
            return;
        }
        let mut idle = self.idle();
        // A surplus connection is dropped, which closes it in order.
        if idle.len() < self.limits.max_idle {
            idle.push(Idle { conn, since: self.counters.ticks.load(Ordering::Relaxed) });
        }
    }

    /// Closes what was unused for too long.
    pub(crate) fn sweep(&self) {
        let now = self.counters.ticks.load(Ordering::Relaxed);
        let young = |since: u64| now.saturating_sub(since) < self.limits.idle_ticks;
        self.idle().retain(|entry| young(entry.since) && !entry.conn.is_closed());
        self.streams.sweep(young);
    }

    /// Connections that carry nothing now.
    pub(crate) fn idle_count(&self) -> usize {
        self.idle().iter().filter(|entry| !entry.conn.is_closed()).count() + self.streams.idle_count()
    }

    /// Shapes the request for HTTP/1.1: origin form, or absolute form for a forward proxy.
    pub(crate) fn dress_h1(&self, request: &mut Request<RequestBody>) {
        *request.version_mut() = Version::HTTP_11;
        if let Route::Forward(proxy) = &self.target.route {
            *request.uri_mut() = self.absolute(request.uri());
            if let Some(authorization) = &proxy.authorization {
                request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
            }
        } else {
            let uri = std::mem::take(request.uri_mut());
            *request.uri_mut() = uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from);
        }
        request.headers_mut().insert(HOST, self.host.clone());
        self.authorize(request);
    }

    /// Shapes the request for HTTP/2: the address in pseudo-headers, no header that belongs to a connection.
    pub(crate) fn dress_h2(&self, request: &mut Request<RequestBody>) {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.absolute(request.uri());
        let headers = request.headers_mut();
        headers.remove(HOST);
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            headers.remove(name);
        }
        // The one value that HTTP/2 knows (RFC 9113, 8.2.2), and gRPC demands.
        if headers.get(TE).is_some_and(|te| te != "trailers") {
            headers.remove(TE);
        }
        self.authorize(request);
    }

    /// User-info of the address is a credential, unless the request brings one.
    fn authorize(&self, request: &mut Request<RequestBody>) {
        if let Some(basic) = &self.basic
            && !request.headers().contains_key(AUTHORIZATION)
        {
            request.headers_mut().insert(AUTHORIZATION, basic.clone());
        }
    }

    fn absolute(&self, uri: &Uri) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query =
            Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        // All three parts are there, so this cannot fail.
        Uri::from_parts(parts).unwrap_or_default()
    }
}
