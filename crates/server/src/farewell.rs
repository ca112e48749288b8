//! The end of a connection. hyper's own answer to a head that it cannot read has no body: it is held back and given one.
//! And who closes with unread bytes resets the connection, which takes the last answer with it: so a peer that still
//! sends is read for a while.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use magicapi_model::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

use crate::delivery::Flushes;
use crate::rescue::{self, Rescued};

/// How long a peer is read that is still sending when it has its last answer, and how much is read of it.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST: u64 = 64 << 20;

/// What tells that an answer is the last one.
const CLOSES: &[u8] = b"\r\nconnection: close\r\n";

/// A connection's stream as hyper uses it. What comes back when hyper drops it is ended by [`Farewell`].
pub(crate) struct Doorway<S> {
    /// `None` only once it has been given back.
    stream: Option<S>,
    bare: BareRefusal,
    flushes: Flushes,
    back: Option<oneshot::Sender<(S, BareRefusal)>>,
}

/// An answer without a body that is held back; empty = none is.
#[derive(Default)]
struct BareRefusal(Bytes);

impl BareRefusal {
    /// Whether these bytes may be hyper's own answer to a head that it cannot read. Whether they are is known at the
    /// connection's end, which `connection: close` announces: until then they are only late.
    fn may_be(bytes: &[u8]) -> bool {
        bytes.len() < 256
            && bytes.starts_with(b"HTTP/1.1 4")
            && bytes.ends_with(b"\r\n\r\n")
            && bytes.windows(CLOSES.len()).any(|window| window == CLOSES)
    }
}

/// Ends the stream of a connection.
pub(crate) struct Farewell<S>(oneshot::Receiver<(S, BareRefusal)>);

/// Splits a connection's stream into what hyper gets, which counts its `flushes`, and what ends it.
pub(crate) fn split<S>(stream: S, flushes: Flushes) -> (Doorway<S>, Farewell<S>) {
    let (back, farewell) = oneshot::channel();
    (
        Doorway { stream: Some(stream), bare: BareRefusal::default(), flushes, back: Some(back) },
        Farewell(farewell),
    )
}

impl<S> Drop for Doorway<S> {
    fn drop(&mut self) {
        if let (Some(back), Some(stream)) = (self.back.take(), self.stream.take()) {
            // Nobody waits for it when the connection's task was ended.
            let _ = back.send((stream, std::mem::take(&mut self.bare)));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Farewell<S> {
    /// Says the last word after hyper is done, and closes. `error` is what hyper ended with; `unread`: the peer may still be
    /// sending.
    pub(crate) async fn say(self, error: Option<&hyper::Error>, unread: bool) {
        let Ok((mut stream, bare)) = self.0.await else { return };
        let unreadable = error.filter(|error| error.is_parse());
        let last = match unreadable {
            Some(error) if !bare.0.is_empty() => answer(&refusal(error)).into(),
            _ => bare.0,
        };
        let said = close(&mut stream, &last, unreadable.is_some() || unread);
        let _ = tokio::time::timeout(PATIENCE, said).await;
    }
}

/// Writes a connection's last bytes and closes it; `drain`: once the peer is done too, or has sent too much.
pub(crate) async fn close<S>(stream: &mut S, last: &[u8], drain: bool) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(last).await?;
    stream.shutdown().await?;
    if drain {
        tokio::io::copy(&mut stream.take(MOST), &mut tokio::io::sink()).await?;
    }
    Ok(())
}

fn refusal(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        let message = "the head of the request has more than 100 headers or more bytes than `server.limits.header_bytes`; send less";
        return Error::client(ErrorKind::HeadTooLarge, message);
    }
    let message = "the head of the request cannot be read; send HTTP/1.1 (RFC 9112) or HTTP/2";
    Error::client(ErrorKind::InvalidRequest, message)
}

/// The bytes of a connection's last answer.
pub(crate) fn answer(error: &Error) -> Vec<u8> {
    let Rescued { status, headers, body } = rescue::rescue(error);
    let mut out = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in &headers {
        out.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    out.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    out
}

impl<S: AsyncRead + AsyncWrite + Unpin> Doorway<S> {
    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Writes what was held back and has turned out to be no end.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bare.0.is_empty() {
            let held = self.bare.0.clone();
            let written = ready!(self.stream()?.poll_write(cx, &held))?;
            self.bare.0 = held.slice(written..);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Doorway<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Doorway<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_release(cx))?;
        if BareRefusal::may_be(buf) {
            self.bare.0 = Bytes::copy_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        ready!(self.poll_release(cx))?;
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream()?.poll_flush(cx))?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Left to [`Farewell`].
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
