//! Position embeddings for any image size: the rules of DINO, timm and transformers.
//!
//! Bicubic resampling is separable and linear, so it is two small matrix products,
//! `rows · grid · columnsᵀ`. That runs on every device and lets gradients through.

use burn::tensor::{Device, Tensor, TensorData};

use crate::PositionInterpolation;

/// Resamples a position grid `[rows, columns, dim]` to `[target rows · target columns, dim]`,
/// row by row. A grid that already has the target size is only reshaped.
pub fn interpolate(grid: Tensor<3>, target: [usize; 2], rule: PositionInterpolation) -> Tensor<2> {
    let [rows, columns, dim] = grid.dims();
    if [rows, columns] == target {
        return grid.reshape([rows * columns, dim]);
    }
    let device = grid.device();
    let by_row = weights(rows, target[0], rule, &device);
    let by_column = weights(columns, target[1], rule, &device);
    // [target rows, columns · dim], then each row's columns: [target rows, target columns, dim].
    let tall = by_row.matmul(grid.reshape([rows, columns * dim]));
    let wide = by_column
        .unsqueeze::<3>()
        .matmul(tall.reshape([target[0], columns, dim]));
    wide.reshape([target[0] * target[1], dim])
}

fn weights(from: usize, to: usize, rule: PositionInterpolation, device: &Device) -> Tensor<2> {
    let values = match rule {
        PositionInterpolation::Dino => plain_weights(from, to, from as f64 / (to as f64 + 0.1)),
        PositionInterpolation::Timm => timm_weights(from, to),
        PositionInterpolation::Size => plain_weights(from, to, from as f64 / to as f64),
    };
    Tensor::from_data(TensorData::new(values, [to, from]), device)
}

/// torch's `interpolate(mode="bicubic")` with samples `step` cells apart, `[to, from]`, row-major. With
/// `scale_factor=(to + 0.1) / from` they follow that factor, with `size=to` the ratio of the sizes.
fn plain_weights(from: usize, to: usize, step: f64) -> Vec<f32> {
    const A: f64 = -0.75;
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_mut(from).enumerate() {
        let center = (i as f64 + 0.5) * step - 0.5;
        let first = center.floor() as i64 - 1;
        for tap in first..first + 4 {
            // Taps beyond the border read the border.
            let index = tap.clamp(0, from as i64 - 1) as usize;
            row[index] += cubic(center - tap as f64, A) as f32;
        }
    }
    weights
}

/// torch's `interpolate(size=to, mode="bicubic", antialias=True)`: a window of two source cells
/// on either side, widened by the factor of a reduction. `[to, from]`, row-major.
fn timm_weights(from: usize, to: usize) -> Vec<f32> {
    const A: f64 = -0.5;
    let scale = from as f64 / to as f64;
    let widen = scale.max(1.0);
    let support = 2.0 * widen;
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_mut(from).enumerate() {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).floor().max(0.0) as usize;
        let last = ((center + support + 0.5).floor() as usize).min(from);
        let taps: Vec<f64> = (first..last)
            .map(|j| cubic((j as f64 + 0.5 - center) / widen, A))
            .collect();
        let sum: f64 = taps.iter().sum();
        for (weight, tap) in row[first..last].iter_mut().zip(&taps) {
            *weight = (tap / sum) as f32;
        }
    }
    weights
}

/// Keys' cubic convolution kernel with parameter `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [PositionInterpolation; 3] = [
        PositionInterpolation::Dino,
        PositionInterpolation::Timm,
        PositionInterpolation::Size,
    ];

    #[test]
    fn every_row_of_weights_sums_to_one() {
        let device = Device::flex();
        for (from, to) in [(14, 21), (37, 32), (14, 7), (5, 1), (1, 5)] {
            for rule in RULES {
                let sums = weights(from, to, rule, &device).sum_dim(1).into_data();
                for sum in sums.iter::<f32>() {
                    assert!((sum - 1.0).abs() < 1e-5, "{from} to {to}");
                }
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let device = Device::flex();
        let grid = Tensor::<3>::from_floats([[[1.0], [2.0]], [[3.0], [5.0]]], &device);
        for rule in RULES {
            let same: Vec<f32> = interpolate(grid.clone(), [2, 2], rule)
                .into_data()
                .try_to_vec()
                .unwrap();
            assert_eq!(same, [1.0, 2.0, 3.0, 5.0]);
        }
    }
}
