//! Products of whole numbers of eight bits that are added up in 32 bits, in vectors of 512 bits (AVX512-VNNI: Intel
//! since Cascade Lake, AMD since Zen 4).
//!
//! A row of activations is a factor times numbers from −127 to 127, and so are the weights of an output. The
//! instruction multiplies signed numbers with unsigned ones: weights are stored with [`OFFSET`] added, and as often
//! as the row says the offset is taken off again ([`Rows`]).
#![allow(unsafe_code)]

use crate::math::ROUND;

/// Columns of a tile: two registers of sums.
pub(crate) const WIDTH: usize = 32;
/// Rows of a tile: with two registers each they leave eight of 32 for operands.
pub(crate) const HEIGHT: usize = 12;
/// Inner values of a step: as many as are added up in 32 bits.
pub(crate) const DEPTH: usize = 4;
/// Rows of a tile, where so many are enough.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const HALF: usize = HEIGHT / 2;
/// The largest size of a number.
const LARGEST: f32 = 127.0;
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

/// What multiplies. Only this module makes one, where the CPU has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit(());

impl Unit {
    /// That of this CPU, if it has one.
    pub(crate) fn find() -> Option<Self> {
        is_there().then_some(Self(()))
    }

    /// The sums of a tile of rows, in `sums`, whose first rows are those there are: `count`, at most [`HEIGHT`].
    #[inline(always)]
    pub(crate) fn multiply(
        self,
        rows: &[[u32; HEIGHT]],
        panel: &[Step],
        count: usize,
        sums: &mut [[i32; WIDTH]; HEIGHT],
    ) {
        // SAFETY: there is a `Unit`, so the CPU has the instructions.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        unsafe {
            match count {
                ..=HALF => tile::<HALF>(rows, panel, sums),
                _ => tile::<HEIGHT>(rows, panel, sums),
            }
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        tile_by_definition(rows, panel, count, sums);
    }
}

/// Rounds numbers to `factor · q`, `q` from −127 to 127 as bytes, and returns the factor. It is 0 where all are
/// next to nothing, and NaN, as all products then are, where one is not finite.
#[inline(always)]
pub(crate) fn quantize(values: &[f32], bytes: &mut [u8]) -> f32 {
    /// Numbers that are looked at together.
    const LANES: usize = 16;
    /// What is smaller is 0: the inverse of the factor could not be told from infinity.
    const LEAST: f32 = 1e-30;
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
    let broken: f32 = broken.iter().sum();
    let most = most.into_iter().fold(0.0, f32::max);
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

/// Rows of activations, packed: tiles of [`HEIGHT`], step by step.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    steps: Vec<[u32; HEIGHT]>,
    /// Steps of a tile.
    depth: usize,
    factors: Vec<f32>,
    /// What the offset of the weights has added, for each row.
    added: Vec<i32>,
    row: Vec<u8>,
}

impl Rows {
    /// Makes room for so many rows of `inputs` numbers.
    pub(crate) fn reset(&mut self, rows: usize, inputs: usize) {
        self.depth = inputs.div_ceil(DEPTH);
        // What an earlier task left in rows that do not exist is multiplied, and not stored.
        (self.steps).resize(rows.div_ceil(HEIGHT) * self.depth, [0; HEIGHT]);
        self.factors.resize(rows, 0.0);
        self.added.resize(rows, 0);
        self.row.resize(self.depth * DEPTH, 0);
    }

    /// Writes row `r`.
    #[inline(always)]
    pub(crate) fn set(&mut self, r: usize, values: &[f32]) {
        self.factors[r] = quantize(values, &mut self.row);
        let mut sum = 0;
        for byte in &self.row {
            sum += i32::from(byte.cast_signed());
        }
        self.added[r] = OFFSET * sum;
        let tile = &mut self.steps[r / HEIGHT * self.depth..][..self.depth];
        for (step, four) in tile.iter_mut().zip(self.row.as_chunks().0) {
            step[r % HEIGHT] = u32::from_le_bytes(*four);
        }
    }

    /// Tiles, with the factor and what was added for each of their rows.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = (&[[u32; HEIGHT]], &[f32], &[i32])> {
        let rows = self.factors.chunks(HEIGHT).zip(self.added.chunks(HEIGHT));
        let tiles = self.steps.chunks_exact(self.depth.max(1)).zip(rows);
        tiles.map(|(tile, (factors, added))| (tile, factors, added))
    }
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

/// See [`Unit::multiply`]: the first `COUNT` rows of a tile.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const COUNT: usize>(
    rows: &[[u32; HEIGHT]],
    panel: &[Step],
    out: &mut [[i32; WIDTH]; HEIGHT],
) {
    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    };
    let mut sums = [[_mm512_setzero_si512(); 2]; COUNT];
    for (row, step) in rows.iter().zip(panel) {
        // SAFETY: both are 1,024 bits of anything, and a `Step` is aligned as the other has to be.
        let [left, right] = unsafe { std::mem::transmute::<Step, [__m512i; 2]>(*step) };
        for (sums, four) in sums.iter_mut().zip(row) {
            let four = _mm512_set1_epi32(four.cast_signed());
            sums[0] = _mm512_dpbusd_epi32(sums[0], left, four);
            sums[1] = _mm512_dpbusd_epi32(sums[1], right, four);
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: both are 1,024 bits of anything.
        *out = unsafe { std::mem::transmute::<[__m512i; 2], [i32; WIDTH]>(sums) };
    }
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

/// What [`tile`] computes.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn tile_by_definition(
    rows: &[[u32; HEIGHT]],
    panel: &[Step],
    count: usize,
    out: &mut [[i32; WIDTH]; HEIGHT],
) {
    for (r, out) in out.iter_mut().enumerate().take(count) {
        for (j, out) in out.iter_mut().enumerate() {
            let steps = rows.iter().zip(panel);
            *out = steps
                .map(|(row, step)| {
                    let fours = row[r].to_le_bytes().into_iter().zip(step.0[j]);
                    let products = fours.map(|(x, w)| i32::from(x.cast_signed()) * i32::from(w));
                    products.sum::<i32>()
                })
                .sum();
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
        for depth in [0, 1, 2, 97] {
            let rows: Vec<[u32; HEIGHT]> = (0..depth)
                .map(|_| {
                    std::array::from_fn(|_| u32::from_le_bytes([(); DEPTH].map(|()| random())))
                })
                .collect();
            let panel: Vec<Step> = (0..depth)
                .map(|_| Step(std::array::from_fn(|_| [(); DEPTH].map(|()| random()))))
                .collect();
            for count in 1..=HEIGHT {
                let (mut ours, mut expected) = ([[7; WIDTH]; HEIGHT], [[7; WIDTH]; HEIGHT]);
                unit.multiply(&rows, &panel, count, &mut ours);
                tile_by_definition(&rows, &panel, count, &mut expected);
                assert_eq!(ours[..count], expected[..count]);
            }
        }
        // The largest numbers of both kinds, as many as are allowed.
        let rows = vec![[u32::from_le_bytes([127; 4]); HEIGHT]; MOST_INPUTS / DEPTH];
        let panel = vec![Step([[255; DEPTH]; WIDTH]); MOST_INPUTS / DEPTH];
        let mut sums = [[0; WIDTH]; HEIGHT];
        unit.multiply(&rows, &panel, 1, &mut sums);
        assert_eq!(sums[0], [127 * 255 * MOST_INPUTS as i32; WIDTH]);
    }
}
