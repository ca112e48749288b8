//! The back end's address, for exporters with a client of their own: plain sockets on threads, which outlive no test
//! run. HTTP/1.1 is answered; whoever speaks something else is closed.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::backend::{Behaviour, State};

/// How long a connection waits for more of a request.
const PATIENCE: Duration = Duration::from_secs(20);
/// A request that is longer than this is none.
const LONGEST: usize = 64 << 20;

/// Listens as long as the state lives; a dead back end has an address where nobody does.
pub(crate) fn listen(state: &Arc<State>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    if state.behaviour() == Behaviour::Dead {
        return Ok(address);
    }
    let state = Arc::downgrade(state);
    std::thread::Builder::new().name("back-end".into()).spawn(move || accept(&listener, &state))?;
    Ok(address)
}

fn accept(listener: &TcpListener, state: &Weak<State>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while let Some(state) = state.upgrade() {
        let Ok((socket, _)) = listener.accept() else {
            drop(state);
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        state.connections.fetch_add(1, Ordering::SeqCst);
        // A thread that cannot be had is a connection that is closed.
        let _ = std::thread::Builder::new().spawn(move || serve(socket, &state));
    }
}

fn serve(mut socket: TcpStream, state: &Arc<State>) -> Option<()> {
    socket.set_nonblocking(false).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut received = Vec::new();
    loop {
        let behaviour = state.behaviour();
        if behaviour == Behaviour::Garbage {
            socket.write_all(b"\x00\xff\x15 garbage, and no protocol at all \xfe\r\n\r\n").ok()?;
            return None;
        }
        if behaviour == Behaviour::Silent {
            // Whoever gives up closes the connection.
            while socket.read(&mut [0; 1024]).ok()? > 0 {}
            return None;
        }
        let request = read(&mut socket, &mut received)?;
        let answer = state.answer(&request)?;
        let (status, length) = (answer.status().as_u16(), answer.body().len());
        let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n");
        for (name, value) in answer.headers() {
            // Into memory: it cannot fail.
            let _ = write!(head, "{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        socket.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        socket.write_all(answer.body()).ok()?;
    }
}

/// The next request on a connection, its body as it was sent.
fn read(socket: &mut TcpStream, received: &mut Vec<u8>) -> Option<Request<Bytes>> {
    let head_end = |bytes: &[u8]| match bytes.first() {
        // Another protocol: no head to wait for.
        Some(first) if !first.is_ascii_alphabetic() => Some(0),
        _ => find(bytes, b"\r\n\r\n").map(|at| at + 4),
    };
    let end = until(socket, received, head_end)?;
    let head = String::from_utf8(received.drain(..end).collect()).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let mut request = Request::builder().method(words.next()?).uri(words.next()?);
    let (mut length, mut chunked) = (0, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "transfer-encoding" => chunked = true,
            _ => {}
        }
        request = request.header(name, value);
    }
    let ended = |bytes: &[u8]| {
        if chunked {
            find(bytes, b"0\r\n\r\n").map(|at| at + 5)
        } else {
            (bytes.len() >= length).then_some(length)
        }
    };
    let length = until(socket, received, ended)?;
    request.body(received.drain(..length).collect::<Vec<u8>>().into()).ok()
}

/// Reads until `found` says how far what is looked for goes.
fn until(
    socket: &mut TcpStream,
    received: &mut Vec<u8>,
    found: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(end) = found(received) {
            return Some(end);
        }
        let read = socket.read(&mut buffer).ok()?;
        received.extend_from_slice(buffer.get(..read)?);
        if read == 0 || received.len() > LONGEST {
            return None;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
