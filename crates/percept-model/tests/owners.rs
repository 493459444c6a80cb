//! Agreement with the library that owns a layout, on files as it writes them: transformers, timm and
//! sentence-transformers. The goldens of `tools/parity/owners.py` hold names, shapes and some results; the weights are
//! made here, by the same arithmetic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept_checkpoint::{Checkpoint, Precision, TensorToWrite, write_safetensors};
use percept_image::ChwImage;
use percept_model::{
    BurnTextEncoder, Hints, Model, ModelFiles, TextEncoder, Tokenizer, Towers, device, normalize,
};
use serde_json::Value;

const TOLERANCE: f32 = 1e-4;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// Numbers in -scale to scale, spread by a hash of their index and the name's FNV-1a hash.
fn numbers(name: &str, count: usize, scale: f64) -> Vec<f32> {
    let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    let seed = name.bytes().fold(2_166_136_261, fnv);
    let number = |i: usize| {
        let mut x = (i as u32).wrapping_add(seed).wrapping_mul(0x9E37_79B1);
        x ^= x >> 15;
        x = x.wrapping_mul(0x85EB_CA77);
        x ^= x >> 13;
        ((f64::from(x >> 8) / f64::from(1 << 23) - 1.0) * scale) as f32
    };
    (0..count).map(number).collect()
}

fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if let [_] = shape {
        let low = name.to_lowercase().replace("weight", "");
        let is_norm = ["norm.", "norm1.", "norm2.", "before.", "after.", "gamma"]
            .iter()
            .any(|ending| low.ends_with(ending));
        let is_gain = is_norm && !name.ends_with("bias") || name.ends_with("lambda1");
        let around = if is_gain { 1.0 } else { 0.0 };
        return numbers(name, count, 0.3)
            .iter()
            .map(|value| value + around)
            .collect();
    }
    let is_table = ["embed", "shared", "token"]
        .iter()
        .any(|part| name.contains(part));
    let inputs: usize = shape[1..].iter().product();
    let inputs = if is_table { 1 } else { inputs };
    numbers(name, count, 2.0 / (inputs as f64).sqrt())
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Writes the files of a case; gives what is to be opened.
fn lay_out(case: &Value, folder: &Path) -> PathBuf {
    for (path, content) in case["files"].as_object().unwrap() {
        write(&folder.join(path), content.to_string().as_bytes());
    }
    for (path, tensors) in case["weights"].as_object().unwrap() {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let tensors = tensors.as_object().unwrap().iter().map(|(name, shape)| {
            let sides = shape.as_array().unwrap().iter();
            let shape: Vec<usize> = sides.map(|side| side.as_u64().unwrap() as usize).collect();
            TensorToWrite {
                precision: Precision::F32,
                name: name.clone(),
                values: weight(name, &shape).into(),
                shape,
            }
        });
        write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
    }
    let lone = folder.join("lone.safetensors");
    if lone.is_file() {
        return lone;
    }
    folder.to_owned()
}

/// Largest difference, after scaling each vector of `dim` values to unit length.
fn difference(ours: &[f32], theirs: &[f32], dim: usize) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let mut worst = 0.0f32;
    for (a, b) in ours.chunks_exact(dim).zip(theirs.chunks_exact(dim)) {
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        normalize(&mut a);
        normalize(&mut b);
        for (a, b) in a.iter().zip(&b) {
            let apart = (a - b).abs();
            worst = if apart.is_nan() {
                f32::INFINITY
            } else {
                worst.max(apart)
            };
        }
    }
    worst
}

fn hints_for(name: &str) -> Hints {
    // A lone file does not tell the heads of such a narrow tower; the others' configurations do.
    let tells = name.starts_with("transformers") && !name.ends_with("memory") || name == "timm-vit";
    Hints {
        heads: (!tells).then_some(2),
        ..Hints::default()
    }
}

fn check_images(name: &str, case: &Value, expect: &Checkpoint, model: &Model) {
    let every = case["every"].as_u64().unwrap() as usize;
    for size in case["sizes"].as_array().unwrap() {
        let [height, width] = [0, 1].map(|i| size[i].as_u64().unwrap() as usize);
        let photo = ChwImage {
            data: numbers("photo", 3 * height * width, 1.0),
            height,
            width,
        };
        let grid = model.encode_images(&[photo]).unwrap().remove(0);
        let tokens = grid.cls.iter().chain(&grid.patches).copied();
        let tokens: Vec<f32> = tokens.collect();
        let kept = tokens.chunks_exact(grid.dim).step_by(every);
        let ours: Vec<f32> = kept.flatten().copied().collect();
        let theirs = expect
            .read_f32(&format!("{name}.{height}x{width}"))
            .unwrap();
        let apart = difference(&ours, &theirs, grid.dim);
        println!("{name} at {height} x {width}: {apart:.1e}");
        assert!(
            apart <= TOLERANCE,
            "{name} at {height} x {width}: {apart:e}"
        );
    }
}

fn check_texts(name: &str, folder: &Path, case: &Value, expect: &Checkpoint, model: &Model) {
    let texts: Vec<&str> = case["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    let found = model.encode_texts(&texts).unwrap();
    assert_eq!(found.truncated, [2], "{name}: the long text is cut");
    let ours = found.embeddings;
    let theirs = expect.read_f32(name).unwrap();
    let dim = ours[0].len();
    let apart = difference(&ours.concat(), &theirs, dim);
    println!("{name}: {apart:.1e}");
    assert!(apart <= TOLERANCE, "{name}: {apart:e}");

    // The engine that trains, and a model folder of ours.
    let files = ModelFiles::open(folder, &Hints::default()).unwrap();
    let towers = Towers::load(&files, &device("cpu").unwrap()).unwrap();
    let config = files.config.text.as_ref().unwrap();
    let path = files.tokenizer.as_ref().unwrap();
    let tokenizer = Tokenizer::open(path, config.max_tokens(), config.vocab_size()).unwrap();
    let ids: Vec<Vec<u32>> = (texts.iter())
        .map(|text| tokenizer.encode(text).unwrap().ids)
        .collect();
    let saved = tempfile::tempdir().unwrap();
    towers
        .save(
            &files.config,
            Some(path),
            percept_model::Storage::F32,
            saved.path(),
        )
        .unwrap();
    let burn = BurnTextEncoder::new(towers.text.unwrap(), dim, device("cpu").unwrap());
    let trained = burn.encode(&ids).unwrap().concat();
    let apart = difference(&trained, &theirs, dim);
    assert!(
        apart <= TOLERANCE,
        "{name}, the engine that trains: {apart:e}"
    );
    let again = Model::load(saved.path(), &Hints::default(), &device("cpu").unwrap()).unwrap();
    let again = again.encode_texts(&texts).unwrap().embeddings.concat();
    assert_eq!(again, ours.concat(), "{name}: saved and read again");
}

fn check(is_wanted: impl Fn(&str) -> bool) {
    let json = std::fs::read(goldens().join("owners.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let expect = Checkpoint::open(&goldens().join("owners.safetensors")).unwrap();
    let mut checked = 0;
    for (name, case) in json["cases"].as_object().unwrap() {
        if !is_wanted(name) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = lay_out(case, folder.path());
        if case.get("texts").is_some() {
            let tokenizer = goldens().join("minilm/tokenizer.json");
            std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
        }
        let model = Model::load(&path, &hints_for(name), &device("cpu").unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        match case.get("texts") {
            Some(_) => check_texts(name, folder.path(), case, &expect, &model),
            None => check_images(name, case, &expect, &model),
        }
        checked += 1;
    }
    assert!(checked >= 3, "only {checked} cases");
}

#[test]
fn transformers_vits_agree_at_any_size() {
    check(|name| name.starts_with("transformers") && !name.ends_with("memory"));
}

#[test]
fn transformers_names_in_memory_are_read() {
    check(|name| name.ends_with("memory"));
}

#[test]
fn timms_and_metas_vits_agree_at_any_size() {
    check(|name| name.starts_with("timm") || name.starts_with("meta"));
}

#[test]
fn poolings_of_sentence_transformers_agree() {
    check(|name| name.starts_with("pooling"));
}

#[test]
fn dense_layers_of_sentence_transformers_agree() {
    check(|name| name.contains("dense") || name == "roberta");
}
