use std::io::Write;

use proptest::prelude::*;

use super::{Coding, DecodeError, Decoder, decode};

const ALL: [Coding; 5] = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Brotli];

fn encode(coding: Coding, text: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Identity => text.to_vec(),
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text).and_then(|()| encoder.finish()).expect("gzip")
        }
        Coding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text).and_then(|()| encoder.finish()).expect("zlib")
        }
        Coding::Zstd => zstd::encode_all(text, 3).expect("zstd"),
        Coding::Brotli => {
            let mut out = Vec::new();
            let mut writer = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
            writer.write_all(text).expect("brotli");
            drop(writer);
            out
        }
    }
}

fn in_pieces(coding: Coding, input: &[u8], size: usize, limit: usize) -> (Vec<u8>, Result<(), DecodeError>) {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(coding, limit);
    for piece in input.chunks(size.max(1)) {
        if let Err(error) = decoder.push(piece, &mut out) {
            assert_eq!(decoder.push(b"x", &mut out), Err(error), "the error stays");
            return (out, Err(error));
        }
    }
    let end = decoder.finish(&mut out);
    (out, end)
}

#[test]
fn names_are_known() {
    for coding in ALL {
        assert_eq!(Coding::parse(coding.as_str()), Some(coding));
    }
    assert_eq!(Coding::parse(" X-GZIP "), Some(Coding::Gzip));
    assert_eq!(Coding::parse(""), Some(Coding::Identity));
    assert_eq!(Coding::parse("gzip, br"), None);
    assert_eq!(Coding::parse("snappy"), None);
}

#[test]
fn several_members_and_raw_deflate_are_read() {
    let twice = [encode(Coding::Gzip, b"one"), encode(Coding::Gzip, b"two")].concat();
    let frames = [encode(Coding::Zstd, b"one"), encode(Coding::Zstd, b"two")].concat();
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    let raw = raw.write_all(b"onetwo").and_then(|()| raw.finish()).expect("deflate");
    for size in 1..30 {
        assert_eq!(in_pieces(Coding::Gzip, &twice, size, 99), (b"onetwo".to_vec(), Ok(())), "{size}");
        assert_eq!(in_pieces(Coding::Zstd, &frames, size, 99), (b"onetwo".to_vec(), Ok(())), "{size}");
        assert_eq!(in_pieces(Coding::Deflate, &raw, size, 99), (b"onetwo".to_vec(), Ok(())), "{size}");
    }
}

#[test]
fn what_is_pushed_comes_out_at_once() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"data: a\n\n").and_then(|()| encoder.flush()).expect("gzip");
    let mut out = Vec::new();
    let mut decoder = Decoder::new(Coding::Gzip, 99);
    decoder.push(encoder.get_ref(), &mut out).expect("decoded");
    assert_eq!(out, b"data: a\n\n");
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 5 << 20];
    for coding in ALL {
        let bomb = encode(coding, &zeros);
        assert_eq!(decode(coding, &bomb, 1 << 20), Err(DecodeError::TooLarge), "{coding:?}");
        let (out, end) = in_pieces(coding, &bomb, 100, 1 << 20);
        assert_eq!((out.len() <= 1 << 20, end), (true, Err(DecodeError::TooLarge)), "{coding:?}");
        assert_eq!(decode(coding, &bomb, zeros.len()).map(|out| out.len()), Ok(zeros.len()), "{coding:?}");
        assert_eq!(decode(coding, &bomb, zeros.len() - 1), Err(DecodeError::TooLarge), "{coding:?}");
    }
}

#[test]
fn what_is_broken_is_an_error() {
    let text: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
    for coding in ALL.into_iter().skip(1) {
        let whole = encode(coding, &text);
        assert_eq!(
            decode(coding, &whole[..whole.len() - 1], 1 << 20),
            Err(DecodeError::Truncated),
            "{coding:?}"
        );
        assert_eq!(decode(coding, &whole[..1], 1 << 20), Err(DecodeError::Truncated), "{coding:?}");
        assert!(
            decode(coding, b"{\"model\":\"this is no compressed text\"}", 1 << 20).is_err(),
            "{coding:?}"
        );
        assert_eq!(decode(coding, b"", 0), Ok(Vec::new()), "{coding:?}");
    }
}

proptest! {
    #[test]
    fn every_split_gives_the_same(text in prop::collection::vec(prop::sample::select(b"abc\n".to_vec()), 0..3000), size in 1usize..400) {
        for coding in ALL {
            let encoded = encode(coding, &text);
            prop_assert_eq!(in_pieces(coding, &encoded, size, text.len()), (text.clone(), Ok(())), "{:?}", coding);
        }
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200, size in 1usize..50) {
        for coding in ALL {
            let _ = in_pieces(coding, &bytes, size, 1000);
            let mut bent = encode(coding, &bytes);
            if let Some(byte) = bent.get_mut(at) {
                *byte ^= 1;
            }
            let _ = in_pieces(coding, &bent, size, 1000);
        }
        bytes.clear();
    }
}
