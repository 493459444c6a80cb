//! From tokens and rows of vectors to a class for every pixel (top-down grouping, paper §2.4).
//!
//! The reference upsamples token features, then compares them with the texts. Upsampling the
//! similarities instead gives the same numbers, both steps being linear, and needs one value per
//! row and pixel in place of hundreds. Even those are never stored: see [`SimilarityMaps::assign`].

use percept_image::{LabelMap, LabelMapError};
use percept_model::TokenGrid;
use rayon::prelude::*;

use crate::bank::dot;

/// Cosine similarity of every patch token with every row, `[rows of text, grid rows, columns]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarityMaps {
    /// Rows of the token grid.
    pub height: usize,
    /// Columns of the token grid.
    pub width: usize,
    /// Number of rows of text.
    pub count: usize,
    /// The values, map by map.
    pub values: Vec<f32>,
}

/// A class for every pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The classes.
    pub labels: LabelMap,
    /// Sum over the pixels of each class of the similarity that won there.
    pub score_sums: Vec<f64>,
}

impl SimilarityMaps {
    /// Compares patch tokens with `rows`, which are L2-normalised already.
    pub fn new<'a>(grid: &TokenGrid, rows: impl Iterator<Item = &'a [f32]>) -> Self {
        let rows: Vec<&[f32]> = rows.collect();
        let count = rows.len();
        let cells = grid.rows * grid.columns;
        let lengths: Vec<f32> = (grid.patches.par_chunks_exact(grid.dim))
            .map(|token| dot(token, token).sqrt().max(1e-12))
            .collect();
        let mut values = vec![0.0; count * cells];
        let maps = values.par_chunks_exact_mut(cells.max(1));
        maps.zip(rows).for_each(|(map, row)| {
            let tokens = grid.patches.chunks_exact(grid.dim);
            for ((value, token), length) in map.iter_mut().zip(tokens).zip(&lengths) {
                *value = dot(token, row) / length;
            }
        });
        Self {
            height: grid.rows,
            width: grid.columns,
            count,
            values,
        }
    }

    /// The map of one row of text.
    pub fn map(&self, row: usize) -> &[f32] {
        let cells = self.height * self.width;
        &self.values[row * cells..][..cells]
    }

    /// Similarities at one size up: bilinear, `align_corners=false`, as torch's `interpolate`.
    /// `[width · height]` for one row of text.
    pub fn upsample(&self, row: usize, width: usize, height: usize) -> Vec<f32> {
        self.upsample_band(row, width, height, 0..height)
    }

    /// The pixel rows `band` of [`Self::upsample`], `[band · width]`: large photos with many rows
    /// of text are handled piece by piece.
    pub fn upsample_band(
        &self,
        row: usize,
        width: usize,
        height: usize,
        band: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let map = self.map(row);
        let columns = taps(self.width, width, 0..width);
        let mut out = Vec::with_capacity(width * band.len());
        for y in taps(self.height, height, band) {
            let (top, bottom) = (&map[y.low * self.width..], &map[y.high * self.width..]);
            for x in &columns {
                out.push(y.mix(
                    x.mix(top[x.low], top[x.high]),
                    x.mix(bottom[x.low], bottom[x.high]),
                ));
            }
        }
        out
    }

    /// Gives every pixel of a `width` x `height` image the class of the row with the highest
    /// bilinearly upsampled similarity, or class 0 where that is below `threshold`. Of equal rows
    /// the first wins. `class_of` names the class of each row, `classes` says how many there are.
    ///
    /// Between four neighbouring tokens a bilinear surface stays within its corner values, so a
    /// row whose best corner is below another row's worst corner cannot win there. What is left,
    /// usually one to three rows, is all that is evaluated for each pixel: the cost hardly
    /// depends on the number of rows, and memory is one label per pixel.
    ///
    /// # Errors
    /// The image has no pixels, or too many.
    pub fn assign(
        &self,
        width: u32,
        height: u32,
        class_of: &[u16],
        classes: usize,
        threshold: Option<f32>,
    ) -> Result<Assignment, LabelMapError> {
        let columns = taps(self.width, width as usize, 0..width as usize);
        let rows = taps(self.height, height as usize, 0..height as usize);
        // Pixels between the same two token columns are next to each other.
        let runs: Vec<&[Tap]> = columns.chunk_by(|a, b| a.low == b.low).collect();
        let mut labels = vec![0u16; width as usize * height as usize];
        let bands = rows.chunk_by(|a, b| a.low == b.low);
        let mut rest = labels.as_mut_slice();
        let mut work = Vec::new();
        for band in bands {
            let (pixels, after) = rest.split_at_mut(band.len() * columns.len());
            work.push((band, pixels));
            rest = after;
        }
        let score_sums = work
            .into_par_iter()
            .map(|(band, pixels)| {
                self.assign_band(
                    band,
                    &runs,
                    columns.len(),
                    pixels,
                    class_of,
                    classes,
                    threshold,
                )
            })
            .reduce(
                || vec![0.0; classes],
                |mut a, b| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                    a
                },
            );
        Ok(Assignment {
            labels: LabelMap::new(width, height, labels)?,
            score_sums,
        })
    }

    /// [`Self::assign`] for the pixel rows between two token rows.
    #[expect(
        clippy::too_many_arguments,
        reason = "one loop of `assign`, split out to be read"
    )]
    fn assign_band(
        &self,
        band: &[Tap],
        runs: &[&[Tap]],
        width: usize,
        pixels: &mut [u16],
        class_of: &[u16],
        classes: usize,
        threshold: Option<f32>,
    ) -> Vec<f64> {
        let cells = self.height * self.width;
        let mut sums = vec![0.0; classes];
        let mut corners: Vec<[f32; 4]> = Vec::with_capacity(self.count);
        let mut candidates: Vec<(u16, [f32; 4])> = Vec::new();
        let (top, bottom) = (band[0].low * self.width, band[0].high * self.width);
        let mut x = 0;
        for run in runs {
            let (left, right) = (run[0].low, run[0].high);
            corners.clear();
            corners.extend((0..self.count).map(|k| {
                let map = &self.values[k * cells..][..cells];
                [
                    map[top + left],
                    map[top + right],
                    map[bottom + left],
                    map[bottom + right],
                ]
            }));
            let floor = corners
                .iter()
                .map(|c| c.iter().copied().fold(f32::INFINITY, f32::min))
                .fold(f32::NEG_INFINITY, f32::max);
            candidates.clear();
            candidates.extend(
                corners
                    .iter()
                    .zip(class_of)
                    // A little slack: interpolation may round to just outside its corners.
                    .filter(|(c, _)| c.iter().any(|v| *v >= floor - 1e-5))
                    .map(|(c, class)| (*class, *c)),
            );
            for (dy, y) in band.iter().enumerate() {
                for (dx, tap) in run.iter().enumerate() {
                    let mut best = (0, f32::NEG_INFINITY);
                    for (class, c) in &candidates {
                        let score = y.mix(tap.mix(c[0], c[1]), tap.mix(c[2], c[3]));
                        if score > best.1 {
                            best = (*class, score);
                        }
                    }
                    if threshold.is_some_and(|threshold| best.1 < threshold) {
                        best.0 = 0;
                    }
                    pixels[dy * width + x + dx] = best.0;
                    sums[usize::from(best.0)] += f64::from(best.1);
                }
            }
            x += run.len();
        }
        sums
    }
}

/// The two source samples of one target sample, and the share of the second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tap {
    low: usize,
    high: usize,
    share: f32,
}

impl Tap {
    #[inline(always)]
    fn mix(&self, low: f32, high: f32) -> f32 {
        (1.0 - self.share) * low + self.share * high
    }
}

/// torch's linear interpolation from `from` to `to` samples, `align_corners=false`: those of `wanted`.
fn taps(from: usize, to: usize, wanted: std::ops::Range<usize>) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    wanted
        .map(|i| {
            let at = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
            let low = (at as usize).min(from - 1);
            Tap {
                low,
                high: (low + 1).min(from - 1),
                share: at - low as f32,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repeatable sequence that looks random.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn maps(count: usize, height: usize, width: usize) -> SimilarityMaps {
        SimilarityMaps {
            height,
            width,
            count,
            values: noise(count * height * width, 7),
        }
    }

    #[test]
    fn pruning_changes_no_pixel() {
        for (count, height, width) in [(1, 1, 1), (3, 2, 5), (200, 4, 3), (7, 9, 9)] {
            let maps = maps(count, height, width);
            let class_of: Vec<u16> = (0..count as u16).collect();
            for (w, h) in [(1, 1), (37, 23), (2, 64), (9, 9)] {
                let all: Vec<Vec<f32>> = (0..count).map(|k| maps.upsample(k, w, h)).collect();
                let found = maps
                    .assign(w as u32, h as u32, &class_of, count, None)
                    .unwrap();
                for (i, label) in found.labels.data().iter().enumerate() {
                    let mut best = 0;
                    for k in 1..count {
                        if all[k][i] > all[best][i] {
                            best = k;
                        }
                    }
                    assert_eq!(usize::from(*label), best, "pixel {i} of {w} x {h}");
                }
            }
        }
    }

    #[test]
    fn permuting_the_rows_permutes_the_map() {
        let maps = maps(5, 6, 4);
        let forward: Vec<u16> = vec![0, 1, 2, 3, 4];
        let order = [3usize, 0, 4, 1, 2];
        let permuted = SimilarityMaps {
            values: order.iter().flat_map(|&k| maps.map(k).to_vec()).collect(),
            ..maps.clone()
        };
        let class_of: Vec<u16> = order.iter().map(|&k| k as u16).collect();
        assert_eq!(
            maps.assign(50, 40, &forward, 5, None).unwrap().labels,
            permuted.assign(50, 40, &class_of, 5, None).unwrap().labels
        );
    }

    #[test]
    fn upsampling_is_torchs() {
        // torch.nn.functional.interpolate(tensor([[0., 1.], [2., 4.]])[None, None], size=(3, 4),
        //                                 mode="bilinear", align_corners=False)
        let maps = SimilarityMaps {
            height: 2,
            width: 2,
            count: 1,
            values: vec![0.0, 1.0, 2.0, 4.0],
        };
        let expected = [
            0.0, 0.25, 0.75, 1.0, 1.0, 1.375, 2.125, 2.5, 2.0, 2.5, 3.5, 4.0,
        ];
        let ours = maps.upsample(0, 4, 3);
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{ours:?}");
        }
    }

    #[test]
    fn below_the_threshold_is_background() {
        let maps = SimilarityMaps {
            height: 1,
            width: 2,
            count: 1,
            values: vec![0.1, 0.9],
        };
        let found = maps.assign(2, 1, &[1], 2, Some(0.5)).unwrap();
        assert_eq!(found.labels.data(), [0, 1]);
    }
}
