//! A provider's buffered answer and its errors: reading never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use magicapi_dialects::json;
use magicapi_dialects::openai_chat::{Operation, error, response, usage};

fuzz_target!(|data: &[u8]| {
    for operation in [Operation::Chat, Operation::Responses, Operation::Embeddings, Operation::Images] {
        let facts = response::read(data, operation);
        if let Some(usage) = facts.usage {
            let _ = usage.total();
        }
    }
    let _ = error::read(data);
    let _ = usage::read(data);
    if json::valid(data) {
        assert!(!json::one_line(data).contains(&b'\n'));
    }
});
