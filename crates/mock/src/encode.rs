//! Content coding of answers: chosen by force or by negotiation, and flushed after every piece so
//! that a compressed event stream still arrives event by event.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::script::{Script, WireCoding};

/// A running encoder.
pub(crate) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
}

impl WireCoding {
    /// Name in `content-encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Identity => "identity",
        }
    }

    /// Starts an encoder; `None` for identity.
    pub(crate) fn encoder(self) -> io::Result<Option<Encoder>> {
        Ok(match self {
            Self::Gzip => Some(Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::fast()))),
            Self::Zstd => Some(Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?)),
            Self::Br => Some(Encoder::Br(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, 2, 20)))),
            Self::Identity => None,
        })
    }

    fn by_name(name: &str) -> Option<Self> {
        match name {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "br" => Some(Self::Br),
            _ => None,
        }
    }
}

impl Encoder {
    /// Encodes one piece and flushes it.
    pub(crate) fn encode(&mut self, data: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Gzip(e) => {
                e.write_all(data)?;
                e.flush()?;
                e.get_mut()
            }
            Self::Zstd(e) => {
                e.write_all(data)?;
                e.flush()?;
                e.get_mut()
            }
            Self::Br(e) => {
                e.write_all(data)?;
                e.flush()?;
                e.get_mut()
            }
        };
        Ok(Bytes::from(std::mem::take(out)))
    }

    /// The bytes that end the coded stream.
    pub(crate) fn finish(self) -> io::Result<Bytes> {
        Ok(Bytes::from(match self {
            Self::Gzip(e) => e.finish()?,
            Self::Zstd(e) => e.finish()?,
            Self::Br(e) => e.into_inner(),
        }))
    }
}

/// The coding of an answer: the script's own, or the one the client likes best.
pub(crate) fn choose(script: &Script, accept: Option<&str>) -> Option<WireCoding> {
    if script.content_encoding.is_some() {
        return script.content_encoding;
    }
    if !script.compress {
        return None;
    }
    let mut best: Option<(WireCoding, f32)> = None;
    for offer in accept.unwrap_or_default().split(',') {
        let mut parts = offer.split(';').map(str::trim);
        let Some(coding) = parts.next().and_then(WireCoding::by_name) else { continue };
        let weight = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
        if weight > best.map_or(0.0, |(_, w)| w) {
            best = Some((coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn round_trip(coding: WireCoding) {
        let mut encoder = coding.encoder().unwrap().unwrap();
        let mut wire = Vec::new();
        for piece in ["data: one\n\n", "data: two\n\n"] {
            let part = encoder.encode(piece.as_bytes()).unwrap();
            assert!(!part.is_empty(), "{coding:?} must flush per event");
            wire.extend_from_slice(&part);
        }
        wire.extend_from_slice(&encoder.finish().unwrap());
        let mut text = String::new();
        match coding {
            WireCoding::Gzip => flate2::read::GzDecoder::new(&wire[..]).read_to_string(&mut text).unwrap(),
            WireCoding::Zstd => {
                zstd::stream::read::Decoder::new(&wire[..]).unwrap().read_to_string(&mut text).unwrap()
            }
            WireCoding::Br => brotli::Decompressor::new(&wire[..], 4096).read_to_string(&mut text).unwrap(),
            WireCoding::Identity => 0,
        };
        assert_eq!(text, "data: one\n\ndata: two\n\n");
    }

    #[test]
    fn every_coding_round_trips() {
        for coding in [WireCoding::Gzip, WireCoding::Zstd, WireCoding::Br] {
            round_trip(coding);
        }
    }

    #[test]
    fn negotiation() {
        let script = Script { compress: true, ..Script::default() };
        assert_eq!(choose(&script, Some("gzip;q=0.5, br")), Some(WireCoding::Br));
        assert_eq!(choose(&script, Some("gzip, br")), Some(WireCoding::Gzip));
        assert_eq!(choose(&script, Some("zstd;q=0, deflate")), None);
        assert_eq!(choose(&script, None), None);
        assert_eq!(choose(&Script::default(), Some("gzip")), None);
        let forced = Script { content_encoding: Some(WireCoding::Zstd), ..Script::default() };
        assert_eq!(choose(&forced, None), Some(WireCoding::Zstd));
    }
}
