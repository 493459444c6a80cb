//! Run-length encoding against pycocotools. The goldens are made by `tools/parity/rle.py`.

use percept_image::Rle;
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    /// Height and width.
    size: (u32, u32),
    /// Pixels row by row, "0" outside and "1" inside.
    mask: String,
    counts: String,
    area: u64,
    bbox: [f32; 4],
}

#[test]
fn strings_areas_and_boxes_are_those_of_pycocotools() {
    let json = include_str!("data/rle.json");
    let goldens: Goldens = serde_json::from_str(json).unwrap();
    assert!(goldens.cases.len() > 40);
    for case in goldens.cases {
        let (height, width) = case.size;
        let mask: Vec<bool> = case.mask.bytes().map(|pixel| pixel == b'1').collect();
        let rle = Rle::from_mask(&mask, height, width).unwrap();
        assert_eq!(rle.to_compressed(), case.counts);
        assert_eq!(rle.area(), case.area);
        assert_eq!(rle.bbox(), case.bbox, "{height} x {width}");

        let read = Rle::from_compressed(&case.counts, height, width).unwrap();
        assert_eq!(read, rle);
        assert_eq!(read.to_mask().unwrap(), mask);
    }
}
