//! Multi-head self-attention without a matrix of scores.
//!
//! For each head the keys and values are packed once. Then `WIDTH` queries at a time stand side by
//! side: their scores `[tokens, WIDTH]` are a product of packed keys and queries, the softmax runs down
//! the columns without any sum across a register, and what it leaves is already packed as the operand of
//! the product with the values. No more than `tokens × WIDTH` scores exist for a thread.

use std::f32::consts::LOG2_E;

use pulp::{Arch, WithSimd};
use rayon::prelude::*;

use crate::kernel::{Kernel, Kind};
use crate::math::exp2_of_negative;
use crate::product::{HEIGHT, WIDTH, tile};
use crate::tiles::{Line, Parts, Unit};

mod tiled;

/// Rows of a tile of results: six make 66, little more than the usual width of a head. A power of two
/// would tempt the compiler to make vectors of the wrong axis.
const VALUE_ROWS: usize = 11;

/// Heads are at most this wide; none of a published model has more than 128.
pub const MAX_HEAD_WIDTH: usize = 256;

/// What is added to the scores before the softmax.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// By distance, the same for all inputs: `[heads, tokens, tokens]`, a row for a query (T5).
    Scores(&'a [f32]),
}

/// The shape of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// How many there are.
    pub count: usize,
    /// Width of each.
    pub width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Heads {
    /// Heads that share `dim` channels, with scores scaled by `1/√width`.
    pub fn of(dim: usize, count: usize) -> Self {
        let width = dim / count;
        Self {
            count,
            width,
            scale: (width as f32).powf(-0.5),
        }
    }
}

/// Keys and values as a kernel reads them: buffers that calls share.
#[derive(Debug)]
pub struct Packed(Buffers);

#[derive(Debug)]
enum Buffers {
    Vectors { keys: Vec<f32>, values: Vec<f32> },
    Tiles(Unit, Parts, Vec<Line>),
}

impl Packed {
    /// Empty ones for a kernel.
    pub fn new(kernel: Kernel) -> Self {
        Self(match kernel.of_attention().0 {
            Kind::Tiles(unit, parts) => Buffers::Tiles(unit, parts, Vec::new()),
            Kind::Vectors | Kind::Bytes(_) => Buffers::Vectors {
                keys: Vec::new(),
                values: Vec::new(),
            },
        })
    }
}

/// Attention of sequences of `tokens` tokens: `qkv` `[sequences · tokens, 3 · heads · width]` has
/// queries, keys and values side by side; `out` is `[sequences · tokens, heads · width]`. Only the first
/// `seen` tokens of each sequence are attended to, where lengths differ.
///
/// # Panics
/// The lengths do not fit, or heads are wider than [`MAX_HEAD_WIDTH`].
pub fn attend(
    qkv: &[f32],
    tokens: usize,
    heads: Heads,
    bias: Bias<'_>,
    seen: Option<&[usize]>,
    packed: &mut Packed,
    out: &mut [f32],
) {
    let dim = heads.count * heads.width;
    assert!(heads.width <= MAX_HEAD_WIDTH, "heads of {}", heads.width);
    assert_eq!(qkv.len(), 3 * out.len());
    assert_eq!(out.len() % (tokens * dim), 0);
    let all = Attention {
        qkv,
        tokens,
        heads,
        bias,
        seen,
    };
    match &mut packed.0 {
        Buffers::Vectors { keys, values } => attend_in_vectors(&all, keys, values, out),
        Buffers::Tiles(unit, parts, lines) => tiled::attend(&all, *unit, *parts, lines, out),
    }
}

/// What is attended to.
struct Attention<'a> {
    qkv: &'a [f32],
    tokens: usize,
    heads: Heads,
    bias: Bias<'a>,
    seen: Option<&'a [usize]>,
}

impl Attention<'_> {
    /// Queries, keys and values of a sequence.
    fn qkv(&self, sequence: usize) -> &[f32] {
        let length = self.tokens * 3 * self.heads.count * self.heads.width;
        &self.qkv[sequence * length..][..length]
    }

    /// How many tokens of a sequence are attended to.
    fn seen(&self, sequence: usize) -> usize {
        self.seen.map_or(self.tokens, |seen| seen[sequence])
    }

    /// What is added to the scores of a head, `[tokens, tokens]`.
    fn bias(&self, head: usize) -> Option<&[f32]> {
        match self.bias {
            Bias::None => None,
            Bias::Scores(scores) => {
                let length = self.tokens * self.tokens;
                Some(&scores[head * length..][..length])
            }
        }
    }
}

fn attend_in_vectors(
    all: &Attention<'_>,
    packed_keys: &mut Vec<f32>,
    packed_values: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (tokens, heads) = (all.tokens, all.heads);
    let dim = heads.count * heads.width;
    let key_tiles = tokens.div_ceil(HEIGHT);
    let value_tiles = heads.width.div_ceil(VALUE_ROWS);
    let keys_of_head = key_tiles * HEIGHT * heads.width;
    let values_of_head = value_tiles * VALUE_ROWS * tokens;
    let count = out.len() / (tokens * dim) * heads.count;
    packed_keys.resize(count * keys_of_head, 0.0);
    packed_values.resize(count * values_of_head, 0.0);
    (packed_keys.par_chunks_mut(keys_of_head))
        .zip(packed_values.par_chunks_mut(values_of_head))
        .enumerate()
        .for_each(|(at, (keys, values))| {
            let (sequence, head) = (at / heads.count, at % heads.count);
            let qkv = all.qkv(sequence);
            pack(qkv, dim, head * heads.width, heads.width, keys, values);
        });

    // Rows of the result belong to all heads at once: each task has some queries of one sequence.
    out.par_chunks_mut(tokens * dim)
        .enumerate()
        .for_each(|(sequence, out)| {
            let (qkv, seen) = (all.qkv(sequence), all.seen(sequence));
            out.par_chunks_mut(WIDTH * dim).enumerate().for_each_init(
                || vec![0.0; key_tiles * HEIGHT * WIDTH],
                |scores, (panel, out)| {
                    for head in 0..heads.count {
                        let at = sequence * heads.count + head;
                        Arch::new().dispatch(Queries {
                            qkv,
                            dim,
                            heads,
                            head,
                            tokens,
                            seen,
                            first: panel * WIDTH,
                            keys: &packed_keys[at * keys_of_head..][..keys_of_head],
                            values: &packed_values[at * values_of_head..][..values_of_head],
                            bias: all.bias(head),
                            scores,
                            out,
                        });
                    }
                },
            );
        });
}

/// Keys to tiles of [`HEIGHT`] tokens, channel by channel; values to tiles of [`VALUE_ROWS`] channels,
/// token by token.
fn pack(qkv: &[f32], dim: usize, head: usize, width: usize, keys: &mut [f32], values: &mut [f32]) {
    let tokens = qkv.len() / (3 * dim);
    for (t, row) in qkv.chunks_exact(3 * dim).enumerate() {
        let key = &row[dim + head..][..width];
        let tile = &mut keys[t / HEIGHT * HEIGHT * width..][..HEIGHT * width];
        for (column, value) in tile.as_chunks_mut::<HEIGHT>().0.iter_mut().zip(key) {
            column[t % HEIGHT] = *value;
        }
        let value = &row[2 * dim + head..][..width];
        for (tile, value) in values
            .chunks_exact_mut(VALUE_ROWS * tokens)
            .zip(value.chunks(VALUE_ROWS))
        {
            tile[t * VALUE_ROWS..][..value.len()].copy_from_slice(value);
        }
    }
    // Tokens that do not exist, from a longer input before this one.
    let last = tokens % HEIGHT;
    if last > 0 {
        let tile = &mut keys[tokens / HEIGHT * HEIGHT * width..][..HEIGHT * width];
        for column in tile.as_chunks_mut::<HEIGHT>().0 {
            column[last..].fill(0.0);
        }
    }
}

/// Up to [`WIDTH`] queries of one head.
struct Queries<'a> {
    qkv: &'a [f32],
    dim: usize,
    heads: Heads,
    head: usize,
    tokens: usize,
    seen: usize,
    first: usize,
    keys: &'a [f32],
    values: &'a [f32],
    bias: Option<&'a [f32]>,
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let width = self.heads.width;
        let offset = self.head * width;
        let count = self.out.len() / self.dim;
        // The queries, scaled, channel by channel: for powers of two, which take fewer steps than those of e.
        let scale = self.heads.scale * LOG2_E;
        let mut panel = [[0.0f32; WIDTH]; MAX_HEAD_WIDTH];
        let panel = &mut panel[..width];
        for j in 0..count {
            let query = &self.qkv[(self.first + j) * 3 * self.dim + offset..][..width];
            for (row, value) in panel.iter_mut().zip(query) {
                row[j] = value * scale;
            }
        }
        let scores = self.scores.as_chunks_mut::<WIDTH>().0;
        for (keys, scores) in self
            .keys
            .chunks_exact(HEIGHT * width)
            .zip(scores.chunks_exact_mut(HEIGHT))
        {
            let tile = tile::<S, HEIGHT>(keys.as_chunks::<HEIGHT>().0, panel);
            scores.copy_from_slice(&tile);
        }
        let scores = &mut scores[..self.seen];
        if let Some(bias) = self.bias {
            for j in 0..count {
                let bias = &bias[(self.first + j) * self.tokens..];
                for (row, bias) in scores.iter_mut().zip(bias) {
                    row[j] += bias * LOG2_E;
                }
            }
        }
        let sums = softmax(scores);
        for (v, values) in self
            .values
            .chunks_exact(VALUE_ROWS * self.tokens)
            .enumerate()
        {
            let values = &values.as_chunks::<VALUE_ROWS>().0[..self.seen];
            let tile = tile::<S, VALUE_ROWS>(values, scores);
            let first = v * VALUE_ROWS;
            for (r, row) in tile.iter().enumerate().take(width - first) {
                for j in 0..count {
                    self.out[j * self.dim + offset + first + r] = row[j] / sums[j];
                }
            }
        }
    }
}

/// `2ˣ` of each column less its largest value, in place; returns the sums of the columns.
#[inline(always)]
fn softmax(scores: &mut [[f32; WIDTH]]) -> [f32; WIDTH] {
    let mut most = [f32::NEG_INFINITY; WIDTH];
    for row in scores.iter() {
        for (most, value) in most.iter_mut().zip(row) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    let mut sums = [0.0f32; WIDTH];
    for row in scores {
        for ((value, most), sum) in row.iter_mut().zip(&most).zip(&mut sums) {
            *value = exp2_of_negative(*value - most);
            *sum += *value;
        }
    }
    sums
}
