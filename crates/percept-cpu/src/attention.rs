//! Multi-head self-attention without a matrix of scores.
//!
//! For each head the keys and values are packed once. Then some queries at a time stand side by
//! side: their scores `[tokens, queries]` are a product of packed keys and queries, the softmax runs down
//! the columns without any sum across a register, and what it leaves is already packed as the operand of
//! the product with the values. No more than `tokens × WIDTH` scores exist for a thread.

use std::f32::consts::LOG2_E;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernel::{Kernel, Kind};
use crate::math::exp2_of_negative;
use crate::product::{HALF, HEIGHT, STRIP, Strip, WIDTH, has_wide_tiles, multiply_tile};
use crate::room::with_room;
use crate::tiles::{Line, Parts, Unit};

mod bytes;
mod tiled;

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
    Bytes(bytes::Packed),
}

impl Packed {
    /// Empty ones for a kernel.
    pub fn new(kernel: Kernel) -> Self {
        Self(match kernel.of_attention().0 {
            Kind::Tiles(unit, parts) => Buffers::Tiles(unit, parts, Vec::new()),
            Kind::Bytes(unit) => Buffers::Bytes(bytes::Packed::new(unit)),
            Kind::Vectors => Buffers::Vectors {
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
        Buffers::Bytes(packed) => bytes::attend(&all, packed, out),
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
    // Enough for tiles of any height.
    let tokens_of_tiles = tokens.next_multiple_of(HEIGHT);
    let keys_of_head = tokens_of_tiles * heads.width;
    let values_of_head = heads.width.next_multiple_of(HEIGHT) * tokens;
    let count = out.len() / (tokens * dim) * heads.count;
    packed_keys.resize(count * keys_of_head, 0.0);
    packed_values.resize(count * values_of_head, 0.0);
    (packed_keys.par_chunks_mut(keys_of_head))
        .zip(packed_values.par_chunks_mut(values_of_head))
        .enumerate()
        .for_each(|(at, (keys, values))| {
            let (sequence, head) = (at / heads.count, at % heads.count);
            Arch::new().dispatch(Pack {
                qkv: all.qkv(sequence),
                dim,
                head: head * heads.width,
                width: heads.width,
                keys,
                values,
            });
        });

    // Rows of the result belong to all heads at once: each task has some queries of one sequence.
    out.par_chunks_mut(tokens * dim)
        .enumerate()
        .for_each(|(sequence, out)| {
            let (qkv, seen) = (all.qkv(sequence), all.seen(sequence));
            let panels = out.par_chunks_mut(WIDTH * dim).enumerate();
            panels.for_each(|(panel, out)| {
                with_room(|scores: &mut Vec<Strip>| {
                    scores.resize(WIDTH / STRIP * tokens_of_tiles, Strip::ZERO);
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
                });
            });
        });
}

/// Packs keys and values of a head.
struct Pack<'a> {
    qkv: &'a [f32],
    dim: usize,
    /// The first channel of the head.
    head: usize,
    width: usize,
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match has_wide_tiles::<S>() {
            true => self.pack::<HEIGHT>(),
            false => self.pack::<HALF>(),
        }
    }
}

impl Pack<'_> {
    /// Keys to tiles of `ROWS` tokens, channel by channel; values to tiles of as many channels, token by token, the last
    /// one of [`HALF`] if these are enough.
    #[inline(always)]
    fn pack<const ROWS: usize>(self) {
        let (dim, head, width) = (self.dim, self.head, self.width);
        let tokens = self.qkv.len() / (3 * dim);
        for (t, row) in self.qkv.chunks_exact(3 * dim).enumerate() {
            let key = &row[dim + head..][..width];
            let tile = &mut self.keys[t / ROWS * ROWS * width..][..ROWS * width];
            for (column, value) in tile.as_chunks_mut::<ROWS>().0.iter_mut().zip(key) {
                column[t % ROWS] = *value;
            }
            let value = &row[2 * dim + head..][..width];
            let tiles = self.values.chunks_exact_mut(ROWS * tokens);
            for (tile, value) in tiles.zip(value.chunks(ROWS)) {
                let side = if value.len() <= HALF { HALF } else { ROWS };
                tile[t * side..][..value.len()].copy_from_slice(value);
            }
        }
        // Tokens that do not exist, from a longer input before this one.
        let last = tokens % ROWS;
        if last > 0 {
            let tile = &mut self.keys[tokens / ROWS * ROWS * width..][..ROWS * width];
            for column in tile.as_chunks_mut::<ROWS>().0 {
                column[last..].fill(0.0);
            }
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
    /// Room for those of all queries.
    scores: &'a mut [Strip],
    out: &'a mut [f32],
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match has_wide_tiles::<S>() {
            true => self.attend::<HEIGHT, 2, WIDTH>(),
            false => self.attend::<HALF, 1, STRIP>(),
        }
    }
}

impl Queries<'_> {
    /// Attends in tiles of `ROWS` tokens or channels and `STRIPS` strips of queries.
    #[inline(always)]
    fn attend<const ROWS: usize, const STRIPS: usize, const COLUMNS: usize>(self) {
        let Self { heads, tokens, .. } = self;
        let (width, offset) = (heads.width, self.head * heads.width);
        // For powers of two, which take fewer steps than those of e.
        let scale = heads.scale * LOG2_E;
        let mut panel = [[Strip::ZERO; STRIPS]; MAX_HEAD_WIDTH];
        let panel = &mut panel[..width];
        let scores = self.scores.as_chunks_mut::<STRIPS>().0;
        for (part, out) in self.out.chunks_mut(COLUMNS * self.dim).enumerate() {
            let first = self.first + part * COLUMNS;
            let count = out.len() / self.dim;
            // The queries, scaled, channel by channel.
            for j in 0..count {
                let query = &self.qkv[(first + j) * 3 * self.dim + offset..][..width];
                for (strips, value) in panel.iter_mut().zip(query) {
                    strips[j / STRIP].0[j % STRIP] = value * scale;
                }
            }
            let tiles = self.keys.chunks_exact(ROWS * width);
            for (keys, scores) in tiles.zip(scores.chunks_exact_mut(ROWS)) {
                let tile = multiply_tile::<ROWS, STRIPS, COLUMNS>(keys.as_chunks().0, panel, &[]);
                for (scores, tile) in scores.iter_mut().zip(&tile) {
                    for (strip, tile) in scores.iter_mut().zip(tile.as_chunks().0) {
                        strip.0 = *tile;
                    }
                }
            }
            let scores = &mut scores[..self.seen];
            if let Some(bias) = self.bias {
                for j in 0..count {
                    let bias = &bias[(first + j) * tokens..][..tokens];
                    for (strips, bias) in scores.iter_mut().zip(bias) {
                        strips[j / STRIP].0[j % STRIP] += bias * LOG2_E;
                    }
                }
            }
            let sums = softmax(scores);
            let sums = sums.as_flattened();
            for (v, values) in self.values.chunks_exact(ROWS * tokens).enumerate() {
                let channels = width.saturating_sub(v * ROWS).min(ROWS);
                let to = offset + v * ROWS;
                if ROWS == HALF || channels <= HALF {
                    let values = &values.as_chunks::<HALF>().0[..self.seen];
                    let tile = multiply_tile::<HALF, STRIPS, COLUMNS>(values, scores, &[]);
                    spread(&tile[..channels], sums, out, self.dim, to);
                } else {
                    let values = &values.as_chunks::<ROWS>().0[..self.seen];
                    let tile = multiply_tile::<ROWS, STRIPS, COLUMNS>(values, scores, &[]);
                    spread(&tile[..channels], sums, out, self.dim, to);
                }
            }
        }
    }
}

/// Writes channels of queries, over the sums of these, to the rows of the queries, from channel `first` on.
#[inline(always)]
fn spread<const COLUMNS: usize>(
    channels: &[[f32; COLUMNS]],
    sums: &[f32],
    rows: &mut [f32],
    width: usize,
    first: usize,
) {
    for (r, values) in channels.iter().enumerate() {
        for ((row, value), sum) in rows.chunks_exact_mut(width).zip(values).zip(sums) {
            row[first + r] = value / sum;
        }
    }
}

/// `2ˣ` of each column less its largest value, in place; returns the sums of the columns.
#[inline(always)]
fn softmax<const STRIPS: usize>(scores: &mut [[Strip; STRIPS]]) -> [[f32; STRIP]; STRIPS] {
    let mut most = [[f32::NEG_INFINITY; STRIP]; STRIPS];
    for row in scores.iter() {
        for (most, strip) in most.iter_mut().zip(row) {
            for (most, value) in most.iter_mut().zip(&strip.0) {
                *most = if *value > *most { *value } else { *most };
            }
        }
    }
    let mut sums = [[0.0f32; STRIP]; STRIPS];
    for row in scores {
        for ((strip, most), sums) in row.iter_mut().zip(&most).zip(&mut sums) {
            for ((value, most), sum) in strip.0.iter_mut().zip(most).zip(sums) {
                *value = exp2_of_negative(*value - most);
                *sum += *value;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attend<S: Simd>(simd: S, tokens: usize, seen: usize, heads: Heads) -> Vec<f32> {
        let dim = heads.count * heads.width;
        let qkv: Vec<f32> = (0..tokens * 3 * dim)
            .map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0)
            .collect();
        let bias: Vec<f32> = (0..tokens * tokens).map(|i| (i % 7) as f32).collect();
        let rows = tokens.next_multiple_of(HEIGHT);
        let mut out = vec![0.0; tokens * dim];
        for head in 0..heads.count {
            // As another input left them.
            let mut keys = vec![3.0; rows * heads.width];
            let mut values = vec![3.0; heads.width.next_multiple_of(HEIGHT) * tokens];
            let pack = Pack {
                qkv: &qkv,
                dim,
                head: head * heads.width,
                width: heads.width,
                keys: &mut keys,
                values: &mut values,
            };
            pack.with_simd(simd);
            for (panel, out) in out.chunks_mut(WIDTH * dim).enumerate() {
                let queries = Queries {
                    qkv: &qkv,
                    dim,
                    heads,
                    head,
                    tokens,
                    seen,
                    first: panel * WIDTH,
                    keys: &keys,
                    values: &values,
                    bias: (head > 0).then_some(&bias),
                    scores: &mut vec![Strip::ZERO; WIDTH / STRIP * rows],
                    out,
                };
                queries.with_simd(simd);
            }
        }
        out
    }

    #[test]
    fn tiles_of_both_shapes_do_the_same() {
        let shapes = [
            (1, 1, 1, 1),
            (13, 9, 2, 6),
            (20, 20, 2, 6),
            (37, 20, 2, 8),
            (50, 49, 1, 64),
        ];
        // Miri takes minutes for the larger ones.
        let few = if cfg!(miri) { 2 } else { shapes.len() };
        for (tokens, seen, count, width) in shapes.into_iter().take(few) {
            let heads = Heads::of(count * width, count);
            let wide = attend(pulp::Scalar512b, tokens, seen, heads);
            let narrow = attend(pulp::Scalar256b, tokens, seen, heads);
            assert_eq!(wide, narrow, "{tokens} tokens, {heads:?}");
        }
    }
}
