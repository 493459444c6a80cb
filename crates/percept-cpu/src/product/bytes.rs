//! Products of rows that are rounded to eight bits, each by itself, with weights that were, each output by itself.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{HEIGHT, Linear, Order, Panels, Part, Strip, Then, WIDTH, store};
use crate::bytes::{self, DEPTH, Line, MOST_INPUTS, Rows, SIGNED, STRIPS, Step, Unit, steps};

/// Rows of a task.
pub(super) const MOST_ROWS: usize = 16 * HEIGHT;

// Panels and tiles are as large as those of vectors.
const _: () = assert!(WIDTH == bytes::WIDTH && HEIGHT == bytes::HEIGHT);
// Parts of a hidden layer are whole lines.
const _: () =
    assert!(Bytes::HIDDEN.is_multiple_of(Line::DEPTH) && Line::DEPTH.is_multiple_of(WIDTH));

/// Weights as panels of [`WIDTH`] outputs.
#[derive(Debug, Clone)]
pub(super) struct Bytes {
    unit: Unit,
    panels: Vec<Step>,
    /// For each output, filled up to whole panels.
    factors: Vec<f32>,
}

impl Bytes {
    /// Rounds and packs weights.
    ///
    /// # Panics
    /// There are more than [`MOST_INPUTS`].
    pub(super) fn pack(
        weights: &[f32],
        order: Order,
        [inputs, outputs]: [usize; 2],
        unit: Unit,
    ) -> Self {
        assert!(inputs <= MOST_INPUTS, "{inputs} inputs");
        let (count, depth) = (outputs.div_ceil(WIDTH), steps(inputs));
        let mut panels = vec![Step::ZERO; count * depth];
        let mut factors = vec![0.0; count * WIDTH];
        (panels.par_chunks_mut(depth.max(1)))
            .zip(factors.as_chunks_mut::<WIDTH>().0)
            .enumerate()
            .for_each(|(n, (panel, factors))| {
                Arch::new().dispatch(Pack {
                    weights,
                    order,
                    sides: [inputs, outputs],
                    first: n * WIDTH,
                    panel,
                    factors,
                });
            });
        Self {
            unit,
            panels,
            factors,
        }
    }
}

/// Rounds and packs [`WIDTH`] outputs, or as many as there are, from the first one on.
struct Pack<'a> {
    weights: &'a [f32],
    order: Order,
    /// Inputs and outputs.
    sides: [usize; 2],
    first: usize,
    panel: &'a mut [Step],
    factors: &'a mut [f32; WIDTH],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let [inputs, outputs] = self.sides;
        let (mut column, mut bytes) = (Vec::new(), Vec::new());
        for (j, output) in (self.first..outputs).take(WIDTH).enumerate() {
            let weights = match self.order {
                Order::ByOutput => &self.weights[output * inputs..][..inputs],
                Order::ByInput => {
                    column.clear();
                    column.extend(self.weights[output..].iter().step_by(outputs));
                    &column[..]
                }
            };
            self.factors[j] = bytes::set_column(self.panel, j, weights, &mut bytes);
        }
    }
}

impl Panels for Bytes {
    type Rows = Rows;
    /// A row of so many has a factor of its own.
    const HIDDEN: usize = 512;

    #[inline(always)]
    fn pack_rows<S: Simd>(rows: &mut Rows, x: &[f32], width: usize) {
        rows.reset(x.len() / width, width);
        for (r, row) in x.chunks_exact(width).enumerate() {
            rows.set(r, row, 1.0);
        }
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        linear: &Linear,
        part: Part,
        rows: &Rows,
        then: Then<'_>,
        y: &mut [f32],
        stride: usize,
    ) {
        let depth = steps(linear.inputs);
        let steps = part.inputs.start / DEPTH..steps(part.inputs.end);
        let mut products = [Strip::ZERO; HEIGHT * STRIPS];
        // Rows of eight bits are made of it.
        let then = then.near();
        for n in part.outputs.start / WIDTH..part.outputs.end.div_ceil(WIDTH) {
            let place = linear.place(&part, n);
            let panel = &self.panels[n * depth..][steps.clone()];
            let of_weights = &self.factors.as_chunks().0[n];
            for (tile, y) in rows.tiles().zip(y.chunks_mut(HEIGHT * stride)) {
                (self.unit).multiply::<SIGNED>(tile, panel, of_weights, &mut products, STRIPS);
                let rows = products.as_chunks::<STRIPS>().0.iter();
                for (strips, y) in rows.zip(y.chunks_exact_mut(stride)) {
                    let mut values = [0.0; WIDTH];
                    for (values, strip) in values.as_chunks_mut().0.iter_mut().zip(strips) {
                        *values = strip.0;
                    }
                    let y = &mut y[place.columns.clone()];
                    store(&values, place.bias, then, place.first, y);
                }
            }
        }
    }
}
