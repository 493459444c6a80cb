//! A photo made into a training input.

use percept_image::{
    ChwImage, Decoded, Filter, Fit, Normalization, Note, Preprocess, RgbImage, decode_noted,
    decode_reduced, message, resize,
};

use super::bad::{Bad, BadKind};
use super::source::limits;
use crate::random::Random;

/// Tries to place a random crop in the photo before its middle is taken: as in torchvision.
const TRIES: usize = 10;

/// At which size photos are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decoding {
    /// Their own.
    #[default]
    Full,
    /// Large JPEGs at 1/2, 1/4 or 1/8, as long as no crop has to be enlarged. Several times faster
    /// for photos straight from a camera, but not the pixels that a model sees later.
    Reduced,
}

/// A random crop, brought to one size and perhaps mirrored: torchvision's `RandomResizedCrop` and
/// `RandomHorizontalFlip`, the pixels resized as Pillow does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augment {
    /// Height and width of the input, in pixels.
    pub size: [u32; 2],
    /// The crop's area as a share of the photo's, from the least to the most. Default: 0.9 to 1, as
    /// open_clip.
    pub scale: [f64; 2],
    /// The crop's width over its height, from the least to the most. Default: 3/4 to 4/3.
    pub ratio: [f64; 2],
    /// How likely it is to be mirrored. Default: 0.5.
    pub flip: f64,
    /// How it is resized. Default: bicubic.
    pub filter: Filter,
    /// How its values are scaled.
    pub normalization: Normalization,
    /// At which size the photo is decoded.
    pub decoding: Decoding,
}

/// What is done to photos before the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prepare {
    /// Something else each time.
    Augment(Augment),
    /// Always the same.
    Preprocess(Preprocess),
}

impl From<Augment> for Prepare {
    fn from(augment: Augment) -> Self {
        Self::Augment(augment)
    }
}

impl From<Preprocess> for Prepare {
    fn from(preprocess: Preprocess) -> Self {
        Self::Preprocess(preprocess)
    }
}

/// A crop in a photo, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Augment {
    /// The defaults for square inputs of `size` pixels.
    pub fn train(size: u32, normalization: Normalization) -> Self {
        Self {
            size: [size, size],
            scale: [0.9, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.5,
            filter: Filter::Bicubic,
            normalization,
            decoding: Decoding::Full,
        }
    }

    /// Nothing random: the short side to `size` and the middle square of it.
    pub fn eval(size: u32, normalization: Normalization) -> Preprocess {
        Preprocess {
            fit: Fit::CenterCrop { size },
            filter: Filter::Bicubic,
            normalization,
        }
    }

    fn apply(&self, photo: &RgbImage, random: &mut Random) -> ChwImage {
        let crop = self.crop(photo.dimensions(), random);
        let [height, width] = self.size.map(|side| side.max(1));
        let resized = match (crop.width, crop.height) == photo.dimensions() {
            true => resize(photo, width, height, self.filter),
            false => resize(&cut(photo, crop), width, height, self.filter),
        };
        let mut input = ChwImage::new(&resized, &self.normalization);
        if random.between(0.0, 1.0) < self.flip {
            for row in input.data.chunks_exact_mut(width as usize) {
                row.reverse();
            }
        }
        input
    }

    /// torchvision's `RandomResizedCrop.get_params`.
    fn crop(&self, (width, height): (u32, u32), random: &mut Random) -> Crop {
        let (full_width, full_height) = (f64::from(width), f64::from(height));
        let [least, most] = self.ratio;
        for _ in 0..TRIES {
            let area = full_width * full_height * random.between(self.scale[0], self.scale[1]);
            let ratio = random.between(least.ln(), most.ln()).exp();
            let crop_width = (area * ratio).sqrt().round_ties_even();
            let crop_height = (area / ratio).sqrt().round_ties_even();
            if (1.0..=full_width).contains(&crop_width)
                && (1.0..=full_height).contains(&crop_height)
            {
                let (crop_width, crop_height) = (crop_width as u32, crop_height as u32);
                let mut offset = |room: u32| random.below(room as usize + 1) as u32;
                let (top, left) = (offset(height - crop_height), offset(width - crop_width));
                return Crop {
                    left,
                    top,
                    width: crop_width,
                    height: crop_height,
                };
            }
        }
        let side = |wanted: f64, full: u32| (wanted.round_ties_even() as u32).clamp(1, full.max(1));
        let ratio = full_width / full_height;
        let (crop_width, crop_height) = if ratio < least {
            (width, side(full_width / least, height))
        } else if ratio > most {
            (side(full_height * most, width), height)
        } else {
            (width, height)
        };
        Crop {
            left: width.saturating_sub(crop_width) / 2,
            top: height.saturating_sub(crop_height) / 2,
            width: crop_width,
            height: crop_height,
        }
    }

    /// The least short side of a photo of which no crop is enlarged.
    fn min_side(&self) -> u32 {
        let [height, width] = self.size.map(f64::from);
        let [least, most] = self.ratio;
        let area = self.scale[0].max(f64::MIN_POSITIVE);
        // Of a square photo; of any other the crops are larger.
        (width / (area * least).sqrt())
            .max(height / (area / most).sqrt())
            .ceil() as u32
    }
}

impl Prepare {
    /// Decodes an image file and prepares it. With it comes what is odd about the file.
    pub(super) fn apply(
        &self,
        bytes: &[u8],
        random: &mut Random,
    ) -> Result<(ChwImage, Vec<Note>), Bad> {
        let decoded = match self {
            Self::Augment(augment) if augment.decoding == Decoding::Reduced => {
                decode_reduced(bytes, &limits(), augment.min_side())
            }
            _ => decode_noted(bytes, &limits()),
        };
        let decoded = decoded.map_err(|error| Bad::new(BadKind::Image, message(&error)));
        let Decoded {
            image: photo,
            notes,
        } = decoded?;
        let (width, height) = photo.dimensions();
        // Pages count their visitors with such images, and fill space.
        if width.min(height) < 2 {
            let reason = format!("the image has {width} x {height} pixels, which show nothing");
            return Err(Bad::new(BadKind::Image, reason));
        }
        let input = match self {
            Self::Preprocess(preprocess) => preprocess.apply(&photo),
            Self::Augment(augment) => augment.apply(&photo, random),
        };
        Ok((input, notes))
    }
}

fn cut(photo: &RgbImage, crop: Crop) -> RgbImage {
    let row_bytes = photo.width() as usize * 3;
    let (start, length) = (crop.left as usize * 3, crop.width as usize * 3);
    let rows = photo.as_raw().chunks_exact(row_bytes.max(1));
    let rows = rows.skip(crop.top as usize).take(crop.height as usize);
    let mut pixels = Vec::with_capacity(length * crop.height as usize);
    // Row by row: an iterator over bytes took an eighth of all the time.
    for row in rows {
        pixels.extend_from_slice(&row[start..start + length]);
    }
    // The buffer is of the right length; the alternative only spares a panic.
    RgbImage::from_raw(crop.width, crop.height, pixels)
        .unwrap_or_else(|| RgbImage::new(crop.width, crop.height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use percept_image::{Rgb, jpeg_rgb};

    const PLAIN: Normalization = Normalization {
        mean: [0.0; 3],
        std: [1.0 / 255.0; 3],
    };

    #[test]
    fn crops_have_the_areas_and_ratios_asked_for() {
        let augment = Augment {
            scale: [0.2, 0.6],
            ..Augment::train(224, PLAIN)
        };
        let (mut areas, mut ratios, mut lefts) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..4000 {
            let crop = augment.crop((800, 600), &mut Random::keyed(seed, &[]));
            assert!(crop.left + crop.width <= 800 && crop.top + crop.height <= 600);
            areas.push(f64::from(crop.width * crop.height) / 480_000.0);
            ratios.push((f64::from(crop.width) / f64::from(crop.height)).ln());
            lefts.push(f64::from(crop.left) / f64::from(800 - crop.width));
        }
        let range = |list: &[f64]| {
            let ends = (f64::INFINITY, f64::NEG_INFINITY);
            (list.iter()).fold(ends, |(least, most), &x| (x.min(least), x.max(most)))
        };
        let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
        // Sides are rounded to pixels: by less than one in 250 here.
        let (least, most) = range(&areas);
        assert!(0.198 < least && least < 0.21 && 0.59 < most && most < 0.604);
        let end = (4.0_f64 / 3.0).ln();
        let (least, most) = range(&ratios);
        assert!(-end - 0.004 < least && least < -0.97 * end, "{least}");
        assert!(0.97 * end < most && most < end + 0.004, "{most}");
        // Uniform, in the logarithm for ratios: five standard errors.
        assert!((mean(&areas) - 0.4).abs() < 0.01, "{}", mean(&areas));
        assert!(mean(&ratios).abs() < 0.014, "{}", mean(&ratios));
        assert!((mean(&lefts) - 0.5).abs() < 0.025, "{}", mean(&lefts));
    }

    #[test]
    fn what_fits_no_crop_gives_its_middle() {
        let augment = Augment::train(224, PLAIN);
        let crop = |size| {
            let crop = augment.crop(size, &mut Random::new(1));
            [crop.left, crop.top, crop.width, crop.height]
        };
        // torchvision's fallback: the whole short side, 4/3 of it along the long one.
        assert_eq!(crop((1000, 90)), [440, 0, 120, 90]);
        assert_eq!(crop((90, 1000)), [0, 440, 90, 120]);
        assert_eq!(crop((20_000, 1)), [9999, 0, 1, 1]);
        assert_eq!(crop((1, 1)), [0, 0, 1, 1]);
    }

    #[test]
    fn pixels_are_those_of_the_crop_and_half_are_mirrored() {
        let photo = RgbImage::from_fn(8, 6, |x, y| Rgb([x as u8, y as u8, 9]));
        let augment = Augment {
            size: [3, 4],
            scale: [0.25, 0.25],
            ratio: [4.0 / 3.0, 4.0 / 3.0],
            ..Augment::train(0, PLAIN)
        };
        let mut mirrored = 0;
        for seed in 0..400 {
            let random = Random::keyed(seed, &[]);
            let Crop { left, top, .. } = augment.crop((8, 6), &mut Random::keyed(seed, &[]));
            let input = augment.apply(&photo, &mut { random });
            assert_eq!((input.height, input.width), (3, 4));
            let row: Vec<u32> = input.data[..4].iter().map(|v| v.round() as u32).collect();
            let expected: Vec<u32> = (left..left + 4).collect();
            if row != expected {
                mirrored += 1;
                assert!(row.iter().rev().eq(&expected), "{row:?} {expected:?}");
            }
            assert_eq!(input.data[12].round() as u32, top);
        }
        assert!((150..250).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn reduced_photos_are_large_enough() {
        let photo = RgbImage::from_fn(1200, 803, |x, y| Rgb([(x / 5) as u8, (y / 4) as u8, 77]));
        let jpeg = jpeg_rgb(&photo, 95).unwrap();
        for (min_side, expected) in [(402, (600, 402)), (403, (1200, 803)), (9999, (1200, 803))] {
            let reduced = decode_reduced(&jpeg, &limits(), min_side).unwrap().image;
            assert_eq!(reduced.dimensions(), expected);
        }
        // 224 / sqrt(0.9 * 3 / 4) = 272.6: a quarter would be too small.
        let augment = Augment::train(224, PLAIN);
        assert_eq!(augment.min_side(), 273);
        let reduced = Augment {
            decoding: Decoding::Reduced,
            ..augment
        };
        let apply = |augment| {
            Prepare::from(augment)
                .apply(&jpeg, &mut Random::new(5))
                .unwrap()
                .0
        };
        let (full, reduced) = (apply(augment), apply(reduced));
        let differences = full.data.iter().zip(&reduced.data);
        let mean = differences.map(|(a, b)| (a - b).abs()).sum::<f32>() / full.data.len() as f32;
        assert!(mean < 1.0, "{mean} levels");
    }
}
