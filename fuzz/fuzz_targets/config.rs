//! Any text is refused or is a configuration that survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The file alone, without its crate: percept-model brings Burn, which the parser does not need and
// which takes many minutes to build with a sanitiser.
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/config.rs"]
mod config;

use config::ModelConfig;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(read) = ModelConfig::parse(text) else {
        return;
    };
    let written = serde_json::to_string(&read).expect("every configuration has a JSON form");
    assert_eq!(ModelConfig::parse(&written).as_ref(), Ok(&read));
});
