//! An address that belongs to a server of a test, also while it is down: no other test's port, nor a connection's, can be
//! the same meanwhile.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// As many connections wait as with a listener of the standard library.
const BACKLOG: u32 = 1024;

/// See the module. Connections are refused while nobody listens.
pub struct Reserved {
    /// Where.
    pub address: SocketAddr,
    /// Bound, and never listens.
    _held: TcpSocket,
}

impl Reserved {
    /// One on the loopback interface.
    ///
    /// # Panics
    /// Where there is none.
    #[allow(clippy::new_without_default, reason = "it takes an address of the machine")]
    pub fn new() -> Self {
        let held = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { address: held.local_addr().expect("an address"), _held: held }
    }

    /// Listens there. One at a time.
    ///
    /// # Panics
    /// When there is another listener.
    pub fn listen(&self) -> TcpListener {
        bound(self.address).listen(BACKLOG).expect("one listener")
    }
}

/// Sockets share an address as long as none of them listens.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a free address");
    socket
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::{TcpListener, TcpStream};

    use super::Reserved;

    #[tokio::test]
    async fn servers_come_and_go_at_one_address() {
        let reserved = Reserved::new();
        for _ in 0..3 {
            let refused = TcpStream::connect(reserved.address).await.expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let listener = reserved.listen();
            let (client, accepted) = tokio::join!(TcpStream::connect(reserved.address), listener.accept());
            drop((client.expect("a connection"), accepted.expect("a connection")));
        }
    }

    #[tokio::test]
    async fn nobody_else_gets_it() {
        let reserved = Reserved::new();
        for _ in 0..200 {
            let other = TcpListener::bind("127.0.0.1:0").await.expect("a free address");
            assert_ne!(other.local_addr().expect("an address"), reserved.address);
        }
    }
}
