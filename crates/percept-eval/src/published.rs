//! Numbers that others have published, to stand beside ours.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

const FILE: &str = include_str!("../data/published.toml");

/// A published number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The model, such as `CLIPpy`.
    pub model: String,
    /// What sets it apart from others of its name: an ablation, or whose training it is.
    #[serde(default)]
    pub variant: String,
    /// What it was trained on, as far as is known.
    #[serde(default)]
    pub data: String,
    /// The dataset it was evaluated on, as in [`crate::EvalResult::dataset`].
    pub dataset: String,
    /// The split, where it is not the usual one of the dataset.
    #[serde(default)]
    pub split: String,
    /// The metric, as in [`crate::EvalResult::metrics`].
    pub metric: String,
    /// The value in percent, as printed.
    pub value: f64,
    /// The protocol, as far as is known.
    #[serde(default)]
    pub protocol: String,
    /// Anything else that sets it apart.
    #[serde(default)]
    pub note: String,
    /// Where it is printed.
    pub source: String,
    /// IoU of each class in percent, where it was published.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_class: BTreeMap<String, f64>,
}

/// The split of a dataset that published numbers are made on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Benchmark {
    pub(crate) dataset: String,
    pub(crate) split: String,
    pub(crate) samples: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    benchmark: Vec<Benchmark>,
    number: Vec<Published>,
}

// The file is part of the program; a test reads it, so it is never the default in practice.
static ALL: LazyLock<File> = LazyLock::new(|| toml::from_str(FILE).unwrap_or_default());

/// All published numbers that are known, in the order of their sources.
pub fn published() -> &'static [Published] {
    &ALL.number
}

/// The split of `dataset` that published numbers are made on.
pub(crate) fn benchmark(dataset: &str) -> Option<&'static Benchmark> {
    ALL.benchmark.iter().find(|b| b.dataset == dataset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_in_order() {
        let file: File = toml::from_str(FILE).unwrap();
        let mut seen = std::collections::HashSet::new();
        for number in &file.number {
            assert!(benchmark(&number.dataset).is_some(), "{number:?}");
            let key = (
                &number.model,
                &number.variant,
                &number.data,
                &number.dataset,
                &number.metric,
                &number.source,
            );
            assert!(seen.insert(key), "twice: {number:?}");
            assert!(number.value.abs() <= 100.0);
        }
    }

    #[test]
    fn known_numbers_are_there() {
        let value = |model: &str, data: &str, variant: &str, dataset: &str, metric: &str| {
            let mut found = published().iter().filter(|p| {
                (&*p.model, &*p.data, &*p.variant, &*p.dataset, &*p.metric)
                    == (model, data, variant, dataset, metric)
            });
            found.next().map(|p| p.value)
        };
        assert_eq!(value("CLIPpy", "CC-12M", "", "voc", "miou"), Some(50.8));
        assert_eq!(
            value("CLIPpy", "HQITP-134M", "", "voc", "jaccard"),
            Some(54.6)
        );
        assert_eq!(
            value("CLIP", "CC-12M", "own training", "voc", "miou"),
            Some(17.5)
        );
        assert_eq!(
            value("CLIPpy", "CC-12M", "CLS pooling", "voc", "miou"),
            Some(4.0)
        );
    }

    #[test]
    fn the_notebooks_classes_average_to_its_miou() {
        let notebook = published()
            .iter()
            .find(|p| !p.per_class.is_empty())
            .unwrap();
        assert_eq!(notebook.per_class.len(), 21);
        let mean = notebook.per_class.values().sum::<f64>() / 21.0;
        assert!((mean - notebook.value).abs() < 0.01, "{mean}");
    }
}
