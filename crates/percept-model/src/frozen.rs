//! A transformer whose weights stay as they are while others learn.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use percept_cpu::attention::MAX_HEAD_WIDTH;

use crate::vit::{Vit, VitOutput};
use crate::{ops, weights};

/// Tokens for which its kernel is chosen: a batch has more.
const TOKENS: usize = 64;

/// A [`Vit`] that does not learn. On the CPU its blocks are those of percept-cpu, whose weights are
/// packed once; elsewhere they are the same as those of a `Vit`.
#[derive(Debug)]
pub struct FrozenVit {
    vit: Vit,
    engine: Option<percept_cpu::vit::Vit>,
}

impl FrozenVit {
    /// Takes the weights of `vit` as they are.
    pub fn new(vit: Vit) -> Self {
        Self {
            engine: engine(&vit),
            vit,
        }
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        self.vit.depth()
    }

    /// Side of a patch in pixels.
    pub fn patch_size(&self) -> usize {
        self.vit.patch_size()
    }

    /// As [`Vit::embed`].
    pub fn embed(&self, images: Tensor<4>, keep: Option<Tensor<2, Int>>) -> Tensor<3> {
        self.vit.embed(images, keep)
    }

    /// Tokens `[batch, tokens, dim]` through some of the blocks.
    ///
    /// # Panics
    /// There are no such blocks.
    pub fn blocks(&self, blocks: Range<usize>, tokens: Tensor<3>) -> Tensor<3> {
        let Some(engine) = &self.engine else {
            return blocks.fold(tokens, |x, block| self.vit.block(block, x));
        };
        let (shape, device) = (tokens.dims(), tokens.device());
        let mut x: Vec<f32> = tokens
            .into_data()
            .try_into_vec()
            .unwrap_or_else(|error| unreachable!("there is an engine for `f32` only: {error:?}"));
        engine.blocks(blocks, shape[1], &mut x);
        Tensor::from_data(TensorData::new(x, shape), &device)
    }

    /// As [`Vit::finish`].
    pub fn finish(&self, tokens: Tensor<3>, grid: [usize; 2]) -> VitOutput {
        self.vit.finish(tokens, grid)
    }
}

/// The engine of a transformer on the CPU, if it can run it.
fn engine(vit: &Vit) -> Option<percept_cpu::vit::Vit> {
    let shape = vit.shape()?;
    if vit.device() != Device::flex() || shape.dim / shape.heads > MAX_HEAD_WIDTH {
        return None;
    }
    let mut values: HashMap<String, Vec<f32>> = weights::save(vit)
        .into_iter()
        .map(|(name, _, values)| (name, values))
        .collect();
    let kernel = ops::kernel_of(TOKENS * shape.dim * shape.mlp_dim);
    let read = |name: &str, _: &[usize]| values.remove(name).ok_or(());
    percept_cpu::vit::Vit::new(shape, kernel, read).ok()
}
