//! Undoes the content coding of a stream beside its relay, for reading only.

use bytes::Bytes;
use magicapi_dialects::encoding::{Coding, Decoder};

/// A chunk is read in such pieces, each of which may unpack to so much: a bomb ends the reading, not the process.
/// Deflate never reaches it.
const PIECE: usize = 2 << 10;
const UNPACKED: usize = 4 << 20;

/// Reads a compressed stream as long as it can be read.
pub(crate) struct Unpacker(Option<Decoder>);

impl Unpacker {
    /// A reader of this coding; `None` is one that nobody knows.
    pub(crate) fn new(coding: Option<Coding>) -> Self {
        Self(coding.map(|coding| Decoder::new(coding, UNPACKED)))
    }

    /// Whether everything so far could be read.
    pub(crate) const fn reads(&self) -> bool {
        self.0.is_some()
    }

    /// Gives the plain text of a chunk in pieces; nothing more once it cannot be read.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut take: impl FnMut(Bytes)) {
        for piece in chunk.chunks(PIECE) {
            let Some(decoder) = &mut self.0 else { return };
            decoder.allow(UNPACKED);
            let mut plain = Vec::new();
            if decoder.push(piece, &mut plain).is_err() {
                self.0 = None;
            }
            take(plain.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use magicapi_dialects::encoding::Coding;

    use super::{PIECE, UNPACKED, Unpacker};

    fn fed(coding: Coding, packed: &[u8]) -> (usize, usize, bool) {
        let mut unpacker = Unpacker::new(Some(coding));
        let (mut all, mut largest) = (0, 0);
        unpacker.feed(packed, |plain| {
            all += plain.len();
            largest = largest.max(plain.len());
        });
        (all, largest, unpacker.reads())
    }

    #[test]
    fn a_bomb_ends_the_reading_within_its_bound() {
        let zeros = vec![0; 64 << 20];
        let packed = zstd::encode_all(&zeros[..], 19).expect("zstd");
        assert!(packed.len() < 2 * PIECE, "{}", packed.len());
        let (all, largest, reads) = fed(Coding::Zstd, &packed);
        assert!(all <= UNPACKED && largest <= UNPACKED && !reads, "{all} {largest}");
    }

    #[test]
    fn deflate_at_its_densest_is_read_to_the_end() {
        let zeros = vec![0; 64 << 20];
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).expect("gzip");
        let (all, largest, reads) = fed(Coding::Gzip, &encoder.finish().expect("gzip"));
        assert_eq!((all, reads), (zeros.len(), true));
        assert!(largest <= UNPACKED, "{largest}");
        assert!(!Unpacker::new(None).reads());
    }
}
