//! The one HTTP client (L2): pools, TLS, proxies, DNS and the connect timeout.
//!
//! Two faces: the data plane sends with [`Client::send`], which asks for the proof of admission; exporters get the
//! whole-body [`exporter_http`]. The flow of one request: `client` finds the origin (scheme and authority), `origin`
//! lends a pooled connection or `connect` opens one (DNS → TCP → `tunnel` → `tls`), `h1` or `h2` sends, and
//! [`body::ResponseBody`] gives the connection back at its clean end or closes it when dropped before.
//!
//! A `Client` belongs to the tokio runtime in which it first sends: its connections are tasks there.

mod body;
mod client;
mod connect;
mod exporter;
mod fault;
mod h1;
mod h2;
mod options;
mod origin;
mod proxy;
mod streams;
mod tls;
mod transport;
mod tunnel;

#[cfg(test)]
mod tests;

pub use body::{RequestBody, ResponseBody};
pub use client::{Client, ClientStats};
pub use exporter::{ExporterOptions, exporter_http};
pub use options::{ClientOptions, Http2Choice, Identity, ProxySettings};
pub use tls::{check_ca, check_identity};
