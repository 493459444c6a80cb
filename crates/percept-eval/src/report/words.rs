//! Names and numbers as people write them.

use serde_json::Value;

use crate::result::Task;

/// Longest value of a setting that is shown, in characters; all of it is in the JSON file.
const MAX_VALUE: usize = 400;

/// Objects within objects deeper than this are shown as JSON, not as settings of their own.
const MAX_NESTING: usize = 4;

/// A fraction as a percentage with two decimals, or a dash where there is no number.
pub(crate) fn percent(value: Option<f64>) -> String {
    match value.filter(|v| v.is_finite()) {
        Some(value) => format!("{:.2}", 100.0 * value),
        None => "–".to_owned(),
    }
}

/// The metrics that are numbers of things; all others are fractions.
const COUNTS: [&str; 3] = ["captions", "regions", "photos_without_object_pixels"];

/// Whether a metric is a number of things rather than a fraction.
pub(crate) fn is_count(metric: &str) -> bool {
    COUNTS.contains(&metric)
}

/// The value of a metric with its unit.
pub(crate) fn metric_value(name: &str, value: f64) -> String {
    if is_count(name) {
        return thousands(value.max(0.0) as u64);
    }
    format!("{} %", percent(Some(value)))
}

/// A whole number with commas between thousands.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 photo`, `2,000 photos`.
pub(crate) fn number_of(value: u64, thing: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", thousands(value))
}

/// The metrics that stand for a task, most important first.
pub(crate) fn headline(task: Task) -> &'static [&'static str] {
    match task {
        Task::SemanticSegmentation => &[
            "miou",
            "miou_truth_or_prediction",
            "miou_present",
            "miou_all_classes",
            "pixel_accuracy",
        ],
        Task::Grouping => &["jaccard"],
        Task::ZeroshotClassification => &["acc1", "acc5", "mean_per_class_recall"],
        Task::ZeroshotRetrieval => &["image_to_text_recall@5", "text_to_image_recall@5"],
        Task::SpuriousCorrelation => &[
            "grouping_worst_group",
            "pooled_worst_group",
            "grouping_average",
            "pooled_average",
        ],
    }
}

/// A task in plain words.
pub(crate) fn task_label(task: Task) -> &'static str {
    match task {
        Task::SemanticSegmentation => "segmentation by words",
        Task::Grouping => "grouping without words",
        Task::ZeroshotClassification => "zero-shot classification",
        Task::ZeroshotRetrieval => "zero-shot retrieval",
        Task::SpuriousCorrelation => "robustness to the background",
    }
}

/// What a metric is called in the field.
pub(crate) fn metric_label(name: &str) -> String {
    match name {
        "miou" => "mIoU".to_owned(),
        "miou_truth_or_prediction" => "mIoU of classes in truth or prediction".to_owned(),
        "miou_present" => "mIoU of classes in the truth".to_owned(),
        "miou_all_classes" => "mIoU of all classes".to_owned(),
        "jaccard" => "Jaccard similarity".to_owned(),
        "image_to_text_recall@5" => "caption found among five".to_owned(),
        "text_to_image_recall@5" => "photo found among five".to_owned(),
        "acc1" => "top-1 accuracy".to_owned(),
        "acc5" => "top-5 accuracy".to_owned(),
        other => {
            let (name, way) = match other.split_once('_') {
                Some(("grouping", name)) => (name, ", by grouping"),
                Some(("pooled", name)) => (name, ", pooled"),
                _ => (other, ""),
            };
            let name = match (name.strip_prefix("acc_"), name.strip_prefix("delta_")) {
                (Some(group), _) => group.to_owned(),
                (_, Some(kind)) => format!("Δ of {kind}"),
                _ => name.to_owned(),
            };
            format!("{}{way}", name.replace('_', " "))
        }
    }
}

/// What a metric means, where the name does not say it.
pub(crate) fn metric_meaning(name: &str) -> Option<&'static str> {
    Some(match name {
        "miou" => "intersection over union, averaged over the classes of score.mean_over",
        "miou_truth_or_prediction" => "over the classes that truth or prediction has",
        "miou_present" => "over the classes that the truth has",
        "miou_all_classes" => "over all classes of the set, one that never occurs counting 0",
        "pixel_accuracy" => "part of the annotated pixels with the right class",
        "jaccard" => "overlap of every annotated object with the group that fits it best, averaged",
        "acc1" => "photos whose best class is right",
        "acc5" => "photos with the right class among the best five",
        "mean_per_class_recall" => "accuracy of each class, averaged",
        "grouping_worst_group" | "pooled_worst_group" => {
            "accuracy where object and place go together worst"
        }
        "grouping_average" => "the kind with more pixels is the right one",
        "pooled_average" => "the whole photo's embedding is nearer to the right kind",
        _ => return None,
    })
}

/// What a protocol does, in plain words.
pub(crate) fn protocol_meaning(name: &str) -> Option<&'static str> {
    Some(match name {
        "clippy" => {
            "Photo and mask are both squashed to 224 x 224 pixels; each class has one prompt; extra names for the surroundings count as background. All pixels of all photos go into one confusion matrix."
        }
        "clippy-448" => {
            "The photo's short side becomes 448 pixels, its aspect kept; the prediction is compared with the annotation at its full size. Otherwise as the protocol clippy."
        }
        "clippy-notebook" => {
            "What the public notebook does, accidents included: the VOC train split, the photo cropped to its middle while the mask is squashed. Only good for reproducing its numbers."
        }
        "tcl" => {
            "The photo's short side becomes 448 pixels; overlapping windows of 448 pixels; nine prompts a class; background where no class is sure enough."
        }
        "sclip" => {
            "The photo's short side becomes 336 pixels; overlapping windows of 224 pixels; 80 prompts a class; a list of words stands for the background."
        }
        "groupvit" => {
            "The photo's short side becomes 448 pixels; only the five classes most likely in the whole photo compete; background where none is sure enough."
        }
        _ => return None,
    })
}

/// Settings as pairs of name and value: objects within objects become `outer.inner`, `null`
/// becomes `none`. Sorted by name within each object.
pub(crate) fn flatten(settings: &Value) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    flatten_into(String::new(), settings, 0, &mut pairs);
    pairs
}

fn flatten_into(name: String, value: &Value, depth: usize, pairs: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(map) if depth < MAX_NESTING => {
            for (key, value) in map {
                let inner = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                flatten_into(inner, value, depth + 1, pairs);
            }
            return;
        }
        Value::Null if name.is_empty() => return,
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    pairs.push((name, shorten(&text, MAX_VALUE)));
}

/// The first `most` characters of a text, and a sign that there are more.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(percent(Some(0.42107)), "42.11");
        assert_eq!(percent(Some(f64::NAN)), "–");
        assert_eq!(percent(None), "–");
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1449), "1,449");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(number_of(1, "photo"), "1 photo");
        assert_eq!(number_of(0, "photo"), "0 photos");
    }

    #[test]
    fn metrics_have_the_names_people_use() {
        for (metric, label) in [
            ("miou", "mIoU"),
            ("mean_accuracy", "mean accuracy"),
            ("jaccard@16", "jaccard@16"),
            (
                "grouping_acc_cat_on_a_church",
                "cat on a church, by grouping",
            ),
            ("pooled_worst_group", "worst group, pooled"),
            ("pooled_delta_waterbird", "Δ of waterbird, pooled"),
            ("image_to_text_recall@1", "image to text recall@1"),
        ] {
            assert_eq!(metric_label(metric), label);
        }
    }

    #[test]
    fn settings_become_pairs() {
        let settings = json!({
            "size": {"short_side": 448, "multiple_of": 16},
            "limit": null, "ignored": [255, "void"], "windows": false,
        });
        let pairs = flatten(&settings);
        let lines: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            lines,
            [
                "ignored=255, void",
                "limit=none",
                "size.multiple_of=16",
                "size.short_side=448",
                "windows=no"
            ]
        );
        assert!(flatten(&Value::Null).is_empty());
    }
}
