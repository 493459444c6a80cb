//! Any text is refused or is a mask of the given size, and the mask survives being encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percept_image::Rle;

fuzz_target!(|input: (u8, u8, &str)| {
    let (height, width, text) = (u32::from(input.0), u32::from(input.1), input.2);
    let Ok(rle) = Rle::from_compressed(text, height, width) else {
        return;
    };
    let mask = rle.to_mask().expect("the runs were checked on reading");
    assert_eq!(mask.len() as u32, height * width);
    assert_eq!(
        rle.area(),
        mask.iter().filter(|&&inside| inside).count() as u64
    );
    // The runs themselves may differ: text may hold runs of zero where none are needed.
    let again = Rle::from_mask(&mask, height, width).expect("the size is the mask's");
    assert_eq!(again.bbox(), rle.bbox());
    let read = Rle::from_compressed(&again.to_compressed(), height, width);
    assert_eq!(read.as_ref(), Ok(&again));
    assert_eq!(again.to_mask().as_ref(), Ok(&mask));
});
