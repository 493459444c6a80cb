//! The benchmarks: what is read, what is compared, what is reported. One file a task.

mod classification;
mod grouping;
mod retrieval;
mod segmentation;
mod waterbirds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept::{Model, Size, TokenGrid, View, Window};
use percept_data::{ClassName, Omissions, SegmentationSet};
use percept_image::{ChwImage, LabelMap, Limits, RgbImage, message};
use serde_json::{Value, json};

pub use classification::classification;
pub use grouping::grouping;
pub use retrieval::retrieval;
pub use segmentation::segmentation;
pub use waterbirds::waterbirds;

use crate::protocol::{Image, Orientation, Protocol, Resize};
use crate::report::{GalleryItem, Rank, headline};
use crate::result::{self, Counts, EvalResult, FORMAT, Task, Versions};
use crate::run::{About, Benchmark, Event, Loaded, RunOptions, Tally};
use crate::tokens::TokenStore;
use crate::{EvalError, Progress, Subject, Vocabulary};

/// Photos shown of the best, of the median and of the worst.
const SHOWN: usize = 4;

/// A run: who is tested, how, and how it is carried out.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The model.
    pub subject: &'a Subject<'a>,
    /// Every choice behind the numbers.
    pub protocol: &'a Protocol,
    /// Limits, files, batches.
    pub options: &'a RunOptions,
    /// Where progress is told.
    pub progress: Progress<'a>,
}

impl Run<'_> {
    fn model(&self) -> &Model {
        self.subject.model
    }

    /// All that decides a sample's record.
    fn settings(&self, task: Task, dataset: &str, split: &str, more: Value) -> Value {
        json!({
            "task": task.name(),
            "dataset": dataset,
            "split": split,
            "precision": self.model().precision().name(),
            "weights": self.subject.weights,
            "protocol": self.protocol,
            "details": more,
        })
    }

    /// What encodes photos for dense tasks.
    fn encoder(&self) -> Result<Encoder<'_>, EvalError> {
        let image = &self.protocol.image;
        self.encoder_of(size(image.resize, image.size), window(image))
    }

    /// What encodes photos for tasks with one answer a photo.
    fn whole_encoder(&self) -> Result<Encoder<'_>, EvalError> {
        let classify = &self.protocol.classify;
        let side = match classify.size {
            Some(side) => side,
            None => self.model().image_config()?.image_size as u32,
        };
        self.encoder_of(size(classify.resize, side), None)
    }

    fn encoder_of(&self, size: Size, window: Option<Window>) -> Result<Encoder<'_>, EvalError> {
        let model = self.model();
        let kept = self.options.tokens.as_deref().map(|folder| {
            let encoder = json!({
                "weights": self.subject.weights,
                "config": model.image_config()?,
                "kernel": model.kernel().map(|kernel| kernel.name()),
                "window": window.map(|window| [window.side, window.stride]),
            });
            TokenStore::open(folder, &encoder).map_err(|source| EvalError::Io {
                path: folder.to_owned(),
                source,
            })
        });
        Ok(Encoder {
            view: View::new(model, size, window)?,
            kept: kept.transpose()?,
            progress: self.progress,
        })
    }

    /// Says which names the text encoder cut.
    fn tell_truncated(&self, vocabulary: &Vocabulary) {
        for text in &vocabulary.truncated {
            (self.progress)(Event::Note(&format!(
                "\"{text:.60}\" is longer than the text encoder reads and was cut"
            )));
        }
    }

    /// The pictures of a report: samples with the best, the median and the worst scores. One that
    /// cannot be drawn any more is left out, and so are all where no report is written.
    fn gallery(
        &self,
        benchmark: &impl Pictured,
        scores: Vec<(usize, f64)>,
        score_name: &str,
    ) -> Vec<GalleryItem> {
        if self.options.out.is_none() {
            return Vec::new();
        }
        chosen(scores)
            .into_iter()
            .filter_map(|(sample, score, rank)| {
                let picture = benchmark.picture(sample).ok()?;
                Some(GalleryItem {
                    id: benchmark.id(sample).to_owned(),
                    score,
                    score_name: score_name.to_owned(),
                    photo: picture.photo,
                    truth: picture.truth,
                    prediction: picture.prediction,
                    note: picture.note,
                    rank,
                })
            })
            .collect()
    }

    /// A result without its numbers.
    fn result(
        &self,
        task: Task,
        dataset: &str,
        split: &str,
        mut settings: Value,
        (set, tally): (&Omissions, Tally),
    ) -> EvalResult {
        let mut left_out = set.clone();
        left_out.merge(&tally.omissions);
        if let Value::Object(settings) = &mut settings {
            settings.insert("limit".into(), json!(self.options.limit));
            settings.insert("batch_size".into(), json!(self.options.batch_size.max(1)));
        }
        EvalResult {
            format: FORMAT,
            dataset: dataset.to_owned(),
            model: self.subject.name.clone(),
            pretrained: self.subject.weights.clone(),
            task,
            metrics: Default::default(),
            missing: Default::default(),
            language: "en".into(),
            split: split.to_owned(),
            protocol: self.protocol.name.clone(),
            settings,
            per_class: Vec::new(),
            confusion: None,
            counts: Counts {
                found: tally.found as u64,
                samples: tally.samples as u64,
                done: tally.done as u64,
                failed: tally.failures.len() as u64,
                skipped_regions: 0,
            },
            failures: tally.failures,
            left_out: left_out.into(),
            versions: Versions::current(),
            seconds: tally.seconds,
            gallery: Vec::new(),
        }
    }
}

fn window(image: &Image) -> Option<Window> {
    image.window.map(|side| Window {
        side,
        stride: image.stride.unwrap_or(side.div_ceil(2)),
    })
}

fn size(resize: Resize, size: u32) -> Size {
    match resize {
        Resize::Squash => Size::Exact {
            width: size,
            height: size,
        },
        Resize::ShortSide => Size::ShortSide(size),
        Resize::CenterCrop => Size::CenterCrop(size),
    }
}

/// A view of photos, with the tokens that are kept of them.
struct Encoder<'a> {
    view: View<'a>,
    kept: Option<TokenStore>,
    progress: Progress<'a>,
}

impl Encoder<'_> {
    fn prepare(&self, photo: &RgbImage) -> ChwImage {
        self.view.prepare(photo)
    }

    fn encode(&self, images: &[ChwImage]) -> Result<Vec<TokenGrid>, percept::Error> {
        let Some(kept) = &self.kept else {
            return self.view.encode(images);
        };
        let paths: Vec<_> = images.iter().map(|image| kept.path(image)).collect();
        let found: Option<Vec<_>> = paths.iter().map(|path| TokenStore::read(path)).collect();
        if let Some(found) = found {
            return Ok(found);
        }
        let grids = self.view.encode(images)?;
        for (path, grid) in paths.iter().zip(&grids) {
            if let Err(error) = TokenStore::write(path, grid) {
                let path = path.display();
                (self.progress)(Event::Note(&format!("{path}: not kept: {error}")));
                break;
            }
        }
        Ok(grids)
    }
}

/// Says of the metrics that stand for a task which have no number, and why, unless that is said.
fn say_what_is_missing(result: &mut EvalResult) {
    let reason = match result.counts.done {
        0 => "no photo could be evaluated",
        _ => "nothing in the truth of these photos can be measured",
    };
    for name in headline(result.task) {
        if !result.metrics.contains_key(*name) && !result.missing.contains_key(*name) {
            result.metrics.insert((*name).to_owned(), f64::NAN);
            result.missing.insert((*name).to_owned(), reason.to_owned());
        }
    }
}

/// A photo as the protocol wants it turned, and what there is to say of it.
fn read_photo(path: &Path, protocol: &Protocol) -> Result<(RgbImage, About), String> {
    let mut stored =
        percept_image::open_stored(path, &Limits::default()).map_err(|e| message(&e))?;
    let about = About {
        turned: stored.turned,
        notes: std::mem::take(&mut stored.notes),
    };
    let pixels = match protocol.image.orientation {
        Orientation::Upright => stored.upright(),
        Orientation::Stored => stored.pixels,
    };
    Ok((pixels, about))
}

/// What becomes of photos whose metadata asks for turning, as a kind that is counted.
fn if_turned(protocol: &Protocol) -> &'static str {
    match protocol.image.orientation {
        Orientation::Stored => {
            "photos whose EXIF asks for turning, read as stored (image.orientation can be \"upright\")"
        }
        Orientation::Upright => {
            "photos turned upright as their EXIF asks (image.orientation can be \"stored\")"
        }
    }
}

/// The files that a sample is read from: its photo and its truth.
fn files_of(set: &dyn SegmentationSet, sample: usize) -> Vec<PathBuf> {
    std::iter::once(set.samples()[sample].image.clone())
        .chain(set.truth_files(sample))
        .collect()
}

/// The truth of a sample at the size where predictions meet it.
fn read_truth(
    set: &dyn SegmentationSet,
    sample: usize,
    photo: &RgbImage,
    protocol: &Protocol,
) -> Result<LabelMap, String> {
    let truth = set.truth(sample).map_err(|e| message(&e))?;
    if (truth.width(), truth.height()) != photo.dimensions() {
        let turned = (truth.height(), truth.width()) == photo.dimensions();
        return Err(format!(
            "the photo has {} x {} pixels, its annotation {} x {}{}",
            photo.width(),
            photo.height(),
            truth.width(),
            truth.height(),
            match turned {
                true => "; --set image.orientation=upright may fit, or stored",
                false => "",
            }
        ));
    }
    Ok(match protocol.truth.resize {
        Some(side) => percept_image::resize_labels(&truth, side, side),
        None => truth,
    })
}

/// What a model sees must be what the truth covers.
fn check_crop(protocol: &Protocol) -> Result<(), EvalError> {
    if protocol.image.resize == Resize::CenterCrop && protocol.truth.resize.is_none() {
        return Err(EvalError::Setting(
            "image.resize \"center-crop\" needs truth.resize: the model does not see all that the \
             annotation covers"
                .into(),
        ));
    }
    Ok(())
}

/// The samples to show: those with the best, the median and the worst scores.
fn chosen(mut scores: Vec<(usize, f64)>) -> Vec<(usize, f64, Rank)> {
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let count = scores.len();
    let shown = SHOWN.min(count.div_ceil(3));
    let middle = count / 2 - (shown / 2).min(count / 2);
    let ranks = [
        (0, Rank::Best),
        (middle.max(shown), Rank::Median),
        (count.saturating_sub(shown).max(2 * shown), Rank::Worst),
    ];
    ranks
        .into_iter()
        .flat_map(|(from, rank)| {
            scores
                .iter()
                .skip(from)
                .take(shown)
                .map(move |(sample, score)| (*sample, *score, rank))
        })
        .collect()
}

/// The metrics that have a value, by name.
fn named<const N: usize>(metrics: [(&str, Option<f64>); N]) -> BTreeMap<String, f64> {
    metrics
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// A confusion matrix for the result file; `count` is given truth and prediction.
fn confusion(classes: &[ClassName], count: impl Fn(usize, usize) -> u64) -> result::Confusion {
    let all = 0..classes.len();
    let row = |truth| all.clone().map(|p| count(truth, p)).collect();
    result::Confusion {
        classes: classes.iter().map(|class| class.name.clone()).collect(),
        counts: all.clone().map(row).collect(),
    }
}

/// A benchmark whose samples can be shown.
trait Pictured: Benchmark {
    /// What the gallery shows of a sample.
    fn picture(&self, sample: usize) -> Result<Picture, String>;

    /// A sample once more, with its tokens.
    fn again(&self, sample: usize) -> Result<(Self::Extra, TokenGrid), String> {
        let Loaded { extra, image, .. } = self.load(sample)?;
        let mut grids = self.encode(&[image]).map_err(|e| message(&e))?;
        Ok((extra, grids.remove(0)))
    }
}

/// What the gallery shows of a sample.
#[derive(Default)]
struct Picture {
    photo: RgbImage,
    truth: Option<LabelMap>,
    prediction: Option<LabelMap>,
    note: String,
}

impl Picture {
    /// Maps at the photo's size, so that all three look alike.
    fn of_maps(photo: RgbImage, truth: LabelMap, prediction: &LabelMap) -> Self {
        let (width, height) = photo.dimensions();
        let fit = |map: &LabelMap| percept_image::resize_labels(map, width, height);
        Self {
            truth: Some(fit(&truth)),
            prediction: Some(fit(prediction)),
            photo,
            note: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_read_with_what_is_odd_about_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.png");
        let photo = RgbImage::from_pixel(4, 3, percept_image::Rgb([9, 8, 7]));
        let png = percept_image::png_rgb(&photo).unwrap();
        let protocol = Protocol::load("clippy", "voc", &[]).unwrap();
        for (bytes, notes) in [
            (&png[..], vec![]),
            (&png[..png.len() - 12], vec![percept_image::Note::NoEnd]),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let (read, about) = read_photo(&path, &protocol).unwrap();
            assert_eq!((read, about.notes), (photo.clone(), notes));
        }
    }

    #[test]
    fn the_best_the_median_and_the_worst_are_shown_once() {
        let scores = |n: usize| (0..n).map(|i| (i, i as f64)).collect::<Vec<_>>();
        let of = |n| -> Vec<(usize, Rank)> {
            chosen(scores(n))
                .into_iter()
                .map(|(s, _, r)| (s, r))
                .collect()
        };
        assert_eq!(of(0), []);
        assert_eq!(of(1), [(0, Rank::Best)]);
        assert_eq!(
            of(3),
            [(2, Rank::Best), (1, Rank::Median), (0, Rank::Worst)]
        );
        let many = of(101);
        assert_eq!(many.len(), 3 * SHOWN);
        assert_eq!(many[0], (100, Rank::Best));
        assert_eq!(many[SHOWN + SHOWN / 2], (50, Rank::Median));
        assert_eq!(many[3 * SHOWN - 1], (0, Rank::Worst));
        for n in 1..40 {
            let mut samples: Vec<usize> = of(n).into_iter().map(|(s, _)| s).collect();
            let count = samples.len();
            samples.sort_unstable();
            samples.dedup();
            assert_eq!(samples.len(), count, "{n} scores");
        }
    }
}
