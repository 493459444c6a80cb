//! Agreement with PyTorch on the goldens of `tools/parity/cases.py`.
//!
//! The small cases are in `tests/goldens/`. `PERCEPT_PARITY_DIR=DIR` adds the full-size ones that
//! `cases.py DIR --full` writes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::path::{Path, PathBuf};

use percept_checkpoint::Checkpoint;
use percept_image::ChwImage;
use percept_model::{
    BurnImageEncoder, BurnTextEncoder, Hints, ImageEncoder, Model, ModelFiles, Pooling,
    PositionInterpolation, TextEncoder, Tokenizer, Towers, device, normalize, pos_embed,
};
use rayon::prelude::*;
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// Folders with a `case.json`, sorted.
fn cases(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    found.sort();
    found
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|items| {
            items
                .iter()
                .map(|v| v.as_str().unwrap().to_owned())
                .collect()
        })
        .unwrap_or_default()
}

/// The device under test: `PERCEPT_TEST_DEVICE`, else the CPU.
fn test_device() -> percept_model::Device {
    let name = std::env::var("PERCEPT_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    device(&name).unwrap()
}

/// Largest absolute difference, after scaling each vector of `dim` values to unit length.
fn normalized_difference(ours: &[f32], theirs: &[f32], dim: usize) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let mut worst = 0.0f32;
    for (a, b) in ours.chunks_exact(dim).zip(theirs.chunks_exact(dim)) {
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        normalize(&mut a);
        normalize(&mut b);
        for (a, b) in a.iter().zip(&b) {
            // A NaN must not pass as "no difference".
            let difference = (a - b).abs();
            worst = if difference > worst || difference.is_nan() {
                difference
            } else {
                worst
            };
        }
    }
    worst
}

fn check_case(folder: &Path) {
    let case = json(&folder.join("case.json"));
    let tolerance = case["tolerance"].as_f64().unwrap() as f32;
    let config = &case["config"];
    let expect = Checkpoint::open(&folder.join("expect.safetensors")).unwrap();
    let hints = Hints {
        heads: config["num_heads"].as_u64().map(|v| v as usize),
        interpolation: config["pos_interpolation"].as_str().map(|v| match v {
            "dino" => PositionInterpolation::Dino,
            "size" => PositionInterpolation::Size,
            _ => PositionInterpolation::Timm,
        }),
        layer_norm_eps: config["layer_norm_eps"].as_f64(),
        tokenizer: case["tokenizer"].as_str().map(|v| folder.join(v)),
        ..Default::default()
    };
    let checkpoint = folder.join(case["checkpoint"].as_str().unwrap());
    let model = Model::load(&checkpoint, &hints, &test_device())
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert!(
        model.report().unused.is_empty(),
        "{}: {}",
        folder.display(),
        model.report()
    );
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let check = |what: &str, ours: &[f32], theirs: &[f32], dim: usize| {
        let difference = normalized_difference(ours, theirs, dim);
        println!("{name}: {what}: {difference:.1e}");
        assert!(
            difference <= tolerance,
            "{name}: {what} is off by {difference:e}"
        );
    };

    // Burn on the same device: the engine that trains.
    let files = ModelFiles::open(&checkpoint, &hints).unwrap();
    let towers = Towers::load(&files, &test_device()).unwrap();
    let burn = (towers.image.zip(files.config.image.as_ref()))
        .map(|(vit, config)| BurnImageEncoder::new(vit, config, test_device()));

    for image in strings(&case["images"]) {
        let key = format!("input.{image}");
        let shape = &expect.info(&key).unwrap().shape;
        let pixels = ChwImage {
            data: expect.read_f32(&key).unwrap(),
            height: shape[2],
            width: shape[3],
        };
        let trained = burn
            .as_ref()
            .unwrap()
            .encode(std::slice::from_ref(&pixels))
            .unwrap();
        let grid = model.encode_images(&[pixels]).unwrap().remove(0);
        check("both engines", &trained[0].patches, &grid.patches, grid.dim);
        let mut tokens = grid.cls.clone();
        tokens.extend_from_slice(&grid.patches);
        let theirs = expect.read_f32(&format!("tokens.{image}")).unwrap();
        check(&format!("tokens of {image}"), &tokens, &theirs, grid.dim);
        for pooling in Pooling::ALL {
            let key = format!("image_embedding.{}", pooling.name());
            // One image of a dual case has its poolings recorded.
            if image == "a" && expect.info(&key).is_some() {
                let theirs = expect.read_f32(&key).unwrap();
                check(&key, &grid.pool(pooling), &theirs, grid.dim);
            }
        }
    }
    let texts = strings(&case["texts"]);
    if !texts.is_empty() {
        let ours = model.encode_texts(&texts).unwrap().embeddings;
        let theirs = expect.read_f32("text_embeddings").unwrap();
        check("texts", &ours.concat(), &theirs, ours[0].len());
        let tokens = |text: &String| {
            let text_config = files.config.text.as_ref().unwrap();
            let path = files.tokenizer.as_ref().unwrap();
            let (most, vocabulary) = (text_config.max_tokens(), text_config.vocab_size());
            let tokenizer = Tokenizer::open(path, most, vocabulary).unwrap();
            tokenizer.encode(text).unwrap().ids
        };
        let ids: Vec<Vec<u32>> = texts.iter().map(tokens).collect();
        let (tower, dim) = (towers.text.unwrap(), ours[0].len());
        let burn = BurnTextEncoder::new(tower, dim, test_device());
        let trained = burn.encode(&ids).unwrap().concat();
        check("texts of both engines", &trained, &ours.concat(), dim);
    }
}

#[test]
fn small_cases_agree_with_pytorch() {
    let cases = cases(&goldens());
    assert!(
        cases.len() >= 10,
        "goldens are missing: found {}",
        cases.len()
    );
    for case in cases {
        check_case(&case);
    }
}

/// A thread of rayon's pool that waits for others takes up another image: were something locked meanwhile, this would
/// not end.
#[test]
fn threads_of_the_pool_encode_images_of_many_sizes_at_once() {
    let hints = Hints {
        heads: Some(2),
        ..Default::default()
    };
    let path = goldens().join("timm-dino/model.safetensors");
    let model = Model::load(&path, &hints, &device("cpu").unwrap()).unwrap();
    let images: Vec<ChwImage> = (0..60)
        .map(|i| {
            let (height, width) = (16 * (1 + i % 9), 16 * (1 + i % 7));
            ChwImage {
                data: (0..3 * height * width)
                    .map(|at| (at % 101) as f32 / 50.0 - 1.0)
                    .collect(),
                height,
                width,
            }
        })
        .collect();
    let encode = |image: &ChwImage| model.encode_images(std::slice::from_ref(image)).unwrap();
    let expected: Vec<_> = images.iter().map(encode).collect();
    for _ in 0..5 {
        let found: Vec<_> = images.par_iter().map(encode).collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found[0].patches, expected[0].patches);
        }
    }
}

#[test]
fn full_size_cases_agree_with_pytorch() {
    let Some(folder) = std::env::var_os("PERCEPT_PARITY_DIR") else {
        eprintln!("SKIPPED: PERCEPT_PARITY_DIR is not set (tools/parity/README.md)");
        return;
    };
    let cases = cases(Path::new(&folder));
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    for case in cases {
        check_case(&case);
    }
}

#[test]
fn position_grids_agree_with_pytorch() {
    let expect = Checkpoint::open(&goldens().join("pos_embed.safetensors")).unwrap();
    let mut compared = 0;
    for name in expect.names() {
        let Some((rule, rest)) = name.split_once('.') else {
            continue;
        };
        let interpolation = match rule {
            "dino" => PositionInterpolation::Dino,
            "timm" => PositionInterpolation::Timm,
            "size" => PositionInterpolation::Size,
            _ => continue,
        };
        // `RULE.FROM.HxW`
        let (from, target) = rest.split_once('.').unwrap();
        let side: usize = from.parse().unwrap();
        let (height, width) = target.split_once('x').unwrap();
        let target = [height.parse().unwrap(), width.parse().unwrap()];
        let grid = expect.read_f32(&format!("grid.{from}")).unwrap();
        let dim = grid.len() / (side * side);
        let grid = burn::tensor::Tensor::<3>::from_data(
            burn::tensor::TensorData::new(grid, [side, side, dim]),
            &test_device(),
        );
        let ours: Vec<f32> = pos_embed::interpolate(grid, target, interpolation)
            .into_data()
            .try_to_vec()
            .unwrap();
        let theirs = expect.read_f32(name).unwrap();
        let worst = ours
            .iter()
            .zip(&theirs)
            .fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        assert!(worst < 2e-5, "{name} is off by {worst:e}");
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} grids compared");
}

/// The real tokenisers are other people's files: they are read from `../shared` and from where
/// `fetch_backbones.py` wrote MiniLM, when they are there.
#[test]
fn real_tokenizers_make_the_same_ids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let expected = json(&goldens().join("tokenizer_ids.json"));
    let samples = expected["strings"].as_array().unwrap();
    assert!(samples.len() >= 200);
    let backbones = std::env::var_os("PERCEPT_BACKBONES")
        .map_or_else(|| root.join("target/backbones"), PathBuf::from);
    for (key, path, vocab_size) in [
        (
            "t5",
            root.join("../shared/models/t5-tokenizer/tokenizer.json"),
            32_128,
        ),
        ("minilm", backbones.join("minilm/tokenizer.json"), 30_522),
    ] {
        if !path.is_file() {
            eprintln!("SKIPPED: no {key} tokeniser at {}", path.display());
            continue;
        }
        let tokenizer = Tokenizer::open(&path, 256, vocab_size).unwrap();
        for sample in samples {
            let text = sample["text"].as_str().unwrap();
            let ids: Vec<u32> = sample[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(tokenizer.encode(text).unwrap().ids, ids, "{key}: {text:?}");
        }
    }
}
