//! Whatever EXIF, XMP and raw profiles say, a photo's pixels are read, upright or turned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_image::{Limits, decode};

/// A grey PNG of 2 x 1 px: signature and header, pixels.
const START: &[u8] =
    b"\x89PNG\x0d\x0a\x1a\x0a\0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x01\x08\0\0\0\0\xd1I V";
const PIXELS: &[u8] = b"\0\0\0\x0bIDATx\x9cc``\0\0\0\x03\0\x01\xb8\xad:c";

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, content)) = bytes.split_first() else {
        return;
    };
    // Without an end mark, which is noted and no fault.
    let file = [START, PIXELS, &chunk(kind, content)].concat();
    let img = decode(&file, &Limits::default()).unwrap();
    assert!(matches!(img.dimensions(), (2, 1) | (1, 2)));
});

fn chunk(kind: u8, content: &[u8]) -> Vec<u8> {
    let (kind, key): (&[u8; 4], &[u8]) = match kind % 6 {
        0 => (b"eXIf", b""),
        1 => (b"tEXt", b"Raw profile type exif\0"),
        2 => (b"zTXt", b"Raw profile type exif\0\0"),
        3 => (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0"),
        4 => (b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0"),
        _ => (b"tEXt", b"exif\0"),
    };
    let length = u32::try_from(key.len() + content.len()).unwrap_or(0);
    [&length.to_be_bytes(), &kind[..], key, content, &[0; 4]].concat()
}
