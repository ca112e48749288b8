//! CONNECT: a tunnel through a proxy to an `https://` target. The exchange is a few lines of HTTP/1.1 before any other
//! protocol starts, so it is written out here rather than run by an HTTP connection.

use magicapi_model::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::fault::Fault;
use crate::proxy::Proxy;

/// A proxy's answer to CONNECT has a few headers; more than this is not an answer.
const MAX_ANSWER: usize = 16 * 1024;

/// Asks the proxy for a tunnel to `target` (`host:port`).
pub(crate) async fn open<S>(io: &mut S, proxy: &Proxy, target: &str) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let failed = |what: String| {
        let message = format!("proxy {} on the way to {target}: {what}", proxy.place);
        Fault::new(ErrorKind::ConnectFailed, message)
    };
    io.write_all(&request).await.map_err(|e| failed(format!("cannot be written to: {e}")))?;
    io.flush().await.map_err(|e| failed(format!("cannot be written to: {e}")))?;

    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(failed("its answer to CONNECT does not end".into()));
        }
        // Byte by byte, so that nothing behind the head is taken from the protocol that follows; it is read once per
        // connection.
        let byte = io.read_u8().await.map_err(|e| failed(format!("closed during CONNECT: {e}")))?;
        answer.push(byte);
    }
    match status(&answer) {
        Some(code) if (200..300).contains(&code) => Ok(()),
        Some(407) => {
            Err(failed("answered 407 to CONNECT; check user and password of the proxy address".into()))
        }
        Some(code) => Err(failed(format!("answered {code} to CONNECT; does it allow this target?"))),
        None => Err(failed("did not answer CONNECT in HTTP/1.1; is it an HTTP proxy?".into())),
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&b| b == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        assert_eq!(status(b"SSH-2.0\r\n\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 abc\r\n\r\n"), None);
    }
}
