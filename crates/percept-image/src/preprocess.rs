//! A photo made into a model's input. Part of the model: a checkpoint is only as good as the
//! preprocessing it is given.

use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::resize::{Filter, resize};

/// Longest side a resized photo may have, in multiples of its short side. A photo more slender than
/// this is squashed to it: keeping the aspect of a 20 000 x 1 strip at short side 448 would take
/// four gigapixels.
const MAX_ASPECT: u64 = 32;

/// How a photo of any size is brought to the size a model takes.
///
/// In JSON: `{"squash": {"width": 224, "height": 224}}`,
/// `{"short_side": {"size": 448, "multiple_of": 14}}` or `{"center_crop": {"size": 224}}`. Sizes of
/// zero are taken as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fit {
    /// Both sides exactly; the aspect is not kept. The `clippy` protocol's way.
    Squash {
        /// Width of the input, in pixels.
        width: u32,
        /// Height of the input, in pixels.
        height: u32,
    },
    /// The short side to `size` with the aspect kept, then both sides rounded to the nearest
    /// multiple of `multiple_of`, but never to less than one multiple. Nothing is cut off.
    ShortSide {
        /// The short side before rounding, in pixels.
        size: u32,
        /// Usually the patch size, in pixels.
        multiple_of: u32,
    },
    /// The short side to `size` with the aspect kept, then the middle `size` x `size` square, with
    /// the rounding of torchvision's `Resize(size)` and `CenterCrop(size)`.
    CenterCrop {
        /// Both sides of the input, in pixels.
        size: u32,
    },
}

impl Fit {
    /// The `(width, height)` that a photo of `width` x `height` pixels is resized to, before any
    /// crop. Both are at least one. Photos longer than 32 times their short side are treated as if
    /// they were 32 times as long.
    pub fn target(&self, width: u32, height: u32) -> (u32, u32) {
        let short = u64::from(width.min(height).max(1));
        let long = u64::from(width.max(height).max(1)).min(short * MAX_ASPECT);
        let (short_side, long_side) = match *self {
            Self::Squash { width, height } => return (width.max(1), height.max(1)),
            Self::ShortSide { size, multiple_of } => {
                let (size, step) = (u64::from(size.max(1)), u64::from(multiple_of.max(1)));
                // In integers, so that halves round the same way everywhere (up).
                let steps = |side: u64| (2 * side * size + short * step) / (2 * short * step);
                (steps(short).max(1) * step, steps(long).max(1) * step)
            }
            Self::CenterCrop { size } => {
                let size = u64::from(size.max(1));
                (size, size * long / short)
            }
        };
        let (short_side, long_side) = (saturate(short_side), saturate(long_side));
        if width <= height {
            (short_side, long_side)
        } else {
            (long_side, short_side)
        }
    }
}

fn saturate(side: u64) -> u32 {
    u32::try_from(side).unwrap_or(u32::MAX)
}

/// The mean and standard deviation of each channel (red, green, blue) over a training set, for
/// values in 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted from each channel.
    pub mean: [f32; 3],
    /// What each channel is then divided by.
    pub std: [f32; 3],
}

impl Normalization {
    /// Of OpenAI's CLIP, and of the public CLIPpy checkpoint.
    pub const OPENAI: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };

    /// Of ImageNet classifiers, DINO and DINOv2.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
}

/// All that happens to a photo between decoding and the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Which size the photo is brought to.
    pub fit: Fit,
    /// How it is resized.
    pub filter: Filter,
    /// How its values are scaled.
    pub normalization: Normalization,
}

impl Preprocess {
    /// Resizes, crops and normalises a photo: `(v / 255 - mean) / std` for each channel.
    pub fn apply(&self, img: &RgbImage) -> ChwImage {
        let (width, height) = self.fit.target(img.width(), img.height());
        let mut resized = resize(img, width, height, self.filter);
        if let Fit::CenterCrop { size } = self.fit {
            let size = size.max(1);
            let (x, y) = (crop_offset(width, size), crop_offset(height, size));
            resized = imageops::crop(&mut resized, x, y, size, size).to_image();
        }
        ChwImage::new(&resized, &self.normalization)
    }
}

/// Where a crop of `size` starts in a side of `side` pixels. Python's `round`, which torchvision
/// uses, takes halves to the even neighbour.
fn crop_offset(side: u32, size: u32) -> u32 {
    (f64::from(side.saturating_sub(size)) / 2.0).round_ties_even() as u32
}

/// A model's input: `[3, height, width]`, channel by channel (red, green, blue), each row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct ChwImage {
    /// `3 * height * width` normalised values.
    pub data: Vec<f32>,
    /// Number of rows.
    pub height: usize,
    /// Values in a row.
    pub width: usize,
}

impl ChwImage {
    /// Normalises the pixels of `img`, at the size it has.
    pub fn new(img: &RgbImage, normalization: &Normalization) -> Self {
        let (width, height) = (img.width() as usize, img.height() as usize);
        let mut data = Vec::with_capacity(3 * width * height);
        for channel in 0..3 {
            let mean = normalization.mean[channel];
            let std = normalization.std[channel];
            // A byte has 256 values: the divisions are done once for each.
            let table: [f32; 256] =
                std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            data.extend(
                img.as_raw()
                    .chunks_exact(3)
                    .map(|pixel| table[usize::from(pixel[channel])]),
            );
        }
        Self {
            data,
            height,
            width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn squash_ignores_the_aspect() {
        let fit = Fit::Squash {
            width: 224,
            height: 112,
        };
        assert_eq!(fit.target(500, 375), (224, 112));
    }

    #[test]
    fn short_side_rounds_both_sides_to_the_nearest_multiple() {
        let fit = |size, multiple_of| Fit::ShortSide { size, multiple_of };
        // 448 / 375 * 500 = 597.3, and 597.3 / 14 = 42.67.
        assert_eq!(fit(448, 14).target(500, 375), (602, 448));
        assert_eq!(fit(448, 14).target(375, 500), (448, 602));
        assert_eq!(fit(448, 16).target(500, 375), (592, 448));
        // 450 is 28.1 patches of 16: down.
        assert_eq!(fit(450, 16).target(100, 100), (448, 448));
        // Never to nothing.
        assert_eq!(fit(4, 16).target(100, 100), (16, 16));
    }

    #[test]
    fn extreme_strips_and_zeros_stay_bounded() {
        let fit = Fit::ShortSide {
            size: 448,
            multiple_of: 14,
        };
        assert_eq!(fit.target(20_000, 1), (448 * 32, 448));
        assert_eq!(fit.target(0, 0), (448, 448));
        let zero = Fit::ShortSide {
            size: 0,
            multiple_of: 0,
        };
        assert_eq!(zero.target(10, 10), (1, 1));
        let huge = Fit::CenterCrop { size: u32::MAX };
        assert_eq!(huge.target(1, 2), (u32::MAX, u32::MAX));
    }

    #[test]
    fn center_crop_truncates_the_long_side_as_torchvision_does() {
        let fit = Fit::CenterCrop { size: 224 };
        assert_eq!(fit.target(500, 375), (298, 224)); // 298.67
        assert_eq!(fit.target(375, 500), (224, 298));
        assert_eq!(fit.target(224, 224), (224, 224));
    }

    #[test]
    fn crop_offsets_round_half_to_even() {
        let offsets = [224, 225, 226, 227, 229].map(|side| crop_offset(side, 224));
        assert_eq!(offsets, [0, 0, 1, 2, 2]);
        assert_eq!(crop_offset(10, 224), 0);
    }

    #[test]
    fn center_crop_takes_the_middle() {
        let img = RgbImage::from_fn(8, 4, |x, y| Rgb([x as u8, y as u8, 0]));
        let preprocess = Preprocess {
            fit: Fit::CenterCrop { size: 4 },
            filter: Filter::Bicubic,
            normalization: Normalization {
                mean: [0.0; 3],
                std: [1.0 / 255.0; 3],
            },
        };
        let input = preprocess.apply(&img);
        assert_eq!((input.height, input.width), (4, 4));
        let rounded: Vec<_> = input.data[..4].iter().map(|v| v.round()).collect();
        assert_eq!(rounded, [2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn channels_are_planes_with_known_values() {
        let img = RgbImage::from_fn(2, 1, |x, _| Rgb([0, 128, if x == 0 { 255 } else { 0 }]));
        let input = ChwImage::new(&img, &Normalization::IMAGENET);
        // (0 - .485) / .229, (128 / 255 - .456) / .224, (1 - .406) / .225, (0 - .406) / .225
        let expected = [
            -2.117_904, -2.117_904, 0.205_182, 0.205_182, 2.64, -1.804_444,
        ];
        assert_eq!(input.data.len(), expected.len());
        for (actual, expected) in input.data.iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
        }
    }

    #[test]
    fn configurations_read_as_documented() {
        let json = r#"{"fit": {"short_side": {"size": 448, "multiple_of": 14}}, "filter": "bicubic",
            "normalization": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}"#;
        let read: Preprocess = serde_json::from_str(json).unwrap();
        assert_eq!(
            read,
            Preprocess {
                fit: Fit::ShortSide {
                    size: 448,
                    multiple_of: 14
                },
                filter: Filter::Bicubic,
                normalization: Normalization::IMAGENET,
            }
        );
        let round_trip = serde_json::to_string(&read).unwrap();
        assert_eq!(
            serde_json::from_str::<Preprocess>(&round_trip).unwrap(),
            read
        );
    }
}
