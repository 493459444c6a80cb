//! T5's encoder with Sentence-T5's pooling: the text tower of CLIPpy (paper §2.2).

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use percept_cpu::t5::bucket;

use crate::ops::{self, Activation};
use crate::text::{Head, TokenBatch};
use crate::{T5Config, T5FeedForward};

/// T5 encoder, with what makes an embedding of its tokens.
#[derive(Module, Debug)]
pub struct T5 {
    embedding: Embedding,
    relative_bias: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    dense: Option<Linear>,
    head: Head,
    #[module(skip)]
    buckets: usize,
    #[module(skip)]
    max_distance: usize,
}

impl T5Config {
    /// An encoder with random weights.
    pub fn init(&self, device: &Device) -> T5 {
        T5 {
            embedding: EmbeddingConfig::new(self.vocab_size, self.dim)
                .with_initializer(normal(1.0))
                .init(device),
            relative_bias: EmbeddingConfig::new(self.relative_buckets, self.heads)
                .with_initializer(normal((self.dim as f64).powf(-0.5)))
                .init(device),
            blocks: (0..self.depth).map(|_| Block::init(self, device)).collect(),
            norm: self.rms_norm(device),
            dense: self
                .projection
                .map(|width| linear(self.dim, width, (self.dim as f64).powf(-0.5), device)),
            head: Head::init(&self.head, self.projection.unwrap_or(self.dim), device),
            buckets: self.relative_buckets,
            max_distance: self.relative_max_distance,
        }
    }

    fn rms_norm(&self, device: &Device) -> RmsNorm {
        RmsNormConfig::new(self.dim)
            .with_epsilon(self.rms_norm_eps)
            .init(device)
    }
}

impl T5 {
    /// Sentence embeddings `[batch, dim]`, not normalised.
    pub fn forward(&self, batch: &TokenBatch) -> Tensor<2> {
        let [_, length] = batch.ids.dims();
        let bias = self.position_bias(length) + batch.attention_bias();
        let tokens = self.embedding.forward(batch.ids.clone());
        let tokens = self
            .blocks
            .iter()
            .fold(tokens, |x, block| block.forward(x, bias.clone()));
        let pooled = self.head.pool(self.norm.forward(tokens), batch);
        self.head.dense(match &self.dense {
            Some(dense) => dense.forward(pooled),
            None => pooled,
        })
    }

    /// Relative position bias `[1, heads, length, length]`: one table for all blocks.
    fn position_bias(&self, length: usize) -> Tensor<4> {
        let mut buckets = Vec::with_capacity(length * length);
        for query in 0..length as i64 {
            for key in 0..length as i64 {
                buckets.push(bucket(key - query, self.buckets, self.max_distance) as i64);
            }
        }
        let device = self.relative_bias.weight.val().device();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(buckets, [length, length]), &device);
        self.relative_bias
            .forward(ids)
            .permute([2, 0, 1])
            .unsqueeze()
    }
}

#[derive(Module, Debug)]
struct Block {
    norm1: RmsNorm,
    attn: Attention,
    norm2: RmsNorm,
    mlp: Mlp,
}

impl Block {
    fn init(config: &T5Config, device: &Device) -> Self {
        let inner = config.heads * config.head_dim;
        let std = (config.dim as f64).powf(-0.5);
        Self {
            norm1: config.rms_norm(device),
            attn: Attention {
                // T5 has no 1/√d in its scores; its initialisation makes up for it.
                q: linear(
                    config.dim,
                    inner,
                    std * (config.head_dim as f64).powf(-0.5),
                    device,
                ),
                k: linear(config.dim, inner, std, device),
                v: linear(config.dim, inner, std, device),
                o: linear(inner, config.dim, (inner as f64).powf(-0.5), device),
                heads: config.heads,
            },
            norm2: config.rms_norm(device),
            mlp: Mlp::init(config, device),
        }
    }

    fn forward(&self, x: Tensor<3>, bias: Tensor<4>) -> Tensor<3> {
        let Self { attn, mlp, .. } = self;
        let mixed = attn.mix(self.norm1.forward(x.clone()), bias);
        let x = ops::add_linear(x, mixed, Activation::Identity, &attn.o, None);
        let hidden = mlp.expand(self.norm2.forward(x.clone()));
        ops::add_linear(x, hidden, Activation::Identity, &mlp.wo, None)
    }
}

#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    /// What tokens see of each other, before the output layer.
    fn mix(&self, x: Tensor<3>, bias: Tensor<4>) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        let split = |layer: &Linear| {
            let y = ops::linear(x.clone(), layer);
            let [_, _, inner] = y.dims();
            y.reshape([batch, tokens, self.heads, inner / self.heads])
                .swap_dims(1, 2)
        };
        let mixed = ops::attention(
            split(&self.q),
            split(&self.k),
            split(&self.v),
            Some(bias),
            1.0,
        );
        let [_, heads, _, head_dim] = mixed.dims();
        let mixed = mixed.swap_dims(1, 2);
        mixed.reshape([batch, tokens, heads * head_dim])
    }
}

/// The feed-forward part; `wi`, `wo` in T5, `wi_0`, `wi_1`, `wo` in T5 v1.1.
#[derive(Module, Debug)]
struct Mlp {
    wi: Option<Linear>,
    wi_0: Option<Linear>,
    wi_1: Option<Linear>,
    wo: Linear,
}

impl Mlp {
    fn init(config: &T5Config, device: &Device) -> Self {
        let std = (config.dim as f64).powf(-0.5);
        let wide = || linear(config.dim, config.mlp_dim, std, device);
        let gated = config.feed_forward == T5FeedForward::GatedGelu;
        Self {
            wi: (!gated).then(wide),
            wi_0: gated.then(wide),
            wi_1: gated.then(wide),
            wo: linear(
                config.mlp_dim,
                config.dim,
                (config.mlp_dim as f64).powf(-0.5),
                device,
            ),
        }
    }

    /// The hidden layer, before `wo`.
    fn expand(&self, x: Tensor<3>) -> Tensor<3> {
        match (&self.wi, &self.wi_0, &self.wi_1) {
            (Some(wi), _, _) => activation::relu(ops::linear(x, wi)),
            (None, Some(gate), Some(value)) => {
                activation::gelu_approximate(ops::linear(x.clone(), gate)) * ops::linear(x, value)
            }
            _ => unreachable!("Mlp::init makes either wi or both wi_0 and wi_1"),
        }
    }
}

fn normal(std: f64) -> Initializer {
    Initializer::Normal { mean: 0.0, std }
}

fn linear(from: usize, to: usize, std: f64, device: &Device) -> Linear {
    LinearConfig::new(from, to)
        .with_bias(false)
        .with_initializer(normal(std))
        .init(device)
}
