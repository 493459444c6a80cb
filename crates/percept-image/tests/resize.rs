//! Resizing against Pillow. The goldens are made by `tools/parity/resize.py`.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::path::PathBuf;

use image::{Rgb, RgbImage};
use percept_image::{Filter, LabelMap, Limits, open, resize, resize_labels};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

/// One result of Pillow's.
#[derive(Deserialize)]
struct Case {
    noise: Option<(u32, u32)>,
    photo: Option<String>,
    size: (u32, u32),
    filter: Filter,
    /// Every how many pixels one is kept.
    step: usize,
    /// The kept pixels, as hex RGB.
    pixels: String,
}

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data", name]
        .iter()
        .collect()
}

/// The same bytes as `noise` in `resize.py`.
fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = u64::from(width) << 32 | u64::from(height);
    RgbImage::from_fn(width, height, |_, _| {
        Rgb([(); 3].map(|()| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        }))
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn results_are_pillows() {
    let json = std::fs::read_to_string(data("resize.json")).unwrap();
    let goldens: Goldens = serde_json::from_str(&json).unwrap();
    assert!(goldens.cases.len() >= 50);

    let (mut values, mut differing) = (0, 0);
    for case in goldens.cases {
        let source = match (&case.photo, case.noise) {
            (Some(name), _) => {
                open(&data(&format!("resize/{name}.png")), &Limits::default()).unwrap()
            }
            (None, noise_size) => {
                let (width, height) = noise_size.unwrap();
                noise(width, height)
            }
        };
        let (width, height) = case.size;
        let result = resize(&source, width, height, case.filter);
        assert_eq!(result.dimensions(), case.size);

        let kept = result.as_raw().chunks(3).step_by(case.step).flatten();
        let expected = from_hex(&case.pixels);
        assert_eq!(kept.clone().count(), expected.len());
        for (&actual, expected) in kept.zip(expected) {
            values += 1;
            differing += usize::from(actual != expected);
            // A sine that the system's library rounds otherwise than Pillow's may tip a weight.
            assert!(
                actual.abs_diff(expected) <= 1,
                "{:?} {:?} to {:?} with {:?}: {actual}, Pillow has {expected}",
                case.photo,
                case.noise,
                case.size,
                case.filter
            );
        }
    }
    println!("{differing} of {values} values differ");
    assert!(
        differing * 10_000 <= values,
        "{differing} of {values} differ"
    );
}

#[test]
fn equal_sizes_give_a_copy() {
    let img = noise(13, 7);
    for filter in [Filter::Nearest, Filter::Bicubic, Filter::Box] {
        assert_eq!(resize(&img, 13, 7, filter), img);
    }
}

#[test]
fn images_without_pixels_stay_without_or_turn_black() {
    for filter in [Filter::Nearest, Filter::Lanczos] {
        let none = RgbImage::new(0, 5);
        assert_eq!(resize(&none, 2, 2, filter), RgbImage::new(2, 2));
        assert_eq!(resize(&noise(3, 3), 0, 4, filter), RgbImage::new(0, 4));
    }
    let none = LabelMap::new(0, 5, vec![]).unwrap();
    assert_eq!(resize_labels(&none, 2, 1).data(), [0, 0]);
}

#[test]
fn labels_are_sampled_as_nearest_pixels_are() {
    for (from, to) in [
        ((97, 61), (224, 224)),
        ((500, 375), (224, 224)),
        ((7, 3), (3, 7)),
    ] {
        let img = noise(from.0, from.1);
        let reds = |img: &RgbImage| -> Vec<u16> { img.pixels().map(|p| p.0[0].into()).collect() };
        let map = LabelMap::new(from.0, from.1, reds(&img)).unwrap();
        let resized = resize_labels(&map, to.0, to.1);
        assert_eq!((resized.width(), resized.height()), to);
        assert_eq!(
            resized.data(),
            reds(&resize(&img, to.0, to.1, Filter::Nearest))
        );
    }
}
