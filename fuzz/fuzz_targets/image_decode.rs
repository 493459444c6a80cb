//! Any bytes decode to an image within the limits or to an error; no panic gets out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_image::{Limits, decode};

/// Small, so that a run covers many inputs instead of filling memory.
const LIMITS: Limits = Limits {
    max_file_bytes: 1 << 20,
    max_side: 512,
    max_pixels: 1 << 16,
};

// libFuzzer's panic hook aborts before unwinding. Without it, a decoder's panic is contained, as it
// is for callers, while one that gets out of `decode` (or an assertion below) still ends the run.
fuzz_target!(init: drop(std::panic::take_hook()), |bytes: &[u8]| {
    if let Ok(img) = decode(bytes, &LIMITS) {
        // Orientation may swap the sides, which have the same limit.
        assert!(img.width().max(img.height()) <= LIMITS.max_side);
        assert!(u64::from(img.width()) * u64::from(img.height()) <= LIMITS.max_pixels);
    }
});
