//! The vision transformer (timm's DINO and DINOv2 forms).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::attention::{Bias, Heads, Packed, attend};
use crate::kernel::Kernel;
use crate::norm::Norm;
use crate::product::{Input, Linear, Then, feed_forward};

/// Values of the queries, keys and values of the images that go through all blocks together: 8 MB, a share of the last
/// cache that a rented core can count on.
const GROUP_VALUES: usize = 1 << 21;

/// A vision transformer without its positions, which depend on the size of the input.
#[derive(Debug)]
pub struct Vit {
    patches: Linear,
    blocks: Vec<Block>,
    norm: Norm,
    heads: Heads,
    dim: usize,
    kernel: Kernel,
    /// Of calls that have ended.
    inside: Mutex<Vec<Inside>>,
}

/// A pre-norm transformer block.
#[derive(Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    proj: Linear,
    scale1: Option<Vec<f32>>,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    scale2: Option<Vec<f32>>,
}

/// The shape of a [`Vit`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VitShape {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Numbers of a patch: 3 · side · side.
    pub inputs: usize,
    /// Width of the hidden layer.
    pub mlp_dim: usize,
    /// Whether blocks have LayerScale.
    pub layer_scale: bool,
    /// Of LayerNorm.
    pub epsilon: f32,
}

/// Intermediate results, kept from call to call.
#[derive(Debug)]
struct Inside {
    /// Queries, keys and values.
    wide: Vec<f32>,
    /// What attention makes of them; before the blocks, patches without positions.
    mixed: Vec<f32>,
    packed: Packed,
}

impl Vit {
    /// Reads the weights by timm's names (`blocks.0.attn.qkv.weight`), matrices `[out, in]`. `read` is
    /// told the shape, and gives as many values, to several threads at a time. `kernel` computes the products.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn new<E: Send>(
        shape: VitShape,
        kernel: Kernel,
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<Self, E> {
        let VitShape { dim, mlp_dim, .. } = shape;
        let block = |i| {
            let of = |name: &str| format!("blocks.{i}.{name}");
            Ok(Block {
                norm1: Norm::read(&of("norm1"), dim, shape.epsilon, &read)?,
                qkv: Linear::read(&of("attn.qkv"), [3 * dim, dim], kernel, &read)?,
                proj: Linear::read(&of("attn.proj"), [dim, dim], kernel, &read)?,
                scale1: scale(&shape, &of("ls1.gamma"), &read)?,
                norm2: Norm::read(&of("norm2"), dim, shape.epsilon, &read)?,
                fc1: Linear::read(&of("mlp.fc1"), [mlp_dim, dim], kernel, &read)?,
                fc2: Linear::read(&of("mlp.fc2"), [dim, mlp_dim], kernel, &read)?,
                scale2: scale(&shape, &of("ls2.gamma"), &read)?,
            })
        };
        let blocks: Result<_, E> = (0..shape.depth).into_par_iter().map(block).collect();
        let blocks = blocks?;
        Ok(Self {
            patches: Linear::read("patch_embed.proj", [dim, shape.inputs], kernel, &read)?,
            blocks,
            norm: Norm::read("norm", dim, shape.epsilon, &read)?,
            heads: Heads::of(dim, shape.heads),
            dim,
            kernel,
            inside: Mutex::default(),
        })
    }

    /// Tokens after the final norm, `[images, first + patches, dim]`, of images that are cut into
    /// patches, `[images, patches, inputs]`: `pixels`, which are let go of before the blocks. `first` are CLS and
    /// registers, `[first, dim]`, and `positions` `[patches, dim]` is added to the patches.
    ///
    /// # Panics
    /// The lengths do not fit.
    pub fn forward(
        &self,
        pixels: Vec<f32>,
        images: usize,
        first: &[f32],
        positions: &[f32],
    ) -> Vec<f32> {
        let dim = self.dim;
        let (before, count) = (first.len() / dim, positions.len() / dim);
        let tokens = before + count;
        let mut x = Vec::with_capacity(images * tokens * dim);
        self.with_inside(|inside| {
            let patches = &mut inside.mixed;
            patches.resize(images * positions.len(), 0.0);
            self.patches.apply(&pixels, Then::Store, patches);
            drop(pixels);
            for patches in patches.chunks_exact(positions.len()) {
                x.extend_from_slice(first);
                let at_their_places = patches.iter().zip(positions);
                x.extend(at_their_places.map(|(patch, position)| patch + position));
            }
            self.go_through(0..self.blocks.len(), tokens, &mut x, inside);
        });
        self.norm.apply_in_place(&mut x);
        x
    }

    /// Some of the blocks, in place: `x` are the tokens of images, `[images, tokens, dim]`, after those before
    /// these blocks.
    ///
    /// # Panics
    /// The lengths do not fit, or there are no such blocks.
    pub fn blocks(&self, blocks: Range<usize>, tokens: usize, x: &mut [f32]) {
        self.with_inside(|inside| self.go_through(blocks, tokens, x, inside));
    }

    /// Calls `f` with what an earlier call left behind: that of none that is still at it.
    fn with_inside(&self, f: impl FnOnce(&mut Inside) + Send) {
        let all = || self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inside = all().pop().unwrap_or_else(|| Inside {
            wide: Vec::new(),
            mixed: Vec::new(),
            packed: Packed::new(self.kernel),
        });
        // A thread of the pool, unlike others, finds the next task awake and need not be woken when all are done.
        rayon::scope(|_| f(&mut inside));
        all().push(inside);
    }

    fn go_through(&self, blocks: Range<usize>, tokens: usize, x: &mut [f32], inside: &mut Inside) {
        let blocks = &self.blocks[blocks];
        let Inside {
            wide,
            mixed,
            packed,
        } = inside;
        let of_image = 3 * tokens * self.dim;
        let group = (GROUP_VALUES / of_image.max(1)).max(1) * tokens * self.dim;
        // Not 0 where there are no tokens: that is no size of chunks.
        let group = group.max(1);
        for x in x.chunks_mut(group) {
            mixed.resize(x.len(), 0.0);
            for block in blocks {
                wide.resize(3 * x.len(), 0.0);
                let Block { norm1, qkv, .. } = block;
                qkv.apply_to(Input::Normed(norm1, x), Then::Store, wide);
                attend(wide, tokens, self.heads, Bias::None, None, packed, mixed);
                let scale = block.scale1.as_deref();
                block.proj.apply(mixed, Then::Add(scale), x);
                let layers = [&block.fc1, &block.fc2];
                let scale = block.scale2.as_deref();
                feed_forward(&block.norm2, layers, Then::Gelu, scale, x);
            }
        }
    }
}

fn scale<E>(
    shape: &VitShape,
    name: &str,
    read: &impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
) -> Result<Option<Vec<f32>>, E> {
    match shape.layer_scale {
        true => read(name, &[shape.dim]).map(Some),
        false => Ok(None),
    }
}

/// The pixels of each patch, `[rows · columns, 3 · side · side]`, of an image `[3, height, width]`.
pub fn cut(image: &[f32], [height, width]: [usize; 2], side: usize, patches: &mut Vec<f32>) {
    let (rows, columns) = (height / side, width / side);
    patches.reserve(rows * columns * 3 * side * side);
    for row in 0..rows {
        for column in 0..columns {
            for channel in image.chunks_exact(height * width) {
                for y in row * side..(row + 1) * side {
                    patches.extend_from_slice(&channel[y * width + column * side..][..side]);
                }
            }
        }
    }
}
