//! Matrix products of activations with weights that were packed once.
//!
//! The weights `[out, in]` are cut into panels of `WIDTH` outputs, each stored input by input: the
//! inner loop reads them in order. The activations are packed the same way, `HEIGHT` rows at a
//! time. A tile of `HEIGHT × WIDTH` results stays in registers over the whole inner dimension, so that
//! bias, GELU and residual are applied before it is stored.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernel::{Kernel, Kind};
use crate::math::{gelu, gelu_slope, gelu_tanh};
use crate::norm::Norm;
use crate::tiles::{self, Line, Parts, Unit};
use bytes::Bytes;
use tiled::{TiledBlock, TiledFeedForward, Tiles};

mod bytes;
mod outer;
mod tiled;

pub use outer::sum_of_outer_products;

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
    Vectors(Vectors),
    Tiles(Tiles),
    Bytes(Bytes),
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
    /// They are multiplied by the derivative of GELU at what is there, and stored: the way back through GELU.
    GeluSlope,
}

/// What is done to each number before a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// Exact GELU, `x · Φ(x)`.
    Gelu,
}

impl Activation {
    /// Rows of a hidden layer, to be activated.
    pub fn of(self, hidden: &[f32]) -> Input<'_> {
        match self {
            Activation::Identity => Input::Given(hidden),
            Activation::Gelu => Input::Gelu(hidden),
        }
    }
}

/// The rows that a product takes.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Rows as they are.
    Given(&'a [f32]),
    /// Rows, normalised.
    Normed(&'a Norm, &'a [f32]),
    /// GELU of rows.
    Gelu(&'a [f32]),
}

impl<'a> Input<'a> {
    fn values(self) -> &'a [f32] {
        match self {
            Input::Given(x) | Input::Normed(_, x) | Input::Gelu(x) => x,
        }
    }

    /// The same of other rows.
    fn of<'b>(self, x: &'b [f32]) -> Input<'b>
    where
        'a: 'b,
    {
        match self {
            Input::Given(_) => Input::Given(x),
            Input::Normed(norm, _) => Input::Normed(norm, x),
            Input::Gelu(_) => Input::Gelu(x),
        }
    }

    /// Computes rows of this width, in `made` if they are not given.
    #[inline(always)]
    fn make<'b>(self, width: usize, made: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Input::Given(x) => return x,
            Input::Normed(norm, x) => {
                made.resize(x.len(), 0.0);
                for (made, x) in made.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    norm.row(x, made);
                }
            }
            Input::Gelu(x) => {
                made.resize(x.len(), 0.0);
                (made.iter_mut().zip(x)).for_each(|(made, x)| *made = gelu(*x));
            }
        }
        made
    }
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
            Kind::Vectors => {
                let mut panels = vec![0.0; count * WIDTH * inputs];
                let chunks = panels.par_chunks_mut((WIDTH * inputs).max(1));
                chunks
                    .enumerate()
                    .for_each(|(n, panel)| pack(n, Panel::Vectors(panel)));
                Weights::Vectors(Vectors(panels))
            }
            Kind::Tiles(unit, parts) => {
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
            Kind::Bytes(unit) => {
                Weights::Bytes(Bytes::pack(weights, order, [inputs, outputs], unit))
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
        self.apply_to(Input::Given(x), then, y);
    }

    /// [`apply`](Self::apply) to rows that are computed where they are packed.
    ///
    /// # Panics
    /// The lengths do not fit.
    pub fn apply_to(&self, x: Input<'_>, then: Then<'_>, y: &mut [f32]) {
        let values = x.values();
        let rows = values.len() / self.inputs;
        assert_eq!(
            [values.len(), y.len()],
            [rows * self.inputs, rows * self.outputs],
            "rows of {} and of {} numbers",
            self.inputs,
            self.outputs
        );
        let block = self.rows_of_task(rows);
        let tasks = values
            .par_chunks(block * self.inputs)
            .map(|values| x.of(values))
            .zip(y.par_chunks_mut(block * self.outputs));
        match &self.weights {
            Weights::Vectors(panels) => self.in_panels(panels, tasks, then),
            Weights::Bytes(panels) => self.in_panels(panels, tasks, then),
            Weights::Tiles(tiles) => {
                tasks.for_each_init(Vec::new, |packed, (x, y)| {
                    Arch::new().dispatch(TiledBlock {
                        linear: self,
                        tiles,
                        x,
                        y,
                        then,
                        packed,
                    });
                });
            }
        }
    }

    fn in_panels<'a, P: Panels>(
        &self,
        panels: &P,
        tasks: impl IndexedParallelIterator<Item = (Input<'a>, &'a mut [f32])>,
        then: Then<'_>,
    ) {
        tasks.for_each_init(Scratch::default, |scratch, (x, y)| {
            Arch::new().dispatch(Block {
                linear: self,
                panels,
                x,
                y,
                then,
                scratch,
            });
        });
    }

    /// How many rows a task takes: the same for every thread.
    fn rows_of_task(&self, rows: usize) -> usize {
        let threads = rayon::current_num_threads().max(1);
        // At most, and what their number is best a multiple of.
        let (most, step) = match &self.weights {
            Weights::Vectors(_) => (BLOCK_VALUES / self.inputs / HEIGHT * HEIGHT, HALF),
            Weights::Tiles(tiles) => (tiles.rows_at_once(self), tiles::SIDE / 2),
            Weights::Bytes(_) => (bytes::MOST_ROWS, HALF),
        };
        let rounds = rows.div_ceil(most.max(HEIGHT) * threads).max(1);
        // Not 0 where there are no rows: that is no size of chunks.
        (rows.max(1).div_ceil(threads * rounds)).next_multiple_of(step)
    }
}

/// `x += scale · second(activation(first(norm(x))))`: what follows attention in a block, of rows `x` `[rows, dim]`. The
/// hidden layer is computed part by part.
///
/// # Panics
/// The lengths do not fit, or the layers were packed for kernels that differ.
pub fn feed_forward(
    norm: &Norm,
    [first, second]: [&Linear; 2],
    activation: Then<'_>,
    scale: Option<&[f32]>,
    x: &mut [f32],
) {
    let rows = x.len() / first.inputs;
    assert_eq!(
        [first.inputs, first.outputs],
        [second.outputs, second.inputs]
    );
    assert_eq!(x.len(), rows * first.inputs);
    let block = first.rows_of_task(rows) * first.inputs;
    match (&first.weights, &second.weights) {
        (Weights::Tiles(of_first), Weights::Tiles(of_second)) => {
            assert_eq!(of_first.kernel(), of_second.kernel());
            x.par_chunks_mut(block).for_each_init(
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
        (Weights::Vectors(of_first), Weights::Vectors(of_second)) => {
            let (layers, panels) = ([first, second], [of_first, of_second]);
            feed_panels(norm, layers, panels, activation, scale, x, block);
        }
        (Weights::Bytes(of_first), Weights::Bytes(of_second)) => {
            let (layers, panels) = ([first, second], [of_first, of_second]);
            feed_panels(norm, layers, panels, activation, scale, x, block);
        }
        _ => unreachable!("layers of one tower are packed for one kernel"),
    }
}

/// [`feed_forward`], `block` numbers of `x` at a time.
fn feed_panels<P: Panels>(
    norm: &Norm,
    layers: [&Linear; 2],
    panels: [&P; 2],
    activation: Then<'_>,
    scale: Option<&[f32]>,
    x: &mut [f32],
    block: usize,
) {
    x.par_chunks_mut(block)
        .for_each_init(Scratch::default, |scratch, x| {
            Arch::new().dispatch(FeedForward {
                norm,
                layers,
                panels,
                activation,
                scale,
                x,
                scratch,
            });
        });
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
                    let row = &row[channels.clone()];
                    match row.first_chunk() {
                        Some(row) => *to = *row,
                        None => to[..row.len()].copy_from_slice(row),
                    }
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

/// Packed weights that rows are multiplied with in tiles of [`HEIGHT`] × [`WIDTH`] results.
trait Panels: Sync {
    /// Packed rows.
    type Rows: Default;
    /// Channels of a hidden layer that are computed, packed and multiplied before the next ones.
    const HIDDEN: usize;

    /// Packs rows of `width` numbers.
    fn pack_rows(rows: &mut Self::Rows, x: &[f32], width: usize);

    /// Multiplies rows of a part of the inputs, to rows `y` of a part of the outputs, `stride` from one to the next.
    /// The bias is added with the first input.
    fn multiply<S: Simd>(
        &self,
        linear: &Linear,
        part: Part,
        rows: &Self::Rows,
        then: Then<'_>,
        y: &mut [f32],
        stride: usize,
    );
}

/// What is multiplied.
#[derive(Debug, Clone)]
struct Part {
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl Part {
    /// All of it.
    fn of(linear: &Linear) -> Self {
        Self {
            inputs: 0..linear.inputs,
            outputs: 0..linear.outputs,
        }
    }
}

/// Where the results of a panel go.
struct Place<'a> {
    /// Its first output.
    first: usize,
    /// Its outputs that exist, from the first one of the part on.
    columns: Range<usize>,
    bias: &'a [f32; WIDTH],
}

impl Linear {
    /// The panels of a part, and where they go.
    #[inline(always)]
    fn places(&self, part: &Part) -> impl Iterator<Item = (usize, Place<'_>)> {
        const NO_BIAS: [f32; WIDTH] = [0.0; WIDTH];
        let (outputs, is_first) = (part.outputs.clone(), part.inputs.start == 0);
        let panels = outputs.start / WIDTH..outputs.end.div_ceil(WIDTH);
        panels.map(move |n| {
            let first = n * WIDTH;
            let end = outputs.end.min(first + WIDTH);
            let place = Place {
                first,
                columns: first - outputs.start..end - outputs.start,
                bias: match is_first {
                    true => &self.bias.as_chunks().0[n],
                    false => &NO_BIAS,
                },
            };
            (n, place)
        })
    }
}

/// Rows of one task.
struct Block<'a, P: Panels> {
    linear: &'a Linear,
    panels: &'a P,
    x: Input<'a>,
    y: &'a mut [f32],
    then: Then<'a>,
    scratch: &'a mut Scratch<P>,
}

/// What a task keeps for the next one.
struct Scratch<P: Panels> {
    made: Vec<f32>,
    inputs: P::Rows,
    hidden: Vec<f32>,
    hidden_inputs: P::Rows,
}

impl<P: Panels> Default for Scratch<P> {
    fn default() -> Self {
        Self {
            made: Vec::new(),
            inputs: P::Rows::default(),
            hidden: Vec::new(),
            hidden_inputs: P::Rows::default(),
        }
    }
}

impl<P: Panels> Scratch<P> {
    /// Makes and packs rows of this width.
    #[inline(always)]
    fn pack(&mut self, x: Input<'_>, width: usize) {
        P::pack_rows(&mut self.inputs, x.make(width, &mut self.made), width);
    }
}

impl<P: Panels> WithSimd for Block<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (linear, scratch) = (self.linear, self.scratch);
        scratch.pack(self.x, linear.inputs);
        let (rows, stride) = (&scratch.inputs, linear.outputs);
        (self.panels).multiply::<S>(linear, Part::of(linear), rows, self.then, self.y, stride);
    }
}

/// Rows of one task of [`feed_forward`].
struct FeedForward<'a, P: Panels> {
    norm: &'a Norm,
    layers: [&'a Linear; 2],
    panels: [&'a P; 2],
    activation: Then<'a>,
    scale: Option<&'a [f32]>,
    x: &'a mut [f32],
    scratch: &'a mut Scratch<P>,
}

impl<P: Panels> WithSimd for FeedForward<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let ([first, second], [of_first, of_second]) = (self.layers, self.panels);
        let width = first.inputs;
        self.scratch.pack(Input::Normed(self.norm, self.x), width);
        let Scratch {
            inputs,
            hidden,
            hidden_inputs,
            ..
        } = self.scratch;
        for start in (0..first.outputs).step_by(P::HIDDEN) {
            let channels = start..first.outputs.min(start + P::HIDDEN);
            let wide = channels.len();
            hidden.resize(self.x.len() / width * wide, 0.0);
            let part = Part {
                outputs: channels.clone(),
                ..Part::of(first)
            };
            of_first.multiply::<S>(first, part, inputs, self.activation, hidden, wide);
            P::pack_rows(hidden_inputs, hidden, wide);
            let part = Part {
                inputs: channels,
                ..Part::of(second)
            };
            let then = Then::Add(self.scale);
            of_second.multiply::<S>(second, part, hidden_inputs, then, self.x, width);
        }
    }
}

/// Panels of `f32`, stored input by input.
#[derive(Debug, Clone)]
struct Vectors(Vec<f32>);

// Parts of a hidden layer are whole panels.
const _: () = assert!(Vectors::HIDDEN.is_multiple_of(WIDTH));

impl Panels for Vectors {
    /// Tiles of [`HEIGHT`], input by input.
    type Rows = Vec<f32>;
    const HIDDEN: usize = 256;

    #[inline(always)]
    fn pack_rows(rows: &mut Vec<f32>, x: &[f32], width: usize) {
        pack_rows(x, width, rows);
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
        let depth = part.inputs.len();
        for (n, place) in linear.places(&part) {
            let panel = &self.0[n * WIDTH * linear.inputs..][..WIDTH * linear.inputs];
            let panel = &panel.as_chunks::<WIDTH>().0[part.inputs.clone()];
            let y = y.chunks_mut(HEIGHT * stride);
            for (rows, y) in rows.chunks_exact(HEIGHT * depth).zip(y) {
                if y.len() <= HALF * stride {
                    let tile = tile::<S, HALF>(rows[..HALF * depth].as_chunks::<HALF>().0, panel);
                    store_tile(&tile, &place, then, stride, y);
                } else {
                    let tile = tile::<S, HEIGHT>(rows.as_chunks::<HEIGHT>().0, panel);
                    store_tile(&tile, &place, then, stride, y);
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
    packed.resize(rows.div_ceil(HEIGHT) * HEIGHT * inputs, 0.0);
    if !rows.is_multiple_of(HEIGHT) {
        let last = packed.len() - HEIGHT * inputs;
        packed[last..].fill(0.0);
    }
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
    place: &Place<'_>,
    then: Then<'_>,
    stride: usize,
    y: &mut [f32],
) {
    for (values, y) in tile.iter().zip(y.chunks_exact_mut(stride)) {
        let y = &mut y[place.columns.clone()];
        store(values, place.bias, then, place.first, y);
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
        Then::GeluSlope => {
            for i in 0..WIDTH {
                y[i] = (values[i] + bias[i]) * gelu_slope(y[i]);
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
