//! Products in vectors of `f32`, whatever their width.
//!
//! Registers of 512 bits are 32: a tile of 12 rows and two strips takes 24 of them. Those of 256 bits are sixteen: six
//! rows of one strip take twelve. What is left holds operands.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{HALF, HEIGHT, Linear, Order, Panels, Part, Place, STRIP, Then, WIDTH, store};
use crate::tiles::{fetch, portion};

/// `f32` in a register of 512 bits.
const WIDE_LANES: usize = 16;

/// The numbers of an input to the outputs of a panel. It is a line of the cache: a register that is loaded from two of
/// them costs a tenth of the time of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Strip(pub(crate) [f32; STRIP]);

impl Strip {
    pub(crate) const ZERO: Self = Self([0.0; STRIP]);
}

/// Whether tiles are of [`HEIGHT`] rows and two strips, not of [`HALF`] and one.
#[inline(always)]
pub(crate) fn has_wide_tiles<S: Simd>() -> bool {
    S::F32_LANES >= WIDE_LANES
}

/// Rows of a tile. Where they are [`HEIGHT`], the last tile has [`HALF`] if these are enough.
#[inline(always)]
pub(crate) fn height<S: Simd>() -> usize {
    match has_wide_tiles::<S>() {
        true => HEIGHT,
        false => HALF,
    }
}

/// Panels of as many outputs as a tile has columns, stored input by input.
#[derive(Debug, Clone)]
pub(super) struct Vectors(Vec<Strip>);

// Panels of any kind are whole, and so are parts of a hidden layer.
const _: () = assert!(Vectors::HIDDEN.is_multiple_of(WIDTH) && WIDTH == 2 * STRIP);

impl Vectors {
    /// Packs weights.
    pub(super) fn pack(weights: &[f32], order: Order, [inputs, outputs]: [usize; 2]) -> Self {
        let mut strips = vec![Strip::ZERO; outputs.next_multiple_of(WIDTH) / STRIP * inputs];
        // Panels of two strips, where they have one: the number that a task packs.
        let panels = strips.par_chunks_mut((2 * inputs).max(1));
        panels.enumerate().for_each(|(n, panels)| {
            Arch::new().dispatch(Pack {
                weights,
                order,
                sides: [inputs, outputs],
                first: n * WIDTH,
                panels,
            });
        });
        Self(strips)
    }
}

/// Packs [`WIDTH`] outputs, or as many as there are, from the first one on.
struct Pack<'a> {
    weights: &'a [f32],
    order: Order,
    /// Inputs and outputs.
    sides: [usize; 2],
    first: usize,
    /// Zeros.
    panels: &'a mut [Strip],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match has_wide_tiles::<S>() {
            true => self.pack::<2>(),
            false => self.pack::<1>(),
        }
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn pack<const STRIPS: usize>(self) {
        let [inputs, outputs] = self.sides;
        for (n, panel) in self.panels.chunks_exact_mut(STRIPS * inputs).enumerate() {
            let panel = panel.as_chunks_mut::<STRIPS>().0;
            let first = outputs.min(self.first + n * STRIPS * STRIP);
            let channels = first..outputs.min(first + STRIPS * STRIP);
            match self.order {
                Order::ByOutput => {
                    let rows = &self.weights[channels.start * inputs..channels.end * inputs];
                    for (j, row) in rows.chunks_exact(inputs).enumerate() {
                        for (strips, weight) in panel.iter_mut().zip(row) {
                            strips[j / STRIP].0[j % STRIP] = *weight;
                        }
                    }
                }
                Order::ByInput => {
                    for (strips, row) in panel.iter_mut().zip(self.weights.chunks_exact(outputs)) {
                        let row = row[channels.clone()].chunks(STRIP);
                        for (strip, row) in strips.iter_mut().zip(row) {
                            match row.first_chunk() {
                                Some(row) => strip.0 = *row,
                                None => strip.0[..row.len()].copy_from_slice(row),
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Panels for Vectors {
    /// Tiles, input by input.
    type Rows = Vec<f32>;
    const HIDDEN: usize = 256;

    #[inline(always)]
    fn pack_rows<S: Simd>(rows: &mut Vec<f32>, x: &[f32], width: usize) {
        let length = height::<S>() * width;
        rows.resize(x.len().div_ceil(length) * length, 0.0);
        for (tile, x) in rows.chunks_exact_mut(length).zip(x.chunks(length)) {
            if !has_wide_tiles::<S>() || x.len() <= HALF * width {
                pack_tile(x, width, tile.as_chunks_mut::<HALF>().0);
            } else {
                pack_tile(x, width, tile.as_chunks_mut::<HEIGHT>().0);
            }
        }
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        linear: &Linear,
        part: Part,
        rows: &Vec<f32>,
        then: Then<'_>,
        y: &mut [f32],
        stride: usize,
    ) {
        match has_wide_tiles::<S>() {
            true => self.multiply_in_tiles::<HEIGHT, 2, WIDTH>(linear, part, rows, then, y, stride),
            false => self.multiply_in_tiles::<HALF, 1, STRIP>(linear, part, rows, then, y, stride),
        }
    }
}

impl Vectors {
    #[inline(always)]
    fn multiply_in_tiles<const ROWS: usize, const STRIPS: usize, const COLUMNS: usize>(
        &self,
        linear: &Linear,
        part: Part,
        rows: &[f32],
        then: Then<'_>,
        y: &mut [f32],
        stride: usize,
    ) {
        let depth = part.inputs.len();
        let count = rows.len() / (ROWS * depth);
        for first in part.outputs.clone().step_by(COLUMNS) {
            let (panel, others) =
                self.0[first / STRIP * linear.inputs..].split_at(STRIPS * linear.inputs);
            let panel = &panel.as_chunks::<STRIPS>().0[part.inputs.clone()];
            let ahead = others
                .as_chunks::<STRIPS>()
                .0
                .get(part.inputs.clone())
                .unwrap_or_default();
            let place = linear.place::<COLUMNS>(&part, first / COLUMNS);
            let tiles = rows.chunks_exact(ROWS * depth);
            for (t, (tile, y)) in tiles.zip(y.chunks_mut(ROWS * stride)).enumerate() {
                let ahead = portion(ahead, t, count);
                if then.reads() {
                    for y in y.chunks_exact(stride) {
                        fetch(&y[place.columns.clone()]);
                    }
                }
                if ROWS == HALF || y.len() <= HALF * stride {
                    let tile = tile[..HALF * depth].as_chunks().0;
                    let sums = multiply_tile::<HALF, STRIPS, COLUMNS>(tile, panel, ahead);
                    store_tile(&sums, &place, then, stride, y);
                } else {
                    let tile = tile.as_chunks().0;
                    let sums = multiply_tile::<ROWS, STRIPS, COLUMNS>(tile, panel, ahead);
                    store_tile(&sums, &place, then, stride, y);
                }
            }
        }
    }
}

/// Rows to a tile, filled up with zeros.
#[inline(always)]
fn pack_tile<const ROWS: usize>(x: &[f32], inputs: usize, tile: &mut [[f32; ROWS]]) {
    if x.len() < ROWS * inputs {
        tile.as_flattened_mut().fill(0.0);
    }
    for (r, row) in x.chunks_exact(inputs).enumerate() {
        for (column, value) in tile.iter_mut().zip(row) {
            column[r] = *value;
        }
    }
}

/// `Σₖ rows[k] ⊗ panel[k]`, in registers. `COLUMNS` are those of all strips: with one loop for each the compiler makes
/// scalars. `ahead` is what is needed soon.
#[inline(always)]
pub(crate) fn multiply_tile<const ROWS: usize, const STRIPS: usize, const COLUMNS: usize>(
    rows: &[[f32; ROWS]],
    panel: &[[Strip; STRIPS]],
    ahead: &[[Strip; STRIPS]],
) -> [[f32; COLUMNS]; ROWS] {
    const { assert!(COLUMNS == STRIPS * STRIP) };
    /// Inner values between requests.
    const STEP: usize = 32;
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    let steps = rows.len().div_ceil(STEP);
    for (n, (rows, panel)) in rows.chunks(STEP).zip(panel.chunks(STEP)).enumerate() {
        fetch(portion(ahead, n, steps));
        for (row, strips) in rows.iter().zip(panel) {
            let mut values = [0.0; COLUMNS];
            for (values, strip) in values.as_chunks_mut().0.iter_mut().zip(strips) {
                *values = strip.0;
            }
            for (sums, row) in sums.iter_mut().zip(row) {
                for (sum, value) in sums.iter_mut().zip(&values) {
                    *sum = row.mul_add(*value, *sum);
                }
            }
        }
    }
    sums
}

/// Stores the rows of a tile that exist. Inlined, as all here: a function of its own would not be compiled
/// for the instructions that were found.
#[inline(always)]
fn store_tile<const ROWS: usize, const COLUMNS: usize>(
    tile: &[[f32; COLUMNS]; ROWS],
    place: &Place<'_, COLUMNS>,
    then: Then<'_>,
    stride: usize,
    y: &mut [f32],
) {
    for (values, y) in tile.iter().zip(y.chunks_exact_mut(stride)) {
        let y = &mut y[place.columns.clone()];
        store(values, place.bias, then, place.first, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm::Norm;
    use crate::product::{Activation, Block, FeedForward, Input, Scratch, Weights, outer};

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0)
            .collect()
    }

    /// A layer packed for the registers of `simd`.
    fn layer<S: Simd>(simd: S, order: Order, [inputs, outputs]: [usize; 2]) -> (Linear, Vectors) {
        let weights = numbers(inputs * outputs, 1);
        let mut strips = vec![Strip::ZERO; outputs.next_multiple_of(WIDTH) / STRIP * inputs];
        for (n, panels) in strips.chunks_exact_mut(2 * inputs).enumerate() {
            let (sides, first) = ([inputs, outputs], n * WIDTH);
            let pack = Pack {
                weights: &weights,
                order,
                sides,
                first,
                panels,
            };
            pack.with_simd(simd);
        }
        let mut bias = numbers(outputs, 2);
        bias.resize(outputs.next_multiple_of(WIDTH), 0.0);
        let vectors = Vectors(strips);
        let linear = Linear {
            weights: Weights::Vectors(vectors.clone()),
            bias,
            inputs,
            outputs,
        };
        (linear, vectors)
    }

    /// A product, a feed-forward and a sum of outer products.
    fn all<S: Simd>(simd: S, rows: usize, [inputs, outputs]: [usize; 2]) -> [Vec<f32>; 3] {
        let x = numbers(rows * inputs, 3);
        let scale = numbers(outputs, 4);
        let (linear, panels) = layer(simd, Order::ByInput, [inputs, outputs]);
        let mut y = numbers(rows * outputs, 5);
        let block = Block {
            linear: &linear,
            panels: &panels,
            x: Input::Given(&x),
            y: &mut y,
            then: Then::Add(Some(&scale)),
            scratch: &mut Scratch::default(),
        };
        block.with_simd(simd);

        let (first, of_first) = layer(simd, Order::ByOutput, [inputs, 300]);
        let (second, of_second) = layer(simd, Order::ByOutput, [300, inputs]);
        let mut fed = x.clone();
        let feed = FeedForward {
            norm: &Norm::layer(vec![1.0; inputs], vec![0.0; inputs], 1e-6),
            layers: [&first, &second],
            panels: [&of_first, &of_second],
            activation: Then::Gelu,
            scale: None,
            x: &mut fed,
            scratch: &mut Scratch::default(),
        };
        feed.with_simd(simd);

        let (linear, panels) = layer(simd, Order::ByInput, [rows, outputs]);
        let mut sum = vec![0.0; inputs * outputs];
        let columns = outer::Columns {
            linear: &linear,
            panels: &panels,
            x: &x,
            activation: Activation::Gelu,
            columns: 0..inputs,
            sum: &mut sum,
            packed: &mut Vec::new(),
        };
        columns.with_simd(simd);
        [y, fed, sum]
    }

    #[test]
    fn tiles_of_both_shapes_do_the_same() {
        let shapes = [
            (7, [5, 17]),
            (1, [1, 1]),
            (12, [9, 16]),
            (18, [30, 33]),
            (31, [13, 64]),
        ];
        // Miri takes a thousand times as long.
        let count = if cfg!(miri) { 1 } else { shapes.len() };
        for (rows, sides) in shapes.into_iter().take(count) {
            let wide = all(pulp::Scalar512b, rows, sides);
            let narrow = all(pulp::Scalar256b, rows, sides);
            assert_eq!(wide, narrow, "{rows} rows, {sides:?}");
        }
    }
}
