//! Text-driven segmentation: a class for every pixel, against the annotation (paper §3.3).

use std::path::PathBuf;

use percept::{LabelMap, TokenGrid};
use percept_data::{ClassName, LeftOut, SegmentationSet};
use percept_image::{ChwImage, Filter, RgbImage};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Encoder, Picture, Pictured, Run, check_crop, confusion, files_of, if_turned, named, read_photo,
    read_truth, say_what_is_missing,
};
use crate::decide::decide;
use crate::metrics::{Confusion, MeanOver, SparseConfusion};
use crate::protocol::Protocol;
use crate::result::{ClassResult, EvalResult, Task};
use crate::run::{Benchmark, Event, Loaded, run};
use crate::{EvalError, Vocabulary};

/// Masks that are named.
const EXAMPLES: usize = 5;

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
    let mut only_ignored = OnlyIgnored::default();
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
            only_ignored.add(&set.samples()[sample].id, &own);
            if let Some(score) = own.miou(MeanOver::Truth) {
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
        (set.omissions(), tally),
    );
    result.metrics = named([
        ("miou", whole.miou(how.protocol.score.mean_over)),
        ("pixel_accuracy", whole.pixel_accuracy()),
        ("mean_accuracy", whole.mean_accuracy()),
    ]);
    for over in MeanOver::EACH {
        let value = whole
            .miou(over)
            .map(|value| (over.metric().to_owned(), value));
        result.metrics.extend(value);
    }
    refuse_mean_of_one(&mut result, classes, &whole);
    say_what_is_missing(&mut result);
    if let Some(mistaken) = only_ignored.told(classes, &whole) {
        (how.progress)(Event::Note(&mistaken.to_string()));
        result.left_out.push(mistaken);
    }
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

/// Masks that may hold 255 where they mean a class: 255 is ignored.
#[derive(Default)]
struct OnlyIgnored {
    /// Masks with ignored pixels whose other pixels are all of one class at most.
    masks: u64,
    examples: Vec<String>,
}

impl OnlyIgnored {
    fn add(&mut self, id: &str, own: &Confusion) {
        let present = own
            .per_class()
            .iter()
            .filter(|class| class.truth > 0)
            .count();
        if present <= 1 && own.ignored() > 0 {
            self.masks += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(id.to_owned());
            }
        }
    }

    /// What there is to say, in words for those who stored 255 for the object. Sets of many classes
    /// have photos of one class and ignored borders; there it is said only if all are so.
    fn told(self, classes: &[ClassName], whole: &Confusion) -> Option<LeftOut> {
        let counts = whole.per_class();
        let absent = counts.iter().filter(|class| class.truth == 0).count();
        let told = classes.len() == 2 || (classes.len() > 2 && absent + 1 >= classes.len());
        if !told || self.masks == 0 {
            return None;
        }
        let object = match classes {
            [_, object] => format!("store 1 for {}", object.name),
            _ => "store the index of the class".to_owned(),
        };
        Some(LeftOut {
            kind: format!(
                "masks that hold only one class and 255, which is ignored (if they hold only 0 and \
                 255: {object})"
            ),
            count: self.masks,
            examples: self.examples,
        })
    }
}

/// Takes the mean of two classes away where one never occurs while pixels are ignored: it may be what
/// is ignored.
fn refuse_mean_of_one(result: &mut EvalResult, classes: &[ClassName], whole: &Confusion) {
    let counts = whole.per_class();
    let absent = classes
        .iter()
        .zip(&counts)
        .find(|(_, class)| class.truth == 0);
    let (2, Some((absent, _)), true) = (classes.len(), absent, whole.ignored() > 0) else {
        return;
    };
    let object = classes.last().unwrap_or(absent);
    let reason = format!(
        "no pixel is of {}, and others are 255, which is ignored; if the masks hold only 0 and 255, \
         store 1 for {}",
        absent.name, object.name
    );
    let means = MeanOver::EACH.map(MeanOver::metric);
    for name in std::iter::once("miou").chain(means) {
        result.metrics.insert(name.to_owned(), f64::NAN);
        result.missing.insert(name.to_owned(), reason.clone());
    }
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

    fn files(&self, sample: usize) -> Vec<PathBuf> {
        files_of(self.set, sample)
    }

    fn load(&self, sample: usize) -> Result<Loaded<Scene>, String> {
        let (photo, about) = read_photo(&self.set.samples()[sample].image, self.protocol)?;
        let truth = read_truth(self.set, sample, &photo, self.protocol)?;
        let image = self.encoder.prepare(&photo);
        let photo =
            self.protocol.refine.is_some().then(|| {
                percept_image::resize(&photo, truth.width(), truth.height(), Filter::Bicubic)
            });
        Ok(Loaded {
            extra: Scene { truth, photo },
            image,
            about,
        })
    }

    fn if_turned(&self) -> &'static str {
        if_turned(self.protocol)
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
        let (photo, _) = read_photo(&self.set.samples()[sample].image, self.protocol)?;
        Ok(Picture::of_maps(photo, scene.truth, &prediction))
    }
}
