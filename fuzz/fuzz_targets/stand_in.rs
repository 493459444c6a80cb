//! Any first bytes are those of something in a file's place, or not, whatever the name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_checkpoint::StandIn;

fuzz_target!(|input: (&str, &[u8])| {
    let (name, start) = input;
    if let Some(what) = StandIn::of(name.as_ref(), start) {
        assert!(!what.to_string().is_empty());
    }
});
