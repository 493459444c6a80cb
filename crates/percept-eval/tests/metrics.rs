//! Metrics agree with scikit-learn, pycocotools and naive sums, PAMR with PyTorch.
//!
//! The goldens are made by `tools/parity/metrics.py` and `tools/parity/pamr.py`.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use percept_eval::metrics::{
    Classification, Confusion, GroupSizes, IGNORE, Jaccard, MeanOver, RecallAt, recall,
};
use percept_eval::refine::Pamr;
use percept_image::{LabelMap, RgbImage, Rle};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    confusion: Vec<ConfusionCase>,
    jaccard: Vec<JaccardCase>,
    classification: Vec<ClassificationCase>,
    retrieval: Vec<RetrievalCase>,
}

#[derive(Deserialize)]
struct ConfusionCase {
    classes: usize,
    truth: Vec<u16>,
    predicted: Vec<u16>,
    ignored: u64,
    matrix: Vec<Vec<u64>>,
    iou: Vec<Option<f64>>,
    /// Over all classes.
    miou: f64,
    miou_present: Option<f64>,
    pixel_accuracy: Option<f64>,
    mean_accuracy: Option<f64>,
}

#[derive(Deserialize)]
struct JaccardCase {
    height: u32,
    width: u32,
    groups: Vec<u16>,
    valid: Vec<u8>,
    regions: Vec<String>,
    best: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct ClassificationCase {
    classes: usize,
    truth: Vec<usize>,
    scores: Vec<f32>,
    top1: f64,
    top5: f64,
    mean_per_class: f64,
    matrix: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct RetrievalCase {
    dim: usize,
    images: Vec<f32>,
    texts: Vec<f32>,
    owners: Vec<usize>,
    at: Vec<RecallAt>,
}

#[derive(Deserialize)]
struct PamrCase {
    height: u32,
    width: u32,
    dilations: Vec<usize>,
    iterations: usize,
    photo: Vec<u8>,
    maps: Vec<f32>,
    refined: Vec<f32>,
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("goldens/metrics.json")).unwrap()
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        (None, None) => true,
        _ => false,
    }
}

fn matrix(confusion: &Confusion) -> Vec<Vec<u64>> {
    let n = confusion.classes();
    (0..n)
        .map(|t| (0..n).map(|p| confusion.get(t, p)).collect())
        .collect()
}

/// The mean of the classes that have an IoU, which are those in truth or prediction.
fn occurring_mean(iou: &[Option<f64>]) -> Option<f64> {
    let iou: Vec<f64> = iou.iter().flatten().copied().collect();
    (!iou.is_empty()).then(|| iou.iter().sum::<f64>() / iou.len() as f64)
}

#[test]
fn confusions_are_scikit_learns() {
    for (index, case) in goldens().confusion.iter().enumerate() {
        let mut confusion = Confusion::new(case.classes).unwrap();
        confusion.add(&case.truth, &case.predicted).unwrap();
        assert_eq!(matrix(&confusion), case.matrix, "case {index}");
        assert_eq!(confusion.ignored(), case.ignored, "case {index}");
        let iou = confusion.iou();
        assert_eq!(iou.len(), case.iou.len());
        let mut pairs: Vec<_> = iou.into_iter().zip(case.iou.iter().copied()).collect();
        pairs.extend([
            (
                // Where nothing is counted there is no number, not 0.
                confusion.miou(MeanOver::All),
                (confusion.pixels() > 0).then_some(case.miou),
            ),
            (confusion.miou(MeanOver::Truth), case.miou_present),
            (
                confusion.miou(MeanOver::TruthOrPrediction),
                occurring_mean(&case.iou),
            ),
            (confusion.pixel_accuracy(), case.pixel_accuracy),
            (confusion.mean_accuracy(), case.mean_accuracy),
        ]);
        for (ours, theirs) in pairs {
            assert!(close(ours, theirs), "case {index}: {ours:?}, {theirs:?}");
        }
    }
}

#[test]
fn more_labels_than_classes_is_an_error() {
    let case = &goldens().confusion[2]; // 21 classes
    let mut confusion = Confusion::new(20).unwrap();
    assert!(confusion.add(&case.truth, &case.predicted).is_err());
    assert_eq!((confusion.pixels(), confusion.ignored()), (0, 0));
}

#[test]
fn best_groups_are_pycocotools() {
    for (index, case) in goldens().jaccard.iter().enumerate() {
        let map = |labels| LabelMap::new(case.width, case.height, labels).unwrap();
        let truth = case.valid.iter().map(|&v| if v == 1 { 0 } else { IGNORE });
        let truth = map(truth.collect());
        let groups = GroupSizes::new(&map(case.groups.clone()), Some(&truth)).unwrap();
        let mut mean = Jaccard::default();
        for (region, &expected) in case.regions.iter().zip(&case.best) {
            let region = Rle::from_compressed(region, case.height, case.width).unwrap();
            let best = groups.best(&region).unwrap();
            let iou = best.map(|best| best.iou);
            assert!(close(iou, expected), "case {index}: {iou:?}, {expected:?}");
            mean.add(best);
        }
        let known: Vec<_> = case.best.iter().flatten().collect();
        let expected = known.iter().copied().sum::<f64>() / known.len() as f64;
        assert!(close(mean.mean(), Some(expected)));
    }
}

#[test]
fn accuracies_are_scikit_learns() {
    for (index, case) in goldens().classification.iter().enumerate() {
        let mut scored = Classification::new(case.classes).unwrap();
        let mut ranked = scored.clone();
        for (&truth, scores) in case.truth.iter().zip(case.scores.chunks(case.classes)) {
            scored.add_scores(truth, scores).unwrap();
            let mut guesses: Vec<_> = (0..case.classes).collect();
            guesses.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            guesses.truncate(5);
            ranked.add_ranked(truth, &guesses).unwrap();
        }
        assert_eq!(scored, ranked, "case {index}");
        for (ours, theirs) in [
            (scored.top1(), case.top1),
            (scored.top5(), case.top5),
            (scored.mean_per_class(), case.mean_per_class),
        ] {
            assert!(
                close(ours, Some(theirs)),
                "case {index}: {ours:?}, {theirs}"
            );
        }
        assert_eq!(matrix(scored.confusion().unwrap()), case.matrix);
    }
}

#[test]
fn recall_is_the_naive_one() {
    for (index, case) in goldens().retrieval.iter().enumerate() {
        let ks: Vec<_> = case.at.iter().map(|at| at.k).collect();
        let found = recall(&case.images, &case.texts, case.dim, &case.owners, &ks).unwrap();
        for (ours, theirs) in found.at.iter().zip(&case.at) {
            assert!(
                close(ours.image_to_text, theirs.image_to_text)
                    && close(ours.text_to_image, theirs.text_to_image),
                "case {index}: {ours:?}, {theirs:?}"
            );
        }
    }
}

#[test]
fn refined_maps_are_pytorchs() {
    let cases: Vec<PamrCase> =
        serde_json::from_str(include_str!("goldens/metrics_pamr.json")).unwrap();
    for (index, case) in cases.into_iter().enumerate() {
        let photo = RgbImage::from_raw(case.width, case.height, case.photo).unwrap();
        let pamr = Pamr::new(case.iterations, case.dilations).unwrap();
        let refined = pamr.refine(&photo, &case.maps).unwrap();
        assert_eq!(refined.len(), case.refined.len());
        for (at, (ours, theirs)) in refined.iter().zip(&case.refined).enumerate() {
            // PyTorch's own 32 bits are up to 8e-6 from its 64 here: exponents go up to 59.
            let difference = (ours - theirs).abs();
            assert!(difference < 2e-5, "case {index}, {at}: {ours}, {theirs}");
        }
    }
}

/// Truth and prediction of up to 60 pixels of 6 classes.
fn pixels() -> impl Strategy<Value = (Vec<u16>, Vec<u16>)> {
    let truth = prop_oneof![8 => 0_u16..6, 1 => Just(IGNORE)];
    proptest::collection::vec((truth, 0_u16..6), 0..60).prop_map(|pairs| pairs.into_iter().unzip())
}

fn confusion_of(truth: &[u16], predicted: &[u16]) -> Confusion {
    let mut confusion = Confusion::new(6).unwrap();
    confusion.add(truth, predicted).unwrap();
    confusion
}

proptest! {
    #[test]
    fn iou_is_that_of_sets((truth, predicted) in pixels()) {
        let confusion = confusion_of(&truth, &predicted);
        let counted = || truth.iter().zip(&predicted).filter(|(t, _)| **t != IGNORE);
        for class in 0..6 {
            let both = counted().filter(|&(&t, &p)| t == class && p == class).count();
            let either = counted().filter(|&(&t, &p)| t == class || p == class).count();
            let expected = (either > 0).then(|| both as f64 / either as f64);
            prop_assert!(close(confusion.iou()[usize::from(class)], expected));
        }
        prop_assert_eq!(confusion.pixels() + confusion.ignored(), truth.len() as u64);
    }

    #[test]
    fn permuted_classes_permute_the_iou(
        (truth, predicted) in pixels(),
        order in Just([0_u16, 1, 2, 3, 4, 5]).prop_shuffle(),
    ) {
        let permute = |labels: &[u16]| -> Vec<u16> {
            let new = |&label: &u16| order.get(usize::from(label)).copied().unwrap_or(label);
            labels.iter().map(new).collect()
        };
        let before = confusion_of(&truth, &predicted);
        let after = confusion_of(&permute(&truth), &permute(&predicted));
        for (old, &new) in order.iter().enumerate() {
            prop_assert_eq!(before.iou()[old], after.iou()[usize::from(new)]);
        }
        for over in MeanOver::EACH {
            prop_assert!(close(before.miou(over), after.miou(over)));
        }
        prop_assert_eq!(before.pixel_accuracy(), after.pixel_accuracy());
    }

    #[test]
    fn merging_is_adding(first in pixels(), second in pixels()) {
        let mut added = confusion_of(&first.0, &first.1);
        added.add(&second.0, &second.1).unwrap();
        let mut merged = confusion_of(&first.0, &first.1);
        let other = confusion_of(&second.0, &second.1);
        merged.merge(&other).unwrap();
        prop_assert_eq!(&merged, &added);
        let mut read = confusion_of(&first.0, &first.1);
        let line = serde_json::to_string(&other.to_sparse()).unwrap();
        read.merge_sparse(&serde_json::from_str(&line).unwrap()).unwrap();
        prop_assert_eq!(&read, &added);
    }

    #[test]
    fn all_ignored_is_nothing((_, predicted) in pixels()) {
        let confusion = confusion_of(&vec![IGNORE; predicted.len()], &predicted);
        prop_assert!(confusion.iou().iter().all(Option::is_none));
        prop_assert!(MeanOver::EACH.iter().all(|over| confusion.miou(*over).is_none()));
        prop_assert_eq!(confusion.pixel_accuracy(), None);
        prop_assert_eq!(confusion.mean_accuracy(), None);
    }

    #[test]
    fn the_truth_scores_one(truth in proptest::collection::vec(0_u16..6, 1..60)) {
        let confusion = confusion_of(&truth, &truth);
        prop_assert!(confusion.iou().iter().flatten().all(|&iou| iou == 1.0));
        prop_assert_eq!(confusion.miou(MeanOver::Truth), Some(1.0));
        prop_assert_eq!(confusion.miou(MeanOver::TruthOrPrediction), Some(1.0));
        prop_assert_eq!(confusion.pixel_accuracy(), Some(1.0));
        prop_assert_eq!(confusion.mean_accuracy(), Some(1.0));
    }

    #[test]
    fn the_best_group_is_the_naive_one(
        (height, width, labels) in (1_u32..9, 1_u32..9).prop_flat_map(|(h, w)| {
            let pixel = (0_u16..4, any::<bool>(), prop::bool::weighted(0.2));
            (Just(h), Just(w), proptest::collection::vec(pixel, (h * w) as usize))
        })
    ) {
        let map = |labels| LabelMap::new(width, height, labels).unwrap();
        let groups = map(labels.iter().map(|pixel| pixel.0).collect());
        let inside: Vec<_> = labels.iter().map(|pixel| pixel.1).collect();
        let truth = map(labels.iter().map(|pixel| if pixel.2 { IGNORE } else { 3 }).collect());
        let region = Rle::from_mask(&inside, height, width).unwrap();
        let best = GroupSizes::new(&groups, Some(&truth)).unwrap().best(&region).unwrap();
        let count = |keep: &dyn Fn(u16, bool) -> bool| {
            labels.iter().filter(|pixel| !pixel.2 && keep(pixel.0, pixel.1)).count()
        };
        let expected = (0..4)
            .map(|group| {
                let both = count(&|label, inside| label == group && inside);
                let either = count(&|label, inside| label == group || inside);
                both as f64 / either.max(1) as f64
            })
            .fold(0.0, f64::max);
        prop_assert_eq!(best.map_or(0.0, |best| best.iou), expected);
    }

    #[test]
    fn hostile_regions_are_refused(counts in proptest::collection::vec(any::<u32>(), 0..6)) {
        let groups = GroupSizes::new(&LabelMap::new(3, 2, vec![0; 6]).unwrap(), None).unwrap();
        let sum: u64 = counts.iter().map(|&run| u64::from(run)).sum();
        let region = Rle { height: 2, width: 3, counts };
        prop_assert_eq!(groups.best(&region).is_ok(), sum == 6);
    }
}
