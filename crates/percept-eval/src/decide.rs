//! From an image's tokens to a class for every pixel, as a protocol has it.

use percept::{LabelMap, SimilarityMaps, TokenGrid};
use percept_image::{RgbImage, message};
use rayon::prelude::*;

use crate::Vocabulary;
use crate::protocol::Protocol;
use crate::refine::Pamr;

/// Rows of pixels that are scored at once: enough to share the work, few enough that 171 rows of
/// text over a wide photo take some ten megabytes.
const BAND: usize = 16;

/// Scores of all classes over all pixels that refinement may hold: 1 GiB.
const MAX_REFINED: usize = 1 << 28;

/// Gives every pixel of a `width` x `height` truth its class.
///
/// `pooled` is the image embedding, for `score.top_classes`; `photo` is the photo at the truth's
/// size, for `refine`.
///
/// # Errors
/// In words: there are too many pixels, or the photo that refinement needs is missing.
pub fn decide(
    vocabulary: &Vocabulary,
    protocol: &Protocol,
    grid: &TokenGrid,
    pooled: &[f32],
    [width, height]: [u32; 2],
    photo: Option<&RgbImage>,
) -> Result<LabelMap, String> {
    let rows = competing(vocabulary, protocol.score.top_classes, pooled);
    let class_of: Vec<u16> = rows.iter().map(|&row| vocabulary.class_of[row]).collect();
    let embeddings = rows
        .iter()
        .map(|&row| vocabulary.embeddings[row].as_slice());
    let maps = SimilarityMaps::new(grid, embeddings);
    // A set without a background has no place for what is below the threshold.
    let below = vocabulary
        .background
        .zip(protocol.background.threshold)
        .map(|(class, threshold)| Below {
            class,
            threshold,
            keep_best: protocol.background.keep_best,
        });
    let softmax = protocol.score.softmax;
    if let Some(refine) = &protocol.refine {
        let photo = photo.ok_or("refinement needs the photo")?;
        let pixels = width as usize * height as usize;
        if pixels.saturating_mul(vocabulary.classes) > MAX_REFINED {
            return Err(format!(
                "{} classes over {width} x {height} pixels are too many to refine",
                vocabulary.classes
            ));
        }
        let scores = class_scores(
            &maps,
            &class_of,
            vocabulary.classes,
            [width, height],
            softmax,
        );
        let refined = Pamr::new(refine.iterations, refine.dilations.clone())
            .and_then(|pamr| pamr.refine(photo, &scores))
            .map_err(|e| e.to_string())?;
        let (mut classes, best) = best_of_classes(&refined, pixels);
        apply(&mut classes, &best, below);
        return LabelMap::new(width, height, classes).map_err(|e| e.to_string());
    }
    let Some(below) = below else {
        // Without a threshold the factor and the softmax change no winner.
        return maps
            .assign(width, height, &class_of, vocabulary.classes, None)
            .map(|assigned| assigned.labels)
            .map_err(|e| message(&e));
    };
    let (mut classes, best) = best_rows(&maps, &class_of, [width, height], softmax);
    apply(&mut classes, &best, Some(below));
    LabelMap::new(width, height, classes).map_err(|e| e.to_string())
}

/// What becomes background for want of score.
#[derive(Debug, Clone, Copy)]
struct Below {
    class: u16,
    threshold: f32,
    keep_best: bool,
}

fn apply(classes: &mut [u16], best: &[f32], below: Option<Below>) {
    let Some(below) = below else { return };
    let top = best.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let threshold = if below.keep_best {
        below.threshold.min(top)
    } else {
        below.threshold
    };
    for (class, score) in classes.iter_mut().zip(best) {
        if *score < threshold {
            *class = below.class;
        }
    }
}

/// The rows that take part: all, or those of the `top` classes that fit the pooled photo best and
/// of the background.
fn competing(vocabulary: &Vocabulary, top: Option<usize>, pooled: &[f32]) -> Vec<usize> {
    let all = 0..vocabulary.class_of.len();
    let Some(top) = top else {
        return all.collect();
    };
    let mut fit = vec![f32::NEG_INFINITY; vocabulary.classes];
    for (class, embedding) in vocabulary.class_of.iter().zip(&vocabulary.embeddings) {
        let cosine: f32 = pooled.iter().zip(embedding).map(|(a, b)| a * b).sum();
        let best = &mut fit[usize::from(*class)];
        *best = best.max(cosine);
    }
    let mut order: Vec<u16> = (0..vocabulary.classes as u16)
        .filter(|class| Some(*class) != vocabulary.background)
        .collect();
    order.sort_by(|a, b| fit[usize::from(*b)].total_cmp(&fit[usize::from(*a)]));
    order.truncate(top);
    all.filter(|&row| {
        let class = vocabulary.class_of[row];
        Some(class) == vocabulary.background || order.contains(&class)
    })
    .collect()
}

/// For every pixel the class of the best row, and its cosine or its probability among all rows.
fn best_rows(
    maps: &SimilarityMaps,
    class_of: &[u16],
    [width, height]: [u32; 2],
    softmax: Option<f32>,
) -> (Vec<u16>, Vec<f32>) {
    let (width, height) = (width as usize, height as usize);
    let mut classes = vec![0u16; width * height];
    let mut best = vec![f32::NEG_INFINITY; width * height];
    classes
        .par_chunks_mut(width * BAND)
        .zip(best.par_chunks_mut(width * BAND))
        .enumerate()
        .for_each(|(band, (classes, best))| {
            let from = band * BAND;
            let lines = from..(from + BAND).min(height);
            let scores: Vec<Vec<f32>> = (0..maps.count)
                .map(|row| maps.upsample_band(row, width, height, lines.clone()))
                .collect();
            for (row, class) in scores.iter().zip(class_of) {
                for ((value, best), winner) in row.iter().zip(&mut *best).zip(&mut *classes) {
                    if *value > *best {
                        (*best, *winner) = (*value, *class);
                    }
                }
            }
            if let Some(factor) = softmax {
                let mut sum = vec![0.0f32; best.len()];
                for row in &scores {
                    for ((value, best), sum) in row.iter().zip(&*best).zip(&mut sum) {
                        *sum += (factor * (value - best)).exp();
                    }
                }
                for (best, sum) in best.iter_mut().zip(sum) {
                    *best = 1.0 / sum;
                }
            }
        });
    (classes, best)
}

/// Scores `[classes, height, width]`: of each class, the best of its rows; a class without rows
/// never wins.
fn class_scores(
    maps: &SimilarityMaps,
    class_of: &[u16],
    classes: usize,
    [width, height]: [u32; 2],
    softmax: Option<f32>,
) -> Vec<f32> {
    let (width, height) = (width as usize, height as usize);
    let pixels = width * height;
    // Below any cosine or probability, but finite: refinement averages.
    let mut scores = vec![-1.0f32; classes * pixels];
    for (row, class) in class_of.iter().enumerate() {
        let map = maps.upsample(row, width, height);
        let target = &mut scores[usize::from(*class) * pixels..][..pixels];
        for (score, value) in target.iter_mut().zip(map) {
            *score = score.max(value);
        }
    }
    let Some(factor) = softmax else {
        return scores;
    };
    let mut top = vec![f32::NEG_INFINITY; pixels];
    let mut sum = vec![0.0f32; pixels];
    for class in scores.chunks_exact(pixels) {
        for (top, value) in top.iter_mut().zip(class) {
            *top = top.max(*value);
        }
    }
    for class in scores.chunks_exact_mut(pixels) {
        for ((value, top), sum) in class.iter_mut().zip(&top).zip(&mut sum) {
            *value = (factor * (*value - top)).exp();
            *sum += *value;
        }
    }
    for class in scores.chunks_exact_mut(pixels) {
        for (value, sum) in class.iter_mut().zip(&sum) {
            *value /= sum;
        }
    }
    scores
}

fn best_of_classes(scores: &[f32], pixels: usize) -> (Vec<u16>, Vec<f32>) {
    let mut classes = vec![0u16; pixels];
    let mut best = vec![f32::NEG_INFINITY; pixels];
    for (map, class) in scores.chunks_exact(pixels).zip(0..) {
        for ((value, best), winner) in map.iter().zip(&mut best).zip(&mut classes) {
            if *value > *best {
                (*best, *winner) = (*value, class);
            }
        }
    }
    (classes, best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes and background on a 1 x 2 grid: the left token is class 1, the right one is
    /// undecided.
    fn scene() -> (Vocabulary, TokenGrid) {
        let vocabulary = Vocabulary {
            texts: vec!["a".into(), "b".into()],
            embeddings: vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]],
            class_of: vec![1, 2],
            classes: 3,
            background: Some(0),
            truncated: vec![],
        };
        let grid = TokenGrid {
            rows: 1,
            columns: 2,
            dim: 3,
            cls: vec![0.0; 3],
            patches: vec![1.0, 0.0, 0.0, 0.5, 0.51, 0.7],
        };
        (vocabulary, grid)
    }

    fn run(set: &[&str]) -> Vec<u16> {
        let (vocabulary, grid) = scene();
        let mut overrides: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        overrides.push("background.rule=\"threshold\"".into());
        if !set.iter().any(|s| s.starts_with("background.threshold")) {
            overrides.push("background.threshold=-1.0".into());
        }
        let protocol = Protocol::load("clippy", "voc", &overrides).unwrap();
        let photo = RgbImage::new(2, 1);
        decide(
            &vocabulary,
            &protocol,
            &grid,
            &[1.0, 0.2, 0.0],
            [2, 1],
            Some(&photo),
        )
        .unwrap()
        .data()
        .to_vec()
    }

    #[test]
    fn thresholds_are_cosines_or_probabilities() {
        assert_eq!(run(&[]), [1, 2]);
        assert_eq!(run(&["background.threshold=0.6"]), [1, 0]);
        assert_eq!(
            run(&["background.threshold=0.6", "score.softmax=1.0"]),
            [1, 0]
        );
        assert_eq!(
            run(&["background.threshold=0.5", "score.softmax=1.0"]),
            [1, 2]
        );
        assert_eq!(
            run(&["background.threshold=0.99", "score.softmax=1.0"]),
            [0, 0]
        );
        let kept = [
            "background.threshold=0.99",
            "score.softmax=1.0",
            "background.keep_best=true",
        ];
        assert_eq!(run(&kept), [1, 0]);
    }

    #[test]
    fn only_the_best_fitting_classes_compete() {
        assert_eq!(run(&["score.top_classes=1"]), [1, 1]);
        assert_eq!(run(&["score.top_classes=2"]), [1, 2]);
    }

    #[test]
    fn refinement_by_a_flat_photo_averages_neighbours() {
        // All neighbours look alike: both pixels end near the mean, where class 1 leads.
        assert_eq!(run(&["refine.method=pamr", "refine.dilations=[1]"]), [1, 1]);
    }
}
