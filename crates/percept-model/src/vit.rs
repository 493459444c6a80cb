//! The vision transformer of the image tower, in timm's DINO and DINOv2 forms.
//!
//! Parameter names are timm's: the path of a field is its key in a checkpoint.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use percept_cpu::vit::VitShape;

use crate::ops::{self, Activation};
use crate::{Pooling, PositionInterpolation, VitConfig, pos_embed};

/// Standard deviation of randomly initialised weights (timm's and DINO's choice).
const INIT_STD: f64 = 0.02;
/// Initial LayerScale (DINOv2).
const LAYER_SCALE_INIT: f64 = 1e-5;

/// A vision transformer without a head.
#[derive(Module, Debug)]
pub struct Vit {
    cls_token: Param<Tensor<3>>,
    reg_token: Option<Param<Tensor<3>>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    grid: [usize; 2],
    #[module(skip)]
    interpolation: PositionInterpolation,
}

/// What a [`Vit`] makes of a batch: tokens after the final layer norm.
#[derive(Debug, Clone)]
pub struct VitOutput {
    /// The CLS token, `[batch, dim]`.
    pub cls: Tensor<2>,
    /// The patch tokens row by row, `[batch, rows · columns, dim]`; under sub-sampling the kept
    /// ones in the order of their indices, `[batch, kept, dim]`.
    pub patches: Tensor<3>,
    /// Rows and columns of the image's patches, kept or not.
    pub grid: [usize; 2],
}

impl VitOutput {
    /// The image embeddings `[batch, dim]` (paper §2.1), not normalised; the differentiable form
    /// of [`TokenGrid::pool`](crate::TokenGrid::pool).
    pub fn pool(self, pooling: Pooling) -> Tensor<2> {
        let max = |tokens: Tensor<3>| tokens.max_dim(1).squeeze_dim::<2>(1);
        let avg = |tokens: Tensor<3>| tokens.mean_dim(1).squeeze_dim::<2>(1);
        match pooling {
            Pooling::Max => max(self.patches),
            Pooling::MaxWithCls => max(Tensor::cat(
                vec![self.cls.unsqueeze_dim::<3>(1), self.patches],
                1,
            )),
            Pooling::Avg => avg(self.patches),
            Pooling::Cls => self.cls,
            Pooling::ClsAvg => (self.cls + avg(self.patches)).mul_scalar(0.5),
        }
    }
}

impl VitConfig {
    /// A transformer with random weights.
    pub fn init(&self, device: &Device) -> Vit {
        let random = |shape: [usize; 3]| {
            Initializer::Normal {
                mean: 0.0,
                std: INIT_STD,
            }
            .init(shape, device)
        };
        let positions = self.position_prefix + self.grid[0] * self.grid[1];
        Vit {
            cls_token: random([1, 1, self.dim]),
            reg_token: (self.registers > 0).then(|| random([1, self.registers, self.dim])),
            pos_embed: random([1, positions, self.dim]),
            patch_embed: PatchEmbed {
                proj: linear(3 * self.patch_size * self.patch_size, self.dim, device),
                patch_size: self.patch_size,
            },
            blocks: (0..self.depth).map(|_| Block::init(self, device)).collect(),
            norm: self.layer_norm(device),
            epsilon: self.layer_norm_eps,
            grid: self.grid,
            interpolation: self.interpolation,
        }
    }

    fn layer_norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.dim)
            .with_epsilon(self.layer_norm_eps)
            .init(device)
    }
}

impl Vit {
    /// Encodes normalised images `[batch, 3, height, width]`; both sides are multiples of the
    /// patch size.
    ///
    /// `keep` sub-samples the tokens (paper §2.3): of each image only the patches of these indices
    /// `[batch, kept]`, counted row by row, are seen. The others are never computed; CLS and
    /// registers stay.
    pub fn forward(&self, images: Tensor<4>, keep: Option<Tensor<2, Int>>) -> VitOutput {
        let [_, _, height, width] = images.dims();
        let tokens = self.embed(images, keep);
        self.forward_from(0, tokens, self.grid_of([height, width]))
    }

    /// The rest of [`forward`](Self::forward): tokens `[batch, tokens, dim]` through block number
    /// `first` and those after it, and the final norm. `grid` is that of the image.
    pub fn forward_from(&self, first: usize, tokens: Tensor<3>, grid: [usize; 2]) -> VitOutput {
        let blocks = first..self.depth();
        self.finish(blocks.fold(tokens, |x, block| self.block(block, x)), grid)
    }

    /// Rows and columns of the patches of an image of these sides, in pixels.
    pub fn grid_of(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        let patch = self.patch_embed.patch_size;
        [height / patch, width / patch]
    }

    /// Number of the tokens of an image of these sides, CLS and registers among them, and their width.
    pub fn tokens_of(&self, sides: [usize; 2]) -> [usize; 2] {
        let [rows, columns] = self.grid_of(sides);
        let [_, first, dim] = self.first_tokens().dims();
        [first + rows * columns, dim]
    }

    /// Side of a patch in pixels.
    pub fn patch_size(&self) -> usize {
        self.patch_embed.patch_size
    }

    /// Number of blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// First stage of [`forward`](Self::forward): patches, positions, CLS and registers,
    /// `[batch, 1 + registers + patches, dim]`. The stages are public so that training can
    /// recompute one of them at a time.
    pub fn embed(&self, images: Tensor<4>, keep: Option<Tensor<2, Int>>) -> Tensor<3> {
        let [batch, _, height, width] = images.dims();
        let grid = self.grid_of([height, width]);
        let mut pixels = self.patch_embed.cut(images);
        let mut positions = self.patch_positions(grid).unsqueeze::<3>();
        if let Some(keep) = keep {
            // Before the projection: it and the positions are per patch, so the order is free.
            let [_, count, inputs] = pixels.dims();
            let [_, kept] = keep.dims();
            let [_, _, dim] = positions.dims();
            let first = Tensor::<1, Int>::arange(0..batch as i64, &keep.device())
                .mul_scalar(count as i64)
                .unsqueeze_dim::<2>(1);
            let rows = (keep.clone() + first).reshape([batch * kept]);
            pixels = pixels
                .reshape([batch * count, inputs])
                .select(0, rows)
                .reshape([batch, kept, inputs]);
            positions = positions
                .squeeze_dim::<2>(0)
                .select(0, keep.reshape([batch * kept]))
                .reshape([batch, kept, dim]);
        }
        let patches = ops::linear(pixels, &self.patch_embed.proj) + positions;
        let first = self.first_tokens().repeat_dim(0, batch);
        Tensor::cat(vec![first, patches], 1)
    }

    /// Position embeddings of a grid of patches, row by row, `[rows · columns, dim]`.
    pub(crate) fn patch_positions(&self, grid: [usize; 2]) -> Tensor<2> {
        let position = self.pos_embed.val();
        let [_, positions, dim] = position.dims();
        let prefix = self.position_prefix();
        let of_patches =
            position
                .slice([0..1, prefix..positions])
                .reshape([self.grid[0], self.grid[1], dim]);
        pos_embed::interpolate(of_patches, grid, self.interpolation)
    }

    /// CLS and registers with their positions, `[1, 1 + registers, dim]`.
    pub(crate) fn first_tokens(&self) -> Tensor<3> {
        let registers = self.reg_token.as_ref().map(Param::val);
        let prefix = self.position_prefix();
        let mut first = vec![self.cls_token.val()];
        // Registers have positions of their own only where the grid's prefix is longer than CLS.
        if prefix > 1 {
            first.extend(registers.clone());
        }
        let mut first = Tensor::cat(first, 1);
        if prefix > 0 {
            first = first + self.pos_embed.val().slice([0..1, 0..prefix]);
        }
        match registers {
            Some(registers) if prefix <= 1 => Tensor::cat(vec![first, registers], 1),
            _ => first,
        }
    }

    /// Rows of `pos_embed` before those of the patches.
    fn position_prefix(&self) -> usize {
        let [_, positions, _] = self.pos_embed.dims();
        positions - self.grid[0] * self.grid[1]
    }

    /// Block number `index` over tokens `[batch, tokens, dim]`.
    ///
    /// # Panics
    /// There is no such block.
    pub fn block(&self, index: usize, tokens: Tensor<3>) -> Tensor<3> {
        self.blocks[index].forward(tokens)
    }

    /// What comes before its blocks, and after them.
    pub(crate) fn without_blocks(mut self) -> Self {
        self.blocks.clear();
        self
    }

    /// What knows CLS, registers and positions: its weights of patches and blocks are let go of.
    pub(crate) fn only_positions(mut self) -> Self {
        self.patch_embed.proj = linear(1, 1, &self.device());
        self.without_blocks()
    }

    /// Where its weights are.
    pub(crate) fn device(&self) -> Device {
        self.pos_embed.device()
    }

    /// Its shape, as percept-cpu wants it.
    pub(crate) fn shape(&self) -> Option<VitShape> {
        let block = self.blocks.first()?;
        let [inputs, dim] = self.patch_embed.proj.weight.dims();
        let [_, mlp_dim] = block.mlp.fc1.weight.dims();
        Some(VitShape {
            dim,
            depth: self.depth(),
            heads: block.attn.heads,
            inputs,
            mlp_dim,
            layer_scale: block.ls1.is_some(),
            epsilon: self.epsilon as f32,
        })
    }

    /// Last stage: the final norm of `[batch, 1 + registers + patches, dim]`, and its parts.
    pub fn finish(&self, tokens: Tensor<3>, grid: [usize; 2]) -> VitOutput {
        let tokens = ops::layer_norm(tokens, &self.norm, self.epsilon);
        let [batch, count, dim] = tokens.dims();
        let registers = self.reg_token.as_ref().map_or(0, |token| token.dims()[1]);
        VitOutput {
            cls: tokens.clone().slice([0..batch, 0..1]).reshape([batch, dim]),
            patches: tokens.slice([0..batch, 1 + registers..count]),
            grid,
        }
    }
}

/// Non-overlapping patches to tokens: a strided convolution, done as one matrix product.
#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Linear,
    #[module(skip)]
    patch_size: usize,
}

impl PatchEmbed {
    /// The pixels of each patch, `[batch, rows · columns, 3 · patch · patch]`, which the
    /// projection takes.
    fn cut(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = images.dims();
        let p = self.patch_size;
        let (rows, columns) = (height / p, width / p);
        images
            .reshape([batch, channels, rows, p, columns, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * p * p])
    }
}

/// A pre-norm transformer block.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
    #[module(skip)]
    epsilon: f64,
}

impl Block {
    fn init(config: &VitConfig, device: &Device) -> Self {
        let scale = || {
            config
                .layer_scale
                .then(|| LayerScale::init(config.dim, device))
        };
        Self {
            norm1: config.layer_norm(device),
            attn: Attention {
                qkv: linear(config.dim, 3 * config.dim, device),
                proj: linear(config.dim, config.dim, device),
                heads: config.heads,
            },
            ls1: scale(),
            norm2: config.layer_norm(device),
            mlp: Mlp {
                fc1: linear(config.dim, config.mlp_dim, device),
                fc2: linear(config.mlp_dim, config.dim, device),
            },
            ls2: scale(),
            epsilon: config.layer_norm_eps,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let Self { attn, mlp, .. } = self;
        let qkv = ops::linear(self.norm(&self.norm1, &x), &attn.qkv);
        let mixed = ops::self_attention(qkv, attn.heads);
        let scale = LayerScale::gamma(&self.ls1);
        let x = ops::add_linear(x, mixed, Activation::Identity, &attn.proj, scale);
        let hidden = ops::linear(self.norm(&self.norm2, &x), &mlp.fc1);
        let scale = LayerScale::gamma(&self.ls2);
        ops::add_linear(x, hidden, Activation::Gelu, &mlp.fc2, scale)
    }

    fn norm(&self, layer: &LayerNorm, x: &Tensor<3>) -> Tensor<3> {
        ops::layer_norm(x.clone(), layer, self.epsilon)
    }
}

/// Multi-head self-attention with one matrix for queries, keys and values.
#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

/// The feed-forward part: two layers with exact GELU between them.
#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

/// A learned factor per channel on a residual branch (DINOv2).
#[derive(Module, Debug)]
struct LayerScale {
    gamma: Param<Tensor<1>>,
}

impl LayerScale {
    fn init(dim: usize, device: &Device) -> Self {
        Self {
            gamma: Initializer::Constant {
                value: LAYER_SCALE_INIT,
            }
            .init([dim], device),
        }
    }

    fn gamma(scale: &Option<Self>) -> Option<Tensor<1>> {
        scale.as_ref().map(|scale| scale.gamma.val())
    }
}

fn linear(from: usize, to: usize, device: &Device) -> Linear {
    LinearConfig::new(from, to)
        .with_initializer(Initializer::Normal {
            mean: 0.0,
            std: INIT_STD,
        })
        .init(device)
}
