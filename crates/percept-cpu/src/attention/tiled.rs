//! Attention in matrix registers: here a query has a row of scores, which the softmax leaves packed as
//! rows of the product with the values.

use pulp::{Arch, WithSimd};
use rayon::prelude::*;

use super::{Attention, MAX_HEAD_WIDTH};
use std::f32::consts::LOG2_E;

use crate::math::{self, exp2_of_negative};
use crate::room::with_room;
use crate::tiles::{Beside, DEPTH, Line, Parts, SIDE, Unit, fetch};

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
            unit,
            parts,
            packed,
        });
    });

    // Rows of the result belong to all heads at once: each task has some queries of one sequence.
    out.par_chunks_mut(tokens * dim)
        .enumerate()
        .for_each(|(sequence, out)| {
            let panels = out.par_chunks_mut(SIDE * dim).enumerate();
            panels.for_each(|(panel, out)| {
                with_room(|scratch: &mut Scratch| {
                    scratch.fit(sizes);
                    let sequence_of_packed = sequence * heads.count * sizes.head();
                    Arch::new().dispatch(Queries {
                        all,
                        sequence,
                        first: panel * SIDE,
                        packed: &packed[sequence_of_packed..][..heads.count * sizes.head()],
                        sizes,
                        unit,
                        parts,
                        scratch,
                        out,
                    });
                });
            });
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

    /// Steps of the products with the keys of a head, and with the values of one.
    fn steps(&self) -> usize {
        self.keys() / SIDE + self.values[0] * self.values[1] / SIDE
    }

    /// Numbers of a row of scores.
    fn stride(&self) -> usize {
        self.keys[0] * SIDE
    }

    /// Lines of the keys and values of a head.
    fn head(&self) -> usize {
        self.keys() + self.values[0] * self.values[1]
    }
}

/// What a task needs: for one head while its scores are made, and for the one before it while their softmax is.
#[derive(Default)]
struct Scratch {
    queries: Vec<Line>,
    scores: [Vec<f32>; 2],
    weights: [Vec<Line>; 2],
    mixed: Vec<f32>,
}

impl Scratch {
    fn fit(&mut self, sizes: Sizes) {
        self.queries.resize(sizes.keys[1], Line::ZERO);
        for scores in &mut self.scores {
            scores.resize(sizes.stride() * SIDE, 0.0);
        }
        for weights in &mut self.weights {
            weights.resize(sizes.values[1], Line::ZERO);
        }
        self.mixed.resize(SIDE * SIDE, 0.0);
    }
}

/// Keys and values of a head, from its first key on.
struct Pack<'a> {
    qkv: &'a [f32],
    dim: usize,
    width: usize,
    sizes: Sizes,
    unit: Unit,
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
        let blocks = self.qkv.chunks(SIDE * stride);
        let next_blocks = blocks.clone().skip(1).chain([&[][..]]);
        for ((panel, keys), next_keys) in panels.zip(blocks).zip(next_blocks) {
            // Far from each other, as no CPU expects: the next keys, and the values of these, which are packed after all keys.
            for of_token in next_keys.chunks(stride) {
                fetch(&of_token[..width]);
            }
            for of_token in keys.chunks(stride) {
                fetch(&of_token[self.dim..][..width]);
            }
            self.unit
                .set_transposed(panel, self.parts, keys, stride, width);
        }
        let panels = values.chunks_exact_mut(self.sizes.values[1]);
        for (n, panel) in panels.enumerate() {
            let (first, columns) = (n * SIDE, SIDE.min(width - n * SIDE));
            let values = &self.qkv[self.dim + first..];
            // What an earlier call left behind the last token would be multiplied, if only by 0.
            let last = panel.len() - self.parts.panel(DEPTH);
            panel[last..].fill(Line::ZERO);
            self.unit
                .set_columns(panel, self.parts, values, stride, columns);
        }
    }
}

/// Up to [`SIDE`] queries of all heads.
struct Queries<'a> {
    all: &'a Attention<'a>,
    sequence: usize,
    first: usize,
    /// Keys and values of all heads.
    packed: &'a [Line],
    sizes: Sizes,
    unit: Unit,
    parts: Parts,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self {
            all,
            sequence,
            first,
            packed,
            sizes,
            unit,
            parts,
            scratch,
            out,
        } = self;
        let heads = all.heads;
        let (width, dim, stride) = (heads.width, heads.count * heads.width, sizes.stride());
        let count = out.len() / dim;
        let seen = all.seen(sequence);
        let open = unit.open();
        let Scratch {
            queries,
            scores: [scores, finished_scores],
            weights: [weights, finished_weights],
            mixed,
        } = scratch;
        let mut finished_sums = [1.0; SIDE];

        // While the softmax of a head is computed, its neighbours are multiplied: the scores of the next one, and
        // the values of the one before.
        for head in 0..heads.count + 2 {
            let mut softmax = Softmax::new(unit, parts, [count, stride], seen);
            if head > 0 && head <= heads.count {
                softmax.begin(finished_scores, weights, sizes.steps());
                if let Some(bias) = all.bias(head - 1) {
                    softmax.add(&bias[first * all.tokens..], all.tokens);
                }
            }
            if let Some(before) = head.checked_sub(2) {
                let values = &packed[before * sizes.head()..][sizes.keys()..sizes.head()];
                for (n, values) in values.chunks_exact(sizes.values[1]).enumerate() {
                    let panels = [&finished_weights[..], values];
                    open.product(panels, parts, count, mixed, SIDE, &mut softmax);
                    let offset = before * width + n * SIDE;
                    let columns = SIDE.min(width - n * SIDE);
                    let rows = out.chunks_exact_mut(dim).zip(mixed.chunks_exact(SIDE));
                    for ((out, mixed), sum) in rows.zip(&finished_sums) {
                        for (out, value) in out[offset..][..columns].iter_mut().zip(mixed) {
                            *out = value / sum;
                        }
                    }
                }
            }
            if head < heads.count {
                // Rows of all heads are far from each other, as no CPU expects: where the results of this head will be,
                // and the queries of the next one.
                for out in out.chunks_exact(dim) {
                    fetch(&out[head * width..][..width]);
                }
                let qkv = all.qkv(sequence)[first * 3 * dim..].chunks_exact(3 * dim);
                let mut query = [0.0; MAX_HEAD_WIDTH];
                for (r, row) in qkv.take(count).enumerate() {
                    fetch(&row[(head + 1) * width..][..width]);
                    let row = &row[head * width..][..width];
                    for (query, value) in query.iter_mut().zip(row) {
                        // Of 2 to the power of the scores, which is a little less to compute.
                        *query = value * (heads.scale * LOG2_E);
                    }
                    unit.set_row(queries, parts, r, &query[..width]);
                }
                let keys = &packed[head * sizes.head()..][..sizes.keys()];
                for (n, keys) in keys.chunks_exact(sizes.keys[1]).enumerate() {
                    let panels = [&queries[..], keys];
                    let scores = &mut scores[n * SIDE..];
                    open.product(panels, parts, count, scores, stride, &mut softmax);
                }
            }
            finished_sums = softmax.finish();
            std::mem::swap(scores, finished_scores);
            std::mem::swap(weights, finished_weights);
        }
    }
}

/// Numbers whose powers are computed, and packed, at a time.
const PIECE: usize = 256;

/// The softmax of rows of scores in pieces, to be computed while something is multiplied; not yet divided by the
/// sums.
struct Softmax<'a> {
    unit: Unit,
    parts: Parts,
    /// How many rows, and numbers of each.
    rows: [usize; 2],
    /// Numbers of a row that a token stands behind, and that is seen.
    seen: usize,
    scores: &'a mut [f32],
    weights: &'a mut [Line],
    sums: [f32; SIDE],
    /// The largest number of the present row, and its sum so far.
    most: f32,
    sum: [f32; LANES],
    /// How much is done, and is to be done: of each row its maximum, and its pieces.
    done: usize,
    all: usize,
    /// How often this was called to work, and will be.
    calls: [usize; 2],
}

impl<'a> Softmax<'a> {
    /// None, to be begun.
    fn new(unit: Unit, parts: Parts, rows: [usize; 2], seen: usize) -> Self {
        Self {
            unit,
            parts,
            rows,
            seen,
            scores: &mut [],
            weights: &mut [],
            sums: [1.0; SIDE],
            most: 0.0,
            sum: [0.0; LANES],
            done: 0,
            all: 0,
            calls: [0, 1],
        }
    }

    /// Of `scores`, to `weights`, in so many calls.
    fn begin(&mut self, scores: &'a mut [f32], weights: &'a mut [Line], calls: usize) {
        let [count, stride] = self.rows;
        self.scores = scores;
        self.weights = weights;
        self.all = count * (1 + stride.div_ceil(PIECE));
        self.calls = [0, calls];
    }

    /// Adds something to the scores.
    #[inline(always)]
    fn add(&mut self, bias: &[f32], tokens: usize) {
        let [count, stride] = self.rows;
        let rows = self.scores.chunks_exact_mut(stride).take(count);
        for (row, bias) in rows.zip(bias.chunks_exact(tokens)) {
            for (score, bias) in row.iter_mut().zip(bias) {
                *score = bias.mul_add(LOG2_E, *score);
            }
        }
    }

    /// The sums of the rows.
    #[inline(always)]
    fn finish(mut self) -> [f32; SIDE] {
        self.work_up_to(self.all);
        self.sums
    }

    #[inline(always)]
    fn work_up_to(&mut self, target: usize) {
        let [_, stride] = self.rows;
        let of_row = 1 + stride.div_ceil(PIECE);
        while self.done < target {
            let (r, piece) = (self.done / of_row, self.done % of_row);
            let row = &mut self.scores[r * stride..][..stride];
            match piece.checked_sub(1) {
                None => {
                    // Tokens that are not seen have no weight, and neither has what no token stands behind.
                    row[self.seen..].fill(f32::NEG_INFINITY);
                    self.most = largest(row);
                    self.sum = [0.0; LANES];
                }
                Some(piece) => {
                    let first = piece * PIECE;
                    let numbers = &mut row[first..stride.min(first + PIECE)];
                    let weights = &mut self.weights[self.parts.panel(first)..];
                    if self.parts == Parts::One {
                        (self.unit).set_powers(weights, r, numbers, self.most, &mut self.sum);
                    } else {
                        powers(numbers, self.most, &mut self.sum);
                        let seen = self.seen.saturating_sub(first).min(numbers.len());
                        numbers[seen..].fill(0.0);
                        self.unit.set_row(weights, self.parts, r, numbers);
                    }
                }
            }
            self.done += 1;
            if piece + 1 == of_row {
                self.sums[r] = self.sum.iter().sum();
            }
        }
    }
}

impl Beside for Softmax<'_> {
    #[inline(always)]
    fn work(&mut self, _: usize, _: usize) {
        let [call, calls] = &mut self.calls;
        *call += 1;
        let target = (self.all * *call / *calls).min(self.all);
        self.work_up_to(target);
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    for row in row.as_chunks::<LANES>().0 {
        for (most, value) in most.iter_mut().zip(row) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    math::largest(most)
}

/// 2 to the power of each number less the largest one, in place, and added to the sums.
#[inline(always)]
fn powers(row: &mut [f32], most: f32, sums: &mut [f32; LANES]) {
    for row in row.as_chunks_mut::<LANES>().0 {
        for i in 0..LANES {
            row[i] = exp2_of_negative(row[i] - most);
            sums[i] += row[i];
        }
    }
}

// Rows of scores are whole lines, and a multiple of what is looked at together.
const _: () = assert!(SIDE == DEPTH && SIDE.is_multiple_of(LANES) && PIECE.is_multiple_of(DEPTH));
