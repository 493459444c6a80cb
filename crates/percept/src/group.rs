//! Label-free segmentation: bottom-up grouping (paper §2.4).

use std::borrow::Cow;

use faer::{Mat, Side};
use percept_image::{ChwImage, LabelMap, RgbImage};
use percept_model::{Model, TokenGrid, normalize};

use crate::view::View;
use crate::{Error, SimilarityMaps, Size, Window};

/// Groups at most; more would be fewer tokens per group than a principal direction means.
const MAX_GROUPS: usize = 256;

/// Settings of a [`Grouper`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupOptions {
    /// Number of principal directions, each the centre of one group (the paper's 8).
    pub groups: usize,
    /// Which tokens are compared with the centres.
    pub centering: Centering,
    /// Size at which images are encoded.
    pub size: Size,
    /// Encode in windows; `None` encodes the whole image in one pass.
    pub window: Option<Window>,
}

/// Which tokens are compared with the principal directions (the paper does not
/// say). The directions themselves are always those of the centred tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Centering {
    /// The tokens as they are. Groups of the pilot model overlap best with annotated objects
    /// this way, so it is the default.
    #[default]
    Raw,
    /// The tokens less their mean.
    Centered,
}

impl Default for GroupOptions {
    /// Eight groups, short side 448, no windows.
    fn default() -> Self {
        Self {
            groups: 8,
            centering: Centering::default(),
            size: Size::ShortSide(448),
            window: None,
        }
    }
}

/// Divides a photo into regions without any labels.
#[derive(Debug, Clone)]
pub struct Grouper<'a> {
    options: GroupOptions,
    view: View<'a>,
}

/// A grouped photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    /// The group of every pixel at the photo's own size: 1 to the number of groups, the group of
    /// the strongest principal direction first. 0 does not occur.
    pub labels: LabelMap,
    /// Cosine similarity with each centre at the resolution of the token grid.
    pub similarity: SimilarityMaps,
    /// Share of the variance of the tokens that each principal direction explains.
    pub explained: Vec<f32>,
}

impl<'a> Grouper<'a> {
    /// A grouper on the image tower of `model`; no text tower is needed.
    ///
    /// # Errors
    /// The model has no image tower, or a setting makes no sense.
    pub fn new(model: &'a Model, options: &GroupOptions) -> Result<Self, Error> {
        check_groups(options.groups)?;
        Ok(Self {
            options: *options,
            view: View::new(model, options.size, options.window)?,
        })
    }

    /// Groups one photo.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn group(&self, photo: &RgbImage) -> Result<Grouping, Error> {
        let grid = self.encode(&[self.prepare(photo)])?.remove(0);
        self.assign(&grid, photo.width(), photo.height())
    }

    /// Resizes and normalises a photo: the first step of [`Self::group`].
    pub fn prepare(&self, photo: &RgbImage) -> ChwImage {
        self.view.prepare(photo)
    }

    /// Width and height at which a photo is encoded, where the size asked for is more than the encoder
    /// takes ([`MAX_PATCHES`](percept_model::MAX_PATCHES)); windows have no such limit.
    pub fn shrunk(&self, photo: &RgbImage) -> Option<[u32; 2]> {
        self.view.shrunk(photo)
    }

    /// Encodes prepared photos: the second step.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, Error> {
        self.view.encode(images)
    }

    /// Gives every pixel of a `width` x `height` photo its group: the last step.
    ///
    /// # Errors
    /// The photo has no pixels, or too many.
    pub fn assign(&self, grid: &TokenGrid, width: u32, height: u32) -> Result<Grouping, Error> {
        let mut found = self.assign_each(grid, [width, height], &[self.options.groups])?;
        found
            .pop()
            .ok_or_else(|| Error::Setting("no number of groups".into()))
    }

    /// As [`Self::assign`], once for each number of groups: the principal directions, which take most
    /// of the time, are found once.
    ///
    /// # Errors
    /// The photo has no pixels, or too many; a number is 0 or too large.
    pub fn assign_each(
        &self,
        grid: &TokenGrid,
        [width, height]: [u32; 2],
        groups: &[usize],
    ) -> Result<Vec<Grouping>, Error> {
        for &groups in groups {
            check_groups(groups)?;
        }
        let most = groups.iter().copied().max().unwrap_or(1);
        let principal = principal_directions(grid, most);
        let mut grid = Cow::Borrowed(grid);
        if self.options.centering == Centering::Centered {
            let (dim, mean) = (grid.dim, &principal.mean);
            for token in grid.to_mut().patches.chunks_exact_mut(dim) {
                token.iter_mut().zip(mean).for_each(|(v, m)| *v -= m);
            }
        }
        let of = |groups: &usize| {
            let strongest = principal.directions.iter().take(*groups);
            let similarity = SimilarityMaps::new(&grid, strongest.map(Vec::as_slice));
            let count = principal.directions.len().min(*groups);
            let class_of: Vec<u16> = (1..=count as u16).collect();
            let assigned = similarity.assign(width, height, &class_of, count + 1, None)?;
            Ok(Grouping {
                labels: assigned.labels,
                similarity,
                explained: principal.explained.iter().take(count).copied().collect(),
            })
        };
        groups.iter().map(of).collect()
    }
}

fn check_groups(groups: usize) -> Result<(), Error> {
    match groups {
        1..=MAX_GROUPS => Ok(()),
        _ => Err(Error::Setting(format!(
            "groups must be between 1 and {MAX_GROUPS}"
        ))),
    }
}

/// Principal component analysis of one image's patch tokens.
struct Principal {
    mean: Vec<f32>,
    /// Unit vectors `[dim]`, the strongest first.
    directions: Vec<Vec<f32>>,
    explained: Vec<f32>,
}

/// The `count` strongest principal directions of the centred patch tokens, fewer if there are
/// fewer tokens or channels. A direction's sign is arbitrary, so its loading of largest magnitude
/// is made positive: results repeat.
fn principal_directions(grid: &TokenGrid, count: usize) -> Principal {
    let (tokens, dim) = (grid.rows * grid.columns, grid.dim);
    let mut mean = vec![0.0f64; dim];
    for token in grid.patches.chunks_exact(dim) {
        for (m, v) in mean.iter_mut().zip(token) {
            *m += f64::from(*v) / tokens as f64;
        }
    }
    // What follows is in `f32`, which takes half the memory (24 MB of 768 channels in `f64`): directions that
    // rounding turns are those of almost equal variance, which mean nothing one by one.
    let centered = Mat::from_fn(tokens, dim, |i, j| {
        (f64::from(grid.patches[i * dim + j]) - mean[j]) as f32
    });
    let covariance = centered.transpose() * &centered;
    drop(centered);
    let mean = mean.into_iter().map(|v| v as f32).collect();
    let Ok(eigen) = covariance.self_adjoint_eigen(Side::Lower) else {
        // Not reached with finite tokens. One direction keeps the result a grouping.
        let mut first = vec![0.0; dim];
        first[0] = 1.0;
        return Principal {
            mean,
            directions: vec![first],
            explained: vec![0.0],
        };
    };
    let values = eigen.S();
    let total: f32 = (0..dim).map(|i| values[i].max(0.0)).sum();
    let mut directions = Vec::new();
    let mut explained = Vec::new();
    // Eigenvalues come in ascending order.
    for i in (0..dim).rev().take(count.min(tokens)) {
        let mut direction: Vec<f32> = eigen.U().col(i).iter().copied().collect();
        let largest = direction.iter().fold(
            0.0f32,
            |best, v| if v.abs() > best.abs() { *v } else { best },
        );
        if largest < 0.0 {
            direction.iter_mut().for_each(|v| *v = -*v);
        }
        normalize(&mut direction);
        directions.push(direction);
        explained.push(if total > 0.0 {
            values[i].max(0.0) / total
        } else {
            0.0
        });
    }
    Principal {
        mean,
        directions,
        explained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_of_a_known_cloud() {
        // Tokens spread along (0, -1, 0) and, less, along (1, 0, 0).
        let mut patches = Vec::new();
        for i in 0..12 {
            let t = i as f32 - 5.5;
            patches.extend([if i % 2 == 0 { 1.0 } else { -1.0 }, -3.0 * t, 7.0]);
        }
        let grid = TokenGrid {
            rows: 3,
            columns: 4,
            dim: 3,
            cls: vec![0.0; 3],
            patches,
        };
        let found = principal_directions(&grid, 2);
        assert_eq!(found.directions.len(), 2);
        assert!((found.directions[0][1] - 1.0).abs() < 1e-2, "positive sign");
        assert!((found.directions[1][0] - 1.0).abs() < 1e-2);
        assert!(found.explained[0] > 0.98 && found.explained[0] < 1.0);
        assert!((found.mean[2] - 7.0).abs() < 1e-6);
    }

    #[test]
    fn one_token_and_equal_tokens_are_no_trouble() {
        for tokens in [1, 6] {
            let grid = TokenGrid {
                rows: 1,
                columns: tokens,
                dim: 4,
                cls: vec![0.0; 4],
                patches: vec![0.5; 4 * tokens],
            };
            let found = principal_directions(&grid, 8);
            assert_eq!(found.directions.len(), tokens.min(4));
            assert!(found.directions.iter().flatten().all(|v| v.is_finite()));
        }
    }
}
