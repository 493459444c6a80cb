//! Attention in whole numbers of eight bits: queries and keys are rounded each token by itself, the weights that the
//! softmax leaves to 255 steps, values each channel by itself.

use std::f32::consts::LOG2_E;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Attention;
use crate::bytes::{
    self, DEPTH, HEIGHT, Line, MOST_INPUTS, Rows, SIGNED, STEPS, STRIPS, Step, Tile, UNSIGNED,
    Unit, WIDTH, steps,
};
use crate::product::{STRIP, Strip, share};
use crate::room::with_room;
use crate::tiles::fetch;

/// Queries of a task at most: while it goes through them, keys and values of a head stay in the second-level cache.
const MOST_QUERIES: usize = 4 * HEIGHT;

/// Keys and values of all heads of all sequences.
#[derive(Debug)]
pub(super) struct Packed {
    unit: Unit,
    keys: Vec<Step>,
    /// Of each key.
    key_factors: Vec<f32>,
    values: Vec<Step>,
    /// Of each channel.
    value_factors: Vec<f32>,
}

impl Packed {
    pub(super) fn new(unit: Unit) -> Self {
        Self {
            unit,
            keys: Vec::new(),
            key_factors: Vec::new(),
            values: Vec::new(),
            value_factors: Vec::new(),
        }
    }
}

/// Lengths of what is packed.
#[derive(Clone, Copy)]
struct Sizes {
    /// Panels of keys, and steps of one.
    keys: [usize; 2],
    /// Panels of channels of values, and steps of one.
    values: [usize; 2],
}

impl Sizes {
    fn of(tokens: usize, width: usize) -> Self {
        Self {
            keys: [tokens.div_ceil(WIDTH), steps(width)],
            values: [width.div_ceil(WIDTH), steps(tokens)],
        }
    }

    /// Strips of a row of scores: whole lines of weights.
    fn scores(self) -> usize {
        self.values[1] * DEPTH / STRIP
    }
}

/// As [`attend`](super::attend).
pub(super) fn attend(all: &Attention<'_>, packed: &mut Packed, out: &mut [f32]) {
    let (tokens, heads) = (all.tokens, all.heads);
    let dim = heads.count * heads.width;
    let sizes = Sizes::of(tokens, heads.width);
    let count = out.len() / (tokens * dim) * heads.count;
    let [keys, values] = [sizes.keys, sizes.values].map(|[panels, steps]| panels * steps);
    let [keys_of_head, channels_of_head] = [sizes.keys[0], sizes.values[0]].map(|n| n * WIDTH);
    packed.keys.resize(count * keys, Step::ZERO);
    packed.values.resize(count * values, Step::ZERO);
    packed.key_factors.resize(count * keys_of_head, 0.0);
    packed.value_factors.resize(count * channels_of_head, 0.0);
    (packed.keys.par_chunks_mut(keys))
        .zip(packed.values.par_chunks_mut(values))
        .zip(packed.key_factors.par_chunks_mut(keys_of_head))
        .zip(packed.value_factors.par_chunks_mut(channels_of_head))
        .enumerate()
        .for_each(|(at, (((keys, values), key_factors), value_factors))| {
            let (sequence, head) = (at / heads.count, at % heads.count);
            Arch::new().dispatch(Pack {
                qkv: &all.qkv(sequence)[dim + head * heads.width..],
                dim,
                width: heads.width,
                seen: all.seen(sequence),
                sizes,
                keys,
                key_factors,
                values,
                value_factors,
            });
        });

    // Rows of the result belong to all heads at once: each task has some queries of one sequence.
    let task = share(tokens, rayon::current_num_threads(), MOST_QUERIES, HEIGHT);
    out.par_chunks_mut(tokens * dim)
        .enumerate()
        .for_each(|(sequence, out)| {
            let tasks = out.par_chunks_mut(task * dim).enumerate();
            tasks.for_each(|(n, out)| {
                with_room(|scratch: &mut Scratch| {
                    scratch.fit(sizes);
                    Arch::new().dispatch(Queries {
                        all,
                        sequence,
                        first: n * task,
                        packed,
                        sizes,
                        scratch,
                        out,
                    });
                });
            });
        });
}

/// Packs keys and values of a head, from its first key on.
struct Pack<'a> {
    qkv: &'a [f32],
    dim: usize,
    width: usize,
    seen: usize,
    sizes: Sizes,
    keys: &'a mut [Step],
    key_factors: &'a mut [f32],
    values: &'a mut [Step],
    value_factors: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (stride, width) = (3 * self.dim, self.width);
        // Far from each other, as no CPU expects.
        for of_token in self.qkv.chunks(stride).take(self.seen) {
            fetch(&of_token[..width]);
            fetch(&of_token[self.dim..][..width]);
        }
        let mut bytes = Vec::new();
        let panels = self.keys.chunks_exact_mut(self.sizes.keys[1]);
        let panels = panels.zip(self.key_factors.as_chunks_mut::<WIDTH>().0);
        for ((panel, factors), keys) in panels.zip(self.qkv.chunks(WIDTH * stride)) {
            for (j, of_token) in keys.chunks(stride).enumerate() {
                factors[j] = bytes::set_column(panel, j, &of_token[..width], &mut bytes);
            }
        }
        // 0, or NaN: of a key that is not finite, no query has weights.
        let broken: f32 = self.key_factors[..self.seen].iter().map(|f| f * 0.0).sum();
        let panels = self.values.chunks_exact_mut(self.sizes.values[1]);
        let panels = panels.zip(self.value_factors.as_chunks_mut::<WIDTH>().0);
        for (n, (panel, factors)) in panels.enumerate() {
            let (first, columns) = (n * WIDTH, WIDTH.min(width - n * WIDTH));
            let values = &self.qkv[self.dim + first..];
            let values = &values[..values.len().min(self.seen * stride)];
            *factors = bytes::set_columns(panel, values, stride, columns);
            for factor in factors {
                *factor += broken;
            }
        }
    }
}

/// What a task needs for a tile of queries.
#[derive(Default)]
struct Scratch {
    queries: Rows,
    /// Scores `[HEIGHT, tokens]`, filled up to whole lines of weights.
    scores: Vec<Strip>,
    weights: Vec<[Line; HEIGHT]>,
}

impl Scratch {
    fn fit(&mut self, sizes: Sizes) {
        (self.scores).resize(HEIGHT * sizes.scores(), Strip::ZERO);
        (self.weights).resize(sizes.values[1] / STEPS, [Line::ZERO; HEIGHT]);
    }
}

/// Some queries of all heads.
struct Queries<'a> {
    all: &'a Attention<'a>,
    sequence: usize,
    first: usize,
    packed: &'a Packed,
    sizes: Sizes,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { all, sizes, .. } = self;
        let heads = all.heads;
        let dim = heads.count * heads.width;
        let qkv = all.qkv(self.sequence);
        for queries in qkv[self.first * 3 * dim..]
            .chunks(3 * dim)
            .take(self.out.len() / dim)
        {
            fetch(&queries[..dim]);
        }
        for head in 0..heads.count {
            let keys = Keys {
                all,
                sequence: self.sequence,
                head,
                packed: self.packed,
                sizes,
            };
            for (t, out) in self.out.chunks_mut(HEIGHT * dim).enumerate() {
                let (first, count) = (self.first + t * HEIGHT, out.len() / dim);
                let Scratch {
                    queries,
                    scores,
                    weights,
                } = &mut *self.scratch;
                queries.reset(count, heads.width);
                for r in 0..count {
                    let query = &qkv[(first + r) * 3 * dim + head * heads.width..];
                    // For powers of two, which take fewer steps than those of e.
                    queries.set(r, &query[..heads.width], heads.scale * LOG2_E);
                }
                let Some(tile) = queries.tiles().next() else {
                    continue;
                };
                keys.scores(tile, first, scores);
                // For each row one over the sum of its weights: NaN where the query is not finite.
                let mut factors = tile.factors.map(|factor| factor * 0.0);
                let rows = scores.chunks_exact(sizes.scores()).take(count);
                for (r, (scores, factor)) in rows.zip(&mut factors).enumerate() {
                    let unit = self.packed.unit;
                    *factor += 1.0 / unit.softmax(scores.as_chunks().0, weights, r);
                }
                keys.mix(weights, &factors, count, out);
            }
        }
    }
}

/// Packed keys, and values, of a head.
struct Keys<'a> {
    all: &'a Attention<'a>,
    sequence: usize,
    head: usize,
    packed: &'a Packed,
    sizes: Sizes,
}

impl Keys<'_> {
    /// Scores of queries from the `first` on, of powers of 2.
    #[inline(always)]
    fn scores(&self, queries: Tile<'_>, first: usize, scores: &mut [Strip]) {
        let Self { all, sizes, .. } = self;
        let (tokens, seen) = (all.tokens, all.seen(self.sequence));
        let at = self.sequence * all.heads.count + self.head;
        let [panels, steps] = sizes.keys;
        let keys = &self.packed.keys[at * panels * steps..][..panels * steps];
        let of_keys = self.packed.key_factors.as_chunks::<WIDTH>().0;
        let of_keys = &of_keys[at * panels..][..panels];
        for (n, (panel, of_keys)) in keys.chunks_exact(steps).zip(of_keys).enumerate() {
            let (unit, scores) = (self.packed.unit, &mut scores[n * STRIPS..]);
            unit.multiply::<SIGNED>(queries, panel, of_keys, scores, sizes.scores());
        }
        let rows = scores.chunks_exact_mut(sizes.scores());
        for (r, row) in rows.take(queries.count).enumerate() {
            if let Some(bias) = all.bias(self.head) {
                let bias = &bias[(first + r) * tokens..][..tokens];
                for (strip, bias) in row.iter_mut().zip(bias.chunks(STRIP)) {
                    for (score, bias) in strip.0.iter_mut().zip(bias) {
                        *score += bias * LOG2_E;
                    }
                }
            }
            // Tokens that are not seen have no weight, and neither has what no token stands behind.
            let (seen, rest) = (seen / STRIP, seen % STRIP);
            if let Some(strip) = row.get_mut(seen) {
                strip.0[rest..].fill(f32::NEG_INFINITY);
            }
            if let Some(unseen) = row.get_mut(seen + 1..) {
                unseen.fill(Strip([f32::NEG_INFINITY; STRIP]));
            }
        }
    }

    /// Means of the values by weights, times a factor for each row, to the channels of this head.
    #[inline(always)]
    fn mix(
        &self,
        weights: &[[Line; HEIGHT]],
        factors: &[f32; HEIGHT],
        count: usize,
        out: &mut [f32],
    ) {
        let Self { all, sizes, .. } = self;
        let heads = all.heads;
        let dim = heads.count * heads.width;
        let at = self.sequence * heads.count + self.head;
        let [panels, steps] = sizes.values;
        let values = &self.packed.values[at * panels * steps..][..panels * steps];
        let of_values = self.packed.value_factors.as_chunks::<WIDTH>().0;
        let of_values = &of_values[at * panels..][..panels];
        let mut products = [Strip::ZERO; HEIGHT * STRIPS];
        for (n, (panel, of_values)) in values.chunks_exact(steps).zip(of_values).enumerate() {
            let channels = n * WIDTH..heads.width.min((n + 1) * WIDTH);
            let columns = channels.len();
            let offset = self.head * heads.width + channels.start;
            // As many tokens as can be added up at once: almost always all.
            let parts = weights.chunks(MOST_INPUTS / Line::DEPTH);
            let parts = parts.zip(panel.chunks(MOST_INPUTS / DEPTH));
            for (part, (lines, panel)) in parts.enumerate() {
                let tile = Tile {
                    lines,
                    factors,
                    added: &[0; HEIGHT],
                    count,
                };
                let unit = self.packed.unit;
                unit.multiply::<UNSIGNED>(tile, panel, of_values, &mut products, STRIPS);
                let rows = products.as_chunks::<STRIPS>().0.iter();
                for (out, strips) in out.chunks_exact_mut(dim).zip(rows) {
                    let out = out[offset..][..columns].chunks_mut(STRIP);
                    for (out, Strip(values)) in out.zip(strips) {
                        match (part, out.first_chunk_mut()) {
                            // Whole ones without a call.
                            (0, Some(out)) => *out = *values,
                            (0, None) => out.copy_from_slice(&values[..out.len()]),
                            _ => {
                                for (out, value) in out.iter_mut().zip(values) {
                                    *out += value;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

// The strips of a line of weights are its quarters.
const _: () = assert!(STRIP == STEPS);

#[cfg(test)]
mod tests {
    use super::super::{Bias, Heads};
    use super::*;

    /// As they stand for numbers.
    fn rounded(values: &[f32]) -> Vec<f64> {
        let mut bytes = vec![0; values.len()];
        let factor = f64::from(bytes::quantize(values, &mut bytes));
        let bytes = bytes.into_iter().map(|byte| f64::from(byte.cast_signed()));
        bytes.map(|byte| byte * factor).collect()
    }

    /// Attention of one head, of numbers that are rounded as here.
    fn expected(
        [queries, keys, values]: [&[f32]; 3],
        width: usize,
        bias: Option<&[f32]>,
        seen: usize,
    ) -> Vec<f64> {
        let tokens = keys.len() / width;
        let keys: Vec<Vec<f64>> = keys.chunks_exact(width).take(seen).map(rounded).collect();
        let column = |c: usize| values.iter().skip(c).step_by(width).take(seen).copied();
        let values: Vec<Vec<f64>> = (0..width)
            .map(|c| rounded(&column(c).collect::<Vec<f32>>()))
            .collect();
        let mut out = Vec::new();
        for (q, query) in queries.chunks_exact(width).enumerate() {
            let query = rounded(query);
            let scores: Vec<f64> = (keys.iter().enumerate())
                .map(|(k, key)| {
                    let product: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                    let bias = bias.map_or(0.0, |bias| f64::from(bias[q * tokens + k]));
                    product / (width as f64).sqrt() + bias
                })
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = (scores.iter())
                .zip(bytes::DITHER.as_flattened().iter().cycle())
                .map(|(score, dither)| {
                    (255.0 * (score - most).exp() + f64::from(*dither)).round_ties_even()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let mix =
                |values: &Vec<f64>| weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>();
            out.extend(values.iter().map(|values| mix(values) / sum));
        }
        out
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes; the next one runs the same code")]
    fn it_is_a_softmax_of_rounded_numbers() {
        let Some(unit) = Unit::find() else {
            println!("SKIPPED: this CPU has no AVX512-VNNI");
            return;
        };
        let numbers = |count: usize| -> Vec<f32> {
            (0..count)
                .map(|i| (i * i % 1009 + i * 7919 % 997) as f32 / 501.5 - 2.0)
                .collect()
        };
        let mut packed = Packed::new(unit);
        // Heads of less than a panel and of more, tokens likewise; shorter after longer ones.
        for (tokens, seen, width, biased) in [
            (130, 130, 64, false),
            (65, 40, 33, true),
            (31, 31, 7, false),
            (12, 1, 64, true),
            (1, 1, 1, false),
        ] {
            let heads = Heads::of(2 * width, 2);
            let (dim, both) = (2 * width, [seen, tokens]);
            let qkv = numbers(2 * tokens * 3 * dim);
            let bias: Vec<f32> = (0..2 * tokens * tokens).map(|i| (i % 5) as f32).collect();
            let all = Attention {
                qkv: &qkv,
                tokens,
                heads,
                bias: if biased {
                    Bias::Scores(&bias)
                } else {
                    Bias::None
                },
                seen: Some(&both),
            };
            let mut out = vec![f32::NAN; 2 * tokens * dim];
            attend(&all, &mut packed, &mut out);
            for (sequence, seen) in both.into_iter().enumerate() {
                for head in 0..heads.count {
                    let part = |n: usize| -> Vec<f32> {
                        let rows = all.qkv(sequence).chunks_exact(3 * dim);
                        rows.flat_map(|row| row[n * dim + head * width..][..width].iter().copied())
                            .collect()
                    };
                    let [queries, keys, values] = [part(0), part(1), part(2)];
                    let bias = all.bias(head);
                    let expected = expected([&queries, &keys, &values], width, bias, seen);
                    let rows = out[sequence * tokens * dim..].chunks_exact(dim);
                    let ours = rows.flat_map(|row| &row[head * width..][..width]);
                    for (ours, expected) in ours.zip(&expected) {
                        let off = (f64::from(*ours) - expected).abs();
                        // A weight may be rounded to its other neighbour.
                        assert!(off < 0.01, "{tokens} tokens: {ours} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let Some(unit) = Unit::find() else {
            println!("SKIPPED: this CPU has no AVX512-VNNI");
            return;
        };
        let (tokens, width) = (5, 3);
        // In a query, a key and a value of the fourth token.
        for (part, broken) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
            let mut qkv: Vec<f32> = (0..tokens * 3 * width).map(|i| (i % 7) as f32).collect();
            qkv[3 * 3 * width + part * width + 1] = broken;
            let all = Attention {
                qkv: &qkv,
                tokens,
                heads: Heads::of(width, 1),
                bias: Bias::None,
                seen: None,
            };
            let mut out = vec![0.0; tokens * width];
            attend(&all, &mut Packed::new(unit), &mut out);
            for (i, value) in out.iter().enumerate() {
                let is_of_it = [i / width == 3, true, i % width == 1][part];
                assert_eq!(value.is_nan(), is_of_it, "{part} {i}: {value}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many tokens take hours")]
    fn more_tokens_than_are_added_up_at_once_are_mixed() {
        let Some(unit) = Unit::find() else {
            println!("SKIPPED: this CPU has no AVX512-VNNI");
            return;
        };
        let tokens = MOST_INPUTS + 16 * Line::DEPTH;
        let all = Attention {
            qkv: &[],
            tokens,
            heads: Heads::of(2, 1),
            bias: Bias::None,
            seen: None,
        };
        let sizes = Sizes::of(tokens, 2);
        let mut packed = Packed::new(unit);
        packed.values = vec![Step::ZERO; sizes.values[1]];
        let values = [1.0, -2.0].repeat(tokens);
        packed.value_factors = bytes::set_columns(&mut packed.values, &values, 2, 2).to_vec();
        let keys = Keys {
            all: &all,
            sequence: 0,
            head: 0,
            packed: &packed,
            sizes,
        };
        // The largest weight of each: more than 31 bits of products.
        let weights = vec![[Line::of(&[255; Line::DEPTH]); HEIGHT]; tokens / Line::DEPTH];
        let mut out = [f32::NAN; 2];
        keys.mix(
            &weights,
            &[1.0 / (255.0 * tokens as f32); HEIGHT],
            1,
            &mut out,
        );
        let off = [out[0] - 1.0, out[1] + 2.0];
        assert!(off.iter().all(|off| off.abs() < 1e-5), "{out:?}");
    }
}
