//! A configuration file: any text is a configuration or a list of problems, never a panic.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use magicapi_config::{Catalogue, Environment, Flags, Sources, load};

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_err() {
        return;
    }
    let sources = Sources {
        file: Some(file.path().to_owned()),
        flags: Flags::default(),
        env: Environment::from_pairs([("SET", "value")]),
    };
    if let Err(problems) = load(&sources, &Catalogue::default()) {
        assert!(!problems.problems().is_empty());
        let _ = problems.to_string();
    }
});
