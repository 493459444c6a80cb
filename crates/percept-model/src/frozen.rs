//! A transformer whose weights stay as they are while others learn.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor, TensorData};
use percept_cpu::attention::MAX_HEAD_WIDTH;

use crate::encoder::to_vec;
use crate::vit::{Vit, VitOutput};
use crate::{ops, weights};

/// Tokens for which its kernel is chosen: a batch has more.
const TOKENS: usize = 64;

/// A [`Vit`] that does not learn. On the CPU its blocks are those of percept-cpu, whose weights are
/// packed once; elsewhere they are the same as those of a `Vit`.
#[derive(Debug)]
pub struct FrozenVit {
    /// Without blocks where there is an engine.
    vit: Vit,
    depth: usize,
    engine: Option<percept_cpu::vit::Vit>,
}

impl FrozenVit {
    /// Takes the weights of `vit` as they are.
    pub fn new(vit: Vit) -> Self {
        let (engine, depth) = (engine(&vit), vit.depth());
        Self {
            vit: match engine {
                Some(_) => vit.without_blocks(),
                None => vit,
            },
            depth,
            engine,
        }
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// As [`Vit::grid_of`].
    pub fn grid_of(&self, sides: [usize; 2]) -> [usize; 2] {
        self.vit.grid_of(sides)
    }

    /// As [`Vit::tokens_of`].
    pub fn tokens_of(&self, sides: [usize; 2]) -> [usize; 2] {
        self.vit.tokens_of(sides)
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
        let mut x = to_vec(tokens);
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
    let values: HashMap<String, Vec<f32>> = weights::save(vit)
        .into_iter()
        .map(|(name, _, values)| (name, values))
        .collect();
    let values = Mutex::new(values);
    let kernel = ops::kernel_of(TOKENS * shape.dim * shape.mlp_dim);
    let read = |name: &str, _: &[usize]| {
        let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
        values.remove(name).ok_or(())
    };
    percept_cpu::vit::Vit::new(shape, kernel, read).ok()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::{PositionInterpolation, VitConfig};

    #[test]
    fn its_blocks_are_those_of_the_transformer() {
        let device = Device::flex();
        // Wide enough for the CPU's fastest kernel.
        let config = VitConfig {
            dim: 128,
            depth: 3,
            heads: 4,
            mlp_dim: 2048,
            patch_size: 4,
            grid: [4, 4],
            registers: 0,
            position_prefix: 1,
            layer_scale: false,
            layer_norm_eps: 1e-6,
            interpolation: PositionInterpolation::Timm,
        };
        let vit = config.init(&device);
        let frozen = FrozenVit::new(vit.clone());
        assert!(frozen.engine.is_some() && frozen.depth() == 3);
        // More images than go through all blocks together.
        let x = Tensor::<3>::random([40, 37, 128], Distribution::Normal(0.0, 1.0), &device);
        let expected = (1..3).fold(x.clone(), |x, block| vit.block(block, x));
        let difference = (frozen.blocks(1..3, x) - expected).abs().max();
        let difference = difference.into_scalar::<f32>();
        assert!(difference < 2e-4, "{difference:e}");
    }
}
