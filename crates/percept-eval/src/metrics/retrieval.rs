//! Retrieval: captions by photo and photos by caption.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{MetricError, share};

/// Photos compared with a caption while it is in the cache.
const BLOCK: usize = 16;

/// How far the square of an embedding's length may be from 1: room for rounding to 16 bits, none
/// for embeddings that were never normalised.
const SLACK: f32 = 0.02;

/// Sums that a dot product keeps apart: as many as fill a vector register of 512 bits.
const LANES: usize = 16;

/// Recall at the `k` that were asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recall {
    /// Photos that have a caption, which are those that captions were sought for.
    pub images: u64,
    /// Captions, each of which was used to seek its photo.
    pub texts: u64,
    /// In the order asked for.
    pub at: Vec<RecallAt>,
}

/// Recall at one `k`. `None` where nothing was sought.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallAt {
    /// How many of the best matches may hold the right one.
    pub k: usize,
    /// Share of the photos with any of their captions among the best `k`.
    pub image_to_text: Option<f64>,
    /// Share of the captions with their photo among the best `k`.
    pub text_to_image: Option<f64>,
}

/// Recall at each of `ks` among embeddings of unit length, `images` `[images, dim]` and `texts`
/// `[texts, dim]`; `owners` `[texts]` gives the photo of every caption.
///
/// A wrong match that is as similar as the right one counts as better: a model that gives
/// everything the same embedding finds nothing. A photo without captions is not sought for, but
/// can be found in place of another. The similarities are made 16 photos at a time; memory is 16
/// numbers a caption and thread.
///
/// # Errors
/// [`MetricError::Length`] if an array does not have rows of `dim`, or not one owner a caption;
/// [`MetricError::Owner`] for a caption of a photo that does not exist;
/// [`MetricError::NotUnit`]; [`MetricError::Setting`] if `dim` or a `k` is 0.
pub fn recall(
    images: &[f32],
    texts: &[f32],
    dim: usize,
    owners: &[usize],
    ks: &[usize],
) -> Result<Recall, MetricError> {
    if dim == 0 || ks.contains(&0) {
        return Err(MetricError::Setting(
            "recall needs embeddings of at least one dimension and k of at least 1",
        ));
    }
    check_rows("image embeddings", images, images.len() / dim, dim)?;
    check_rows("text embeddings", texts, owners.len(), dim)?;
    check_length("image embedding", images, dim)?;
    check_length("text embedding", texts, dim)?;

    // How similar each caption is to its own photo.
    let mut own = Vec::with_capacity(owners.len());
    for (text, (&owner, embedding)) in owners.iter().zip(texts.chunks_exact(dim)).enumerate() {
        let Some(image) = images.chunks_exact(dim).nth(owner) else {
            return Err(MetricError::Owner {
                text,
                owner,
                images: images.len() / dim,
            });
        };
        own.push(dot(image, embedding));
    }
    let ranks = images
        .par_chunks(BLOCK * dim)
        .enumerate()
        .fold(
            || Ranks::new(owners.len()),
            |mut ranks, (block, images)| {
                let similarities = block_similarities(images, texts, dim);
                let rows = similarities.chunks_exact(owners.len().max(1));
                for (image, row) in rows.enumerate() {
                    ranks.add(block * BLOCK + image, row, &own, owners);
                }
                ranks
            },
        )
        .reduce(|| Ranks::new(owners.len()), Ranks::merge);
    Ok(Recall {
        images: ranks.images.len() as u64,
        texts: owners.len() as u64,
        at: ks
            .iter()
            .map(|&k| RecallAt {
                k,
                image_to_text: share_below(&ranks.images, k),
                text_to_image: share_below(&ranks.texts, k),
            })
            .collect(),
    })
}

/// How many wrong matches come before the first right one.
struct Ranks {
    /// Of the photos with captions, in no order.
    images: Vec<usize>,
    /// Of every caption.
    texts: Vec<usize>,
}

impl Ranks {
    fn new(texts: usize) -> Self {
        Self {
            images: Vec::new(),
            texts: vec![0; texts],
        }
    }

    /// Counts one photo, given its similarity to every caption.
    fn add(&mut self, image: usize, row: &[f32], own: &[f32], owners: &[usize]) {
        let captions = row.iter().zip(owners);
        let right = captions.clone().filter(|&(_, &owner)| owner == image);
        if let Some(best) = right
            .map(|(&similarity, _)| similarity)
            .max_by(f32::total_cmp)
        {
            let wrong = captions.filter(|&(_, &owner)| owner != image);
            self.images
                .push(wrong.filter(|&(&similarity, _)| similarity >= best).count());
        }
        let texts = self.texts.iter_mut().zip(row).zip(own).zip(owners);
        for (((rank, &similarity), &own), &owner) in texts {
            *rank += usize::from((similarity >= own) & (owner != image));
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.images.extend(other.images);
        for (rank, more) in self.texts.iter_mut().zip(other.texts) {
            *rank += more;
        }
        self
    }
}

fn share_below(ranks: &[usize], k: usize) -> Option<f64> {
    let hits = ranks.iter().filter(|&&rank| rank < k).count();
    share(hits as u64, ranks.len() as u64)
}

/// Similarities of a few photos to all captions, `[photos, texts]`.
fn block_similarities(images: &[f32], texts: &[f32], dim: usize) -> Vec<f32> {
    let count = texts.len() / dim;
    let mut similarities = vec![0.0; images.len() / dim * count];
    for (text, embedding) in texts.chunks_exact(dim).enumerate() {
        let column = similarities.iter_mut().skip(text).step_by(count);
        for (similarity, image) in column.zip(images.chunks_exact(dim)) {
            *similarity = dot(image, embedding);
        }
    }
    similarities
}

/// The same two rows give the same number wherever they are compared, which makes ties exact.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| a * b);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

fn check_rows(
    what: &'static str,
    values: &[f32],
    rows: usize,
    dim: usize,
) -> Result<(), MetricError> {
    let expected = rows.saturating_mul(dim);
    if values.len() == expected {
        return Ok(());
    }
    Err(MetricError::Length {
        what,
        expected,
        actual: values.len(),
    })
}

/// Refuses NaN too, which would compare as neither better nor worse.
fn check_length(what: &'static str, rows: &[f32], dim: usize) -> Result<(), MetricError> {
    let square = |row: &[f32]| dot(row, row);
    let unit = |row: &[f32]| (square(row) - 1.0).abs() <= SLACK;
    match rows.chunks_exact(dim).position(|row| !unit(row)) {
        Some(row) => Err(MetricError::NotUnit { what, row }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f32; 2] = [1.0, 0.0];
    const Y: [f32; 2] = [0.0, 1.0];

    #[test]
    fn recall_is_that_by_hand() {
        // Photo 0 is x, photo 1 is y; captions y of 0, x of 0, x of 1.
        let found = recall(
            &[X, Y].concat(),
            &[Y, X, X].concat(),
            2,
            &[0, 0, 1],
            &[1, 2, 3],
        )
        .unwrap();
        assert_eq!((found.images, found.texts), (2, 3));
        // Photo 0: its x is as good as the x of 1. Photo 1: y comes first, then both x.
        let image_to_text: Vec<_> = found.at.iter().map(|at| at.image_to_text).collect();
        assert_eq!(image_to_text, [Some(0.0), Some(0.5), Some(1.0)]);
        let text_to_image: Vec<_> = found.at.iter().map(|at| at.text_to_image).collect();
        assert_eq!(text_to_image, [Some(1.0 / 3.0), Some(1.0), Some(1.0)]);
    }

    #[test]
    fn a_collapsed_model_finds_nothing() {
        let owners: Vec<_> = (0..40).collect();
        let same = X.repeat(40);
        let at = recall(&same, &same, 2, &owners, &[1, 39, 40]).unwrap().at;
        assert_eq!(at[0].image_to_text, Some(0.0));
        assert_eq!(at[1].text_to_image, Some(0.0));
        assert_eq!(at[2].text_to_image, Some(1.0));
    }

    #[test]
    fn photos_without_captions_are_not_sought_for() {
        let found = recall(&[X, Y].concat(), &X, 2, &[1], &[1]).unwrap();
        assert_eq!((found.images, found.texts), (1, 1));
        assert_eq!(found.at[0].image_to_text, Some(1.0));
        assert_eq!(found.at[0].text_to_image, Some(0.0));
        let found = recall(&X, &[], 2, &[], &[1]).unwrap();
        assert_eq!((found.images, found.at[0].image_to_text), (0, None));
        assert_eq!(
            recall(&[], &[], 2, &[], &[1]).unwrap().at[0].text_to_image,
            None
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = recall(&X, &[X, Y].concat(), 2, &[0, 1], &[1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "text 1 belongs to image 1; there are 1 images"
        );
        assert!(recall(&[1.0; 3], &X, 2, &[0], &[1]).is_err());
        assert!(recall(&X, &X, 2, &[0, 0], &[1]).is_err());
        assert!(recall(&X, &X, 0, &[0], &[1]).is_err());
        assert!(recall(&X, &X, 2, &[0], &[0]).is_err());
        assert!(recall(&X, &[f32::NAN, 0.0], 2, &[0], &[1]).is_err());
    }
}
