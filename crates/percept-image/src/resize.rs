//! Resizing as Pillow does it, to the bit.
//!
//! A model is trained on pixels that one particular resize made. A different one (no antialiasing,
//! the other cubic coefficient, another rounding of sizes) costs accuracy without any error. So this
//! is the arithmetic of Pillow 13: filters that widen when shrinking, bicubic with A = -0.5, weights
//! rounded to 22 bits, one side after the other with 8-bit values in between.
//!
//! Pillow to 12 always took the width first, 13 takes the side that loses more rows or columns (see
//! `height_first`). The order shows where a cubic overshoots twice, by a few levels on noise, and
//! only where the aspect changes much. The crate `fast_image_resize`, with 16-bit weights, was
//! measured at up to two levels off.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::convolve::{Kernel, convolve_columns, convolve_rows};
use crate::label_map::LabelMap;

/// How a resized pixel is made from the photo's, with the meaning that Pillow gives the names.
///
/// All but `Nearest` are antialiased: when shrinking, the filter grows with the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The one pixel under the centre of the new one. Never mixes values.
    Nearest,
    /// A triangle 2 pixels wide.
    Bilinear,
    /// A cubic 4 pixels wide, A = -0.5. What CLIP-style models are trained with.
    Bicubic,
    /// A windowed sinc 6 pixels wide.
    Lanczos,
    /// The mean of the pixels that the new one covers.
    Box,
}

impl Filter {
    /// The convolution of the same name; `None` for `Nearest`, which is none.
    fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Nearest => None,
            Self::Bilinear => Some(Kernel::TRIANGLE),
            Self::Bicubic => Some(Kernel::CUBIC),
            Self::Lanczos => Some(Kernel::LANCZOS3),
            Self::Box => Some(Kernel::BOX),
        }
    }
}

/// Resizes to exactly `width` x `height` pixels, with the result of Pillow's `Image.resize`.
///
/// Equal sizes give a copy. A side of zero gives an image without pixels, and an image without
/// pixels gives a black one.
pub fn resize(img: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    if img.dimensions() == (width, height) {
        return img.clone();
    }
    if img.is_empty() || width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    let pixels = match filter.kernel() {
        None => nearest_rgb(img, width, height),
        Some(kernel) if height_first(img.dimensions(), (width, height)) => {
            let low = convolve_columns(
                img.as_raw().clone(),
                img.width(),
                img.height(),
                height,
                &kernel,
            );
            convolve_rows(&low, img.width(), width, &kernel)
        }
        Some(kernel) => {
            let wide = convolve_rows(img.as_raw(), img.width(), width, &kernel);
            convolve_columns(wide, width, img.height(), height, &kernel)
        }
    };
    // The buffer is of the right length; the alternative only spares a panic.
    RgbImage::from_raw(width, height, pixels).unwrap_or_else(|| RgbImage::new(width, height))
}

/// Whether Pillow 13 resizes the height before the width: where more than twice as many rows as
/// columns go. Found by comparing its results with both orders over a grid of sizes.
fn height_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let lost_columns = i64::from(from.0) - i64::from(to.0);
    let lost_rows = i64::from(from.1) - i64::from(to.1);
    lost_rows > 0 && lost_rows > 2 * lost_columns
}

fn nearest_rgb(img: &RgbImage, width: u32, height: u32) -> Vec<u8> {
    let columns = nearest_indices(img.width(), width);
    let rows = nearest_indices(img.height(), height);
    let mut pixels = Vec::with_capacity(columns.len() * rows.len() * 3);
    for &y in &rows {
        for &x in &columns {
            pixels.extend_from_slice(&img.get_pixel(x, y).0);
        }
    }
    pixels
}

/// Resizes a map of labels to exactly `width` x `height`, with the sampling of Pillow's
/// `Image.NEAREST`, so that masks line up with [`Filter::Nearest`] and with PyTorch pipelines.
///
/// Equal sizes give a copy; a map without pixels gives label 0 everywhere.
pub fn resize_labels(map: &LabelMap, width: u32, height: u32) -> LabelMap {
    if (map.width(), map.height()) == (width, height) {
        return map.clone();
    }
    let columns = nearest_indices(map.width(), width);
    let rows = nearest_indices(map.height(), height);
    LabelMap::from_fn(width, height, |x, y| {
        let source = columns.get(x as usize).zip(rows.get(y as usize));
        source.and_then(|(&x, &y)| map.get(x, y)).unwrap_or(0)
    })
}

/// The source index that each of `to` positions takes from `from` positions; empty when there is
/// nothing to take from.
fn nearest_indices(from: u32, to: u32) -> Vec<u32> {
    let Some(last) = from.checked_sub(1) else {
        return Vec::new();
    };
    let scale = f64::from(from) / f64::from(to);
    // Added up rather than multiplied, as Pillow does it: the rounding errors must be the same
    // ones, or samples that fall between two pixels go the other way.
    let mut centre = scale * 0.5;
    (0..to)
        .map(|_| {
            let index = centre as u32;
            centre += scale;
            index.min(last)
        })
        .collect()
}
