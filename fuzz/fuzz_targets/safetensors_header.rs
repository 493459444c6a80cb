//! Any bytes are refused or are a safetensors file whose tensors fill it exactly.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = percept_checkpoint::fuzzing::safetensors_header(bytes);
});
