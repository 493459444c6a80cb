//! The vision transformer of the image tower, in timm's DINO and DINOv2 forms.
//!
//! Parameter names are timm's: the path of a field is its key in a checkpoint.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::pos_embed;
use crate::{PositionInterpolation, VitConfig, ops};

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
    grid: [usize; 2],
    #[module(skip)]
    interpolation: PositionInterpolation,
}

/// What a [`Vit`] makes of a batch: tokens after the final layer norm.
#[derive(Debug, Clone)]
pub struct VitOutput {
    /// The CLS token, `[batch, dim]`.
    pub cls: Tensor<2>,
    /// The patch tokens row by row, `[batch, rows · columns, dim]`.
    pub patches: Tensor<3>,
    /// Rows and columns of the patches.
    pub grid: [usize; 2],
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
    pub fn forward(&self, images: Tensor<4>) -> VitOutput {
        let [_, _, height, width] = images.dims();
        let patch = self.patch_embed.patch_size;
        let grid = [height / patch, width / patch];
        let patches = self.patch_embed.forward(images);
        let tokens = self.with_positions(patches, grid);
        self.encode(tokens, grid)
    }

    /// Puts CLS and registers before the patch tokens `[batch, rows · columns, dim]` and adds the
    /// positions.
    fn with_positions(&self, patches: Tensor<3>, grid: [usize; 2]) -> Tensor<3> {
        let [batch, _, dim] = patches.dims();
        let position = self.pos_embed.val();
        let [_, positions, _] = position.dims();
        let prefix = positions - self.grid[0] * self.grid[1];
        let patch_positions = position.clone().slice([0..1, prefix..positions]).reshape([
            self.grid[0],
            self.grid[1],
            dim,
        ]);
        let patches = patches
            + pos_embed::interpolate(patch_positions, grid, self.interpolation).unsqueeze::<3>();

        let registers = self.reg_token.as_ref().map(Param::val);
        let mut first = vec![self.cls_token.val()];
        // Registers have positions of their own only where the grid's prefix is longer than CLS.
        if prefix > 1 {
            first.extend(registers.clone());
        }
        let mut first = Tensor::cat(first, 1);
        if prefix > 0 {
            first = first + position.slice([0..1, 0..prefix]);
        }
        if prefix <= 1
            && let Some(registers) = registers
        {
            first = Tensor::cat(vec![first, registers], 1);
        }
        Tensor::cat(vec![first.repeat_dim(0, batch), patches], 1)
    }

    /// The blocks and the final norm over `[batch, 1 + registers + rows · columns, dim]`.
    fn encode(&self, tokens: Tensor<3>, grid: [usize; 2]) -> VitOutput {
        let tokens = self
            .blocks
            .iter()
            .fold(tokens, |tokens, block| block.forward(tokens));
        let tokens = self.norm.forward(tokens);
        let [batch, count, dim] = tokens.dims();
        let first_patch = count - grid[0] * grid[1];
        VitOutput {
            cls: tokens.clone().slice([0..batch, 0..1]).reshape([batch, dim]),
            patches: tokens.slice([0..batch, first_patch..count]),
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
    /// `[batch, 3, height, width]` to `[batch, rows · columns, dim]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = images.dims();
        let p = self.patch_size;
        let (rows, columns) = (height / p, width / p);
        let patches = images
            .reshape([batch, channels, rows, p, columns, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * p * p]);
        ops::linear(patches, &self.proj)
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
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attn.forward(self.norm1.forward(x.clone()));
        let x = ops::add(x, LayerScale::apply(&self.ls1, attended));
        let expanded = self.mlp.forward(self.norm2.forward(x.clone()));
        ops::add(x, LayerScale::apply(&self.ls2, expanded))
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

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, dim] = x.dims();
        let head_dim = dim / self.heads;
        let qkv = ops::linear(x, &self.qkv)
            .reshape([batch, tokens, 3, self.heads, head_dim])
            .permute([2, 0, 3, 1, 4]);
        let part = |i: usize| qkv.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
        let scale = (head_dim as f64).powf(-0.5);
        let mixed = ops::attention(part(0), part(1), part(2), None, scale);
        ops::linear(ops::merge_heads(mixed), &self.proj)
    }
}

/// The feed-forward part: two layers with exact GELU between them.
#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::linear(ops::gelu(ops::linear(x, &self.fc1)), &self.fc2)
    }
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

    fn apply(scale: &Option<Self>, x: Tensor<3>) -> Tensor<3> {
        match scale {
            Some(scale) => x * scale.gamma.val().unsqueeze(),
            None => x,
        }
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
