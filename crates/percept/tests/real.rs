//! Agreement with PyTorch on real weights and real photos, end to end from the JPEG: the goldens
//! of `tools/parity/real.py`. Weights and photos are other people's, so these tests run where
//! `../shared` and the backbones of its `fetch_backbones.py` are, and say when they do not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::path::{Path, PathBuf};

use percept::image::{Filter, Fit, Limits, Normalization, Preprocess};
use percept::model::normalize;
use percept::{Hints, Model, Pooling, device};
use percept_checkpoint::Checkpoint;
use serde_json::Value;

/// Agreement asked for, of vectors scaled to unit length.
const TOLERANCE: f32 = 1e-3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn backbones() -> PathBuf {
    std::env::var_os("PERCEPT_BACKBONES")
        .map_or_else(|| root().join("target/backbones"), PathBuf::from)
}

fn goldens() -> (Value, Checkpoint) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let json = std::fs::read_to_string(folder.join("real.json")).unwrap();
    (
        serde_json::from_str(&json).unwrap(),
        Checkpoint::open(&folder.join("real.safetensors")).unwrap(),
    )
}

/// Largest difference between vectors of `dim` values, each scaled to unit length.
fn difference(ours: &[f32], theirs: &[f32], dim: usize) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let unit = |v: &[f32]| {
        let mut v = v.to_vec();
        normalize(&mut v);
        v
    };
    ours.chunks_exact(dim)
        .zip(theirs.chunks_exact(dim))
        .flat_map(|(a, b)| {
            let (a, b) = (unit(a), unit(b));
            a.into_iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .collect::<Vec<_>>()
        })
        .fold(
            0.0,
            |worst, d| if d.is_nan() || d > worst { d } else { worst },
        )
}

fn check_tower(name: &str, weights: &Path) {
    let photos = root().join("../shared/data/VOCdevkit/VOC2012/JPEGImages");
    if !weights.exists() || !photos.is_dir() {
        eprintln!(
            "SKIPPED: {name}: {} or the photos are not here",
            weights.display()
        );
        return;
    }
    let (_, expect) = goldens();
    let model = Model::load(weights, &Hints::default(), &device("cpu").unwrap()).unwrap();
    let mut compared = 0;
    for key in expect.names() {
        // `vit.2007_000491.336x252.cls`
        let parts: Vec<&str> = key.splitn(4, '.').collect();
        let [tower, photo, size, "cls"] = parts[..] else {
            continue;
        };
        if tower != name {
            continue;
        }
        let (width, height) = size.split_once('x').unwrap();
        let preprocess = Preprocess {
            fit: Fit::Squash {
                width: width.parse().unwrap(),
                height: height.parse().unwrap(),
            },
            filter: Filter::Bicubic,
            normalization: Normalization::IMAGENET,
        };
        let path = photos.join(format!("{photo}.jpg"));
        let pixels = percept::image::open(&path, &Limits::default()).unwrap();
        let grid = model
            .encode_images(&[preprocess.apply(&pixels)])
            .unwrap()
            .remove(0);
        let stem = format!("{tower}.{photo}.{size}");
        let check = |what: &str, ours: &[f32]| {
            let theirs = expect.read_f32(&format!("{stem}.{what}")).unwrap();
            let worst = difference(ours, &theirs, grid.dim);
            println!("{stem}.{what}: {worst:.1e}");
            assert!(worst < TOLERANCE, "{stem}.{what} is off by {worst:e}");
        };
        check("cls", &grid.cls);
        let every_16th: Vec<f32> = grid
            .patches
            .chunks_exact(grid.dim)
            .step_by(16)
            .flatten()
            .copied()
            .collect();
        check("tokens_every_16th", &every_16th);
        // `cls-avg` is percept's own: PyTorch's side has the other four.
        for pooling in Pooling::ALL.into_iter().filter(|p| *p != Pooling::ClsAvg) {
            check(
                &format!("embedding.{}", pooling.name()),
                &grid.pool(pooling),
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 6, "three photos at two sizes");
}

#[test]
fn the_raw_backbone_agrees_with_pytorch() {
    check_tower("vit", &backbones().join("vit_small_patch14.safetensors"));
}

#[test]
fn the_pilot_agrees_with_pytorch() {
    check_tower(
        "pilot",
        &root().join("../shared/models/pilot/image.safetensors"),
    );
}

#[test]
fn minilm_agrees_with_sentence_transformers() {
    let folder = backbones().join("minilm");
    if !folder.is_dir() {
        eprintln!("SKIPPED: {} is not here", folder.display());
        return;
    }
    let (json, expect) = goldens();
    let texts: Vec<&str> = json["sentences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect();
    let model = Model::load(&folder, &Hints::default(), &device("cpu").unwrap()).unwrap();
    let ours = model.encode_texts(&texts).unwrap().embeddings;
    let theirs = expect.read_f32("minilm.text_embeddings").unwrap();
    let worst = difference(&ours.concat(), &theirs, ours[0].len());
    assert!(worst < 1e-4, "off by {worst:e}");
}
