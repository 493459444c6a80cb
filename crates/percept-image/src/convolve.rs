//! Separable convolution of 8-bit RGB in fixed point: the arithmetic under [`resize`](crate::resize::resize).

use std::f64::consts::PI;
use std::ops::Range;

/// Bits behind the point of a weight. With 8 bits of pixel and room for the sum of a cubic's weights
/// by magnitude (under 2, so one bit and the sign), products add up within 32 bits.
const FRACTION_BITS: u32 = 22;

/// Half a level, so that the final shift rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

const CHANNELS: usize = 3;

/// A filter: how much a pixel counts, by its distance from the centre in pixels.
pub(crate) struct Kernel {
    weight: fn(f64) -> f64,
    /// Beyond this distance the weight is zero.
    support: f64,
}

impl Kernel {
    pub(crate) const BOX: Self = Self {
        // Open on one side, so that a pixel on the border of two belongs to one.
        weight: |x| f64::from(u8::from(x > -0.5 && x <= 0.5)),
        support: 0.5,
    };

    pub(crate) const TRIANGLE: Self = Self {
        weight: |x| (1.0 - x.abs()).max(0.0),
        support: 1.0,
    };

    /// Keys's cubic with A = -0.5 (Catmull-Rom); PyTorch's own interpolation has -0.75.
    pub(crate) const CUBIC: Self = Self {
        weight: |x| {
            const A: f64 = -0.5;
            match x.abs() {
                x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
                x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
                _ => 0.0,
            }
        },
        support: 2.0,
    };

    pub(crate) const LANCZOS3: Self = Self {
        weight: |x| {
            if (-3.0..3.0).contains(&x) {
                sinc(x) * sinc(x / 3.0)
            } else {
                0.0
            }
        },
        support: 3.0,
    };
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    (x * PI).sin() / (x * PI)
}

/// What one new position is made of.
struct Taps {
    /// The source positions.
    source: Range<usize>,
    /// Their weights, which add up to one, in units of `2^-FRACTION_BITS`.
    weights: Vec<i32>,
}

/// The taps of each of `to` positions over `from` positions. Both are at least one.
fn taps(from: u32, to: u32, kernel: &Kernel) -> Vec<Taps> {
    let scale = f64::from(from) / f64::from(to);
    // Antialiasing: when shrinking, the filter covers as many pixels as fall on the new one.
    let stretch = scale.max(1.0);
    let support = kernel.support * stretch;
    (0..to)
        .map(|position| {
            let centre = (f64::from(position) + 0.5) * scale;
            // Casts to unsigned stop at zero, the image's edge.
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from as usize);
            let weights: Vec<f64> = (first..end)
                .map(|at| (kernel.weight)((at as f64 - centre + 0.5) * (1.0 / stretch)))
                .collect();
            let sum: f64 = weights.iter().sum();
            let to_fixed = |weight: f64| {
                let normalised = if sum == 0.0 { weight } else { weight / sum };
                (normalised * f64::from(1 << FRACTION_BITS)).round() as i32
            };
            Taps {
                source: first..end,
                weights: weights.into_iter().map(to_fixed).collect(),
            }
        })
        .collect()
}

/// Brings each row of `pixels` from `from` to `to` pixels. Rows are a multiple of `from` pixels of
/// three bytes.
pub(crate) fn convolve_rows(pixels: &[u8], from: u32, to: u32, kernel: &Kernel) -> Vec<u8> {
    if from == to {
        return pixels.to_vec();
    }
    let taps = taps(from, to, kernel);
    let row_bytes = from as usize * CHANNELS;
    let mut result = Vec::with_capacity(pixels.len() / row_bytes * to as usize * CHANNELS);
    for row in pixels.chunks_exact(row_bytes) {
        for Taps { source, weights } in &taps {
            let covered = &row[source.start * CHANNELS..source.end * CHANNELS];
            let [mut red, mut green, mut blue] = [HALF; CHANNELS];
            for (pixel, &weight) in covered.chunks_exact(CHANNELS).zip(weights) {
                red += i32::from(pixel[0]) * weight;
                green += i32::from(pixel[1]) * weight;
                blue += i32::from(pixel[2]) * weight;
            }
            result.extend_from_slice(&[red, green, blue].map(to_level));
        }
    }
    result
}

/// Brings `pixels`, `from` rows of `width` pixels of three bytes, to `to` rows.
pub(crate) fn convolve_columns(
    pixels: Vec<u8>,
    width: u32,
    from: u32,
    to: u32,
    kernel: &Kernel,
) -> Vec<u8> {
    if from == to {
        return pixels;
    }
    let row_bytes = width as usize * CHANNELS;
    let mut result = Vec::with_capacity(row_bytes * to as usize);
    let mut sums = vec![HALF; row_bytes];
    for Taps { source, weights } in taps(from, to, kernel) {
        sums.fill(HALF);
        let rows = pixels[source.start * row_bytes..source.end * row_bytes].chunks_exact(row_bytes);
        for (row, weight) in rows.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        result.extend(sums.iter().map(|&sum| to_level(sum)));
    }
    result
}

/// A sum in fixed point as a pixel value; overshoots of the cubic and the sinc are clipped.
fn to_level(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: [Kernel; 4] = [
        Kernel::BOX,
        Kernel::TRIANGLE,
        Kernel::CUBIC,
        Kernel::LANCZOS3,
    ];

    #[test]
    fn weights_add_up_to_one_and_sums_stay_in_range() {
        for kernel in &KERNELS {
            for (from, to) in [(1, 9), (9, 1), (640, 224), (224, 641), (20_000, 7), (2, 3)] {
                for Taps { source, weights } in taps(from, to, kernel) {
                    assert_eq!(source.len(), weights.len());
                    let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
                    // Each weight is rounded by half a unit at most.
                    assert!((sum - (1 << FRACTION_BITS)).unsigned_abs() as usize <= weights.len());
                    let magnitude: i64 = weights.iter().map(|&w| i64::from(w).abs()).sum();
                    assert!(magnitude * 255 + i64::from(HALF) <= i64::from(i32::MAX));
                }
            }
        }
    }

    #[test]
    fn a_flat_image_stays_flat() {
        for kernel in &KERNELS {
            let wide = convolve_rows(&[77; 5 * 4 * 3], 5, 13, kernel);
            let tall = convolve_columns(wide, 13, 4, 3, kernel);
            assert_eq!(tall, [77; 13 * 3 * 3]);
        }
    }

    #[test]
    fn box_shrinking_is_the_mean() {
        let row = [0, 10, 20, 100, 30, 40];
        assert_eq!(convolve_rows(&row, 2, 1, &Kernel::BOX), [50, 20, 30]);
    }
}
