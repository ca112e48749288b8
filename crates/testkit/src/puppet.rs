//! A provider on strings: the test itself decides what it sends and when, so that cause and effect can be told apart.

use std::net::SocketAddr;

use crate::wire::{chunk, patiently};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The provider.
pub struct Puppet {
    listener: TcpListener,
    address: SocketAddr,
}

/// One request at it.
pub struct Hand {
    socket: TcpStream,
    /// The request, head and body.
    pub request: Vec<u8>,
}

impl Puppet {
    /// Listens.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { listener, address }
    }

    /// Its base URL.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The next request, read whole.
    ///
    /// # Panics
    /// When it is cut.
    pub async fn asked(&self) -> Hand {
        let mut hand = self.reached().await;
        while !is_whole(&hand.request) {
            let read = patiently("a request", hand.socket.read_buf(&mut hand.request)).await;
            assert!(read.expect("a request") > 0, "the gateway left within its request");
        }
        hand
    }

    /// The next connection that begins a request, of which nothing more is read.
    ///
    /// # Panics
    /// When it is cut.
    pub async fn reached(&self) -> Hand {
        let (socket, _) = patiently("a request", self.listener.accept()).await.expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let mut hand = Hand { socket, request: Vec::new() };
        let read = patiently("a request", hand.socket.read_buf(&mut hand.request)).await;
        assert!(read.expect("a request") > 0, "the gateway left before its request");
        hand
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    request.len() >= end + 4 + length.unwrap_or(0)
}

impl Hand {
    /// Sends the head of an event stream.
    pub async fn stream(&mut self) {
        self.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
    }

    /// Sends a piece of the body, as one transfer chunk.
    pub async fn send(&mut self, data: &[u8]) {
        self.raw(&chunk(data)).await;
    }

    /// Ends the body.
    pub async fn end(&mut self) {
        self.raw(b"0\r\n\r\n").await;
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        patiently("the provider's answer", self.socket.write_all(bytes)).await.expect("a gateway that reads");
    }

    /// Waits until the gateway closes the connection.
    pub async fn closed(&mut self) {
        let mut sink = [0; 1024];
        let closed = async { while self.socket.read(&mut sink).await.is_ok_and(|read| read > 0) {} };
        patiently("the gateway closing the upstream", closed).await;
    }
}
