//! Content codings: at any split the same result, never more than the limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use magicapi_dialects::encoding::{Coding, Decoder, decode};

const LIMIT: usize = 1 << 16;

fuzz_target!(|input: (usize, &[u8])| {
    let (at, data) = input;
    let at = if data.is_empty() { 0 } else { at % data.len() };
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Brotli] {
        let whole = decode(coding, data, LIMIT);
        let mut out = Vec::new();
        let mut decoder = Decoder::new(coding, LIMIT);
        let split = decoder
            .push(&data[..at], &mut out)
            .and_then(|()| decoder.push(&data[at..], &mut out))
            .and_then(|()| decoder.finish(&mut out));
        assert!(out.len() <= LIMIT);
        match whole {
            Ok(whole) => {
                assert_eq!(split, Ok(()));
                assert_eq!(whole, out);
            }
            Err(_) => assert!(split.is_err()),
        }
    }
});
