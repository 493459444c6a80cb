//! Attention in matrix registers: here a query has a row of scores, which the softmax leaves packed as
//! rows of the product with the values.

use pulp::{Arch, WithSimd};
use rayon::prelude::*;

use super::{Attention, MAX_HEAD_WIDTH};
use crate::math::exp;
use crate::tiles::{self, DEPTH, Line, Open, Parts, SIDE, Unit};

/// Numbers that are looked at together.
const LANES: usize = 16;

/// As [`attend`](super::attend).
pub(super) fn attend(
    all: &Attention<'_>,
    unit: Unit,
    parts: Parts,
    packed: &mut Vec<Line>,
    out: &mut [f32],
) {
    let (tokens, heads) = (all.tokens, all.heads);
    let dim = heads.count * heads.width;
    let sizes = Sizes::of(tokens, heads.width, parts);
    packed.clear();
    packed.resize(
        out.len() / (tokens * dim) * heads.count * sizes.head(),
        Line::ZERO,
    );
    (packed.par_chunks_mut(sizes.head()).enumerate()).for_each(|(at, packed)| {
        let (sequence, head) = (at / heads.count, at % heads.count);
        Arch::new().dispatch(Pack {
            qkv: &all.qkv(sequence)[dim + head * heads.width..],
            dim,
            width: heads.width,
            sizes,
            parts,
            packed,
        });
    });

    // Rows of the result belong to all heads at once: each task has some queries of one sequence.
    out.par_chunks_mut(tokens * dim)
        .enumerate()
        .for_each(|(sequence, out)| {
            out.par_chunks_mut(SIDE * dim).enumerate().for_each_init(
                || Scratch::new(sizes),
                |scratch, (panel, out)| {
                    let open = unit.open();
                    for head in 0..heads.count {
                        let at = sequence * heads.count + head;
                        Arch::new().dispatch(Queries {
                            all,
                            sequence,
                            head,
                            first: panel * SIDE,
                            packed: &packed[at * sizes.head()..][..sizes.head()],
                            sizes,
                            parts,
                            open: &open,
                            scratch,
                            out,
                        });
                    }
                },
            );
        });
}

/// Lengths of what is packed.
#[derive(Clone, Copy)]
struct Sizes {
    /// Panels of keys, and lines of one.
    keys: [usize; 2],
    /// Panels of channels of values, and lines of one.
    values: [usize; 2],
}

impl Sizes {
    fn of(tokens: usize, width: usize, parts: Parts) -> Self {
        Self {
            keys: [tokens.div_ceil(SIDE), parts.panel(width)],
            values: [width.div_ceil(SIDE), parts.panel(tokens)],
        }
    }

    /// Lines of the keys of a head.
    fn keys(&self) -> usize {
        self.keys[0] * self.keys[1]
    }

    /// Lines of the keys and values of a head.
    fn head(&self) -> usize {
        self.keys() + self.values[0] * self.values[1]
    }
}

/// What a task needs.
struct Scratch {
    queries: Vec<Line>,
    scores: Vec<f32>,
    weights: Vec<Line>,
    mixed: [f32; SIDE * SIDE],
}

impl Scratch {
    fn new(sizes: Sizes) -> Self {
        Self {
            queries: vec![Line::ZERO; sizes.keys[1]],
            scores: vec![0.0; sizes.keys[0] * SIDE * SIDE],
            weights: vec![Line::ZERO; sizes.values[1]],
            mixed: [0.0; SIDE * SIDE],
        }
    }
}

/// Keys and values of a head, from its first key on.
struct Pack<'a> {
    qkv: &'a [f32],
    dim: usize,
    width: usize,
    sizes: Sizes,
    parts: Parts,
    packed: &'a mut [Line],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (stride, width) = (3 * self.dim, self.width);
        let (keys, values) = self.packed.split_at_mut(self.sizes.keys());
        let panels = keys.chunks_exact_mut(self.sizes.keys[1]);
        for (panel, keys) in panels.zip(self.qkv.chunks(SIDE * stride)) {
            tiles::set_transposed(panel, self.parts, keys, stride, width);
        }
        let panels = values.chunks_exact_mut(self.sizes.values[1]);
        for (n, panel) in panels.enumerate() {
            let (first, columns) = (n * SIDE, SIDE.min(width - n * SIDE));
            let values = &self.qkv[self.dim + first..];
            tiles::set_columns(panel, self.parts, values, stride, columns);
        }
    }
}

/// Up to [`SIDE`] queries of one head.
struct Queries<'a> {
    all: &'a Attention<'a>,
    sequence: usize,
    head: usize,
    first: usize,
    packed: &'a [Line],
    sizes: Sizes,
    parts: Parts,
    open: &'a Open,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (heads, tokens) = (self.all.heads, self.all.tokens);
        let (width, dim) = (heads.width, heads.count * heads.width);
        let offset = self.head * width;
        let count = self.out.len() / dim;
        let seen = self.all.seen(self.sequence);
        let Scratch {
            queries,
            scores,
            weights,
            mixed,
        } = self.scratch;

        let qkv = self.all.qkv(self.sequence)[self.first * 3 * dim..].chunks_exact(3 * dim);
        let mut query = [0.0; MAX_HEAD_WIDTH];
        for (r, row) in qkv.take(count).enumerate() {
            for (query, value) in query.iter_mut().zip(&row[offset..][..width]) {
                *query = value * heads.scale;
            }
            tiles::set_row(queries, self.parts, r, &query[..width]);
        }
        let stride = self.sizes.keys[0] * SIDE;
        let (keys, values) = self.packed.split_at(self.sizes.keys());
        for (n, keys) in keys.chunks_exact(self.sizes.keys[1]).enumerate() {
            let scores = &mut scores[n * SIDE..];
            self.open
                .product(queries, keys, self.parts, count, scores, stride);
        }
        let mut sums = [1.0; SIDE];
        let bias = self.all.bias(self.head);
        for (r, row) in scores.chunks_exact_mut(stride).take(count).enumerate() {
            if let Some(bias) = bias {
                let bias = &bias[(self.first + r) * tokens..][..tokens];
                for (score, bias) in row.iter_mut().zip(bias) {
                    *score += bias;
                }
            }
            // Tokens that are not seen have no weight, and neither has what no token stands behind.
            row[seen..].fill(f32::NEG_INFINITY);
            sums[r] = softmax(row);
            row[seen..].fill(0.0);
            tiles::set_row(weights, self.parts, r, row);
        }
        for (n, values) in values.chunks_exact(self.sizes.values[1]).enumerate() {
            self.open
                .product(weights, values, self.parts, count, mixed, SIDE);
            let first = n * SIDE;
            let columns = SIDE.min(width - first);
            for ((out, mixed), sum) in (self.out.chunks_exact_mut(dim))
                .zip(mixed.chunks_exact(SIDE))
                .zip(sums)
            {
                let out = &mut out[offset + first..][..columns];
                for (out, value) in out.iter_mut().zip(mixed) {
                    *out = value / sum;
                }
            }
        }
    }
}

/// `exp` of each number less the largest one, in place; returns their sum.
#[inline(always)]
fn softmax(row: &mut [f32]) -> f32 {
    let rows = row.as_chunks_mut::<LANES>().0;
    let mut most = [f32::NEG_INFINITY; LANES];
    for row in rows.iter() {
        for (most, value) in most.iter_mut().zip(row) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f32; LANES];
    for row in rows {
        for (value, sum) in row.iter_mut().zip(&mut sums) {
            *value = exp(*value - most);
            *sum += *value;
        }
    }
    sums.into_iter().sum()
}

// Rows of scores are whole lines, and a multiple of what is looked at together.
const _: () = assert!(SIDE == DEPTH && SIDE.is_multiple_of(LANES));
