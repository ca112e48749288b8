//! Multipart bodies: every part lies inside the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use magicapi_dialects::multipart;

fuzz_target!(|input: (&str, &[u8])| {
    let (content_type, body) = input;
    for kind in [content_type, "multipart/form-data; boundary=x"] {
        for part in multipart::parts(kind, body).into_iter().flatten() {
            assert!(body.get(part.value.clone()).is_some());
        }
    }
});
