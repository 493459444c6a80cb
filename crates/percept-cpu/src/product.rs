//! Matrix products of activations with weights that were packed once.
//!
//! The weights `[out, in]` are cut into panels of some outputs, each stored input by input: the
//! inner loop reads them in order. The activations are packed the same way, some rows at a
//! time. A tile of results stays in registers over the whole inner dimension, so that
//! bias, GELU and residual are applied before it is stored.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernel::{Kernel, Kind};
use crate::math::{gelu, gelu_near, gelu_slope, gelu_tanh};
use crate::norm::Norm;
use crate::room::with_room;
use crate::tiles::{self, Line};
use bytes::Bytes;
use tiled::{TiledBlock, TiledFeedForward, Tiles};
use vectors::Vectors;

mod bytes;
mod outer;
mod tiled;
mod vectors;

pub use outer::sum_of_outer_products;
pub(crate) use vectors::{Strip, has_wide_tiles, multiply_tile};

/// What the number of outputs is filled up to a multiple of: columns of the widest tile, two registers of 512 bits.
pub(crate) const WIDTH: usize = 32;
/// Columns of a panel of vectors: a line of the cache.
pub(crate) const STRIP: usize = 16;
/// Rows of the widest tile: with two registers each they leave eight of 32 for operands.
pub(crate) const HEIGHT: usize = 12;
/// Rows of its last tile, where so many are enough, and of all tiles where registers are fewer.
pub(crate) const HALF: usize = HEIGHT / 2;

/// Rows of activations that a task packs and takes through all panels at most: with the panel they stay in a
/// second-level cache of 1 MB.
const BLOCK_VALUES: usize = 102 * 768;

/// Weights and bias of a linear layer.
#[derive(Debug, Clone)]
pub struct Linear {
    weights: Weights,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

/// Panels of outputs, as a kernel reads them.
#[derive(Debug, Clone)]
enum Weights {
    Vectors(Vectors),
    Tiles(Tiles),
    Bytes(Bytes),
}

// A panel of tiles is as wide.
const _: () = assert!(WIDTH == tiles::SIDE);

/// What becomes of the results of a linear layer.
#[derive(Debug, Clone, Copy)]
pub enum Then<'a> {
    /// They are stored.
    Store,
    /// GELU of them is stored.
    Gelu,
    /// GELU of them is stored, nearly: they are rounded to eight bits next.
    GeluNear,
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

impl Then<'_> {
    /// Whether what is there matters.
    fn reads(self) -> bool {
        match self {
            Then::Store | Then::Gelu | Then::GeluNear | Then::GeluTanh | Then::Relu => false,
            Then::Multiply | Then::Add(_) | Then::GeluSlope => true,
        }
    }

    /// The same, for what is rounded to eight bits next.
    #[inline(always)]
    fn near(self) -> Self {
        match self {
            Then::Gelu => Then::GeluNear,
            other => other,
        }
    }
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
                for (made, x) in made.iter_mut().zip(x) {
                    *made = gelu(*x);
                }
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
        let sides = [inputs, outputs];
        let packed = match kernel.0 {
            Kind::Vectors => Weights::Vectors(Vectors::pack(weights, order, sides)),
            Kind::Tiles(unit, parts) => {
                Weights::Tiles(Tiles::pack_weights(weights, order, sides, unit, parts))
            }
            Kind::Bytes(unit) => Weights::Bytes(Bytes::pack(weights, order, sides, unit)),
        };
        let mut padded = vec![0.0; outputs.next_multiple_of(WIDTH)];
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
        read: &impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
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
                tasks.for_each(|(x, y)| {
                    with_room(|packed| {
                        Arch::new().dispatch(TiledBlock {
                            linear: self,
                            tiles,
                            x,
                            y,
                            then,
                            packed,
                        });
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
        tasks.for_each(|(x, y)| {
            with_room(|scratch| {
                Arch::new().dispatch(Block {
                    linear: self,
                    panels,
                    x,
                    y,
                    then,
                    scratch,
                });
            });
        });
    }

    /// How many rows a task takes.
    fn rows_of_task(&self, rows: usize) -> usize {
        // At most, and what their number is best a multiple of.
        let (most, step) = match &self.weights {
            Weights::Vectors(_) => (BLOCK_VALUES / self.inputs, HALF),
            Weights::Tiles(tiles) => (tiles.rows_at_once(self), tiles.unit.step()),
            Weights::Bytes(_) => (bytes::MOST_ROWS, HALF),
        };
        share(rows, rayon::current_num_threads().max(1), most, step)
    }
}

/// How many rows a task takes, a multiple of `step` and at most `most`: such that the thread that has most of them has
/// as few as can be. Tasks that are much smaller than they may be would read the weights more often.
pub(crate) fn share(rows: usize, threads: usize, most: usize, step: usize) -> usize {
    let [rows, most] = [rows, most / step].map(|n| n.max(1));
    let least = rows.div_ceil(threads * step).min(most.div_ceil(2));
    let of_busiest = |task: &usize| {
        let (full, rest) = (rows / task, (rows % task).next_multiple_of(step));
        match full % threads {
            // The task that is not full is one more than all threads have.
            0 => full / threads * task + rest,
            _ => full.div_ceil(threads) * task,
        }
    };
    // Of those that are as good the largest.
    let tasks = (least..=most).rev().map(|tiles| tiles * step);
    tasks.min_by_key(of_busiest).unwrap_or(step)
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
            x.par_chunks_mut(block).for_each(|x| {
                with_room(|[packed, hidden]: &mut [Vec<Line>; 2]| {
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
                });
            });
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
    x.par_chunks_mut(block).for_each(|x| {
        with_room(|scratch| {
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

/// Packed weights that rows are multiplied with in tiles.
trait Panels: Sync + 'static {
    /// Packed rows.
    type Rows: Default;
    /// Channels of a hidden layer that are computed, packed and multiplied before the next ones.
    const HIDDEN: usize;

    /// Packs rows of `width` numbers.
    fn pack_rows<S: Simd>(rows: &mut Self::Rows, x: &[f32], width: usize);

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

/// Where the results of `W` columns go.
struct Place<'a, const W: usize> {
    /// The first output.
    first: usize,
    /// The outputs that exist, from the first one of the part on.
    columns: Range<usize>,
    bias: &'a [f32; W],
}

impl Linear {
    /// The place of the `n`th `W` outputs, of which some are in the part.
    #[inline(always)]
    fn place<const W: usize>(&self, part: &Part, n: usize) -> Place<'_, W> {
        let (first, outputs) = (n * W, &part.outputs);
        let at = |output: usize| output.min(outputs.end) - outputs.start;
        Place {
            first,
            columns: at(first)..at(first + W),
            bias: match part.inputs.start {
                0 => &self.bias.as_chunks().0[n],
                _ => &[0.0; W],
            },
        }
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
    fn pack<S: Simd>(&mut self, x: Input<'_>, width: usize) {
        P::pack_rows::<S>(&mut self.inputs, x.make(width, &mut self.made), width);
    }
}

impl<P: Panels> WithSimd for Block<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (linear, scratch) = (self.linear, self.scratch);
        scratch.pack::<S>(self.x, linear.inputs);
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
        let input = Input::Normed(self.norm, self.x);
        self.scratch.pack::<S>(input, width);
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
            P::pack_rows::<S>(hidden_inputs, hidden, wide);
            let part = Part {
                inputs: channels,
                ..Part::of(second)
            };
            let then = Then::Add(self.scale);
            of_second.multiply::<S>(second, part, hidden_inputs, then, self.x, width);
        }
    }
}

/// Stores the first of these results, as many as there is room for.
#[inline(always)]
fn store<const W: usize>(
    values: &[f32; W],
    bias: &[f32; W],
    then: Then<'_>,
    first: usize,
    y: &mut [f32],
) {
    match y.first_chunk_mut() {
        Some(y) => store_row(values, bias, then, first, y),
        None => {
            let mut row = [0.0; W];
            row[..y.len()].copy_from_slice(y);
            store_row(values, bias, then, first, &mut row);
            y.copy_from_slice(&row[..y.len()]);
        }
    }
}

/// One loop for each case: of several, one after the other, the compiler makes scalars.
#[inline(always)]
fn store_row<const W: usize>(
    values: &[f32; W],
    bias: &[f32; W],
    then: Then<'_>,
    first: usize,
    y: &mut [f32; W],
) {
    match then {
        Then::Store => {
            for i in 0..W {
                y[i] = values[i] + bias[i];
            }
        }
        Then::Gelu => {
            for i in 0..W {
                y[i] = gelu(values[i] + bias[i]);
            }
        }
        Then::GeluNear => {
            for i in 0..W {
                y[i] = gelu_near(values[i] + bias[i]);
            }
        }
        Then::GeluTanh => {
            for i in 0..W {
                y[i] = gelu_tanh(values[i] + bias[i]);
            }
        }
        Then::Relu => {
            for i in 0..W {
                let value = values[i] + bias[i];
                y[i] = if value < 0.0 { 0.0 } else { value };
            }
        }
        Then::Multiply => {
            for i in 0..W {
                y[i] *= values[i] + bias[i];
            }
        }
        Then::Add(None) => {
            for i in 0..W {
                y[i] += values[i] + bias[i];
            }
        }
        Then::GeluSlope => {
            for i in 0..W {
                y[i] = (values[i] + bias[i]) * gelu_slope(y[i]);
            }
        }
        Then::Add(Some(scale)) => {
            let scale = &scale[first..];
            let mut padded = [0.0; W];
            let scale = scale.first_chunk().unwrap_or_else(|| {
                padded[..scale.len()].copy_from_slice(scale);
                &padded
            });
            for i in 0..W {
                y[i] = (values[i] + bias[i]).mul_add(scale[i], y[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn threads_have_about_as_many_rows() {
        // Photos of 224 and of 448 pixels in patches of 16: CLS and 14 · 14 or 28 · 28 patches.
        assert_eq!(share(197, 2, 102, 6), 102);
        assert_eq!(share(785, 2, 102, 6), 78);
        // Of 12 rows, two threads have six each, and one has all.
        assert_eq!((share(12, 2, 102, 6), share(12, 1, 102, 6)), (6, 102));
        for rows in (0..2000).step_by(if cfg!(miri) { 97 } else { 1 }) {
            for threads in [1, 2, 3, 8] {
                let (most, step) = (102, 6);
                let task = share(rows, threads, most, step);
                assert!(
                    task > 0 && task <= most && task.is_multiple_of(step),
                    "{task}"
                );
                // Tasks in turn, as if all were as fast.
                let mut of_thread = vec![0; threads];
                for (n, at) in (0..rows).step_by(task).enumerate() {
                    of_thread[n % threads] += task.min(rows - at);
                }
                let busiest = of_thread.into_iter().max().unwrap_or(0);
                let fair = rows.div_ceil(threads);
                assert!(
                    busiest <= fair + fair / 8 + step,
                    "{rows} rows, {threads} threads: {busiest}"
                );
            }
        }
        // Less than a step fits: a step it is.
        assert_eq!(share(50, 2, 4, 6), 6);
    }
}
