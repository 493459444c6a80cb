//! What text encoders share: tokens to one vector, and the dense layers behind it.

use crate::kernel::Kernel;
use crate::math::gelu;
use crate::product::{Linear, Then};

/// How the tokens of a text become one vector; padding never counts. The names are those of sentence-transformers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first one.
    Cls,
    /// Their maximum, per channel.
    Max,
    /// Their sum over the root of their number.
    MeanSqrtLen,
    /// Their mean, the n-th of them counting n times.
    WeightedMean,
    /// The last one.
    LastToken,
}

impl Pooling {
    /// Vectors `[texts, dim]` of the first tokens of each text, of which `lengths` says how many there are; texts
    /// are `stride` numbers long. A text without tokens gives zeros.
    pub(crate) fn apply(self, x: &[f32], lengths: &[usize], stride: usize, dim: usize) -> Vec<f32> {
        let mut pooled = vec![0.0; lengths.len() * dim];
        for ((out, rows), length) in (pooled.chunks_exact_mut(dim))
            .zip(x.chunks_exact(stride))
            .zip(lengths)
        {
            self.pool(&rows[..length * dim], out);
        }
        pooled
    }

    /// One vector of tokens `[tokens, dim]`.
    fn pool(self, tokens: &[f32], out: &mut [f32]) {
        let dim = out.len();
        let count = (tokens.len() / dim) as f32;
        let rows = tokens.chunks_exact(dim);
        match self {
            Self::Cls => rows.take(1).for_each(|row| out.copy_from_slice(row)),
            Self::LastToken => {
                rows.rev().take(1).for_each(|row| out.copy_from_slice(row));
            }
            Self::Max => {
                for (i, row) in rows.enumerate() {
                    for (max, value) in out.iter_mut().zip(row) {
                        *max = if i == 0 { *value } else { max.max(*value) };
                    }
                }
            }
            Self::Mean => add_rows(rows, |_| 1.0 / count, out),
            Self::MeanSqrtLen => add_rows(rows, |_| 1.0 / count.sqrt(), out),
            Self::WeightedMean => {
                let all = count * (count + 1.0) / 2.0;
                add_rows(rows, |i| (i + 1) as f32 / all, out);
            }
        }
    }
}

/// Adds rows to `sum`, each times its weight.
fn add_rows<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    weight: impl Fn(usize) -> f32,
    sum: &mut [f32],
) {
    for (i, row) in rows.enumerate() {
        let weight = weight(i);
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += value * weight;
        }
    }
}

/// What is applied to the results of a [`Dense`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// GELU by the error function.
    Gelu,
}

/// A linear layer behind the pooling, with its activation.
#[derive(Debug)]
pub struct Dense {
    linear: Linear,
    activation: Activation,
}

impl Dense {
    /// Reads `NAME.weight` of `[outputs, inputs]` and, if it `has_bias`, `NAME.bias`.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<E>(
        name: &str,
        [outputs, inputs]: [usize; 2],
        has_bias: bool,
        activation: Activation,
        kernel: Kernel,
        read: &impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let linear = if has_bias {
            Linear::read(name, [outputs, inputs], kernel, read)?
        } else {
            let weights = read(&format!("{name}.weight"), &[outputs, inputs])?;
            Linear::new(&weights, None, inputs, kernel)
        };
        Ok(Self { linear, activation })
    }

    /// Its results `[rows, outputs]` for rows `[rows, inputs]`.
    ///
    /// # Panics
    /// `x` is no whole number of rows.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.linear.inputs();
        let mut out = vec![0.0; rows * self.linear.outputs()];
        self.linear.apply(x, Then::Store, &mut out);
        match self.activation {
            Activation::Identity => {}
            Activation::Tanh => out.iter_mut().for_each(|v| *v = v.tanh()),
            Activation::Relu => out.iter_mut().for_each(|v| *v = v.max(0.0)),
            Activation::Gelu => out.iter_mut().for_each(|v| *v = gelu(*v)),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Precision;

    #[test]
    fn poolings_are_those_of_sentence_transformers() {
        // Two texts, of two tokens and of one; the third token of each is padding.
        let x = [
            1.0, -4.0, 3.0, -2.0, 9.0, 9.0, //
            5.0, -1.0, 7.0, 7.0, 7.0, 7.0,
        ];
        let of = |pooling: Pooling| pooling.apply(&x, &[2, 1], 6, 2);
        assert_eq!(of(Pooling::Mean), [2.0, -3.0, 5.0, -1.0]);
        assert_eq!(of(Pooling::Cls), [1.0, -4.0, 5.0, -1.0]);
        assert_eq!(of(Pooling::Max), [3.0, -2.0, 5.0, -1.0]);
        assert_eq!(of(Pooling::LastToken), [3.0, -2.0, 5.0, -1.0]);
        let close = |a: Vec<f32>, b: [f64; 4]| {
            let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 1e-6;
            assert!(a.iter().zip(&b).all(near), "{a:?} {b:?}");
        };
        let root = 2f64.sqrt();
        close(
            of(Pooling::MeanSqrtLen),
            [4.0 / root, -6.0 / root, 5.0, -1.0],
        );
        close(
            of(Pooling::WeightedMean),
            [7.0 / 3.0, -8.0 / 3.0, 5.0, -1.0],
        );
    }

    #[test]
    fn a_dense_layer_has_bias_and_activation() {
        let read = |name: &str, _: &[usize]| {
            Ok::<_, ()>(match name {
                "d.weight" => vec![1.0, 2.0, -1.0, 0.5],
                _ => vec![0.5, -0.25],
            })
        };
        let of = |bias, activation| {
            let kernel = Kernel::best(Precision::F32);
            let dense = Dense::read("d", [2, 2], bias, activation, kernel, &read).unwrap();
            dense.apply(&[1.0, -1.0])
        };
        assert_eq!(of(false, Activation::Identity), [-1.0, -1.5]);
        assert_eq!(of(true, Activation::Identity), [-0.5, -1.75]);
        assert_eq!(of(true, Activation::Relu), [0.0, 0.0]);
        assert_eq!(
            of(true, Activation::Tanh),
            [(-0.5f32).tanh(), (-1.75f32).tanh()]
        );
        assert_eq!(of(true, Activation::Gelu), [gelu(-0.5), gelu(-1.75)]);
    }
}
