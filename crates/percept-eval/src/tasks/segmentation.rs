//! Text-driven segmentation: a class for every pixel, against the annotation (paper §3.3).

use percept::{LabelMap, TokenGrid};
use percept_data::SegmentationSet;
use percept_image::{ChwImage, Filter, RgbImage};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Encoder, Picture, Pictured, Run, check_crop, confusion, named, read_photo, read_truth,
};
use crate::decide::decide;
use crate::metrics::{Confusion, SparseConfusion};
use crate::protocol::Protocol;
use crate::result::{ClassResult, EvalResult, Task};
use crate::run::{Benchmark, run};
use crate::{EvalError, Vocabulary};

/// Segments every photo of `set` with words and counts its pixels into one confusion matrix.
///
/// # Errors
/// Settings, model and set do not fit together, or records cannot be written.
pub fn segmentation(set: &dyn SegmentationSet, how: Run<'_>) -> Result<EvalResult, EvalError> {
    check_crop(how.protocol)?;
    let classes = set.classes();
    let vocabulary = Vocabulary::new(
        how.model(),
        set.name(),
        classes,
        set.background(),
        how.protocol,
    )?;
    how.tell_truncated(&vocabulary);
    let benchmark = Segmentation {
        set,
        encoder: how.encoder()?,
        pooling: how.model().image_config()?.pooling,
        vocabulary,
        protocol: how.protocol,
    };
    let settings = how.settings(
        Task::SemanticSegmentation,
        set.name(),
        set.split(),
        json!({ "texts": benchmark.vocabulary.texts, "class_of": benchmark.vocabulary.class_of }),
    );
    let refuse = |e: crate::metrics::MetricError| EvalError::Setting(e.to_string());
    let mut whole = Confusion::new(classes.len()).map_err(refuse)?;
    let mut scores = Vec::new();
    let tally = run(
        &benchmark,
        &settings,
        how.options,
        how.progress,
        |sample, record: &Record| {
            let mut own = Confusion::new(classes.len()).map_err(|e| e.to_string())?;
            own.merge_sparse(&record.confusion)
                .map_err(|e| e.to_string())?;
            whole.merge(&own).map_err(|e| e.to_string())?;
            if let Some(score) = own.miou_present() {
                scores.push((sample, score));
            }
            Ok(())
        },
    )?;
    let mut result = how.result(
        Task::SemanticSegmentation,
        set.name(),
        set.split(),
        settings,
        tally,
    );
    result.metrics = named([
        ("miou", Some(whole.miou())),
        ("miou_present", whole.miou_present()),
        ("pixel_accuracy", whole.pixel_accuracy()),
        ("mean_accuracy", whole.mean_accuracy()),
    ]);
    result.per_class = classes
        .iter()
        .zip(whole.per_class())
        .map(|(class, pixels)| ClassResult {
            name: class.name.clone(),
            iou: pixels.iou,
            accuracy: pixels.accuracy,
            count: pixels.truth,
        })
        .collect();
    result.confusion = Some(confusion(classes, |truth, p| whole.get(truth, p)));
    result.gallery = how.gallery(&benchmark, scores, "miou_present");
    Ok(result)
}

struct Segmentation<'a> {
    set: &'a dyn SegmentationSet,
    encoder: Encoder<'a>,
    pooling: percept::Pooling,
    vocabulary: Vocabulary,
    protocol: &'a Protocol,
}

/// A photo's part of the confusion matrix.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    confusion: SparseConfusion,
}

/// What is read beside the model's input.
struct Scene {
    truth: LabelMap,
    /// The photo at the truth's size, where refinement needs it.
    photo: Option<RgbImage>,
}

impl Segmentation<'_> {
    fn predict(&self, scene: &Scene, grid: &TokenGrid) -> Result<LabelMap, String> {
        decide(
            &self.vocabulary,
            self.protocol,
            grid,
            &grid.pool(self.pooling),
            [scene.truth.width(), scene.truth.height()],
            scene.photo.as_ref(),
        )
    }
}

impl Benchmark for Segmentation<'_> {
    type Extra = Scene;
    type Record = Record;

    fn len(&self) -> usize {
        self.set.samples().len()
    }

    fn id(&self, sample: usize) -> &str {
        &self.set.samples()[sample].id
    }

    fn load(&self, sample: usize) -> Result<(Scene, ChwImage), String> {
        let photo = read_photo(&self.set.samples()[sample].image)?;
        let truth = read_truth(self.set, sample, &photo, self.protocol)?;
        let image = self.encoder.prepare(&photo);
        let photo =
            self.protocol.refine.is_some().then(|| {
                percept_image::resize(&photo, truth.width(), truth.height(), Filter::Bicubic)
            });
        Ok((Scene { truth, photo }, image))
    }

    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> {
        self.encoder.encode(images)
    }

    fn judge(&self, _: usize, scene: Scene, grid: TokenGrid) -> Result<Record, String> {
        let prediction = self.predict(&scene, &grid)?;
        let mut confusion = Confusion::new(self.vocabulary.classes).map_err(|e| e.to_string())?;
        confusion
            .add(scene.truth.data(), prediction.data())
            .map_err(|e| e.to_string())?;
        Ok(Record {
            confusion: confusion.to_sparse(),
        })
    }
}

impl Pictured for Segmentation<'_> {
    fn picture(&self, sample: usize) -> Result<Picture, String> {
        let (scene, grid) = self.again(sample)?;
        let prediction = self.predict(&scene, &grid)?;
        let photo = read_photo(&self.set.samples()[sample].image)?;
        Ok(Picture::of_maps(photo, scene.truth, &prediction))
    }
}
