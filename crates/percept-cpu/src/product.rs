//! Matrix products of activations with weights that were packed once.
//!
//! The weights `[out, in]` are cut into panels of `WIDTH` outputs, each stored input by input: the
//! inner loop reads them in order. The activations are packed the same way, `HEIGHT` rows at a
//! time. A tile of `HEIGHT × WIDTH` results stays in registers over the whole inner dimension, so that
//! bias, GELU and residual are applied before it is stored.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernel::Kernel;
use crate::math::{gelu, gelu_tanh};
use crate::norm::Norm;
use crate::tiles::{self, Line, Parts, Unit};
use tiled::{TiledBlock, TiledFeedForward, Tiles};

mod tiled;

/// Columns of a tile: two registers of 512 bits.
pub(crate) const WIDTH: usize = 32;
/// Rows of a tile: with two registers each they leave eight of 32 for operands.
pub(crate) const HEIGHT: usize = 12;

/// Rows of the last tile, where so many are enough.
const HALF: usize = HEIGHT / 2;

/// `f32` in a register of 512 bits: of these there are 32, enough for a whole tile.
const WIDE_LANES: usize = 16;
/// Registers of 256 bits are sixteen: six rows of two leave four for operands.
const NARROW_ROWS: usize = 6;
const NARROW_WIDTH: usize = 16;

/// Rows of activations that a task packs and takes through all panels: with the panel they stay in a
/// second-level cache of 1 MB.
const BLOCK_VALUES: usize = 96 * 768;

/// Rows of a [`sum_of_outer_products`] that are added at once: packed, those of 1,536 numbers fit into a
/// last cache that a rented core can count on.
const ROWS_OF_SUM: usize = 512;
/// Columns of these that a task turns: as many as a line of the cache has of them.
const COLUMNS_OF_TURN: usize = 16;

/// Weights and bias of a linear layer.
#[derive(Debug, Clone)]
pub struct Linear {
    weights: Weights,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

/// Panels of [`WIDTH`] outputs, as a kernel reads them.
#[derive(Debug, Clone)]
enum Weights {
    Vectors(Vec<f32>),
    Tiles(Tiles),
}

// A panel is as wide for both.
const _: () = assert!(WIDTH == tiles::SIDE);

/// What becomes of the results of a linear layer.
#[derive(Debug, Clone, Copy)]
pub enum Then<'a> {
    /// They are stored.
    Store,
    /// GELU of them is stored.
    Gelu,
    /// GELU of them by its formula with tanh is stored.
    GeluTanh,
    /// They are stored, zeros in place of what is below.
    Relu,
    /// What is there is multiplied by them.
    Multiply,
    /// They are added to what is there, times a factor for each channel (LayerScale) if there is one.
    Add(Option<&'a [f32]>),
}

impl Linear {
    /// Packs row-major weights `[out, in]` and a bias `[out]`, of zeros if there is none, for a kernel.
    ///
    /// # Panics
    /// The lengths do not fit.
    pub fn new(weights: &[f32], bias: Option<&[f32]>, inputs: usize, kernel: Kernel) -> Self {
        assert_eq!(weights.len() % inputs, 0, "weights of {inputs} inputs");
        let outputs = weights.len() / inputs;
        Self::pack(weights, Order::ByOutput, bias, [inputs, outputs], kernel)
    }

    /// Packs row-major weights `[in, out]`, the transpose of what [`new`](Self::new) takes.
    ///
    /// # Panics
    /// The lengths do not fit.
    pub fn by_input(weights: &[f32], bias: Option<&[f32]>, outputs: usize, kernel: Kernel) -> Self {
        assert_eq!(weights.len() % outputs, 0, "weights of {outputs} outputs");
        let inputs = weights.len() / outputs;
        Self::pack(weights, Order::ByInput, bias, [inputs, outputs], kernel)
    }

    fn pack(
        weights: &[f32],
        order: Order,
        bias: Option<&[f32]>,
        [inputs, outputs]: [usize; 2],
        kernel: Kernel,
    ) -> Self {
        let count = outputs.div_ceil(WIDTH);
        let pack = |n: usize, panel: Panel<'_>| {
            Arch::new().dispatch(Pack {
                weights,
                order,
                sides: [inputs, outputs],
                n,
                panel,
            });
        };
        let packed = match kernel.0 {
            None => {
                let mut panels = vec![0.0; count * WIDTH * inputs];
                let chunks = panels.par_chunks_mut((WIDTH * inputs).max(1));
                chunks
                    .enumerate()
                    .for_each(|(n, panel)| pack(n, Panel::Vectors(panel)));
                Weights::Vectors(panels)
            }
            Some((unit, parts)) => {
                let length = parts.panel(inputs);
                let mut panels = vec![Line::ZERO; count * length];
                let chunks = panels.par_chunks_mut(length.max(1));
                chunks
                    .enumerate()
                    .for_each(|(n, panel)| pack(n, Panel::Tiles(unit, parts, panel)));
                Weights::Tiles(Tiles {
                    unit,
                    parts,
                    panels,
                })
            }
        };
        let mut padded = vec![0.0; count * WIDTH];
        if let Some(bias) = bias {
            padded[..outputs].copy_from_slice(bias);
        }
        Self {
            weights: packed,
            bias: padded,
            inputs,
            outputs,
        }
    }

    /// Reads `NAME.weight` and `NAME.bias` of `[outputs, inputs]`.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<E>(
        name: &str,
        [outputs, inputs]: [usize; 2],
        kernel: Kernel,
        read: &mut impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let weights = read(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = read(&format!("{name}.bias"), &[outputs])?;
        Ok(Self::new(&weights, Some(&bias), inputs, kernel))
    }

    /// Width of what it takes.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of the results.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `x · weightsᵀ + bias` of `x` `[rows, in]`, to `y` `[rows, out]`.
    ///
    /// # Panics
    /// The lengths do not fit.
    pub fn apply(&self, x: &[f32], then: Then<'_>, y: &mut [f32]) {
        self.apply_to(x, None, then, y);
    }

    /// The same of rows that are normalised at first.
    ///
    /// # Panics
    /// The lengths do not fit.
    pub fn apply_to_normed(&self, norm: &Norm, x: &[f32], then: Then<'_>, y: &mut [f32]) {
        self.apply_to(x, Some(norm), then, y);
    }

    fn apply_to(&self, x: &[f32], norm: Option<&Norm>, then: Then<'_>, y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        assert_eq!(
            [x.len(), y.len()],
            [rows * self.inputs, rows * self.outputs],
            "rows of {} and of {} numbers",
            self.inputs,
            self.outputs
        );
        let block = self.rows_of_task(rows);
        let tasks = x
            .par_chunks(block * self.inputs)
            .zip(y.par_chunks_mut(block * self.outputs));
        match &self.weights {
            Weights::Vectors(panels) => {
                tasks.for_each_init(Vec::new, |packed, (x, y)| {
                    Arch::new().dispatch(Block {
                        linear: self,
                        panels,
                        norm,
                        x,
                        y,
                        then,
                        packed,
                    });
                });
            }
            Weights::Tiles(tiles) => {
                tasks.for_each_init(Vec::new, |packed, (x, y)| {
                    Arch::new().dispatch(TiledBlock {
                        linear: self,
                        tiles,
                        norm,
                        x,
                        y,
                        then,
                        packed,
                    });
                });
            }
        }
    }

    /// How many rows a task takes: the same for every thread.
    fn rows_of_task(&self, rows: usize) -> usize {
        let threads = rayon::current_num_threads().max(1);
        // At most, and what their number is best a multiple of.
        let (most, step) = match &self.weights {
            Weights::Vectors(_) => (BLOCK_VALUES / self.inputs / HEIGHT * HEIGHT, HALF),
            Weights::Tiles(tiles) => (tiles.rows_at_once(self), tiles::SIDE / 2),
        };
        let rounds = rows.div_ceil(most.max(HEIGHT) * threads).max(1);
        // Not 0 where there are no rows: that is no size of chunks.
        (rows.max(1).div_ceil(threads * rounds)).next_multiple_of(step)
    }
}

/// `x += scale · second(activation(first(norm(x))))`: what follows attention in a block, of rows `x` `[rows, dim]`. The
/// hidden layer is in `hidden`, unless it is computed part by part.
///
/// # Panics
/// The lengths do not fit, or the layers were packed for kernels that differ.
pub fn feed_forward(
    norm: &Norm,
    [first, second]: [&Linear; 2],
    activation: Then<'_>,
    scale: Option<&[f32]>,
    x: &mut [f32],
    hidden: &mut Vec<f32>,
) {
    let rows = x.len() / first.inputs;
    assert_eq!(
        [first.inputs, first.outputs],
        [second.outputs, second.inputs]
    );
    assert_eq!(x.len(), rows * first.inputs);
    let (of_first, of_second) = match (&first.weights, &second.weights) {
        (Weights::Tiles(of_first), Weights::Tiles(of_second)) => (of_first, of_second),
        _ => {
            hidden.resize(rows * first.outputs, 0.0);
            first.apply_to_normed(norm, x, activation, hidden);
            return second.apply(hidden, Then::Add(scale), x);
        }
    };
    assert_eq!(of_first.kernel(), of_second.kernel());
    let block = first.rows_of_task(rows);
    x.par_chunks_mut(block * first.inputs).for_each_init(
        <[Vec<Line>; 2]>::default,
        |[packed, hidden], x| {
            Arch::new().dispatch(TiledFeedForward {
                norm,
                layers: [first, second],
                tiles: [of_first, of_second],
                activation,
                scale,
                x,
                packed,
                hidden,
            });
        },
    );
}

/// Which axis of weights is the first.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// `[out, in]`.
    ByOutput,
    /// `[in, out]`.
    ByInput,
}

/// Packs the weights of [`WIDTH`] outputs.
struct Pack<'a> {
    weights: &'a [f32],
    order: Order,
    /// Inputs and outputs.
    sides: [usize; 2],
    /// Number of the panel.
    n: usize,
    panel: Panel<'a>,
}

/// A panel of zeros that is to be filled.
enum Panel<'a> {
    Vectors(&'a mut [f32]),
    Tiles(Unit, Parts, &'a mut [Line]),
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let [inputs, outputs] = self.sides;
        let channels = self.n * WIDTH..outputs.min((self.n + 1) * WIDTH);
        match (self.order, self.panel) {
            (Order::ByOutput, Panel::Vectors(panel)) => {
                let rows = &self.weights[channels.start * inputs..channels.end * inputs];
                for (j, row) in rows.chunks_exact(inputs).enumerate() {
                    for (i, weight) in row.iter().enumerate() {
                        panel[i * WIDTH + j] = *weight;
                    }
                }
            }
            (Order::ByInput, Panel::Vectors(panel)) => {
                let rows = self.weights.chunks_exact(outputs);
                for (to, row) in panel.as_chunks_mut::<WIDTH>().0.iter_mut().zip(rows) {
                    to[..channels.len()].copy_from_slice(&row[channels.clone()]);
                }
            }
            (Order::ByOutput, Panel::Tiles(unit, parts, panel)) => {
                let rows = &self.weights[channels.start * inputs..channels.end * inputs];
                unit.set_transposed(panel, parts, rows, inputs, inputs);
            }
            (Order::ByInput, Panel::Tiles(unit, parts, panel)) => {
                let rows = &self.weights[channels.start..];
                unit.set_columns(panel, parts, rows, outputs, channels.len());
            }
        }
    }
}

/// `xᵀ · y` of `x` `[rows, m]` and `y` `[rows, n]`: `[m, n]`, the gradient of a linear layer's weights
/// `[in, out]`. The order of additions does not depend on the number of threads.
///
/// # Panics
/// The lengths do not fit.
pub fn sum_of_outer_products(x: &[f32], y: &[f32], [m, n]: [usize; 2], kernel: Kernel) -> Vec<f32> {
    assert_eq!(x.len() * n, y.len() * m, "as many rows of {m} as of {n}");
    let mut sum = vec![0.0; m * n];
    let mut turned = Vec::new();
    for (x, y) in x.chunks(ROWS_OF_SUM * m).zip(y.chunks(ROWS_OF_SUM * n)) {
        let rows = x.len() / m;
        turned.resize(m * rows, 0.0);
        turned
            .par_chunks_mut(COLUMNS_OF_TURN * rows)
            .enumerate()
            .for_each(|(i, columns)| {
                let first = i * COLUMNS_OF_TURN;
                for (r, row) in x.chunks_exact(m).enumerate() {
                    for (column, value) in columns.chunks_exact_mut(rows).zip(&row[first..]) {
                        column[r] = *value;
                    }
                }
            });
        Linear::by_input(y, None, n, kernel).apply(&turned, Then::Add(None), &mut sum);
    }
    sum
}

/// Rows of one task.
struct Block<'a> {
    linear: &'a Linear,
    panels: &'a [f32],
    norm: Option<&'a Norm>,
    x: &'a [f32],
    y: &'a mut [f32],
    then: Then<'a>,
    packed: &'a mut Vec<f32>,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            linear,
            panels,
            norm,
            x,
            y,
            then,
            packed,
        } = self;
        let (inputs, outputs) = (linear.inputs, linear.outputs);
        let mut normed = Vec::new();
        let x = match norm {
            Some(norm) => {
                normed.resize(x.len(), 0.0);
                let rows = normed.chunks_exact_mut(inputs);
                for (normed, x) in rows.zip(x.chunks_exact(inputs)) {
                    norm.row(x, normed);
                }
                &normed
            }
            None => x,
        };
        pack_rows(x, inputs, packed);
        let panels = panels
            .chunks_exact(WIDTH * inputs)
            .zip(linear.bias.as_chunks::<WIDTH>().0);
        for (n, (panel, bias)) in panels.enumerate() {
            let panel = panel.as_chunks::<WIDTH>().0;
            let first = n * WIDTH;
            let width = WIDTH.min(outputs - first);
            for (rows, y) in packed
                .chunks_exact(HEIGHT * inputs)
                .zip(y.chunks_mut(HEIGHT * outputs))
            {
                let channels = first..first + width;
                if y.len() <= HALF * outputs {
                    let tile = tile::<S, HALF>(rows[..HALF * inputs].as_chunks::<HALF>().0, panel);
                    store_tile(&tile, bias, then, channels, outputs, y);
                } else {
                    let tile = tile::<S, HEIGHT>(rows.as_chunks::<HEIGHT>().0, panel);
                    store_tile(&tile, bias, then, channels, outputs, y);
                }
            }
        }
    }
}

/// Rows to tiles of [`HEIGHT`] rows, input by input; the last one, of [`HALF`] if these are enough, is
/// filled up with zeros.
#[inline(always)]
fn pack_rows(x: &[f32], inputs: usize, packed: &mut Vec<f32>) {
    let rows = x.len() / inputs;
    packed.clear();
    packed.resize(rows.div_ceil(HEIGHT) * HEIGHT * inputs, 0.0);
    for (tile, x) in packed
        .chunks_exact_mut(HEIGHT * inputs)
        .zip(x.chunks(HEIGHT * inputs))
    {
        if x.len() <= HALF * inputs {
            pack_tile(x, inputs, tile.as_chunks_mut::<HALF>().0);
        } else {
            pack_tile(x, inputs, tile.as_chunks_mut::<HEIGHT>().0);
        }
    }
}

#[inline(always)]
fn pack_tile<const ROWS: usize>(x: &[f32], inputs: usize, tile: &mut [[f32; ROWS]]) {
    for (r, row) in x.chunks_exact(inputs).enumerate() {
        for (column, value) in tile.iter_mut().zip(row) {
            column[r] = *value;
        }
    }
}

/// `Σₖ rows[k] ⊗ panel[k]`, as many results at a time as `S` has registers for. There are
/// [`NARROW_ROWS`] rows at least.
#[inline(always)]
pub(crate) fn tile<S: Simd, const ROWS: usize>(
    rows: &[[f32; ROWS]],
    panel: &[[f32; WIDTH]],
) -> [[f32; WIDTH]; ROWS] {
    if S::F32_LANES >= WIDE_LANES {
        return part::<ROWS, ROWS, WIDTH>(rows, panel, [0, 0]);
    }
    let mut sum = [[0.0f32; WIDTH]; ROWS];
    // The last rows begin where they end with the tile: some may be computed twice, to the same.
    for first in [0, ROWS.saturating_sub(NARROW_ROWS)] {
        for column in (0..WIDTH).step_by(NARROW_WIDTH) {
            let found = part::<ROWS, NARROW_ROWS, NARROW_WIDTH>(rows, panel, [first, column]);
            for (sum, found) in sum[first..].iter_mut().zip(&found) {
                sum[column..column + NARROW_WIDTH].copy_from_slice(found);
            }
        }
        if ROWS <= NARROW_ROWS {
            break;
        }
    }
    sum
}

/// The results of [`tile`] from row and column `first` on.
#[inline(always)]
fn part<const ROWS: usize, const HIGH: usize, const WIDE: usize>(
    rows: &[[f32; ROWS]],
    panel: &[[f32; WIDTH]],
    first: [usize; 2],
) -> [[f32; WIDE]; HIGH] {
    let mut sum = [[0.0f32; WIDE]; HIGH];
    for (row, panel) in rows.iter().zip(panel) {
        let (row, panel) = (&row[first[0]..][..HIGH], &panel[first[1]..][..WIDE]);
        for r in 0..HIGH {
            for j in 0..WIDE {
                sum[r][j] = row[r].mul_add(panel[j], sum[r][j]);
            }
        }
    }
    sum
}

/// Stores the rows of a tile that exist. Inlined, as all here: a function of its own would not be compiled
/// for the instructions that were found.
#[inline(always)]
fn store_tile<const ROWS: usize>(
    tile: &[[f32; WIDTH]; ROWS],
    bias: &[f32; WIDTH],
    then: Then<'_>,
    channels: Range<usize>,
    outputs: usize,
    y: &mut [f32],
) {
    for (values, y) in tile.iter().zip(y.chunks_exact_mut(outputs)) {
        store(values, bias, then, channels.start, &mut y[channels.clone()]);
    }
}

#[inline(always)]
fn store(values: &[f32; WIDTH], bias: &[f32; WIDTH], then: Then<'_>, first: usize, y: &mut [f32]) {
    match y.first_chunk_mut() {
        Some(y) => store_row(values, bias, then, first, y),
        None => {
            let mut row = [0.0; WIDTH];
            row[..y.len()].copy_from_slice(y);
            store_row(values, bias, then, first, &mut row);
            y.copy_from_slice(&row[..y.len()]);
        }
    }
}

/// One loop for each case: of several, one after the other, the compiler makes scalars.
#[inline(always)]
fn store_row(
    values: &[f32; WIDTH],
    bias: &[f32; WIDTH],
    then: Then<'_>,
    first: usize,
    y: &mut [f32; WIDTH],
) {
    match then {
        Then::Store => {
            for i in 0..WIDTH {
                y[i] = values[i] + bias[i];
            }
        }
        Then::Gelu => {
            for i in 0..WIDTH {
                y[i] = gelu(values[i] + bias[i]);
            }
        }
        Then::GeluTanh => {
            for i in 0..WIDTH {
                y[i] = gelu_tanh(values[i] + bias[i]);
            }
        }
        Then::Relu => {
            for i in 0..WIDTH {
                let value = values[i] + bias[i];
                y[i] = if value < 0.0 { 0.0 } else { value };
            }
        }
        Then::Multiply => {
            for i in 0..WIDTH {
                y[i] *= values[i] + bias[i];
            }
        }
        Then::Add(None) => {
            for i in 0..WIDTH {
                y[i] += values[i] + bias[i];
            }
        }
        Then::Add(Some(scale)) => {
            let scale = &scale[first..];
            let mut padded = [0.0; WIDTH];
            let scale = scale.first_chunk().unwrap_or_else(|| {
                padded[..scale.len()].copy_from_slice(scale);
                &padded
            });
            for i in 0..WIDTH {
                y[i] = (values[i] + bias[i]).mul_add(scale[i], y[i]);
            }
        }
    }
}
