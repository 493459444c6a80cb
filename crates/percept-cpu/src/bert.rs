//! BERT's encoder, pooled (MiniLM, RoBERTa and other sentence-transformers).

use rayon::prelude::*;

use crate::attention::{Bias, Heads, Packed, attend};
use crate::kernel::Kernel;
use crate::norm::Norm;
use crate::product::{Linear, Then};
use crate::text::Pooling;

/// A BERT encoder.
#[derive(Debug)]
pub struct Bert {
    /// `[vocabulary, dim]`.
    words: Vec<f32>,
    /// Positions with the embedding of token type 0, from that of the first token on, `[most tokens, dim]`.
    positions: Vec<f32>,
    pooling: Pooling,
    norm: Norm,
    blocks: Vec<Block>,
    heads: Heads,
    dim: usize,
    kernel: Kernel,
}

/// A post-norm transformer block.
#[derive(Debug)]
struct Block {
    qkv: Linear,
    output: Linear,
    attn_norm: Norm,
    fc1: Linear,
    fc2: Linear,
    mlp_norm: Norm,
}

/// The shape of a [`Bert`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BertShape {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the hidden layer.
    pub mlp_dim: usize,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Row of the position table that the first token gets: 2 in RoBERTa.
    pub first_position: usize,
    /// Rows of the table of token types, of which the first is used.
    pub token_types: usize,
    /// Of LayerNorm.
    pub epsilon: f32,
    /// What makes one vector of the tokens.
    pub pooling: Pooling,
}

impl Bert {
    /// Reads the weights by the names of percept-model's modules (`blocks.0.attn.query.weight`),
    /// matrices `[out, in]`. `read` is told the shape, and gives as many values, to several threads at a time.
    /// `kernel` computes the products.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn new<E: Send>(
        shape: BertShape,
        kernel: Kernel,
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<Self, E> {
        let BertShape { dim, mlp_dim, .. } = shape;
        let block = |i| {
            let linear = |name: &str, sides: [usize; 2]| {
                Linear::read(&format!("blocks.{i}.{name}"), sides, kernel, &read)
            };
            let output = linear("attn.output", [dim, dim])?;
            let fc1 = linear("mlp.fc1", [mlp_dim, dim])?;
            let fc2 = linear("mlp.fc2", [dim, mlp_dim])?;
            let (mut weights, mut bias) = (Vec::new(), Vec::new());
            for part in ["query", "key", "value"] {
                let name = format!("blocks.{i}.attn.{part}");
                weights.extend(read(&format!("{name}.weight"), &[dim, dim])?);
                bias.extend(read(&format!("{name}.bias"), &[dim])?);
            }
            let norm =
                |name: &str| Norm::read(&format!("blocks.{i}.{name}"), dim, shape.epsilon, &read);
            Ok(Block {
                qkv: Linear::new(&weights, Some(&bias), dim, kernel),
                output,
                attn_norm: norm("attn_norm")?,
                fc1,
                fc2,
                mlp_norm: norm("mlp_norm")?,
            })
        };
        let (words, blocks): (_, Result<_, E>) = rayon::join(
            || read("word.weight", &[shape.vocabulary, dim]),
            || (0..shape.depth).into_par_iter().map(block).collect(),
        );
        let types = read("token_type.weight", &[shape.token_types, dim])?;
        let mut positions = read("position.weight", &[shape.positions, dim])?;
        positions.drain(..(shape.first_position * dim).min(positions.len()));
        for row in positions.chunks_exact_mut(dim) {
            for (position, of_type) in row.iter_mut().zip(&types) {
                *position += of_type;
            }
        }
        Ok(Self {
            words: words?,
            positions,
            pooling: shape.pooling,
            norm: Norm::read("norm", dim, shape.epsilon, &read)?,
            blocks: blocks?,
            heads: Heads::of(dim, shape.heads),
            dim,
            kernel,
        })
    }

    /// Sentence embeddings `[texts, dim]`, pooled from the tokens of each text, not normalised.
    ///
    /// # Panics
    /// An id or a length is beyond its table.
    pub fn forward(&self, texts: &[&[u32]]) -> Vec<f32> {
        let dim = self.dim;
        let tokens = texts.iter().map(|ids| ids.len()).max().unwrap_or(0).max(1);
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        // Padding stays zero; nothing that is seen attends to it.
        let mut embedded = vec![0.0; texts.len() * tokens * dim];
        for (rows, ids) in embedded.chunks_exact_mut(tokens * dim).zip(texts) {
            let positions = self.positions.chunks_exact(dim);
            for ((row, id), position) in rows.chunks_exact_mut(dim).zip(*ids).zip(positions) {
                let word = &self.words[*id as usize * dim..][..dim];
                for ((value, word), position) in row.iter_mut().zip(word).zip(position) {
                    *value = word + position;
                }
            }
        }
        let mut x = vec![0.0; embedded.len()];
        self.norm.apply(&embedded, &mut x);
        let mut sum = embedded;
        let (mut wide, mut mixed) = (Vec::new(), vec![0.0; x.len()]);
        let mut packed = Packed::new(self.kernel);
        for block in &self.blocks {
            wide.resize(3 * x.len(), 0.0);
            block.qkv.apply(&x, Then::Store, &mut wide);
            let seen = Some(lengths.as_slice());
            attend(
                &wide,
                tokens,
                self.heads,
                Bias::None,
                seen,
                &mut packed,
                &mut mixed,
            );
            block.output.apply(&mixed, Then::Add(None), &mut x);
            block.attn_norm.apply(&x, &mut sum);
            std::mem::swap(&mut x, &mut sum);
            wide.resize(x.len() / dim * block.fc1.outputs(), 0.0);
            block.fc1.apply(&x, Then::Gelu, &mut wide);
            block.fc2.apply(&wide, Then::Add(None), &mut x);
            block.mlp_norm.apply(&x, &mut sum);
            std::mem::swap(&mut x, &mut sum);
        }
        self.pooling.apply(&x, &lengths, tokens * dim, dim)
    }
}
