//! Any bytes are refused or are a pickle whose tensors all lie inside their storages; nothing is
//! called, and nothing takes more memory than the limits allow.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = percept_checkpoint::fuzzing::pickle(bytes);
});
