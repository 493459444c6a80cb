//! What an evaluation gives, as a JSON file.
//!
//! The first fields are those of clip_benchmark's result files, so that tools that read these read
//! ours; everything else needed to judge a number stands beside them. All values are fractions:
//! 0.508, not 50.8.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use percept_data::LeftOut;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::metrics::MeanOver;
use crate::report::GalleryItem;

/// The form of the files written here. It counts up when a number changes its meaning.
///
/// | form | what changed |
/// |---|---|
/// | none | `miou` was over all classes, one that never occurs counting as 0; photos were turned upright |
/// | 2 | `miou` is over the classes of `settings.protocol.score.mean_over`, and all three means stand under their own names; `metrics` has `null` for what has no number, and `missing` says why; `left_out` |
pub const FORMAT: u32 = 2;

/// Largest result file that is read, in bytes: many times what 25,000 classes take.
const MAX_FILE: u64 = 64 << 20;

/// Most classes of a confusion matrix that goes into the file: 200 x 200 counts are a few hundred
/// kilobytes, 1,000 x 1,000 would be megabytes that nobody reads.
const MAX_CONFUSION: usize = 200;

/// What was evaluated, in clip_benchmark's words where it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A class for every pixel, from words.
    SemanticSegmentation,
    /// Regions without words, against annotated objects.
    Grouping,
    /// A class for every photo, from words.
    ZeroshotClassification,
    /// Captions for photos and photos for captions.
    ZeroshotRetrieval,
    /// Accuracy where the background contradicts the class (Waterbirds).
    SpuriousCorrelation,
}

impl Task {
    /// Its name in result files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SemanticSegmentation => "semantic_segmentation",
            Self::Grouping => "grouping",
            Self::ZeroshotClassification => "zeroshot_classification",
            Self::ZeroshotRetrieval => "zeroshot_retrieval",
            Self::SpuriousCorrelation => "spurious_correlation",
        }
    }
}

/// The result of one model on one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// The form of the file, [`FORMAT`]; 0 for those of clip_benchmark and of before there were forms.
    #[serde(default)]
    pub format: u32,
    /// Name of the dataset, such as `voc`.
    pub dataset: String,
    /// Name of the model, such as `clippy`.
    pub model: String,
    /// The weights: a name, or the file or folder they came from.
    #[serde(default)]
    pub pretrained: String,
    /// What was evaluated.
    pub task: Task,
    /// Metrics by name, as fractions. One that is not a finite number is `null` in the file.
    #[serde(default, with = "finite_map")]
    pub metrics: BTreeMap<String, f64>,
    /// Why metrics have no number, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// Language of the prompts, such as `en`.
    #[serde(default)]
    pub language: String,
    /// Split of the dataset, such as `val`.
    #[serde(default)]
    pub split: String,
    /// Name of the protocol, such as `clippy`.
    #[serde(default)]
    pub protocol: String,
    /// Every choice that could change the numbers, as an object.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// The classes in the dataset's own order.
    #[serde(default)]
    pub per_class: Vec<ClassResult>,
    /// Which class was taken for which. Left out of the file above 200 classes.
    #[serde(default, skip_serializing_if = "not_worth_writing")]
    pub confusion: Option<Confusion>,
    /// How many samples there were and what became of them.
    #[serde(default)]
    pub counts: Counts,
    /// The samples that could not be evaluated.
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// What was left out of the set, or read otherwise than it is written, by kind.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What computed the result.
    #[serde(default)]
    pub versions: Versions,
    /// How long it took.
    #[serde(default)]
    pub seconds: Seconds,
    /// Pictures for the report; not part of the file.
    #[serde(skip)]
    pub gallery: Vec<GalleryItem>,
}

/// What one class scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Its name.
    pub name: String,
    /// Intersection over union; `None` where the metric does not apply or the class is in neither
    /// truth nor prediction.
    #[serde(default, serialize_with = "finite")]
    pub iou: Option<f64>,
    /// Part of the truth that was found; `None` where the truth does not have the class.
    #[serde(default, serialize_with = "finite")]
    pub accuracy: Option<f64>,
    /// How much of it the truth has: pixels when segmenting, photos when classifying.
    #[serde(default)]
    pub count: u64,
}

/// Which class was taken for which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Counts, `[truth, prediction]`: pixels when segmenting, photos when classifying.
    pub counts: Vec<Vec<u64>>,
}

/// How many samples there were and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Samples in the split as it is on disk.
    pub found: u64,
    /// Samples that were to be evaluated: fewer than `found` with a limit.
    pub samples: u64,
    /// Samples that the metrics are made of.
    pub done: u64,
    /// Samples that could not be evaluated.
    pub failed: u64,
    /// Annotated regions left out of the metrics, such as crowds.
    pub skipped_regions: u64,
}

/// A sample that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name in the set.
    pub sample: String,
    /// Why.
    pub reason: String,
}

/// What computed a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Versions {
    /// Version of percept.
    pub percept: String,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor architecture, such as `x86_64`.
    pub arch: String,
    /// Instruction sets that kernels choose by.
    pub cpu_features: Vec<String>,
}

impl Versions {
    /// This program on this machine.
    pub fn current() -> Self {
        Self {
            percept: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu_features: cpu_features(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    let found = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
    ];
    let names = found.into_iter().filter(|&(_, there)| there);
    names.map(|(name, _)| name.to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

/// How long an evaluation took, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seconds {
    /// From start to end.
    pub total: f64,
    /// Of these, inside the encoders.
    pub encode: f64,
}

/// Why a result could not be read or written. Every variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is beyond 64 MiB, which no result is.
    #[error("{}: more than {MAX_FILE} bytes, too large for a result", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version, whose numbers may mean something else.
    #[error("{}: a result of form {format}, which only a later percept reads", path.display())]
    Later {
        /// The file.
        path: PathBuf,
        /// Its form.
        format: u32,
    },
    /// The file is not a result.
    #[error("{}: not an evaluation result", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
}

impl EvalResult {
    /// Writes the result, whole or not at all.
    ///
    /// # Errors
    /// [`ResultError::Write`].
    pub fn write_json(&self, path: &Path) -> Result<(), ResultError> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|source| ResultError::Json {
            path: path.to_owned(),
            source,
        })?;
        json.push(b'\n');
        percept_image::write_atomic(path, &json).map_err(|source| ResultError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a result. Fields that are not known are passed over, so that files of clip_benchmark can
    /// be read. In files of before [`FORMAT`] 2 the metrics get the names that they have now.
    ///
    /// # Errors
    /// Any variant of [`ResultError`] but [`ResultError::Write`].
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        let read_error = |source| ResultError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read_error)?;
        let mut json = Vec::new();
        // The size that the system gives is not trusted: pipes have none.
        let mut bounded = file.take(MAX_FILE + 1);
        bounded.read_to_end(&mut json).map_err(read_error)?;
        if json.len() as u64 > MAX_FILE {
            return Err(ResultError::TooLarge {
                path: path.to_owned(),
            });
        }
        let mut result: Self =
            serde_json::from_slice(&json).map_err(|source| ResultError::Json {
                path: path.to_owned(),
                source,
            })?;
        if result.format > FORMAT {
            return Err(ResultError::Later {
                path: path.to_owned(),
                format: result.format,
            });
        }
        if result.format == 0 && !result.versions.percept.is_empty() {
            result.bring_up_to_date();
        }
        Ok(result)
    }

    /// Gives the metrics of a file without a form the names of today, and their settings what they
    /// were then.
    fn bring_up_to_date(&mut self) {
        self.format = FORMAT;
        let segments = self.task == Task::SemanticSegmentation;
        // The notebook's protocol is the one whose `miou` is still what it was.
        let over = match self.protocol.as_str() {
            "clippy-notebook" => MeanOver::All,
            _ => MeanOver::default(),
        };
        if segments {
            self.rename_means(over);
        }
        let Some(protocol) = object_at(&mut self.settings, "protocol") else {
            return;
        };
        if let Some(image) = object_at(protocol, "image") {
            image["orientation"] = json!("upright");
        }
        if let Some(score) = object_at(protocol, "score").filter(|_| segments) {
            score["mean_over"] = json!(over);
        }
    }

    /// Gives the means of IoU their names, with `miou` for the one that is over the classes of `over`;
    /// those that have no number are missing.
    fn rename_means(&mut self, over: MeanOver) {
        let all = self.metrics.remove("miou");
        let ious: Vec<f64> = (self.per_class.iter())
            .filter_map(|class| class.iou)
            .collect();
        let reason = match self.counts.done {
            0 => "no photo could be evaluated",
            _ if ious.is_empty() => "no class has an IoU",
            _ => "the file does not have it",
        };
        // What was written for nothing was 0.
        let measured = self.counts.done > 0 && !ious.is_empty();
        let present = self.metrics.remove(MeanOver::Truth.metric());
        let means = [
            (MeanOver::All, all),
            (
                MeanOver::TruthOrPrediction,
                Some(ious.iter().sum::<f64>() / ious.len() as f64),
            ),
            (MeanOver::Truth, present),
        ];
        for (classes, mean) in means {
            let headline = (classes == over).then_some("miou");
            for name in [Some(classes.metric()), headline].into_iter().flatten() {
                let mean = mean.filter(|_| measured);
                self.metrics
                    .insert(name.to_owned(), mean.unwrap_or(f64::NAN));
                if mean.is_none() {
                    self.missing.insert(name.to_owned(), reason.to_owned());
                }
            }
        }
    }
}

/// The object under a key of an object, made where there is nothing; `None` where there is something
/// else.
fn object_at<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    if value.is_null() {
        *value = json!({});
    }
    let inner = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if inner.is_null() {
        *inner = json!({});
    }
    inner.is_object().then_some(inner)
}

fn not_worth_writing(confusion: &Option<Confusion>) -> bool {
    confusion
        .as_ref()
        .is_none_or(|c| c.classes.len() > MAX_CONFUSION)
}

fn finite<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.filter(|v| v.is_finite()).serialize(serializer)
}

/// Metrics, `null` for those that are not numbers.
mod finite_map {
    use super::*;

    pub fn serialize<S: Serializer>(
        metrics: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let number = |value: &f64| Some(*value).filter(|value| value.is_finite());
        serializer.collect_map(metrics.iter().map(|(name, value)| (name, number(value))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        // No number, or a list, as clip_benchmark writes under some names (per-class scores).
        let all = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let numbers = all.into_iter().filter_map(|(k, v)| Some((k, v.as_f64()?)));
        Ok(numbers.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP_BENCHMARK: &str = r#"{"dataset": "voc", "model": "ViT-B-32", "pretrained": "openai",
        "task": "zeroshot_classification", "language": "en",
        "metrics": {"acc1": 0.5, "acc5": null, "list": [1], "mean_per_class_recall": 0.25}}"#;

    #[test]
    fn files_of_clip_benchmark_are_read() {
        let result: EvalResult = serde_json::from_str(CLIP_BENCHMARK).unwrap();
        assert_eq!(result.task, Task::ZeroshotClassification);
        assert_eq!(result.metrics.len(), 2);
        assert_eq!(result.metrics["acc1"], 0.5);
    }

    #[test]
    fn a_result_survives_the_round_trip_and_unknown_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        let mut result: EvalResult = serde_json::from_str(CLIP_BENCHMARK).unwrap();
        result.format = FORMAT;
        result.versions = Versions::current();
        result.settings = serde_json::json!({"size": 224, "limit": null});
        result.write_json(&path).unwrap();
        assert_eq!(EvalResult::read(&path).unwrap(), result);

        let mut value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["later"] = serde_json::json!([1]);
        std::fs::write(&path, value.to_string()).unwrap();
        assert_eq!(EvalResult::read(&path).unwrap(), result);
    }

    #[test]
    fn what_is_no_number_is_null() {
        let mut result: EvalResult = serde_json::from_str(CLIP_BENCHMARK).unwrap();
        result.metrics.insert("miou".to_owned(), f64::NAN);
        result.per_class.push(ClassResult {
            name: "cat".to_owned(),
            iou: Some(f64::NAN),
            accuracy: None,
            count: 0,
        });
        let value = serde_json::to_value(&result).unwrap();
        assert_eq!(value["metrics"]["miou"], serde_json::Value::Null);
        assert!(value["metrics"].get("miou").is_some());
        assert!(value["per_class"][0]["iou"].is_null());
    }

    #[test]
    fn numbers_of_before_there_were_forms_keep_their_meaning() {
        let old = |protocol: &str| {
            serde_json::json!({
                "dataset": "voc", "model": "m", "task": "semantic_segmentation",
                "protocol": protocol, "counts": {"done": 3},
                "metrics": {"miou": 0.05, "miou_present": 0.3, "pixel_accuracy": 0.5},
                "settings": {"protocol": {"image": {"size": 224}, "score": {}}},
                "per_class": [
                    {"name": "a", "iou": 0.6, "accuracy": 0.7, "count": 5},
                    {"name": "b", "iou": 0.0, "accuracy": null, "count": 0},
                    {"name": "c", "iou": null, "accuracy": null, "count": 0},
                ],
                "versions": {"percept": "0.1.0"},
            })
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.json");
        let read = |file: &Value| {
            std::fs::write(&path, file.to_string()).unwrap();
            EvalResult::read(&path)
        };
        for (protocol, headline, over) in [
            ("clippy", 0.3, "truth-or-prediction"),
            ("clippy-notebook", 0.05, "all"),
        ] {
            let result = read(&old(protocol)).unwrap();
            let metric = |name: &str| result.metrics[name];
            assert_eq!(metric("miou_all_classes"), 0.05);
            assert_eq!(metric("miou_truth_or_prediction"), 0.3);
            assert_eq!(metric("miou_present"), 0.3);
            assert_eq!((metric("miou"), metric("pixel_accuracy")), (headline, 0.5));
            let protocol = &result.settings["protocol"];
            assert_eq!(protocol["score"]["mean_over"], over);
            assert_eq!(protocol["image"]["orientation"], "upright");
            // Once is enough.
            result.write_json(&path).unwrap();
            assert_eq!(EvalResult::read(&path).unwrap(), result);
        }
        // What the settings do not say does not keep the old meaning.
        for settings in [Value::Null, json!({}), json!({"protocol": {}})] {
            let mut file = old("clippy");
            file["settings"] = settings;
            let result = read(&file).unwrap();
            assert_eq!(result.metrics["miou"], 0.3);
            assert_eq!(result.metrics["miou_all_classes"], 0.05);
            let protocol = &result.settings["protocol"];
            assert_eq!(protocol["score"]["mean_over"], "truth-or-prediction");
            assert_eq!(protocol["image"]["orientation"], "upright");
        }
        let mut odd = old("clippy");
        odd["settings"] = json!({"protocol": "clippy"});
        let result = read(&odd).unwrap();
        assert_eq!(result.metrics["miou"], 0.3);
        assert_eq!(result.settings, odd["settings"]);
        // What has no number is missing, and it is said why.
        let means = [
            "miou",
            "miou_all_classes",
            "miou_present",
            "miou_truth_or_prediction",
        ];
        let mut none = old("clippy");
        none["per_class"] = json!([]);
        let mut nothing = old("clippy");
        nothing["counts"]["done"] = json!(0);
        for (file, reason) in [
            (none, "no class has an IoU"),
            (nothing, "no photo could be evaluated"),
        ] {
            let result = read(&file).unwrap();
            let missing: Vec<&str> = result.missing.keys().map(String::as_str).collect();
            assert_eq!(missing, means);
            assert!(result.missing.values().all(|why| why == reason));
            assert!(means.iter().all(|name| result.metrics[*name].is_nan()));
            assert_eq!(result.metrics["pixel_accuracy"], 0.5);
        }
        let mut later = old("clippy");
        later["format"] = json!(FORMAT + 1);
        let error = read(&later).unwrap_err().to_string();
        assert!(
            error.ends_with("a result of form 3, which only a later percept reads"),
            "{error}"
        );
    }

    #[test]
    fn large_confusions_stay_out_of_the_file() {
        let mut result: EvalResult = serde_json::from_str(CLIP_BENCHMARK).unwrap();
        for (n, written) in [(200, true), (201, false)] {
            result.confusion = Some(Confusion {
                classes: vec![String::new(); n],
                counts: vec![vec![0; n]; n],
            });
            let value = serde_json::to_value(&result).unwrap();
            assert_eq!(value.get("confusion").is_some(), written);
        }
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.json");
        let message = || EvalResult::read(&path).unwrap_err().to_string();
        assert!(message().starts_with(&format!("cannot read {}", path.display())));
        for text in [
            "",
            "[]",
            "{\"dataset\": 3}",
            "{\"task\": \"cooking\"}",
            &"[".repeat(9999),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(message().contains("bad.json: not an evaluation result"));
        }
        let file = File::create(&path).unwrap();
        file.set_len(MAX_FILE + 1).unwrap();
        assert!(message().contains("too large"));
    }
}
