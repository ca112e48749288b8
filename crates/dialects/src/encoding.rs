//! Content codings, decoded bit by bit under a limit.
//!
//! A compressed request is decoded for reading, a compressed answer beside its way to the caller, for the record
//! (invariant 1). The limit makes a bomb an error before it is memory.

use std::io::{self, Write};

use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

#[cfg(test)]
mod tests;

/// The largest zstd window that is accepted, as a power of two: 8 MiB, the most that RFC 9659 allows over HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Size of an output buffer, in bytes.
const STEP: usize = 16 * 1024;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is
    Identity,
    /// RFC 1952, one member or several
    Gzip,
    /// RFC 1950; the raw form (RFC 1951) that some senders mean by it is recognised
    Deflate,
    /// RFC 8878
    Zstd,
    /// RFC 7932
    Brotli,
}

impl Coding {
    /// The coding of a `Content-Encoding` value with one coding; `None` for an unknown one or a list.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        match () {
            () if name.is_empty() || is("identity") => Some(Self::Identity),
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("zstd") => Some(Self::Zstd),
            () if is("br") => Some(Self::Brotli),
            () => None,
        }
    }

    /// The word in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }
}

/// Why decoding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It decodes to more than the limit: a bomb, or merely too much.
    #[error("it decodes to more than the limit")]
    TooLarge,
    /// It is not what its coding says.
    #[error("it is not valid in its content coding")]
    Corrupt,
    /// It ends in the middle.
    #[error("it ends before its content coding is complete")]
    Truncated,
}

/// Where decoders write: what was decoded since it was last taken, and how much there may still be.
#[derive(Debug, Default)]
struct Sink {
    out: Vec<u8>,
    left: usize,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.full = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.left -= bytes.len();
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Inner {
    Identity(Sink),
    Gzip(Box<flate2::write::MultiGzDecoder<Sink>>),
    /// The first bytes decide which deflate it is.
    UndecidedDeflate(Vec<u8>, Sink),
    Zlib(Box<flate2::write::ZlibDecoder<Sink>>),
    Deflate(Box<flate2::write::DeflateDecoder<Sink>>),
    Zstd(Box<Zstd>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
}

/// Zstandard frames, one or several. The library's own writer has no way to bound the window.
struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    buffer: Vec<u8>,
    frame_ended: bool,
    sink: Sink,
}

impl Zstd {
    fn new(sink: Sink) -> io::Result<Self> {
        let mut decoder = zstd::stream::raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self { decoder, buffer: Vec::with_capacity(STEP), frame_ended: false, sink })
    }

    fn write(&mut self, input: &[u8]) -> io::Result<()> {
        let mut source = InBuffer::around(input);
        loop {
            if self.frame_ended && source.pos < input.len() {
                self.decoder.reinit()?;
                self.frame_ended = false;
            }
            self.buffer.clear();
            let before = source.pos;
            let hint = self.decoder.run(&mut source, &mut OutBuffer::around(&mut self.buffer))?;
            self.sink.write_all(&self.buffer)?;
            self.frame_ended = hint == 0;
            let stuck = source.pos == before && self.buffer.is_empty();
            let drained = self.buffer.len() < self.buffer.capacity() || self.frame_ended;
            if stuck || (source.pos >= input.len() && drained) {
                return Ok(());
            }
        }
    }
}

/// Decodes what it is given, at any split.
pub struct Decoder {
    inner: Inner,
    failed: Option<DecodeError>,
    any_input: bool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder that gives at most `limit_bytes`, all pushes together.
    pub fn new(coding: Coding, limit_bytes: usize) -> Self {
        let sink = Sink { left: limit_bytes, ..Sink::default() };
        let mut failed = None;
        let inner = match coding {
            Coding::Identity => Inner::Identity(sink),
            Coding::Gzip => Inner::Gzip(Box::new(flate2::write::MultiGzDecoder::new(sink))),
            Coding::Deflate => Inner::UndecidedDeflate(Vec::new(), sink),
            Coding::Brotli => Inner::Brotli(Box::new(brotli::DecompressorWriter::new(sink, STEP))),
            Coding::Zstd => {
                if let Ok(decoder) = Zstd::new(sink) {
                    Inner::Zstd(Box::new(decoder))
                } else {
                    // Only an allocation can fail here; nothing can be decoded then.
                    failed = Some(DecodeError::Corrupt);
                    Inner::Identity(Sink::default())
                }
            }
        };
        Self { inner, failed, any_input: false }
    }

    /// Sets what it may give from here on, whatever it gave before.
    pub fn allow(&mut self, limit_bytes: usize) {
        self.sink().left = limit_bytes;
    }

    /// Decodes the next bytes; what they give is appended to `out`, also before an error. After an error every further
    /// call gives the same error.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if input.is_empty() {
            return Ok(());
        }
        self.any_input = true;
        let written = self.write(input);
        self.collect(&written, DecodeError::Corrupt, out)
    }

    /// Ends the input; what was still inside is appended to `out`. No input at all is empty output in every coding.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !self.any_input {
            return Ok(());
        }
        let ended = match &mut self.inner {
            Inner::Identity(_) => Ok(()),
            Inner::Gzip(decoder) => decoder.try_finish(),
            Inner::Zlib(decoder) => decoder.try_finish(),
            Inner::Deflate(decoder) => decoder.try_finish(),
            Inner::Zstd(decoder) if decoder.frame_ended => Ok(()),
            Inner::UndecidedDeflate(..) | Inner::Zstd(_) => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            }
            Inner::Brotli(decoder) => decoder.close(),
        };
        self.collect(&ended, DecodeError::Truncated, out)
    }

    fn write(&mut self, input: &[u8]) -> io::Result<()> {
        if let Inner::UndecidedDeflate(head, sink) = &mut self.inner {
            head.extend_from_slice(input);
            let Some((first, second)) = head.first().copied().zip(head.get(1).copied()) else {
                return Ok(());
            };
            let (head, sink) = (std::mem::take(head), std::mem::take(sink));
            // RFC 1950: method 8, and the two bytes as a number divide by 31.
            let is_zlib =
                first & 0x0f == 8 && (u16::from(first) * 256 + u16::from(second)).is_multiple_of(31);
            self.inner = if is_zlib {
                Inner::Zlib(Box::new(flate2::write::ZlibDecoder::new(sink)))
            } else {
                Inner::Deflate(Box::new(flate2::write::DeflateDecoder::new(sink)))
            };
            return self.write(&head);
        }
        match &mut self.inner {
            Inner::Identity(sink) => sink.write_all(input),
            Inner::UndecidedDeflate(..) => Ok(()),
            Inner::Gzip(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Inner::Zlib(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Inner::Deflate(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
            Inner::Zstd(decoder) => decoder.write(input),
            Inner::Brotli(decoder) => decoder.write_all(input).and_then(|()| decoder.flush()),
        }
    }

    fn collect(
        &mut self,
        result: &io::Result<()>,
        otherwise: DecodeError,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let sink = self.sink();
        out.append(&mut sink.out);
        let full = sink.full;
        if result.is_ok() && !full {
            return Ok(());
        }
        let error = if full { DecodeError::TooLarge } else { otherwise };
        self.failed = Some(error);
        Err(error)
    }

    fn sink(&mut self) -> &mut Sink {
        match &mut self.inner {
            Inner::Identity(sink) | Inner::UndecidedDeflate(_, sink) => sink,
            Inner::Gzip(decoder) => decoder.get_mut(),
            Inner::Zlib(decoder) => decoder.get_mut(),
            Inner::Deflate(decoder) => decoder.get_mut(),
            Inner::Zstd(decoder) => &mut decoder.sink,
            Inner::Brotli(decoder) => decoder.get_mut(),
        }
    }
}

/// Decodes a whole body.
pub fn decode(coding: Coding, input: &[u8], limit_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(coding, limit_bytes);
    decoder.push(input, &mut out)?;
    decoder.finish(&mut out)?;
    Ok(out)
}
