//! JPEG pixels equal Pillow's: the goldens of `tools/parity/jpeg.py`.

use std::path::Path;

use percept_image::{Limits, open};

#[test]
fn jpegs_decode_to_pillows_pixels() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for name in ["420", "422", "444", "progressive", "grey"] {
        let read = |ending: &str| {
            let path = data.join(format!("jpeg-{name}.{ending}"));
            open(&path, &Limits::default()).unwrap()
        };
        let (ours, pillows) = (read("jpg"), read("png"));
        assert_eq!(ours.dimensions(), (33, 21));
        assert_eq!(ours, pillows, "{name}");
    }
}
