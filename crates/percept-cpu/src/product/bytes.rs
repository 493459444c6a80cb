//! Products of rows that are rounded to eight bits, each by itself, with weights that were, each output by itself.

use pulp::Simd;
use rayon::prelude::*;

use super::{HEIGHT, Linear, Order, Panels, Part, Then, WIDTH, store};
use crate::bytes::{self, DEPTH, MOST_INPUTS, Rows, Step, Unit};

/// Rows of a task.
pub(super) const MOST_ROWS: usize = 16 * HEIGHT;

// Panels and tiles are as large as those of vectors.
const _: () = assert!(WIDTH == bytes::WIDTH && HEIGHT == bytes::HEIGHT);
const _: () = assert!(Bytes::HIDDEN.is_multiple_of(WIDTH) && WIDTH.is_multiple_of(DEPTH));

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
        let (count, depth) = (outputs.div_ceil(WIDTH), inputs.div_ceil(DEPTH));
        let mut panels = vec![Step::ZERO; count * depth];
        let mut factors = vec![0.0; count * WIDTH];
        (panels.par_chunks_mut(depth.max(1)))
            .zip(factors.as_chunks_mut::<WIDTH>().0)
            .enumerate()
            .for_each(|(n, (panel, factors))| {
                let (mut column, mut bytes) = (Vec::new(), Vec::new());
                let outputs_of_panel = n * WIDTH..outputs.min((n + 1) * WIDTH);
                for (j, output) in outputs_of_panel.enumerate() {
                    column.clear();
                    match order {
                        Order::ByOutput => {
                            column.extend_from_slice(&weights[output * inputs..][..inputs]);
                        }
                        Order::ByInput => {
                            column.extend(weights[output..].iter().step_by(outputs));
                        }
                    }
                    factors[j] = bytes::set_column(panel, j, &column, &mut bytes);
                }
            });
        Self {
            unit,
            panels,
            factors,
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
            rows.set(r, row);
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
        let depth = linear.inputs.div_ceil(DEPTH);
        let steps = part.inputs.start / DEPTH..part.inputs.end.div_ceil(DEPTH);
        let mut sums = [[0; WIDTH]; HEIGHT];
        for n in part.outputs.start / WIDTH..part.outputs.end.div_ceil(WIDTH) {
            let place = linear.place(&part, n);
            let panel = &self.panels[n * depth..][steps.clone()];
            let of_weights: &[f32; WIDTH] = &self.factors.as_chunks().0[n];
            let y = y.chunks_mut(HEIGHT * stride);
            for ((tile, factors, added), y) in rows.tiles().zip(y) {
                (self.unit).multiply(tile, panel, factors.len(), &mut sums);
                let rows = sums.iter().zip(factors.iter().zip(added));
                for ((sums, (factor, added)), y) in rows.zip(y.chunks_exact_mut(stride)) {
                    let mut values = [0.0; WIDTH];
                    for j in 0..WIDTH {
                        values[j] = (sums[j] - added) as f32 * (factor * of_weights[j]);
                    }
                    let y = &mut y[place.columns.clone()];
                    store(&values, place.bias, then, place.first, y);
                }
            }
        }
    }
}
