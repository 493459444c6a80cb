//! T5's encoder with Sentence-T5's pooling: the text tower of CLIPpy (paper §2.2).

use rayon::prelude::*;

use crate::attention::{Bias, Heads, Packed, attend};
use crate::kernel::Kernel;
use crate::norm::Norm;
use crate::product::{Linear, Then};
use crate::text::Pooling;

/// A T5 encoder.
#[derive(Debug)]
pub struct T5 {
    /// `[vocabulary, dim]`.
    words: Vec<f32>,
    /// What a distance adds to the scores of each head, `[buckets, heads]`.
    distances: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    dense: Option<Linear>,
    shape: T5Shape,
    kernel: Kernel,
}

/// A pre-norm transformer block without biases.
#[derive(Debug)]
struct Block {
    norm1: Norm,
    qkv: Linear,
    output: Linear,
    norm2: Norm,
    hidden: Hidden,
    wo: Linear,
}

/// The hidden layer of the feed-forward part.
#[derive(Debug)]
enum Hidden {
    /// `relu(wi(x))`: T5.
    Relu(Linear),
    /// `gelu_tanh(wi_0(x)) · wi_1(x)`: T5 v1.1.
    Gated(Linear, Linear),
}

/// The shape of a [`T5`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct T5Shape {
    /// Width of a token.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of one head; all together need not be as wide as a token.
    pub head_dim: usize,
    /// Width of the hidden layer.
    pub mlp_dim: usize,
    /// Whether the hidden layer has a gate (T5 v1.1).
    pub is_gated: bool,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Buckets of distances.
    pub buckets: usize,
    /// Distance from which all have the same bucket.
    pub max_distance: usize,
    /// Of the RMS norms.
    pub epsilon: f32,
    /// Width of Sentence-T5's dense layer after pooling, if there is one.
    pub projection: Option<usize>,
    /// What makes one vector of the tokens.
    pub pooling: Pooling,
}

impl T5 {
    /// Reads the weights by the names of percept-model's modules (`blocks.0.attn.q.weight`),
    /// matrices `[out, in]`. `read` is told the shape, and gives as many values, to several threads at a time.
    /// `kernel` computes the products.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn new<E: Send>(
        shape: T5Shape,
        kernel: Kernel,
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<Self, E> {
        let T5Shape { dim, mlp_dim, .. } = shape;
        let inner = shape.heads * shape.head_dim;
        let block = |i| {
            let matrix = |name: &str, [outputs, inputs]: [usize; 2]| {
                read(&format!("blocks.{i}.{name}.weight"), &[outputs, inputs])
            };
            let mut qkv = Vec::with_capacity(3 * inner * dim);
            for part in ["attn.q", "attn.k", "attn.v"] {
                qkv.extend(matrix(part, [inner, dim])?);
            }
            let linear = |name: &str, sides: [usize; 2]| {
                let weights = matrix(name, sides)?;
                Ok::<_, E>(Linear::new(&weights, None, sides[1], kernel))
            };
            let output = linear("attn.o", [dim, inner])?;
            let hidden = match shape.is_gated {
                false => Hidden::Relu(linear("mlp.wi", [mlp_dim, dim])?),
                true => Hidden::Gated(
                    linear("mlp.wi_0", [mlp_dim, dim])?,
                    linear("mlp.wi_1", [mlp_dim, dim])?,
                ),
            };
            let wo = linear("mlp.wo", [dim, mlp_dim])?;
            let norm = |name: &str| {
                let gain = read(&format!("blocks.{i}.{name}.weight"), &[dim])?;
                Ok::<_, E>(Norm::rms(gain, shape.epsilon))
            };
            Ok(Block {
                norm1: norm("norm1")?,
                qkv: Linear::new(&qkv, None, dim, kernel),
                output,
                norm2: norm("norm2")?,
                hidden,
                wo,
            })
        };
        let (words, blocks): (_, Result<_, E>) = rayon::join(
            || read("embedding.weight", &[shape.vocabulary, dim]),
            || (0..shape.depth).into_par_iter().map(block).collect(),
        );
        let dense = match shape.projection {
            None => None,
            Some(width) => {
                let weights = read("dense.weight", &[width, dim])?;
                Some(Linear::new(&weights, None, dim, kernel))
            }
        };
        Ok(Self {
            words: words?,
            distances: read("relative_bias.weight", &[shape.buckets, shape.heads])?,
            blocks: blocks?,
            norm: Norm::rms(read("norm.weight", &[dim])?, shape.epsilon),
            dense,
            shape,
            kernel,
        })
    }

    /// Sentence embeddings `[texts, dim]`, or as wide as the dense layer, not normalised.
    ///
    /// # Panics
    /// An id is beyond the table.
    pub fn forward(&self, texts: &[&[u32]]) -> Vec<f32> {
        let dim = self.shape.dim;
        let tokens = texts.iter().map(|ids| ids.len()).max().unwrap_or(0).max(1);
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        // Padding stays zero; nothing that is seen attends to it.
        let mut x = vec![0.0; texts.len() * tokens * dim];
        for (rows, ids) in x.chunks_exact_mut(tokens * dim).zip(texts) {
            for (row, id) in rows.chunks_exact_mut(dim).zip(*ids) {
                row.copy_from_slice(&self.words[*id as usize * dim..][..dim]);
            }
        }
        let bias = self.bias(tokens);
        let heads = Heads {
            count: self.shape.heads,
            width: self.shape.head_dim,
            // T5 has no 1/√d in its scores; its initialisation makes up for it.
            scale: 1.0,
        };
        let rows = texts.len() * tokens;
        let mut packed = Packed::new(self.kernel);
        let (mut normed, mut wide) = (vec![0.0; x.len()], Vec::new());
        let mut mixed = vec![0.0; rows * heads.count * heads.width];
        for block in &self.blocks {
            block.norm1.apply(&x, &mut normed);
            wide.resize(rows * block.qkv.outputs(), 0.0);
            block.qkv.apply(&normed, Then::Store, &mut wide);
            let (bias, seen) = (Bias::Scores(&bias), Some(lengths.as_slice()));
            attend(&wide, tokens, heads, bias, seen, &mut packed, &mut mixed);
            block.output.apply(&mixed, Then::Add(None), &mut x);
            block.norm2.apply(&x, &mut normed);
            wide.resize(rows * self.shape.mlp_dim, 0.0);
            match &block.hidden {
                Hidden::Relu(wi) => wi.apply(&normed, Then::Relu, &mut wide),
                Hidden::Gated(gate, value) => {
                    gate.apply(&normed, Then::GeluTanh, &mut wide);
                    value.apply(&normed, Then::Multiply, &mut wide);
                }
            }
            block.wo.apply(&wide, Then::Add(None), &mut x);
        }
        self.norm.apply(&x, &mut normed);
        let pooling = self.shape.pooling;
        let pooled = pooling.apply(&normed, &lengths, tokens * dim, dim);
        match &self.dense {
            None => pooled,
            Some(dense) => {
                let mut out = vec![0.0; texts.len() * dense.outputs()];
                dense.apply(&pooled, Then::Store, &mut out);
                out
            }
        }
    }

    /// What the distances of a sequence add to its scores, `[heads, tokens, tokens]`, a row for a query.
    fn bias(&self, tokens: usize) -> Vec<f32> {
        let heads = self.shape.heads;
        let mut bias = vec![0.0; heads * tokens * tokens];
        for query in 0..tokens {
            for key in 0..tokens {
                let bucket = bucket(
                    key as i64 - query as i64,
                    self.shape.buckets,
                    self.shape.max_distance,
                );
                let of_heads = &self.distances[bucket * heads..][..heads];
                for (head, value) in of_heads.iter().enumerate() {
                    bias[(head * tokens + query) * tokens + key] = *value;
                }
            }
        }
        bias
    }
}

/// Bucket of a relative position (key − query), bidirectional: half the buckets for each
/// direction, of which half are exact and the others widen logarithmically up to `max_distance`.
pub fn bucket(relative: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let offset = if relative > 0 { half } else { 0 };
    let distance = relative.unsigned_abs() as usize;
    let exact = half / 2;
    if distance < exact {
        return offset + distance;
    }
    let ln = |distance: usize| (distance as f64 / exact as f64).ln();
    let ratio = ln(distance) / ln(max_distance);
    // At the border of a bucket the result is a whole number, whichever way a logarithm was rounded.
    let wide = exact + (ratio * (half - exact) as f64 + 1e-9) as usize;
    offset + wide.min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_are_those_of_t5() {
        // From transformers' T5Attention._relative_position_bucket(bidirectional=True, 32, 128).
        let positions = [
            -200, -128, -64, -20, -9, -8, -7, -1, 0, 1, 7, 8, 9, 20, 64, 128, 200,
        ];
        let expected = [
            15, 15, 14, 10, 8, 8, 7, 1, 0, 17, 23, 24, 24, 26, 30, 31, 31,
        ];
        for (position, expected) in positions.into_iter().zip(expected) {
            assert_eq!(bucket(position, 32, 128), expected, "at {position}");
        }
    }
}
