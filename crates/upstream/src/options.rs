//! What the client may be told: timeouts, proxies, private CAs, pool sizes, protocol choice. Filled by the gateway from
//! the configuration; nothing here reads the environment.

use std::fmt;
use std::time::Duration;

use http::Uri;

/// How the client connects and what it keeps.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// From the name's look-up to the end of the TLS handshake, a proxy's CONNECT included.
    pub connect_timeout: Duration,
    /// Which proxies stand between us and the providers.
    pub proxy: ProxySettings,
    /// PEM files of corporate CAs, trusted beside the system's.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// What the client shows when a server asks who it is.
    pub identity: Option<Identity>,
    /// The name that a server's certificate must bear, and that it is told (SNI), where it is not the address's own.
    pub server_name: Option<String>,
    /// A connection that was unused for so long is closed. Below the 60 s after which load balancers of providers
    /// commonly close, so that we are first and no request meets a half-closed connection.
    pub pool_idle: Duration,
    /// So many unused HTTP/1.1 connections are kept per origin; those beyond are closed. As many as a busy gateway has
    /// streams, since each that is closed costs a handshake later; what is not needed ages out.
    pub max_idle_per_origin: usize,
    /// Whether HTTP/2 is offered.
    pub http2: Http2Choice,
    /// A further HTTP/2 connection is opened once every one carries so many streams, or as many as its peer allows.
    pub max_streams_per_connection: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            proxy: ProxySettings::default(),
            extra_ca_pem: Vec::new(),
            identity: None,
            server_name: None,
            pool_idle: Duration::from_secs(55),
            max_idle_per_origin: 1024,
            http2: Http2Choice::default(),
            max_streams_per_connection: 50,
        }
    }
}

/// A client certificate.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and those between it and its CA, as PEM.
    pub cert_pem: Vec<u8>,
    /// Its private key, as PEM.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cert_pem", &self.cert_pem.len()).finish_non_exhaustive()
    }
}

/// The proxies, by the target's scheme. Loopback targets never go through one.
#[derive(Clone, Default)]
pub struct ProxySettings {
    /// For `http://` targets (`HTTP_PROXY`): asked with the absolute address.
    pub http: Option<Uri>,
    /// For `https://` targets (`HTTPS_PROXY`): asked for a tunnel with CONNECT.
    pub https: Option<Uri>,
    /// Targets that are reached directly (`NO_PROXY`): `*`, a host (its subdomains too), `.suffix`, an address, a
    /// CIDR block; each may carry `:port`.
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for ProxySettings {
    /// Proxy addresses may hold a password; only host and port are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |uri: &Option<Uri>| {
            uri.as_ref().map(|uri| format!("{}:{:?}", uri.host().unwrap_or("?"), uri.port_u16()))
        };
        f.debug_struct("ProxySettings")
            .field("http", &place(&self.http))
            .field("https", &place(&self.https))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// Whether HTTP/2 is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2Choice {
    /// Offered by ALPN beside HTTP/1.1; the peer decides. Plaintext stays HTTP/1.1. The default by measurement
    /// (`examples/overhead.rs`): at 64 concurrent streams a chunk costs half the processor time, at 400 a third, since
    /// many streams share a read; with a single caller a request costs a tenth to a fifth more.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Never,
    /// HTTP/2 without asking, over plaintext too: for tests and servers known to speak it.
    PriorKnowledge,
}
