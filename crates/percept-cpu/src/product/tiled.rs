//! Products in tiles: rows are packed, normalised if need be, and each panel of weights is multiplied with all of
//! them, while the tile before gets what follows.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Input, Linear, Order, Then, WIDTH, store, store_row};
use crate::norm::Norm;
use crate::tiles::{self, Beside, Line, Parts, Unit};

/// Weights as panels of [`WIDTH`] outputs.
#[derive(Debug, Clone)]
pub(super) struct Tiles {
    pub(super) unit: Unit,
    pub(super) parts: Parts,
    pub(super) panels: Vec<Line>,
}

impl Tiles {
    pub(super) fn kernel(&self) -> (Unit, Parts) {
        (self.unit, self.parts)
    }

    /// Packs weights.
    pub(super) fn pack_weights(
        weights: &[f32],
        order: Order,
        [inputs, outputs]: [usize; 2],
        unit: Unit,
        parts: Parts,
    ) -> Self {
        let length = parts.panel(inputs);
        let mut panels = vec![Line::ZERO; outputs.div_ceil(WIDTH) * length];
        (panels.par_chunks_mut(length.max(1)))
            .enumerate()
            .for_each(|(n, panel)| {
                let channels = n * WIDTH..outputs.min((n + 1) * WIDTH);
                match order {
                    Order::ByOutput => {
                        let rows = &weights[channels.start * inputs..channels.end * inputs];
                        unit.set_transposed(panel, parts, rows, inputs, inputs);
                    }
                    Order::ByInput => {
                        let (rows, count) = (&weights[channels.start..], channels.len());
                        unit.set_columns(panel, parts, rows, outputs, count);
                    }
                }
            });
        Self {
            unit,
            parts,
            panels,
        }
    }

    /// Rows of which the packed inputs stay in the second-level cache.
    pub(super) fn rows_at_once(&self, linear: &Linear) -> usize {
        let lines = self.unit.lines_at_once();
        lines / self.parts.panel(linear.inputs).max(1) * tiles::SIDE
    }

    /// Makes and packs rows of `width` numbers.
    #[inline(always)]
    fn pack(&self, x: Input<'_>, width: usize, packed: &mut Vec<Line>) {
        const SIDE: usize = tiles::SIDE;
        let length = self.parts.panel(width);
        let values = x.values();
        // What an earlier task left in rows that do not exist is multiplied, and not stored.
        packed.resize((values.len() / width).div_ceil(SIDE) * length, Line::ZERO);
        let mut made = Vec::new();
        for (r, row) in values.chunks_exact(width).enumerate() {
            let row = x.of(row).make(width, &mut made);
            let panel = &mut packed[r / SIDE * length..][..length];
            self.unit.set_row(panel, self.parts, r % SIDE, row);
        }
    }

    /// Multiplies packed rows, of which there are `rows`, with all weights.
    #[inline(always)]
    fn multiply(&self, linear: &Linear, packed: &[Line], rows: usize, then: Then<'_>, to: To<'_>) {
        const SIDE: usize = tiles::SIDE;
        let length = self.parts.panel(linear.inputs);
        let count = rows.div_ceil(SIDE);
        let open = self.unit.open();
        // While a tile is multiplied, the one before it gets its bias and is stored.
        let (mut one, mut other) = ([[0.0; WIDTH]; SIDE], [[0.0; WIDTH]; SIDE]);
        let mut next = &mut one;
        let mut last = Store {
            tile: &mut other,
            at: None,
            ahead: &[],
            tiles: self,
            biases: linear.bias.as_chunks::<WIDTH>().0,
            then,
            outputs: linear.outputs,
            to,
        };
        for (n, panel) in self.panels.chunks_exact(length).enumerate() {
            for (p, of_rows) in packed.chunks_exact(length).take(count).enumerate() {
                let high = SIDE.min(rows - p * SIDE);
                let out = next.as_flattened_mut();
                // A share of the next panel.
                let ahead = self.panels.get((n + 1) * length..(n + 2) * length);
                let ahead = ahead.unwrap_or_default();
                last.ahead = &ahead[p * ahead.len() / count..(p + 1) * ahead.len() / count];
                let panels = [of_rows, panel];
                open.product(panels, self.parts, high, out, WIDTH, &mut last);
                std::mem::swap(&mut next, &mut last.tile);
                last.at = Some([p, n]);
            }
        }
        last.ahead = &[];
        last.work(0, 1);
    }
}

/// Where results go.
enum To<'a> {
    /// To rows `[rows, outputs]`.
    Rows(&'a mut [f32]),
    /// To packed rows, for a product with as many inputs.
    Packed(&'a mut [Line]),
}

/// Rows of one task, in tiles.
pub(super) struct TiledBlock<'a> {
    pub(super) linear: &'a Linear,
    pub(super) tiles: &'a Tiles,
    pub(super) x: Input<'a>,
    pub(super) y: &'a mut [f32],
    pub(super) then: Then<'a>,
    pub(super) packed: &'a mut Vec<Line>,
}

impl WithSimd for TiledBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let inputs = self.linear.inputs;
        self.tiles.pack(self.x, inputs, self.packed);
        let (rows, to) = (self.x.values().len() / inputs, To::Rows(self.y));
        (self.tiles).multiply(self.linear, self.packed, rows, self.then, to);
    }
}

/// Rows of one task of [`feed_forward`](super::feed_forward), in tiles.
pub(super) struct TiledFeedForward<'a> {
    pub(super) norm: &'a Norm,
    pub(super) layers: [&'a Linear; 2],
    pub(super) tiles: [&'a Tiles; 2],
    pub(super) activation: Then<'a>,
    pub(super) scale: Option<&'a [f32]>,
    pub(super) x: &'a mut [f32],
    pub(super) packed: &'a mut Vec<Line>,
    pub(super) hidden: &'a mut Vec<Line>,
}

impl WithSimd for TiledFeedForward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const SIDE: usize = tiles::SIDE;
        let ([first, second], [of_first, of_second]) = (self.layers, self.tiles);
        let (width, length) = (first.inputs, of_second.parts.panel(second.inputs));
        let rows = self.x.len() / width;
        of_first.pack(Input::Normed(self.norm, self.x), width, self.packed);
        self.hidden.resize(rows.div_ceil(SIDE) * length, Line::ZERO);
        let to = To::Packed(self.hidden);
        let activation = match of_second.parts {
            Parts::One => self.activation.near(),
            Parts::Two => self.activation,
        };
        of_first.multiply(first, self.packed, rows, activation, to);
        // Fewer rows at once: those of the hidden layer are longer.
        let panels = (of_second.rows_at_once(second) / SIDE).max(1);
        let parts = self.x.chunks_mut(panels * SIDE * width);
        for (x, hidden) in parts.zip(self.hidden.chunks(panels * length)) {
            let (rows, then) = (x.len() / width, Then::Add(self.scale));
            of_second.multiply(second, hidden, rows, then, To::Rows(x));
        }
    }
}

/// A tile that is to be stored.
struct Store<'a> {
    tile: &'a mut [[f32; WIDTH]; tiles::SIDE],
    /// Numbers of its panels of rows and of columns, if there is one.
    at: Option<[usize; 2]>,
    /// What is needed soon.
    ahead: &'a [Line],
    tiles: &'a Tiles,
    biases: &'a [[f32; WIDTH]],
    then: Then<'a>,
    outputs: usize,
    to: To<'a>,
}

impl Beside for Store<'_> {
    #[inline(always)]
    fn ahead(&self) -> &[Line] {
        self.ahead
    }

    #[inline(always)]
    fn work(&mut self, step: usize, steps: usize) {
        const SIDE: usize = tiles::SIDE;
        let Some([p, n]) = self.at else {
            return;
        };
        let (bias, first) = (&self.biases[n], n * WIDTH);
        let rows = step * SIDE / steps..(step + 1) * SIDE / steps;
        match &mut self.to {
            To::Rows(y) => {
                let channels = first..self.outputs.min(first + WIDTH);
                let y = y.chunks_exact_mut(self.outputs);
                let y = y.skip(p * SIDE + rows.start);
                for (values, y) in self.tile[rows].iter().zip(y) {
                    store(values, bias, self.then, first, &mut y[channels.clone()]);
                }
            }
            To::Packed(lines) => {
                let (unit, parts) = self.tiles.kernel();
                let panel = &mut lines[p * parts.panel(self.outputs)..];
                let panel = &mut panel[parts.panel(first)..][..parts.panel(WIDTH)];
                for r in rows {
                    let mut row = [0.0; WIDTH];
                    store_row(&self.tile[r], bias, self.then, first, &mut row);
                    unit.set_row(panel, parts, r, &row);
                }
            }
        }
    }
}
