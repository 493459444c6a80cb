//! How an image is shown to the encoder: resized whole, or in overlapping windows.

use percept_image::{ChwImage, Fit, Preprocess, RgbImage};
use percept_model::{MAX_PATCHES, Model, TokenGrid, normalize};

use crate::Error;

/// The size at which an image is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Short side in pixels; the aspect is kept, both sides are rounded to whole patches.
    ShortSide(u32),
    /// Both sides in pixels, rounded to whole patches; the aspect is not kept.
    Exact {
        /// Columns of pixels.
        width: u32,
        /// Rows of pixels.
        height: u32,
    },
    /// Side in pixels of the middle square, after the short side was resized to it: what
    /// classification sees.
    CenterCrop(u32),
}

/// Overlapping square windows over the resized image, each encoded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Side in pixels, rounded to whole patches.
    pub side: u32,
    /// Step in pixels, rounded to whole patches; at most `side`.
    pub stride: u32,
}

impl Size {
    fn fit(self, patch: u32) -> Fit {
        match self {
            Size::ShortSide(size) => Fit::ShortSide {
                size,
                multiple_of: patch,
            },
            Size::Exact { width, height } => Fit::Squash {
                width: to_patches(width, patch),
                height: to_patches(height, patch),
            },
            Size::CenterCrop(size) => Fit::CenterCrop {
                size: to_patches(size, patch),
            },
        }
    }

    /// The shorter side, in pixels.
    fn least(self) -> u32 {
        match self {
            Size::ShortSide(size) | Size::CenterCrop(size) => size,
            Size::Exact { width, height } => width.min(height),
        }
    }

    fn check(self) -> Result<(), Error> {
        // Beyond this a side is a slip of the keyboard; the number of patches is checked later.
        const MAX_SIDE: u32 = 16_384;
        let (low, high) = match self {
            Size::ShortSide(size) | Size::CenterCrop(size) => (size, size),
            Size::Exact { width, height } => (width.min(height), width.max(height)),
        };
        if low == 0 || high > MAX_SIDE {
            return Err(Error::Setting(format!(
                "size must be between 1 and {MAX_SIDE} pixels"
            )));
        }
        Ok(())
    }
}

/// Nearest whole number of patches, at least one, in pixels.
fn to_patches(pixels: u32, patch: u32) -> u32 {
    ((pixels + patch / 2) / patch).max(1) * patch
}

/// Photos as a model sees them: resized and normalised, then encoded, whole or in windows.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    model: &'a Model,
    preprocess: Preprocess,
    patch: u32,
    window: Option<Window>,
    max_patches: usize,
}

impl<'a> View<'a> {
    /// A view of the image tower of `model`.
    ///
    /// # Errors
    /// The model has no image tower, or a size makes no sense.
    pub fn new(model: &'a Model, size: Size, window: Option<Window>) -> Result<Self, Error> {
        size.check()?;
        let config = model.image_config()?;
        let patch = config.vit.patch_size as u32;
        if size.least() < patch {
            return Err(Error::Setting(format!(
                "a size of {} pixels is below one patch of the model, {patch}",
                size.least()
            )));
        }
        let window = window
            .map(|window| {
                if window.side == 0 || window.stride == 0 || window.stride > window.side {
                    return Err(Error::Setting(
                        "a window needs a side and a stride, and the stride is not larger".into(),
                    ));
                }
                Ok(Window {
                    side: to_patches(window.side, patch),
                    stride: to_patches(window.stride, patch),
                })
            })
            .transpose()?;
        Ok(Self {
            model,
            preprocess: Preprocess {
                fit: size.fit(patch),
                filter: config.filter,
                normalization: config.normalization,
            },
            patch,
            window,
            max_patches: MAX_PATCHES,
        })
    }

    /// Encodes photos in at most `max_patches` tokens, where that is less than the encoder takes
    /// ([`MAX_PATCHES`]): time grows with the square of their number.
    pub fn with_max_patches(self, max_patches: usize) -> Self {
        Self {
            max_patches: max_patches.clamp(1, MAX_PATCHES),
            ..self
        }
    }

    /// Resizes and normalises. A photo that would make more tokens than the encoder takes is encoded
    /// [smaller](Self::shrunk).
    pub fn prepare(&self, photo: &RgbImage) -> ChwImage {
        let Some([width, height]) = self.shrunk(photo) else {
            return self.preprocess.apply(photo);
        };
        let smaller = Preprocess {
            fit: Fit::Squash { width, height },
            ..self.preprocess
        };
        smaller.apply(photo)
    }

    /// Width and height at which a photo is encoded, its aspect kept, where the size asked for would
    /// make more tokens than [`MAX_PATCHES`] or what [`Self::with_max_patches`] says.
    pub fn shrunk(&self, photo: &RgbImage) -> Option<[u32; 2]> {
        if matches!(self.preprocess.fit, Fit::CenterCrop { .. }) || self.window.is_some() {
            return None;
        }
        let (width, height) = self.preprocess.fit.target(photo.width(), photo.height());
        let patches = u64::from(width / self.patch) * u64::from(height / self.patch);
        if patches <= self.max_patches as u64 {
            return None;
        }
        let shrink = (self.max_patches as f64 / patches as f64).sqrt();
        Some([width, height].map(|pixels| {
            let patches = (f64::from(pixels / self.patch) * shrink).floor() as u32;
            patches.max(1) * self.patch
        }))
    }

    /// Encodes prepared images. Neighbours of one size share a pass; the order is kept.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, Error> {
        match self.window {
            Some(window) => images
                .iter()
                .map(|image| self.encode_windows(image, window))
                .collect(),
            None => {
                let mut grids = Vec::with_capacity(images.len());
                for run in images.chunk_by(|a, b| (a.height, a.width) == (b.height, b.width)) {
                    grids.extend(self.model.encode_images(run)?);
                }
                Ok(grids)
            }
        }
    }

    /// Encodes windows one after the other and averages their unit-length tokens where they
    /// overlap, which averages the similarities that come of them. The last window of a row or
    /// column is moved back to end at the border, as mmsegmentation's are.
    fn encode_windows(&self, image: &ChwImage, window: Window) -> Result<TokenGrid, Error> {
        let patch = self.patch as usize;
        let (rows, columns) = (image.height / patch, image.width / patch);
        let (side, stride) = (window.side as usize / patch, window.stride as usize / patch);
        let mut whole: Option<TokenGrid> = None;
        let mut counts = vec![0u32; rows * columns];
        let mut windows = 0;
        for (top, height) in spans(rows, side, stride) {
            for (left, width) in spans(columns, side, stride) {
                let piece = crop(
                    image,
                    [top * patch, left * patch],
                    [height * patch, width * patch],
                );
                let mut grid = self.model.encode_images(&[piece])?.remove(0);
                grid.patches.chunks_exact_mut(grid.dim).for_each(normalize);
                let dim = grid.dim;
                let whole = whole.get_or_insert_with(|| TokenGrid {
                    rows,
                    columns,
                    dim,
                    cls: vec![0.0; dim],
                    patches: vec![0.0; rows * columns * dim],
                });
                windows += 1;
                add(&mut whole.cls, &grid.cls);
                for row in 0..height {
                    for column in 0..width {
                        let at = (top + row) * columns + left + column;
                        counts[at] += 1;
                        add(
                            &mut whole.patches[at * dim..][..dim],
                            grid.patch(row, column),
                        );
                    }
                }
            }
        }
        let Some(mut whole) = whole else {
            return Err(Error::Setting("the image is empty".into()));
        };
        whole.cls.iter_mut().for_each(|v| *v /= windows as f32);
        for (token, count) in whole.patches.chunks_exact_mut(whole.dim).zip(counts) {
            token.iter_mut().for_each(|v| *v /= count as f32);
        }
        Ok(whole)
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
}

/// Starts and lengths of windows of `side` every `stride` that cover `total`.
fn spans(total: usize, side: usize, stride: usize) -> Vec<(usize, usize)> {
    let side = side.min(total);
    let last = total - side;
    let mut starts: Vec<usize> = (0..=last).step_by(stride).collect();
    if starts.last() != Some(&last) {
        starts.push(last);
    }
    starts.into_iter().map(|start| (start, side)).collect()
}

/// A rectangle of an image; `from` and `size` are `[rows, columns]` in pixels.
fn crop(image: &ChwImage, from: [usize; 2], size: [usize; 2]) -> ChwImage {
    let mut data = Vec::with_capacity(3 * size[0] * size[1]);
    for channel in 0..3 {
        for row in from[0]..from[0] + size[0] {
            let start = (channel * image.height + row) * image.width + from[1];
            data.extend_from_slice(&image.data[start..start + size[1]]);
        }
    }
    ChwImage {
        data,
        height: size[0],
        width: size[1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_and_end_at_the_border() {
        assert_eq!(spans(10, 4, 2), [(0, 4), (2, 4), (4, 4), (6, 4)]);
        assert_eq!(spans(11, 4, 3), [(0, 4), (3, 4), (6, 4), (7, 4)]);
        assert_eq!(spans(3, 4, 2), [(0, 3)]);
    }

    #[test]
    fn sides_round_to_whole_patches() {
        assert_eq!(to_patches(448, 14), 448);
        assert_eq!(to_patches(450, 14), 448);
        assert_eq!(to_patches(1, 14), 14);
    }

    #[test]
    fn a_crop_takes_its_rectangle_of_every_channel() {
        let image = ChwImage {
            data: (0..3 * 4 * 5).map(|v| v as f32).collect(),
            height: 4,
            width: 5,
        };
        let piece = crop(&image, [1, 2], [2, 2]);
        assert_eq!(piece.data[..4], [7.0, 8.0, 12.0, 13.0]);
        assert_eq!(piece.data[4], 27.0);
    }
}
