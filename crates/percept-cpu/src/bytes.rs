//! Products of whole numbers of eight bits that are added up in 32 bits, in vectors of 512 bits (AVX512-VNNI: Intel
//! since Cascade Lake, AMD since Zen 4).
//!
//! A row of activations is a factor times numbers from −127 to 127, and so are the weights of an output. The
//! instruction multiplies signed numbers with unsigned ones: weights are stored with [`OFFSET`] added, and as often
//! as the row says the offset is taken off again ([`Rows`]). The weights of a softmax have no sign, and what they mix
//! needs no offset ([`UNSIGNED`]).
#![allow(unsafe_code)]

use crate::math::{ROUND, filled, largest};
use crate::product::{STRIP, Strip};

/// Columns of a tile: two registers of sums.
pub(crate) const WIDTH: usize = 32;
/// Rows of a tile, which are packed together.
pub(crate) const HEIGHT: usize = 12;
/// Inner values of a step: as many as are added up in 32 bits.
pub(crate) const DEPTH: usize = 4;
/// Steps of a [`Line`].
pub(crate) const STEPS: usize = 16;
/// Strips of a tile.
pub(crate) const STRIPS: usize = WIDTH / STRIP;
/// Rows that are multiplied at once. Of more, sums would leave the registers in one burst, in which nothing multiplies.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const ROWS: usize = HEIGHT / 2;
/// The largest size of a number.
const LARGEST: f32 = 127.0;
/// What is smaller is 0: the inverse of the factor could not be told from infinity.
const LEAST: f32 = 1e-30;
/// What is added to weights.
const OFFSET: i32 = 128;
/// Inner values whose products cannot leave 32 bits.
pub(crate) const MOST_INPUTS: usize = 1 << 16;

/// [`DEPTH`] weights of each column, where they are loaded fastest.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Step([[u8; DEPTH]; WIDTH]);

impl Step {
    /// Of weights that are 0.
    pub(crate) const ZERO: Self = Self([[OFFSET as u8; DEPTH]; WIDTH]);
}

/// Steps of a panel: whole lines of rows.
pub(crate) fn steps(inputs: usize) -> usize {
    inputs.div_ceil(Line::DEPTH) * STEPS
}

/// Numbers of a row for as many steps, a line of the cache: [`DEPTH`] in each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line([u32; STEPS]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; STEPS]);
    /// Inner values.
    pub(crate) const DEPTH: usize = STEPS * DEPTH;

    #[inline(always)]
    pub(crate) fn of(bytes: &[u8; Self::DEPTH]) -> Self {
        let fours: &[[u8; DEPTH]] = bytes.as_chunks().0;
        Self(std::array::from_fn(|step| u32::from_le_bytes(fours[step])))
    }
}

/// Rows of a tile, and what they were rounded with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile<'a> {
    pub(crate) lines: &'a [[Line; HEIGHT]],
    pub(crate) factors: &'a [f32; HEIGHT],
    /// What an offset of the numbers of panels has added to the sums of each.
    pub(crate) added: &'a [i32; HEIGHT],
    /// How many rows there are.
    pub(crate) count: usize,
}

/// Rows from −127 to 127, and panels that have the offset of weights.
pub(crate) const SIGNED: bool = true;
/// Rows from 0 to 255, and panels of signed numbers.
pub(crate) const UNSIGNED: bool = false;

/// What multiplies. Only this module makes one, where the CPU has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit(());

impl Unit {
    /// That of this CPU, if it has one.
    pub(crate) fn find() -> Option<Self> {
        is_there().then_some(Self(()))
    }

    /// The weights of a softmax of powers of two, over the largest of them and of 255 steps, as row `r`: to its lines. Of
    /// each four times 16 scores the first are the first numbers of the 16 steps of a line, and so on: the order of
    /// [`set_columns`]. `lines` are as many as there are scores for. Returns the sum of the weights.
    #[inline(always)]
    pub(crate) fn softmax(
        self,
        scores: &[[Strip; DEPTH]],
        lines: &mut [[Line; HEIGHT]],
        r: usize,
    ) -> f32 {
        let mut most = [f32::NEG_INFINITY; STEPS];
        for strip in scores.as_flattened() {
            for (most, value) in most.iter_mut().zip(&strip.0) {
                *most = if *value > *most { *value } else { *most };
            }
        }
        let most = largest(most);
        // SAFETY: there is a `Unit`, so the CPU has the instructions.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        let sum = unsafe { weights(scores, most, lines, r) };
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let sum = weights_by_definition(scores, most, lines, r);
        sum as f32
    }

    /// The products of a tile of rows with the columns of a panel, which have these factors: rows of two strips of
    /// `out`, `stride` from one to the next. More rows than there are may be written, up to [`HEIGHT`], where there is
    /// room for them. Numbers of rows are [`SIGNED`], and those of the panel have an offset, or the other way round.
    #[inline(always)]
    pub(crate) fn multiply<const SIGNED_ROWS: bool>(
        self,
        tile: Tile<'_>,
        panel: &[Step],
        of_columns: &[f32; WIDTH],
        out: &mut [Strip],
        stride: usize,
    ) {
        // SAFETY: there is a `Unit`, so the CPU has the instructions.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        unsafe {
            for first in (0..tile.count).step_by(ROWS) {
                products::<SIGNED_ROWS>(tile, first, panel, of_columns, out, stride);
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        products_by_definition::<SIGNED_ROWS>(tile, panel, of_columns, out, stride);
    }
}

/// Rounds numbers to `factor · q`, `q` from −127 to 127 as bytes, and returns the factor. It is 0 where all are
/// next to nothing, and NaN, as all products then are, where one is not finite.
#[inline(always)]
pub(crate) fn quantize(values: &[f32], bytes: &mut [u8]) -> f32 {
    /// Numbers that are looked at together.
    const LANES: usize = 16;
    let mut most = [0.0f32; LANES];
    // 0, unless a number is not finite.
    let mut broken = [0.0f32; LANES];
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for values in lanes.iter().chain([&last]) {
        for i in 0..LANES {
            let size = values[i].abs();
            most[i] = if size > most[i] { size } else { most[i] };
            broken[i] = values[i].mul_add(0.0, broken[i]);
        }
    }
    // NaN is never larger.
    let broken = match broken.iter().any(|b| b.is_nan()) {
        true => f32::NAN,
        false => 0.0,
    };
    let most = largest(most);
    if most < LEAST || broken != 0.0 {
        bytes.fill(0);
        return broken;
    }
    let inverse = LARGEST / most;
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = value.mul_add(inverse, ROUND).to_bits() as u8;
    }
    bytes[values.len()..].fill(0);
    most / LARGEST
}

/// Rows of activations, packed: tiles of [`HEIGHT`], line by line.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    lines: Vec<[Line; HEIGHT]>,
    /// Lines of a row.
    depth: usize,
    count: usize,
    factors: Vec<[f32; HEIGHT]>,
    /// What the offset of the weights has added, for each row.
    added: Vec<[i32; HEIGHT]>,
    row: Vec<u8>,
}

impl Rows {
    /// Makes room for so many rows of `inputs` numbers.
    pub(crate) fn reset(&mut self, rows: usize, inputs: usize) {
        self.depth = inputs.div_ceil(Line::DEPTH);
        self.count = rows;
        let tiles = rows.div_ceil(HEIGHT);
        // What an earlier task left in rows that do not exist is multiplied, and not stored.
        (self.lines).resize(tiles * self.depth, [Line::ZERO; HEIGHT]);
        self.factors.resize(tiles, [0.0; HEIGHT]);
        self.added.resize(tiles, [0; HEIGHT]);
        self.row.resize(self.depth * Line::DEPTH, 0);
    }

    /// Writes row `r`, to be multiplied by `scale` too.
    #[inline(always)]
    pub(crate) fn set(&mut self, r: usize, values: &[f32], scale: f32) {
        let (tile, r) = (r / HEIGHT, r % HEIGHT);
        self.factors[tile][r] = scale * quantize(values, &mut self.row);
        let mut sum = 0;
        for byte in &self.row {
            sum += i32::from(byte.cast_signed());
        }
        self.added[tile][r] = OFFSET * sum;
        let lines = &mut self.lines[tile * self.depth..][..self.depth];
        for (lines, bytes) in lines.iter_mut().zip(self.row.as_chunks().0) {
            lines[r] = Line::of(bytes);
        }
    }

    /// Tiles of them.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = Tile<'_>> {
        let tiles = self.lines.chunks_exact(self.depth.max(1));
        let tiles = tiles.zip(self.factors.iter().zip(&self.added)).enumerate();
        tiles.map(|(n, (lines, (factors, added)))| Tile {
            lines,
            factors,
            added,
            count: HEIGHT.min(self.count - n * HEIGHT),
        })
    }
}

/// Writes signed numbers to a panel of columns from rows that follow each other, `[rows, columns]` with `stride` numbers
/// from one to the next, each column rounded by itself. Rows are in the order of [`Unit::softmax`]; beyond the last one
/// numbers are 0 up to the end of its line, and what is there stays behind it. Returns the factors, as those of
/// [`quantize`], 0 beyond the last column.
#[inline(always)]
pub(crate) fn set_columns(
    panel: &mut [Step],
    rows: &[f32],
    stride: usize,
    columns: usize,
) -> [f32; WIDTH] {
    let (mut most, mut broken) = ([0.0f32; WIDTH], [0.0f32; WIDTH]);
    for row in rows.chunks(stride) {
        let row: [f32; WIDTH] = filled(&row[..columns]);
        for j in 0..WIDTH {
            let size = row[j].abs();
            most[j] = if size > most[j] { size } else { most[j] };
            broken[j] = row[j].mul_add(0.0, broken[j]);
        }
    }
    let mut inverse = [0.0; WIDTH];
    let mut factors = broken;
    for j in 0..WIDTH {
        if most[j] >= LEAST {
            inverse[j] = LARGEST / most[j];
            factors[j] += most[j] / LARGEST;
        }
    }
    for (steps, rows) in panel
        .as_chunks_mut::<STEPS>()
        .0
        .iter_mut()
        .zip(rows.chunks(stride * Line::DEPTH))
    {
        let mut fours = [[0u32; WIDTH]; STEPS];
        for (r, row) in rows.chunks(stride).enumerate() {
            let row: [f32; WIDTH] = filled(&row[..columns]);
            let fours = &mut fours[r % STEPS];
            for j in 0..WIDTH {
                let byte = row[j].mul_add(inverse[j], ROUND).to_bits() & 0xff;
                fours[j] |= byte << (r / STEPS * 8);
            }
        }
        for (step, fours) in steps.iter_mut().zip(fours) {
            *step = Step(fours.map(u32::to_le_bytes));
        }
    }
    factors
}

/// Writes the weights of column `j` of a panel, and returns their factor.
#[inline(always)]
pub(crate) fn set_column(panel: &mut [Step], j: usize, values: &[f32], bytes: &mut Vec<u8>) -> f32 {
    bytes.resize(panel.len() * DEPTH, 0);
    let factor = quantize(values, bytes);
    for (step, four) in panel.iter_mut().zip(bytes.as_chunks::<DEPTH>().0) {
        step.0[j] = four.map(|byte| byte.wrapping_add(OFFSET as u8));
    }
    factor
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn is_there() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// See [`Unit::multiply`]: [`ROWS`] rows of a tile, from the first one on.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn products<const SIGNED_ROWS: bool>(
    tile: Tile<'_>,
    first: usize,
    panel: &[Step],
    of_columns: &[f32; WIDTH],
    out: &mut [Strip],
    stride: usize,
) {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_mul_ps, _mm512_set1_epi32,
        _mm512_set1_ps,
    };
    let (added, factors) = (rows(tile.added, first), rows(tile.factors, first));
    let mut sums = added.map(|added| [_mm512_set1_epi32(-added); 2]);
    for (lines, steps) in tile.lines.iter().zip(panel.as_chunks::<STEPS>().0) {
        for (p, step) in steps.iter().enumerate() {
            // SAFETY: both are 1,024 bits of anything, and a `Step` is aligned as the other has to be.
            let columns = unsafe { std::mem::transmute::<Step, [__m512i; 2]>(*step) };
            for (sums, line) in sums.iter_mut().zip(rows(lines, first)) {
                let four = _mm512_set1_epi32(line.0[p].cast_signed());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = match SIGNED_ROWS {
                        true => _mm512_dpbusd_epi32(*sum, column, four),
                        false => _mm512_dpbusd_epi32(*sum, four, column),
                    };
                }
            }
        }
    }
    // SAFETY: both are 1,024 bits of anything.
    let of_columns = unsafe { std::mem::transmute::<[f32; WIDTH], [__m512; 2]>(*of_columns) };
    for r in 0..ROWS {
        let factor = _mm512_set1_ps(factors[r]);
        let products = [0, 1].map(|half| {
            let sums = _mm512_cvtepi32_ps(sums[r][half]);
            _mm512_mul_ps(sums, _mm512_mul_ps(factor, of_columns[half]))
        });
        if let Some(out) = out.get_mut((first + r) * stride..)
            && let Some(out) = out.first_chunk_mut()
        {
            // SAFETY: both are 1,024 bits of anything.
            *out = unsafe { std::mem::transmute::<[__m512; 2], [Strip; STRIPS]>(products) };
        }
    }
}

/// Those of [`ROWS`] rows.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn rows<T>(of_all: &[T; HEIGHT], first: usize) -> &[T; ROWS] {
    of_all[first..].first_chunk().expect("as many rows")
}

/// The polynomial of the third degree that comes closest to 255 · 2ʳ for |r| ≤ ½, by least squares with Lawson's
/// weights: within 8e-5 of it. That of the highest power is the first.
const POWER: [f32; 4] = [
    255.0 * 0.055_171_67,
    255.0 * 0.242_611_14,
    255.0 * 0.693_260_97,
    255.0 * 0.999_928_06,
];
/// What is added to the weights of 64 scores in turn before they are rounded: of many weights that are less than half a
/// step, as many become one as make their sum, where all would be nothing.
pub(crate) const DITHER: [[f32; STEPS]; DEPTH] = {
    let mut dither = [[0.0; STEPS]; DEPTH];
    let mut n = 0;
    while n < Line::DEPTH {
        // Multiples of the golden ratio, which are as far from each other as can be.
        let place = n * 40_503 % (1 << 16);
        dither[n / STEPS][n % STEPS] = place as f32 / (1 << 16) as f32 - 0.5;
        n += 1;
    }
    dither
};
/// Of scores that are less by so much, weights are 0.
const LEAST_SCORE: f32 = -20.0;

/// See [`Unit::softmax`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn weights(scores: &[[Strip; DEPTH]], most: f32, lines: &mut [[Line; HEIGHT]], r: usize) -> u32 {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps,
        _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_max_ps, _mm512_or_si512,
        _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_si512,
        _mm512_slli_epi32, _mm512_sub_ps,
    };
    let most = _mm512_set1_ps(most);
    let [least, round] = [LEAST_SCORE, ROUND].map(|x| _mm512_set1_ps(x));
    let [third, second, first, constant] = POWER.map(|x| _mm512_set1_ps(x));
    // SAFETY: both are 512 bits of anything.
    let load = |x: [f32; STEPS]| unsafe { std::mem::transmute::<[f32; STEPS], __m512>(x) };
    let dithers = DITHER.map(load);
    let weight = |strip: &Strip, dither| {
        let scores = load(strip.0);
        // In this order a score that is not a number stays one.
        let x = _mm512_max_ps(least, _mm512_sub_ps(scores, most));
        let shifted = _mm512_add_ps(x, round);
        let r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, round));
        let p = _mm512_fmadd_ps(third, r, second);
        let p = _mm512_fmadd_ps(p, r, first);
        let p = _mm512_fmadd_ps(p, r, constant);
        // Times 2 to the power of the rounded score, which is in the low bits of the sum.
        let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
        let product = _mm512_add_epi32(_mm512_castps_si512(p), power);
        _mm512_cvtps_epi32(_mm512_add_ps(_mm512_castsi512_ps(product), dither))
    };
    let ones = _mm512_set1_epi8(1);
    let mut sum = _mm512_setzero_si512();
    for (lines, strips) in lines.iter_mut().zip(scores) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| weight(&strips[n], dithers[n]));
        let ab = _mm512_or_si512(a, _mm512_slli_epi32::<8>(b));
        let cd = _mm512_or_si512(c, _mm512_slli_epi32::<8>(d));
        let line = _mm512_or_si512(ab, _mm512_slli_epi32::<16>(cd));
        sum = _mm512_dpbusd_epi32(sum, line, ones);
        // SAFETY: both are 512 bits of anything.
        lines[r] = Line(unsafe { std::mem::transmute::<__m512i, [u32; STEPS]>(line) });
    }
    _mm512_reduce_add_epi32(sum).cast_unsigned()
}

/// What [`weights`] computes.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn weights_by_definition(
    scores: &[[Strip; DEPTH]],
    most: f32,
    lines: &mut [[Line; HEIGHT]],
    r: usize,
) -> u32 {
    let weight = |score: f32, dither: f32| {
        let x = (score - most).max(LEAST_SCORE);
        let n = (x + ROUND) - ROUND;
        let p = (POWER.into_iter().reduce(|p, c| p.mul_add(x - n, c))).unwrap_or_default();
        (p * n.exp2() + dither).round_ties_even() as u32
    };
    let mut sum = 0;
    for (lines, strips) in lines.iter_mut().zip(scores) {
        lines[r] = Line(std::array::from_fn(|step| {
            let four = [0, 1, 2, 3].map(|n| weight(strips[n].0[step], DITHER[n][step]));
            sum += four.iter().sum::<u32>();
            u32::from_le_bytes(four.map(|weight| weight as u8))
        }));
    }
    sum
}

// Miri has no such vectors: it runs everything around them.
#[cfg(miri)]
fn is_there() -> bool {
    true
}

#[cfg(not(any(target_arch = "x86_64", miri)))]
fn is_there() -> bool {
    false
}

/// What [`products`] computes.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn products_by_definition<const SIGNED_ROWS: bool>(
    tile: Tile<'_>,
    panel: &[Step],
    of_columns: &[f32; WIDTH],
    out: &mut [Strip],
    stride: usize,
) {
    let signed = |byte: u8, is_signed| match is_signed {
        true => i32::from(byte.cast_signed()),
        false => i32::from(byte),
    };
    for (r, out) in out.chunks_mut(stride).enumerate().take(tile.count) {
        let mut sums = [-tile.added[r]; WIDTH];
        let fours = tile.lines.iter().flat_map(|lines| lines[r].0).zip(panel);
        // The rest of a line of a short row is zeros, most of what Miri would have to compute.
        for (four, step) in fours.filter(|(four, _)| *four != 0) {
            let inputs = four.to_le_bytes().map(|x| signed(x, SIGNED_ROWS));
            for (sum, weights) in sums.iter_mut().zip(&step.0) {
                for (x, w) in inputs.iter().zip(weights) {
                    *sum += x * signed(*w, !SIGNED_ROWS);
                }
            }
        }
        for (j, sum) in sums.into_iter().enumerate() {
            out[j / STEPS].0[j % STEPS] = sum as f32 * (tile.factors[r] * of_columns[j]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_factors_times_bytes() {
        let mut bytes = [9; 8];
        let factor = quantize(&[0.5, -1.0, 0.25, 0.0, -0.003], &mut bytes);
        assert_eq!(factor, 1.0 / 127.0);
        assert_eq!(bytes.map(u8::cast_signed), [64, -127, 32, 0, 0, 0, 0, 0]);
        // 63.5 and 31.75 become even or near ones.
        assert_eq!(quantize(&[0.0, -0.0, 1e-40], &mut bytes), 0.0);
        assert_eq!(bytes, [0; 8]);
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 21];
            values[20] = broken;
            assert!(quantize(&values, &mut [0; 24]).is_nan());
        }
        let factor = quantize(&[f32::MAX, f32::MIN], &mut bytes);
        assert_eq!(factor, f32::MAX / 127.0);
        assert_eq!(bytes[..2], [127, 129]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there they are computed by the definition")]
    fn tiles_are_as_by_definition() {
        let Some(unit) = Unit::find() else {
            println!("SKIPPED: this CPU has no AVX512-VNNI");
            return;
        };
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u8
        };
        for depth in [0, 1, 2, 7] {
            let rows: Vec<[Line; HEIGHT]> = (0..depth)
                .map(|_| [(); HEIGHT].map(|()| Line::of(&[(); Line::DEPTH].map(|()| random()))))
                .collect();
            let panel: Vec<Step> = (0..depth * STEPS)
                .map(|_| Step(std::array::from_fn(|_| [(); DEPTH].map(|()| random()))))
                .collect();
            for count in 1..=HEIGHT {
                // Whether or not there is room for rows that do not exist.
                let mut ours = vec![Strip::ZERO; 3 * (count + count % 2)];
                let mut expected = ours.clone();
                let tile = Tile {
                    lines: &rows,
                    factors: &std::array::from_fn(|r| 0.3 * r as f32),
                    added: &std::array::from_fn(|r| 1000 * r as i32),
                    count,
                };
                let of_columns = std::array::from_fn(|j| 0.7 + j as f32);
                unit.multiply::<SIGNED>(tile, &panel, &of_columns, &mut ours, 3);
                products_by_definition::<SIGNED>(tile, &panel, &of_columns, &mut expected, 3);
                assert_eq!(ours[..3 * count], expected[..3 * count]);
                unit.multiply::<UNSIGNED>(tile, &panel, &of_columns, &mut ours, 3);
                products_by_definition::<UNSIGNED>(tile, &panel, &of_columns, &mut expected, 3);
                assert_eq!(ours[..3 * count], expected[..3 * count]);
            }
        }
        // Scores of all sizes, from some that have no weight.
        let scores: Vec<[Strip; DEPTH]> = (0..5)
            .map(|_| {
                [(); DEPTH].map(|()| Strip([(); STEPS].map(|()| f32::from(random()) / 9.0 - 14.0)))
            })
            .collect();
        let low = [[Strip([-1e30; STEPS]); DEPTH]];
        for scores in [&scores[..], &low, &[]] {
            let all = scores.as_flattened().iter().flat_map(|strip| strip.0);
            let most = all.fold(f32::NEG_INFINITY, f32::max);
            let mut ours = [[Line::ZERO; HEIGHT]; 5];
            let mut expected = ours;
            let sum = weights_by_definition(scores, most, &mut expected, 7);
            assert_eq!(unit.softmax(scores, &mut ours, 7), sum as f32);
            assert_eq!(ours, expected);
        }
        // The largest numbers of both kinds, as many as are allowed.
        let (lines, steps) = (MOST_INPUTS / Line::DEPTH, MOST_INPUTS / DEPTH);
        let largest = |signed: bool| if signed { 127 } else { 255 };
        let mut products = [Strip::ZERO; 2];
        for signed_rows in [true, false] {
            let rows = vec![[Line::of(&[largest(signed_rows); Line::DEPTH]); HEIGHT]; lines];
            let panel = vec![Step([[largest(!signed_rows); DEPTH]; WIDTH]); steps];
            let tile = Tile {
                lines: &rows,
                factors: &[1.0; HEIGHT],
                added: &[0; HEIGHT],
                count: 1,
            };
            match signed_rows {
                true => unit.multiply::<SIGNED>(tile, &panel, &[1.0; WIDTH], &mut products, 2),
                false => unit.multiply::<UNSIGNED>(tile, &panel, &[1.0; WIDTH], &mut products, 2),
            }
            assert_eq!(
                products,
                [Strip([(127 * 255 * MOST_INPUTS as i32) as f32; STEPS]); 2]
            );
        }
    }
}
