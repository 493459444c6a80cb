//! Numbers of a pilot model, measured with PyTorch on the same files, are met. Model, text tower and
//! photos are other people's, so these tests run where `../shared` and the backbones of its
//! `fetch_backbones.py` are, and say when they do not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use percept::{Hints, Model, ModelFiles, Pooling, Precision, device};
use percept_data::{Competing, ImageFolder, open_voc};
use percept_eval::{EvalResult, Protocol, Run, RunOptions, Subject};

/// Farthest that the mean IoU of seven classes and Jaccard may be from PyTorch's, as fractions.
const MIOU_TOLERANCE: f64 = 0.001;
const JACCARD_TOLERANCE: f64 = 0.003;
/// The same of one class.
const CLASS_TOLERANCE: f64 = 0.003;

/// The classes whose mean the pilot's README gives.
const SEVEN: [&str; 7] = [
    "background",
    "cat",
    "cow",
    "dog",
    "horse",
    "person",
    "sheep",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pilot and the path of its image tower, loaded once for all tests.
fn pilot() -> Option<(&'static Model, PathBuf)> {
    static PILOT: LazyLock<Option<Model>> = LazyLock::new(|| {
        let image = root().join("../shared/models/pilot/image.safetensors");
        let backbones = std::env::var_os("PERCEPT_BACKBONES")
            .map_or_else(|| root().join("target/backbones"), PathBuf::from);
        let text = backbones.join("minilm");
        if !image.is_file() || !text.is_dir() {
            return None;
        }
        let hints = Hints {
            pooling: Some(Pooling::Cls),
            ..Hints::default()
        };
        let files = ModelFiles::open(&image, &hints).unwrap();
        let text = ModelFiles::open(&text, &Hints::default()).unwrap();
        let files = files.with_text_of(text).unwrap();
        Some(Model::from_files(&files, &device("cpu").unwrap(), Precision::F32).unwrap())
    });
    match PILOT.as_ref() {
        Some(model) => Some((
            model,
            root().join("../shared/models/pilot/image.safetensors"),
        )),
        None => {
            eprintln!("SKIPPED: the pilot of ../shared or target/backbones/minilm is not here");
            None
        }
    }
}

/// Runs one evaluation of the pilot; `tokens` is where those of photos are kept.
fn evaluate(
    protocol: &str,
    dataset: &str,
    tokens: Option<&Path>,
    run: impl FnOnce(Run<'_>) -> Result<EvalResult, percept_eval::EvalError>,
) -> Option<EvalResult> {
    let (model, path) = pilot()?;
    let subject = Subject::new(model, "pilot", &path).unwrap();
    let protocol = Protocol::load(protocol, dataset, &[]).unwrap();
    let result = run(Run {
        subject: &subject,
        protocol: &protocol,
        options: &RunOptions {
            tokens: tokens.map(Path::to_owned),
            ..RunOptions::default()
        },
        progress: &|_| (),
    });
    Some(result.unwrap())
}

fn voc() -> Box<dyn percept_data::SegmentationSet> {
    Box::new(open_voc(&root().join("../shared/data/VOCdevkit"), None).unwrap())
}

fn check_voc(protocol: &str, tokens: Option<&Path>, seven: f64, classes: [(&str, f64); 10]) {
    let run = |how: Run<'_>| percept_eval::segmentation(voc().as_ref(), how);
    let Some(result) = evaluate(protocol, "voc", tokens, run) else {
        return;
    };
    assert_eq!((result.counts.done, result.counts.failed), (222, 0));
    let iou = |name: &str| {
        let class = result.per_class.iter().find(|class| class.name == name);
        class.and_then(|class| class.iou).unwrap()
    };
    let mean = SEVEN.iter().map(|name| iou(name)).sum::<f64>() / 7.0;
    assert!((mean - seven / 100.0).abs() <= MIOU_TOLERANCE, "{mean}");
    for (name, expected) in classes {
        let got = iou(name);
        assert!(
            (got - expected / 100.0).abs() <= CLASS_TOLERANCE,
            "{name}: {got}, PyTorch {expected} %"
        );
    }
}

#[test]
fn clippy_meets_pytorch() {
    check_voc(
        "clippy",
        None,
        37.93,
        [
            ("background", 58.0),
            ("cat", 57.2),
            ("cow", 18.7),
            ("dog", 39.5),
            ("horse", 23.6),
            ("person", 36.7),
            ("sheep", 31.9),
            ("car", 13.2),
            ("sofa", 13.5),
            ("motorbike", 6.4),
        ],
    );
}

/// One test, for both see the same photos at 448 pixels, which takes minutes.
#[test]
fn clippy_448_and_grouping_meet_pytorch() {
    let tokens = tempfile::tempdir().unwrap();
    check_voc(
        "clippy-448",
        Some(tokens.path()),
        38.77,
        [
            ("background", 57.9),
            ("cat", 51.6),
            ("cow", 26.5),
            ("dog", 34.5),
            ("horse", 34.6),
            ("person", 40.3),
            ("sheep", 26.0),
            ("car", 17.0),
            ("sofa", 9.4),
            ("motorbike", 9.2),
        ],
    );

    let run = |how: Run<'_>| percept_eval::grouping(voc().as_ref(), how);
    let Some(result) = evaluate("clippy-448", "voc", Some(tokens.path()), run) else {
        return;
    };
    assert_eq!(result.metrics["regions"], 303.0);
    let jaccard = result.metrics["jaccard"];
    assert!((jaccard - 0.5327).abs() <= JACCARD_TOLERANCE, "{jaccard}");
}

#[test]
fn imagenette_meets_pytorch_to_one_photo() {
    let run = |how: Run<'_>| {
        let folder = root().join("../shared/data/imagenette");
        let set = ImageFolder::open(&folder, None, Competing::Present).unwrap();
        percept_eval::classification(&set, "folder", "val", how)
    };
    let Some(result) = evaluate("clippy", "folder", None, run) else {
        return;
    };
    let right = (result.metrics["acc1"] * 300.0).round();
    assert!((right - 274.0).abs() <= 1.0, "{right} of 300");
}
