//! A provider's event stream: any bytes at any split relay the same bytes, read the same facts and join to JSON.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use magicapi_dialects::json;
use magicapi_dialects::openai_chat::{Join, StreamFacts, StreamReader, join};
use magicapi_dialects::sse::{Framer, Verdict};

fn relay(pieces: &[&[u8]], drop_what_is_ours: bool) -> (Vec<u8>, StreamFacts) {
    let mut framer = Framer::new(1 << 20);
    let mut reader = StreamReader::new(true);
    let mut out = Vec::new();
    let mut judge = |event: &magicapi_dialects::sse::Event<'_>| {
        let verdict = reader.read(event).verdict;
        if drop_what_is_ours { verdict } else { Verdict::Forward }
    };
    for piece in pieces {
        out.extend_from_slice(&framer.relay(Bytes::copy_from_slice(piece), &mut judge).bytes);
    }
    out.extend_from_slice(&framer.finish(&mut judge).bytes);
    (out, reader.into_facts())
}

fuzz_target!(|input: (usize, &[u8])| {
    let (at, data) = input;
    let at = if data.is_empty() { 0 } else { at % data.len() };
    let whole = relay(&[data], true);
    let split = relay(&[&data[..at], &data[at..]], true);
    assert_eq!(whole, split);
    assert_eq!(relay(&[&data[..at], &data[at..]], false).0, data, "without an edit every byte goes through");
    let mut joined = Join::new(join::Limits::default());
    data.split(|byte| *byte == b'\n').for_each(|line| joined.push(line));
    let joined = joined.finish("model");
    assert!(json::valid(&joined.response));
    assert!(joined.streamed_data.is_none_or(|events| json::valid(&events)));
});
