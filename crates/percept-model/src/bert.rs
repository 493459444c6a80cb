//! BERT's encoder, pooled: MiniLM, RoBERTa and other sentence-transformers.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};

use crate::BertConfig;
use crate::ops::{self, Activation};
use crate::text::{Head, TokenBatch};

/// Standard deviation of randomly initialised weights (BERT's choice).
const INIT_STD: f64 = 0.02;

/// BERT encoder, with what makes an embedding of its tokens.
#[derive(Module, Debug)]
pub struct Bert {
    word: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: LayerNorm,
    blocks: Vec<Block>,
    head: Head,
    #[module(skip)]
    first_position: usize,
}

impl BertConfig {
    /// An encoder with random weights.
    pub fn init(&self, device: &Device) -> Bert {
        let table = |rows| {
            EmbeddingConfig::new(rows, self.dim)
                .with_initializer(initializer())
                .init(device)
        };
        Bert {
            word: table(self.vocab_size),
            position: table(self.max_positions),
            token_type: table(self.token_types),
            norm: self.layer_norm(device),
            blocks: (0..self.depth).map(|_| Block::init(self, device)).collect(),
            head: Head::init(&self.head, self.dim, device),
            first_position: self.first_position,
        }
    }

    fn layer_norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.dim)
            .with_epsilon(self.layer_norm_eps)
            .init(device)
    }
}

impl Bert {
    /// Sentence embeddings `[batch, dim]`, not normalised. All tokens are of type 0.
    pub fn forward(&self, batch: &TokenBatch) -> Tensor<2> {
        let [_, length] = batch.ids.dims();
        let device = batch.ids.device();
        let first = self.first_position as i64;
        let positions = Tensor::<1, Int>::arange(first..first + length as i64, &device);
        let types = Tensor::<2, Int>::zeros([1, 1], &device);
        let tokens = self.word.forward(batch.ids.clone())
            + self.position.forward(positions.unsqueeze::<2>())
            + self.token_type.forward(types);
        let tokens = self.norm.forward(tokens);
        let bias = batch.attention_bias();
        let tokens = self
            .blocks
            .iter()
            .fold(tokens, |x, block| block.forward(x, bias.clone()));
        self.head.dense(self.head.pool(tokens, batch))
    }
}

/// A post-norm transformer block.
#[derive(Module, Debug)]
struct Block {
    attn: Attention,
    attn_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
    #[module(skip)]
    epsilon: f64,
}

impl Block {
    fn init(config: &BertConfig, device: &Device) -> Self {
        let square = || linear(config.dim, config.dim, device);
        Self {
            attn: Attention {
                query: square(),
                key: square(),
                value: square(),
                output: square(),
                heads: config.heads,
            },
            attn_norm: config.layer_norm(device),
            mlp: Mlp {
                fc1: linear(config.dim, config.mlp_dim, device),
                fc2: linear(config.mlp_dim, config.dim, device),
            },
            mlp_norm: config.layer_norm(device),
            epsilon: config.layer_norm_eps,
        }
    }

    fn forward(&self, x: Tensor<3>, bias: Tensor<4>) -> Tensor<3> {
        let norm = |x, layer| ops::layer_norm(x, layer, self.epsilon);
        let Self { attn, mlp, .. } = self;
        let mixed = attn.mix(x.clone(), bias);
        let x = ops::add_linear(x, mixed, Activation::Identity, &attn.output, None);
        let x = norm(x, &self.attn_norm);
        let hidden = ops::linear(x.clone(), &mlp.fc1);
        let x = ops::add_linear(x, hidden, Activation::Gelu, &mlp.fc2, None);
        norm(x, &self.mlp_norm)
    }
}

#[derive(Module, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    /// What tokens see of each other, before the output layer.
    fn mix(&self, x: Tensor<3>, bias: Tensor<4>) -> Tensor<3> {
        let [batch, tokens, dim] = x.dims();
        let head_dim = dim / self.heads;
        let split = |layer: &Linear| {
            ops::linear(x.clone(), layer)
                .reshape([batch, tokens, self.heads, head_dim])
                .swap_dims(1, 2)
        };
        let scale = (head_dim as f64).powf(-0.5);
        let mixed = ops::attention(
            split(&self.query),
            split(&self.key),
            split(&self.value),
            Some(bias),
            scale,
        );
        mixed.swap_dims(1, 2).reshape([batch, tokens, dim])
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

fn initializer() -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: INIT_STD,
    }
}

fn linear(from: usize, to: usize, device: &Device) -> Linear {
    LinearConfig::new(from, to)
        .with_initializer(initializer())
        .init(device)
}
