//! Whether a file is a result of percept: never a panic, whatever the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = percept_image::is_result(bytes);
    // With the signature, without which little is read.
    let png = [b"\x89PNG\r\n\x1a\n", bytes].concat();
    let _ = percept_image::is_result(&png);
});
