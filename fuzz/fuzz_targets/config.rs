//! Model configurations: parsing never panics, and what parses survives a round trip.
#![no_main]

// The file itself rather than percept-model, which would bring Burn into every fuzz build.
#[allow(dead_code)]
#[path = "../../crates/percept-model/src/config.rs"]
mod config;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(parsed) = config::ModelConfig::parse(text) {
        let again = serde_json::to_string(&parsed).expect("a config serialises");
        assert_eq!(config::ModelConfig::parse(&again).as_ref(), Ok(&parsed));
    }
});
