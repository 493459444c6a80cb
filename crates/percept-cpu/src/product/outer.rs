//! Sums of outer products, which are the gradients of weights.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::vectors::{has_wide_tiles, height};
use super::{Activation, HALF, HEIGHT, Linear, Panels, Part, Then, Vectors, Weights};
use crate::kernel::Kernel;
use crate::math::gelu;

/// Rows that are added at once: packed, those of 1,536 numbers fit into a last cache that a rented core can count on.
const ROWS: usize = 512;
/// Rows that are packed for all tiles before the next rows: a line of the cache goes to more than one tile, and those of
/// rows whose distance is a multiple of a power of two take each other's place.
const ROWS_AT_ONCE: usize = 16;
/// Columns that a task turns: as many as a line of the cache has of them.
const COLUMNS_OF_TURN: usize = 16;

/// `activation(x)ᵀ · y` of `x` `[rows, m]` and `y` `[rows, n]`: `[m, n]`, the gradient of a linear layer's weights
/// `[in, out]`. The order of additions does not depend on the number of threads.
///
/// # Panics
/// The lengths do not fit.
pub fn sum_of_outer_products(
    x: &[f32],
    activation: Activation,
    y: &[f32],
    [m, n]: [usize; 2],
    kernel: Kernel,
) -> Vec<f32> {
    assert_eq!(x.len() * n, y.len() * m, "as many rows of {m} as of {n}");
    let mut sum = vec![0.0; m * n];
    let mut turned = Vec::new();
    for (x, y) in x.chunks(ROWS * m).zip(y.chunks(ROWS * n)) {
        let linear = Linear::by_input(y, None, n, kernel);
        if let Weights::Vectors(panels) = &linear.weights {
            let count = linear.rows_of_task(m);
            sum.par_chunks_mut(count * n).enumerate().for_each_init(
                Vec::new,
                |packed, (i, sum)| {
                    Arch::new().dispatch(Columns {
                        linear: &linear,
                        panels,
                        x,
                        activation,
                        columns: i * count..m,
                        sum,
                        packed,
                    });
                },
            );
            continue;
        }
        let rows = x.len() / m;
        turned.resize(m * rows, 0.0);
        turned
            .par_chunks_mut(COLUMNS_OF_TURN * rows)
            .enumerate()
            .for_each(|(i, turned)| turn(x, m, i * COLUMNS_OF_TURN, turned));
        linear.apply_to(activation.of(&turned), Then::Add(None), &mut sum);
    }
    sum
}

/// Columns of `x` of one task: they stand there as tiles want them, and need not be turned.
pub(super) struct Columns<'a> {
    pub(super) linear: &'a Linear,
    pub(super) panels: &'a Vectors,
    pub(super) x: &'a [f32],
    pub(super) activation: Activation,
    /// From the first one to the end of the row.
    pub(super) columns: Range<usize>,
    /// A row for each column.
    pub(super) sum: &'a mut [f32],
    pub(super) packed: &'a mut Vec<f32>,
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (linear, packed) = (self.linear, self.packed);
        let (depth, count) = (linear.inputs, self.sum.len() / linear.outputs);
        let side = height::<S>();
        packed.resize(count.div_ceil(side) * side * depth, 0.0);
        for (b, x) in self.x.chunks(ROWS_AT_ONCE * self.columns.end).enumerate() {
            for (t, tile) in packed.chunks_exact_mut(side * depth).enumerate() {
                let columns = self.columns.start + t * side..self.columns.end;
                if !has_wide_tiles::<S>() || count - t * side <= HALF {
                    let tile = tile.as_chunks_mut::<HALF>().0;
                    pack(x, columns, &mut tile[b * ROWS_AT_ONCE..]);
                } else {
                    let tile = tile.as_chunks_mut::<HEIGHT>().0;
                    pack(x, columns, &mut tile[b * ROWS_AT_ONCE..]);
                }
            }
        }
        if let Activation::Gelu = self.activation {
            for value in &mut *packed {
                *value = gelu(*value);
            }
        }
        let (part, then) = (Part::of(linear), Then::Add(None));
        (self.panels).multiply::<S>(linear, part, packed, then, self.sum, linear.outputs);
    }
}

/// The first of these columns, as many as `tile` is wide, filled up with zeros.
#[inline(always)]
fn pack<const SIDE: usize>(x: &[f32], columns: Range<usize>, tile: &mut [[f32; SIDE]]) {
    for (to, row) in tile.iter_mut().zip(x.chunks_exact(columns.end)) {
        let row = &row[columns.clone()];
        match row.first_chunk() {
            Some(row) => *to = *row,
            None => {
                *to = [0.0; SIDE];
                to[..row.len()].copy_from_slice(row);
            }
        }
    }
}

/// Columns of rows of `width`, from number `first` on, to rows: as many as `turned` has room for, [`COLUMNS_OF_TURN`] at
/// most. A square at a time, for from one row of `turned` to the next it can be as far as from one line of the cache to
/// another that takes its place.
fn turn(x: &[f32], width: usize, first: usize, turned: &mut [f32]) {
    const SIDE: usize = COLUMNS_OF_TURN;
    let rows = x.len() / width;
    let columns = turned.len() / rows;
    for (block, x) in x.chunks(SIDE * width).enumerate() {
        let mut square = [[0.0; SIDE]; SIDE];
        for (r, row) in x.chunks_exact(width).enumerate() {
            let row = &row[first..][..columns];
            match row.first_chunk::<SIDE>() {
                Some(row) => (0..SIDE).for_each(|c| square[c][r] = row[c]),
                None => (0..columns).for_each(|c| square[c][r] = row[c]),
            }
        }
        let count = x.len() / width;
        for (turned, row) in turned.chunks_exact_mut(rows).zip(&square) {
            let to = &mut turned[block * SIDE..][..count];
            match to.first_chunk_mut::<SIDE>() {
                Some(to) => *to = *row,
                None => to.copy_from_slice(&row[..count]),
            }
        }
    }
}
