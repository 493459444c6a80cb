//! Encoders as seen from outside: plain arrays in, plain arrays out.
//!
//! An engine implements [`ImageEncoder`] and [`TextEncoder`]; here it is Burn, on any of its
//! devices. Whatever comes after an encoder (pooling, similarity, grouping) works on
//! [`TokenGrid`]s and embeddings and does not know which engine made them.

use burn::tensor::{Device, Tensor, TensorData};
use percept_image::ChwImage;

use crate::text::{TextTower, TokenBatch};
use crate::vit::Vit;
use crate::{ImageConfig, ModelError, Pooling};

/// Texts encoded in one pass.
const TEXT_BATCH: usize = 64;

/// Patches of one image that are encoded at most: 1,792 × 1,792 px in patches of 14. Attention
/// grows with the square of their number.
pub const MAX_PATCHES: usize = 16_384;

/// What an image encoder makes of one image: the tokens after the final layer norm.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenGrid {
    /// Rows of patches.
    pub rows: usize,
    /// Columns of patches.
    pub columns: usize,
    /// Width of a token.
    pub dim: usize,
    /// The CLS token, `[dim]`.
    pub cls: Vec<f32>,
    /// The patch tokens row by row, `[rows · columns, dim]`.
    pub patches: Vec<f32>,
}

impl TokenGrid {
    /// The patch token at `row`, `column`.
    pub fn patch(&self, row: usize, column: usize) -> &[f32] {
        let start = (row * self.columns + column) * self.dim;
        &self.patches[start..start + self.dim]
    }

    /// The image embedding `[dim]`, L2-normalised (paper §2.1).
    pub fn pool(&self, pooling: Pooling) -> Vec<f32> {
        let mut embedding = match pooling {
            Pooling::Max => self.max_over_patches(),
            Pooling::MaxWithCls => {
                let mut max = self.max_over_patches();
                max.iter_mut()
                    .zip(&self.cls)
                    .for_each(|(m, v)| *m = m.max(*v));
                max
            }
            Pooling::Avg => self.mean_of_patches(),
            Pooling::Cls => self.cls.clone(),
            Pooling::ClsAvg => {
                let mut mean = self.mean_of_patches();
                mean.iter_mut()
                    .zip(&self.cls)
                    .for_each(|(m, v)| *m = 0.5 * (*m + v));
                mean
            }
        };
        normalize(&mut embedding);
        embedding
    }

    fn mean_of_patches(&self) -> Vec<f32> {
        let count = (self.rows * self.columns) as f32;
        let mut sum = vec![0.0; self.dim];
        for token in self.patches.chunks_exact(self.dim) {
            sum.iter_mut().zip(token).for_each(|(s, v)| *s += v / count);
        }
        sum
    }

    fn max_over_patches(&self) -> Vec<f32> {
        let mut max = vec![f32::NEG_INFINITY; self.dim];
        for token in self.patches.chunks_exact(self.dim) {
            max.iter_mut().zip(token).for_each(|(m, v)| *m = m.max(*v));
        }
        max
    }
}

/// Scales a vector to unit length; a zero vector stays zero.
pub fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v /= norm);
}

/// Images to tokens.
pub trait ImageEncoder: Send + Sync + std::fmt::Debug {
    /// Encodes images that all have the same size; both sides are multiples of the patch size.
    ///
    /// # Errors
    /// [`ModelError::ImageSize`] when they are not, or are too large.
    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, ModelError>;

    /// How many calls at a time are best. With more than one, nothing is locked while it waits for rayon's pool: a
    /// thread that waits may begin another call.
    fn passes(&self) -> usize {
        1
    }
}

/// Token ids to sentence embeddings.
pub trait TextEncoder: Send + Sync + std::fmt::Debug {
    /// Encodes texts into L2-normalised embeddings `[dim]`, in the order given. Every text has at
    /// least one id, and no id is beyond the token table.
    ///
    /// # Errors
    /// None today; an engine may fail.
    fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError>;
}

/// A [`Vit`] on a Burn device.
#[derive(Debug)]
pub struct BurnImageEncoder {
    vit: Vit,
    patch_size: usize,
    dim: usize,
    device: Device,
}

impl BurnImageEncoder {
    /// Wraps a transformer whose weights are on `device`.
    pub fn new(vit: Vit, config: &ImageConfig, device: Device) -> Self {
        Self {
            vit,
            patch_size: config.vit.patch_size,
            dim: config.vit.dim,
            device,
        }
    }
}

/// Height and width of images that can be encoded together; `None` if there are none.
///
/// # Errors
/// [`ModelError::ImageSize`]: they differ, are no multiples of the patch size, or too large.
pub(crate) fn check_sizes(
    images: &[ChwImage],
    patch: usize,
) -> Result<Option<[usize; 2]>, ModelError> {
    let Some(first) = images.first() else {
        return Ok(None);
    };
    for image in images {
        let (height, width) = (image.height, image.width);
        let reason = if (height, width) != (first.height, first.width) {
            format!(
                "the other images of this batch have {} x {}",
                first.height, first.width
            )
        } else if height == 0
            || width == 0
            || !height.is_multiple_of(patch)
            || !width.is_multiple_of(patch)
        {
            format!("both sides must be multiples of the patch size, {patch}")
        } else if (height / patch) * (width / patch) > MAX_PATCHES {
            format!("more than {MAX_PATCHES} patches of {patch} x {patch}")
        } else {
            continue;
        };
        return Err(ModelError::ImageSize {
            height,
            width,
            reason,
        });
    }
    Ok(Some([first.height, first.width]))
}

impl ImageEncoder for BurnImageEncoder {
    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, ModelError> {
        let Some([height, width]) = check_sizes(images, self.patch_size)? else {
            return Ok(Vec::new());
        };
        let mut pixels = Vec::with_capacity(images.len() * 3 * height * width);
        for image in images {
            pixels.extend_from_slice(&image.data);
        }
        let shape = [images.len(), 3, height, width];
        let input = Tensor::from_data(TensorData::new(pixels, shape), &self.device);
        let output = self.vit.forward(input, None);
        let [rows, columns] = output.grid;
        let cls = to_vec(output.cls);
        let patches = to_vec(output.patches);
        Ok(cls
            .chunks_exact(self.dim)
            .zip(patches.chunks_exact(rows * columns * self.dim))
            .map(|(cls, patches)| TokenGrid {
                rows,
                columns,
                dim: self.dim,
                cls: cls.to_vec(),
                patches: patches.to_vec(),
            })
            .collect())
    }
}

/// A [`TextTower`] on a Burn device.
#[derive(Debug)]
pub struct BurnTextEncoder {
    tower: TextTower,
    dim: usize,
    device: Device,
}

impl BurnTextEncoder {
    /// Wraps a tower of embeddings of width `dim` whose weights are on `device`.
    pub fn new(tower: TextTower, dim: usize, device: Device) -> Self {
        Self { tower, dim, device }
    }
}

impl TextEncoder for BurnTextEncoder {
    fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        Ok(in_batches(texts, self.dim, |ids| {
            to_vec(self.tower.forward(&TokenBatch::new(ids, &self.device)))
        }))
    }
}

/// Encodes texts by `forward`, which gives embeddings `[texts, dim]` of texts of like length, so that
/// little is spent on padding. The embeddings are L2-normalised, in the order given.
pub(crate) fn in_batches(
    texts: &[Vec<u32>],
    dim: usize,
    forward: impl Fn(&[&[u32]]) -> Vec<f32>,
) -> Vec<Vec<f32>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].len());
    let mut embeddings = vec![Vec::new(); texts.len()];
    for chunk in order.chunks(TEXT_BATCH) {
        let ids: Vec<&[u32]> = chunk.iter().map(|&i| texts[i].as_slice()).collect();
        let output = forward(&ids);
        for (&i, embedding) in chunk.iter().zip(output.chunks_exact(dim)) {
            let mut embedding = embedding.to_vec();
            normalize(&mut embedding);
            embeddings[i] = embedding;
        }
    }
    embeddings
}

pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data();
    // A device that computes in half precision hands back other elements.
    data.try_to_vec().unwrap_or_else(|_| data.iter().collect())
}
