//! Opens a connection: name look-up, a race of addresses (RFC 8305), the proxy's tunnel, TLS. One timeout covers it
//! all; the error says at which step it fired.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use magicapi_model::ErrorKind;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use crate::fault::Fault;
use crate::proxy::Route;
use crate::tls::Tls;
use crate::transport::{Counters, Layers, Transport};
use crate::tunnel;

/// How long one address may try before the next joins the race; RFC 8305 recommends 250 ms.
const STAGGER: Duration = Duration::from_millis(250);

/// Idle TCP probes, so that a vanished peer or a forgetful NAT is noticed below a silent stream.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// Where to connect to.
pub(crate) struct Target {
    pub(crate) tls: bool,
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `host:port`, for CONNECT and messages.
    pub(crate) place: String,
    pub(crate) route: Route,
}

/// What every connection attempt of a client shares.
pub(crate) struct Connector {
    pub(crate) tls: Tls,
    pub(crate) timeout: Duration,
    pub(crate) counters: Arc<Counters>,
}

/// An open connection and whether ALPN chose HTTP/2.
pub(crate) struct Connected {
    pub(crate) transport: Transport,
    pub(crate) h2: bool,
}

/// The steps, for the timeout's message.
#[derive(Default)]
struct Step(AtomicU8);

impl Step {
    const WORDS: [&str; 4] =
        ["looking up the name of", "opening TCP to", "waiting for the proxy's tunnel to", "in TLS with"];

    fn enter(&self, step: u8) {
        self.0.store(step, Ordering::Relaxed);
    }

    fn word(&self) -> &'static str {
        Self::WORDS[usize::from(self.0.load(Ordering::Relaxed)) % Self::WORDS.len()]
    }
}

impl Connector {
    /// Opens one connection. Dropping the future gives the attempt up.
    pub(crate) async fn connect(&self, target: &Target, deadline: Instant) -> Result<Connected, Fault> {
        let step = Step::default();
        let opened = tokio::time::timeout_at(deadline, self.layers(target, &step)).await;
        let (layers, h2) = opened.map_err(|_| timed_out(self.timeout, step.word(), &target.place))??;
        Ok(Connected { transport: Transport::new(layers, self.counters.clone()), h2 })
    }

    async fn layers(&self, target: &Target, step: &Step) -> Result<(Layers, bool), Fault> {
        let proxy = match &target.route {
            Route::Direct => None,
            Route::Forward(proxy) | Route::Tunnel(proxy) => Some(proxy),
        };
        let Some(proxy) = proxy else {
            let tcp = dial(&target.host, target.port, &target.place, step).await?;
            return self.over_tcp(tcp, target, step).await;
        };
        let tcp =
            dial(&proxy.host, proxy.port, &proxy.place, step).await.map_err(|fault| via(fault, target))?;
        if !proxy.tls {
            let mut tcp = tcp;
            if matches!(target.route, Route::Tunnel(_)) {
                step.enter(2);
                tunnel::open(&mut tcp, proxy, &target.place).await?;
            }
            return self.over_tcp(tcp, target, step).await;
        }
        step.enter(2);
        let mut tls =
            self.tls.to_proxy(&proxy.host, &proxy.place, tcp).await.map_err(|fault| via(fault, target))?;
        if !target.tls {
            return Ok((Layers::Tls(Box::new(tls)), false));
        }
        tunnel::open(&mut tls, proxy, &target.place).await?;
        step.enter(3);
        let inner = self.tls.to_target(&target.host, &target.place, tls).await?;
        let h2 = chose_h2(&inner);
        Ok((Layers::TlsInTls(Box::new(inner)), h2))
    }

    async fn over_tcp(&self, tcp: TcpStream, target: &Target, step: &Step) -> Result<(Layers, bool), Fault> {
        if !target.tls {
            return Ok((Layers::Tcp(tcp), false));
        }
        step.enter(3);
        let tls = self.tls.to_target(&target.host, &target.place, tcp).await?;
        let h2 = chose_h2(&tls);
        Ok((Layers::Tls(Box::new(tls)), h2))
    }
}

/// `timeouts.connect` fired.
pub(crate) fn timed_out(after: Duration, doing: &str, place: &str) -> Fault {
    let message = format!(
        "no connection within {after:?}, still {doing} {place}; check the network way or raise timeouts.connect"
    );
    Fault::new(ErrorKind::ConnectTimeout, message)
}

fn chose_h2<S>(tls: &TlsStream<S>) -> bool {
    tls.get_ref().1.alpn_protocol() == Some(b"h2")
}

fn via(mut fault: Fault, target: &Target) -> Fault {
    fault.message = format!("proxy on the way to {}: {}", target.place, fault.message);
    fault
}

async fn dial(host: &str, port: u16, place: &str, step: &Step) -> Result<TcpStream, Fault> {
    let addresses = resolve(host, port, place).await?;
    step.enter(1);
    let tcp = race(&addresses).await.map_err(|e| {
        // EMFILE and ENFILE: the gateway's own want, not the provider's fault.
        if matches!(e.raw_os_error(), Some(23 | 24)) {
            let message = "the gateway has no file descriptor left for a connection; try again shortly";
            return Fault::new(ErrorKind::Overloaded, message);
        }
        let hint = match e.kind() {
            io::ErrorKind::ConnectionRefused => "nothing listens there; is the server up and the port right?",
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                "check the network way, or set upstream.proxy"
            }
            _ => "check address and network",
        };
        Fault::new(ErrorKind::ConnectFailed, format!("{place} cannot be connected to: {e}; {hint}"))
    })?;
    tune(&tcp);
    Ok(tcp)
}

async fn resolve(host: &str, port: u16, place: &str) -> Result<Vec<SocketAddr>, Fault> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed = |what: String| {
        let message = format!("the name of {place} cannot be resolved: {what}; check the address and DNS");
        Fault::new(ErrorKind::DnsFailed, message)
    };
    let found = tokio::net::lookup_host((host, port)).await.map_err(|e| failed(e.to_string()))?;
    let mut addresses: Vec<_> = found.collect();
    if host.eq_ignore_ascii_case("localhost") {
        // A server on one family is missed where the hosts file names the other alone.
        for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])] {
            let address = SocketAddr::new(ip, port);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    if addresses.is_empty() {
        return Err(failed("it has no address".into()));
    }
    Ok(interleaved(&addresses))
}

/// Families in turn, beginning with the resolver's first choice: a broken family costs one stagger, not a timeout.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == first);
    let mut out = Vec::with_capacity(addresses.len());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    loop {
        let pair = [preferred.next(), other.next()];
        if pair == [None, None] {
            return out;
        }
        out.extend(pair.into_iter().flatten());
    }
}

/// The first address that answers; a failure starts the next at once, silence after [`STAGGER`].
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        let next = waiting.next();
        if let Some(address) = next {
            running.push(TcpStream::connect(*address));
        }
        let ended = if waiting.len() == 0 {
            running.next().await
        } else {
            match select(running.next(), std::pin::pin!(tokio::time::sleep(STAGGER))).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => continue,
            }
        };
        match ended {
            Some(Ok(tcp)) => return Ok(tcp),
            Some(Err(error)) => {
                first_error.get_or_insert(error);
            }
            None if next.is_none() => {
                return Err(first_error.unwrap_or_else(|| io::Error::other("no address")));
            }
            None => {}
        }
    }
}

fn tune(tcp: &TcpStream) {
    // Nagle against delayed acknowledgement costs some 40 ms; measured in peers.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    if let Err(error) = socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "TCP keep-alive cannot be set");
    }
}

#[cfg(test)]
mod tests {
    use super::{interleaved, race};
    use std::net::SocketAddr;

    #[test]
    fn families_take_turns() {
        let [a, b, c, d] = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1"]
            .map(|text| text.parse::<SocketAddr>().expect("address"));
        assert_eq!(interleaved(&[a, b, c, d]), [a, c, b, d]);
        assert_eq!(interleaved(&[c, a]), [c, a]);
        assert_eq!(interleaved(&[]), []);
    }

    #[tokio::test]
    async fn a_dead_family_does_not_delay() {
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let port = live.local_addr().expect("address").port();
        let dead = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
        let start = std::time::Instant::now();
        let tcp = race(&[dead, live.local_addr().expect("address")]).await.expect("connected");
        assert!(tcp.peer_addr().expect("peer").is_ipv4());
        assert!(start.elapsed() < super::STAGGER, "refused at once, so no stagger");
        let error = race(&[dead]).await.expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
