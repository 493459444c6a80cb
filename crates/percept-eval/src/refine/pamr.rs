//! PAMR, pixel-adaptive mask refinement (Araslanov and Roth 2020, "Single-Stage Semantic
//! Segmentation from Image Labels", section 3.3).
//!
//! Every pixel takes the weighted mean of its neighbours, again and again. Neighbours are the eight
//! at each of several distances. A weight falls with the difference in colour, measured in local
//! standard deviations, so that values spread within a surface and stop at its edge.

use percept_image::RgbImage;
use rayon::prelude::*;

/// Most distances; six are usual.
const MAX_DILATIONS: usize = 16;

/// Largest distance in pixels, far beyond what "local" means.
const MAX_DILATION: usize = 1024;

/// Most iterations; ten are usual. A thousand take minutes already.
const MAX_ITERATIONS: usize = 1000;

/// Most `f32` held at once: 1 GiB, enough for 3 megapixels of 21 classes at the defaults.
const MAX_VALUES: usize = 1 << 28;

/// Difference in colour that counts as one, in standard deviations. The authors' code; their
/// equation divides by the variance instead, whose unit depends on how colours are scaled.
const SCALE: f64 = 0.1;

/// Keeps the division defined where all colours are equal (the authors' code).
const EPSILON: f64 = 1e-8;

/// Neighbours at one distance, as rows down and columns right.
const DIRECTIONS: [(isize, isize); 8] = [
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, -1),
    (0, 1),
    (1, -1),
    (1, 0),
    (1, 1),
];

/// Refinement with given distances and number of iterations.
///
/// The default is what the authors and TCL use: 10 iterations, neighbours 1, 2, 4, 8, 12 and 24
/// pixels away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pamr {
    iterations: usize,
    dilations: Vec<usize>,
}

/// Why maps were not refined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefineError {
    /// A setting that makes no sense.
    #[error("refinement: {0}")]
    Setting(String),
    /// The maps do not have the size of the photo.
    #[error("{values} values are no maps of a photo of {height} x {width} (height x width)")]
    Length {
        /// How many values there are.
        values: usize,
        /// Rows of the photo.
        height: u32,
        /// Columns of the photo.
        width: u32,
    },
    /// Refining would take more than 1 GiB: the photo and maps must be made smaller first.
    #[error(
        "{classes} maps of {height} x {width} (height x width) are too large to refine; \
         make them smaller"
    )]
    TooLarge {
        /// Number of maps.
        classes: usize,
        /// Rows of the photo.
        height: u32,
        /// Columns of the photo.
        width: u32,
    },
}

impl Default for Pamr {
    fn default() -> Self {
        Self {
            iterations: 10,
            dilations: vec![1, 2, 4, 8, 12, 24],
        }
    }
}

impl Pamr {
    /// Refinement with neighbours at the distances `dilations`, in pixels.
    ///
    /// # Errors
    /// [`RefineError::Setting`] on more than 1000 iterations, unless there are 1 to 16 distances,
    /// and unless each is 1 to 1024.
    pub fn new(iterations: usize, dilations: Vec<usize>) -> Result<Self, RefineError> {
        if iterations > MAX_ITERATIONS {
            return Err(RefineError::Setting(format!(
                "{iterations} iterations; at most {MAX_ITERATIONS} make sense"
            )));
        }
        if !(1..=MAX_DILATIONS).contains(&dilations.len()) {
            return Err(RefineError::Setting(format!(
                "{} dilations; 1 to {MAX_DILATIONS} are possible",
                dilations.len()
            )));
        }
        if let Some(bad) = dilations.iter().find(|d| !(1..=MAX_DILATION).contains(*d)) {
            return Err(RefineError::Setting(format!(
                "dilation {bad}; 1 to {MAX_DILATION} pixels are possible"
            )));
        }
        Ok(Self {
            iterations,
            dilations,
        })
    }

    /// Refines `maps`, `[classes, height, width]`, finite numbers at the size of the photo.
    ///
    /// Pixels beyond the border are those at it. Memory is 32 bytes a pixel for each distance (192
    /// at the default) and 8 a pixel for each map, for three at least, besides the maps given and
    /// returned.
    ///
    /// # Errors
    /// [`RefineError::Length`] if the maps do not have the photo's size,
    /// [`RefineError::TooLarge`] if more than 1 GiB would be needed.
    pub fn refine(&self, photo: &RgbImage, maps: &[f32]) -> Result<Vec<f32>, RefineError> {
        let (width, height) = photo.dimensions();
        let pixels = width as usize * height as usize;
        if pixels == 0 && maps.is_empty() {
            return Ok(Vec::new());
        }
        if pixels == 0 || !maps.len().is_multiple_of(pixels) {
            return Err(RefineError::Length {
                values: maps.len(),
                height,
                width,
            });
        }
        let size = Size {
            height: height as usize,
            width: width as usize,
            classes: maps.len() / pixels,
            // Farther than the photo is wide, every neighbour is a border pixel.
            pad: self
                .dilations
                .iter()
                .fold(0, |a, &b| a.max(b))
                .min(width as usize),
        };
        let offsets = self.offsets();
        let affinities = pixels.checked_mul(offsets.len());
        // Twice the maps, or before them the photo's three channels.
        let states = size
            .classes
            .max(3)
            .checked_mul(2 * size.height * size.stride());
        let values = affinities.zip(states).and_then(|(a, b)| a.checked_add(b));
        if values.is_none_or(|values| values > MAX_VALUES) {
            return Err(RefineError::TooLarge {
                classes: size.classes,
                height,
                width,
            });
        }
        if maps.is_empty() || self.iterations == 0 {
            return Ok(maps.to_vec());
        }
        let affinities = affinities_of(photo, &size, &offsets);
        let mut state = size.to_rows(maps);
        let mut next = vec![0.0; state.len()];
        for _ in 0..self.iterations {
            iterate(&size, &offsets, &affinities, &state, &mut next);
            std::mem::swap(&mut state, &mut next);
        }
        Ok(size.to_maps(&state))
    }

    /// All neighbours, as rows down and columns right.
    fn offsets(&self) -> Vec<(isize, isize)> {
        let at = |d: usize| DIRECTIONS.map(|(dy, dx)| (dy * d as isize, dx * d as isize));
        self.dilations.iter().flat_map(|&d| at(d)).collect()
    }
}

/// Sizes of a refinement. Maps are kept as `[height, classes, pad + width + pad]`: the weights of
/// one row of pixels stay in the cache for all classes, rows can be written by different threads,
/// and the padding holds the border pixels, so that the innermost loop knows no border.
struct Size {
    height: usize,
    width: usize,
    classes: usize,
    pad: usize,
}

impl Size {
    /// Values of one class in a row of pixels.
    fn stride(&self) -> usize {
        self.width + 2 * self.pad
    }

    /// Values of all classes in a row of pixels.
    fn row(&self) -> usize {
        self.classes.saturating_mul(self.stride())
    }

    /// Class `c` of the row of pixels that lies `offset` (rows down, columns right) from row `y`.
    fn row_at<'a>(&self, rows: &'a [f32], y: usize, c: usize, offset: (isize, isize)) -> &'a [f32] {
        let y = y.saturating_add_signed(offset.0).min(self.height - 1);
        let pad = self.pad as isize;
        let x = (pad + offset.1.clamp(-pad, pad)) as usize;
        &rows[y * self.row() + c * self.stride() + x..][..self.width]
    }

    fn to_rows(&self, maps: &[f32]) -> Vec<f32> {
        let mut rows = vec![0.0; self.height * self.row()];
        for (c, map) in maps.chunks_exact(self.height * self.width).enumerate() {
            for (row, values) in rows
                .chunks_exact_mut(self.row())
                .zip(map.chunks_exact(self.width))
            {
                let row = &mut row[c * self.stride()..][..self.stride()];
                row[self.pad..][..self.width].copy_from_slice(values);
                self.fill_padding(row);
            }
        }
        rows
    }

    fn to_maps(&self, rows: &[f32]) -> Vec<f32> {
        let mut maps = Vec::with_capacity(self.classes * self.height * self.width);
        for c in 0..self.classes {
            for row in rows.chunks_exact(self.row()) {
                let start = c * self.stride() + self.pad;
                maps.extend_from_slice(&row[start..][..self.width]);
            }
        }
        maps
    }

    /// Repeats the first and the last pixel of one class's row.
    fn fill_padding(&self, row: &mut [f32]) {
        let (first, last) = (row[self.pad], row[self.pad + self.width - 1]);
        row[..self.pad].fill(first);
        row[self.pad + self.width..].fill(last);
    }
}

/// How much every pixel takes from each neighbour, `[height, neighbours, width]`; a pixel's sum
/// is 1. The weights are a softmax of minus the difference in colour, in tenths of a standard
/// deviation, averaged over the channels.
fn affinities_of(photo: &RgbImage, size: &Size, offsets: &[(isize, isize)]) -> Vec<f32> {
    let size = Size {
        classes: 3,
        ..*size
    };
    let raw = photo.as_raw();
    let channel = |c: usize| raw.iter().skip(c).step_by(3).map(|&v| f32::from(v));
    let colours: Vec<f32> = (0..3).flat_map(channel).collect();
    let colours = size.to_rows(&colours);

    let mut affinities = vec![0.0; size.height * offsets.len() * size.width];
    let rows = affinities.par_chunks_mut(offsets.len() * size.width);
    rows.enumerate().for_each(|(y, row)| {
        for c in 0..size.classes {
            let values = |offset| size.row_at(&colours, y, c, offset);
            let centre = values((0, 0));
            let factors = factors(centre, offsets.iter().map(|&offset| values(offset)));
            for (weights, &offset) in row.chunks_exact_mut(size.width).zip(offsets) {
                let pixels = weights.iter_mut().zip(values(offset)).zip(centre);
                for (((weight, value), centre), factor) in pixels.zip(&factors) {
                    *weight -= (value - centre).abs() * factor;
                }
            }
        }
        softmax(row, size.width);
    });
    affinities
}

/// What a difference in one channel is multiplied with, for one row of pixels.
fn factors<'a>(centre: &[f32], neighbours: impl ExactSizeIterator<Item = &'a [f32]>) -> Vec<f32> {
    // The deviation is over 3 x 3 pixels at each distance, so the centre is there once for each.
    let centres = (neighbours.len() / DIRECTIONS.len()) as f32;
    let count = f64::from(centres) + neighbours.len() as f64;
    let mut sums: Vec<_> = centre.iter().map(|v| centres * v).collect();
    let mut squares: Vec<_> = centre.iter().map(|v| centres * v * v).collect();
    for values in neighbours {
        for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(values) {
            *sum += value;
            *square += value * value;
        }
    }
    // Exact so far: whole numbers of at most 144 * 255 * 255, which is below 2^24.
    let totals = sums.into_iter().zip(squares);
    totals
        .map(|(sum, square)| {
            let (sum, square) = (f64::from(sum), f64::from(square));
            let variance = (count * square - sum * sum) / (count * (count - 1.0));
            (1.0 / (3.0 * (EPSILON + SCALE * variance.sqrt()))) as f32
        })
        .collect()
}

/// Softmax over the neighbours of each of `width` pixels, `[neighbours, width]`.
fn softmax(weights: &mut [f32], width: usize) {
    let mut largest = vec![f32::NEG_INFINITY; width];
    for row in weights.chunks_exact(width) {
        for (largest, &weight) in largest.iter_mut().zip(row) {
            *largest = largest.max(weight);
        }
    }
    let mut totals = vec![0.0; width];
    for row in weights.chunks_exact_mut(width) {
        for ((weight, largest), total) in row.iter_mut().zip(&largest).zip(&mut totals) {
            *weight = (*weight - largest).exp();
            *total += *weight;
        }
    }
    for row in weights.chunks_exact_mut(width) {
        for (weight, total) in row.iter_mut().zip(&totals) {
            *weight /= total;
        }
    }
}

/// One iteration, a row of pixels at a time.
fn iterate(
    size: &Size,
    offsets: &[(isize, isize)],
    affinities: &[f32],
    from: &[f32],
    to: &mut [f32],
) {
    let weights_of_row = offsets.len() * size.width;
    let rows = to.par_chunks_mut(size.row());
    rows.enumerate().for_each(|(y, rows)| {
        let weights = &affinities[y * weights_of_row..][..weights_of_row];
        for (c, row) in rows.chunks_exact_mut(size.stride()).enumerate() {
            let out = &mut row[size.pad..][..size.width];
            out.fill(0.0);
            for (weights, &offset) in weights.chunks_exact(size.width).zip(offsets) {
                let source = size.row_at(from, y, c, offset);
                for ((out, &weight), &value) in out.iter_mut().zip(weights).zip(source) {
                    *out += weight * value;
                }
            }
            size.fill_padding(row);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use percept_image::Rgb;

    #[test]
    fn a_flat_photo_gives_plain_means() {
        let photo = RgbImage::from_pixel(3, 3, Rgb([9, 9, 9]));
        let mut maps = vec![0.0; 9];
        maps[4] = 8.0;
        let refined = Pamr::new(1, vec![1])
            .unwrap()
            .refine(&photo, &maps)
            .unwrap();
        // Beyond the border stand copies of the border: the middle is nobody's copy.
        assert_eq!(refined, [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn values_stop_at_an_edge_in_the_photo() {
        let photo = RgbImage::from_fn(40, 20, |x, _| Rgb(if x < 20 { [20; 3] } else { [230; 3] }));
        // The map's edge is four pixels too far right.
        let maps: Vec<f32> = (0..800).map(|at| f32::from(at % 40 < 24)).collect();
        let refined = Pamr::default().refine(&photo, &maps).unwrap();
        let row = &refined[10 * 40..][..40];
        assert!(row[..20].iter().all(|&value| value > 0.9), "{row:?}");
        assert!(row[20..].iter().all(|&value| value < 0.5), "{row:?}");
    }

    #[test]
    fn weights_sum_to_one() {
        let photo = RgbImage::from_fn(7, 5, |x, y| Rgb([(x * 37) as u8, (y * 51) as u8, 3]));
        let refined = Pamr::default().refine(&photo, &[2.5; 70]).unwrap();
        assert_eq!(refined.len(), 70);
        assert!(refined.iter().all(|value| (value - 2.5).abs() < 1e-5));
    }

    #[test]
    fn what_cannot_be_refined_is_refused() {
        assert!(Pamr::new(1001, vec![1]).is_err());
        assert!(Pamr::new(1, vec![]).is_err());
        assert!(Pamr::new(1, vec![1; 17]).is_err());
        let error = Pamr::new(1, vec![1, 0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "refinement: dilation 0; 1 to 1024 pixels are possible"
        );
        assert!(Pamr::new(1, vec![usize::MAX]).is_err());
        let pamr = Pamr::default();
        let photo = RgbImage::new(3, 2);
        assert_eq!(
            pamr.refine(&photo, &[0.0; 7]).unwrap_err().to_string(),
            "7 values are no maps of a photo of 2 x 3 (height x width)"
        );
        assert!(pamr.refine(&photo, &[]).unwrap().is_empty());
        assert!(pamr.refine(&RgbImage::new(0, 9), &[]).unwrap().is_empty());
        assert!(pamr.refine(&RgbImage::new(0, 9), &[1.0]).is_err());
        let large = RgbImage::new(3000, 2000);
        assert!(matches!(
            pamr.refine(&large, &[]),
            Err(RefineError::TooLarge { .. })
        ));
        let none = Pamr::new(0, vec![1]).unwrap();
        assert_eq!(none.refine(&photo, &[1.0; 6]).unwrap(), [1.0; 6]);
    }
}
