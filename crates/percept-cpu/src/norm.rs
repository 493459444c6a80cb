//! Normalisation of rows.

use pulp::{Arch, WithSimd};
use rayon::prelude::*;

/// Partial sums of a row: a register of 512 bits, so that no particular order of additions holds the
/// compiler back.
const LANES: usize = 16;

/// Values handed to a thread at least.
const VALUES_PER_TASK: usize = 16 * 1024;

/// LayerNorm, or RMSNorm where there is no shift.
#[derive(Debug, Clone)]
pub struct Norm {
    gain: Vec<f32>,
    shift: Option<Vec<f32>>,
    epsilon: f32,
}

impl Norm {
    /// LayerNorm: `(x − mean) / √(variance + ε) · gain + shift`.
    ///
    /// # Panics
    /// The lengths differ.
    pub fn layer(gain: Vec<f32>, shift: Vec<f32>, epsilon: f32) -> Self {
        assert_eq!(gain.len(), shift.len());
        Self {
            gain,
            shift: Some(shift),
            epsilon,
        }
    }

    /// Reads a LayerNorm's `NAME.weight` and `NAME.bias`.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<E>(
        name: &str,
        width: usize,
        epsilon: f32,
        read: &impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let gain = read(&format!("{name}.weight"), &[width])?;
        let shift = read(&format!("{name}.bias"), &[width])?;
        Ok(Self::layer(gain, shift, epsilon))
    }

    /// RMSNorm: `x / √(mean square + ε) · gain` (T5).
    pub fn rms(gain: Vec<f32>, epsilon: f32) -> Self {
        Self {
            gain,
            shift: None,
            epsilon,
        }
    }

    /// Normalises the rows of `x` into `y`.
    ///
    /// # Panics
    /// The lengths differ.
    pub fn apply(&self, x: &[f32], y: &mut [f32]) {
        let width = self.gain.len();
        assert_eq!(x.len(), y.len());
        let task = (VALUES_PER_TASK / width).max(1) * width;
        y.par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .for_each(|(y, x)| {
                Arch::new().dispatch(Rows { norm: self, x, y });
            });
    }

    /// Normalises rows where they are.
    pub fn apply_in_place(&self, x: &mut [f32]) {
        let width = self.gain.len();
        let task = (VALUES_PER_TASK / width).max(1) * width;
        x.par_chunks_mut(task).for_each_init(Vec::new, |given, x| {
            given.clear();
            given.extend_from_slice(x);
            let (x, y) = (given, x);
            Arch::new().dispatch(Rows { norm: self, x, y });
        });
    }

    /// Normalises a row.
    #[inline(always)]
    pub(crate) fn row(&self, x: &[f32], y: &mut [f32]) {
        let Self {
            gain,
            shift,
            epsilon,
        } = self;
        let count = gain.len() as f32;
        let mean = match shift {
            Some(_) => sum(x, |v| v) / count,
            None => 0.0,
        };
        let variance = sum(x, |v| (v - mean) * (v - mean)) / count;
        let scale = 1.0 / (variance + epsilon).sqrt();
        match shift {
            Some(shift) => {
                for (((y, x), gain), shift) in y.iter_mut().zip(x).zip(gain).zip(shift) {
                    *y = ((x - mean) * scale).mul_add(*gain, *shift);
                }
            }
            None => {
                for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                    *y = x * scale * gain;
                }
            }
        }
    }
}

struct Rows<'a> {
    norm: &'a Norm,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let width = self.norm.gain.len();
        for (y, x) in self
            .y
            .chunks_exact_mut(width)
            .zip(self.x.chunks_exact(width))
        {
            self.norm.row(x, y);
        }
    }
}

#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(*value);
    }
    lanes.iter().sum()
}
