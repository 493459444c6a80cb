//! Embeddings of texts that outlive a run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use percept_model::{Hints, Model, ModelFiles, Precision, device};
use sha2::{Digest, Sha256};

const TEXTS: [&str; 3] = ["a photo of a dog", "", "Gräser"];

/// A model folder of one's own, which may be changed.
fn model(folder: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/minilm");
    let to = folder.join("model");
    fs::create_dir_all(to.join("1_Pooling")).unwrap();
    fs::copy(
        from.join("1_Pooling/config.json"),
        to.join("1_Pooling/config.json"),
    )
    .unwrap();
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn open(model: &Path, cache: &Path) -> Model {
    let files = ModelFiles::open(model, &Hints::default()).unwrap();
    let device = device("cpu").unwrap();
    Model::with_texts_on_demand(&files, &device, Precision::F32, Some(cache)).unwrap()
}

/// The only file of the cache.
fn kept(cache: &Path) -> PathBuf {
    let files: Vec<_> = cache
        .read_dir()
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn texts_are_embedded_once() {
    let folder = tempfile::tempdir().unwrap();
    let (model, cache) = (model(folder.path()), folder.path().join("texts"));
    let whole = Model::load(&model, &Hints::default(), &device("cpu").unwrap()).unwrap();
    let expected = whole.encode_texts(&TEXTS).unwrap();
    assert_eq!(open(&model, &cache).encode_texts(&TEXTS).unwrap(), expected);

    // What is kept is what is read: other numbers come back.
    let file = kept(&cache);
    let good = fs::read(&file).unwrap();
    let mut values = good[32..].to_vec();
    values[..4].copy_from_slice(&7.0f32.to_le_bytes());
    fs::write(&file, [&Sha256::digest(&values)[..], &values].concat()).unwrap();
    let found = open(&model, &cache).encode_texts(&TEXTS).unwrap();
    assert_eq!(found.embeddings[0][0], 7.0);
    assert_eq!(found.embeddings[1..], expected.embeddings[1..]);

    // Damaged, cut short or absent, it is made again.
    let damaged = [&good[..32], &values].concat();
    let mut no_number = good[32..].to_vec();
    no_number[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let no_number = [&Sha256::digest(&no_number)[..], &no_number].concat();
    for bad in [&damaged[..], &no_number, &good[..good.len() - 1], &[]] {
        fs::write(&file, bad).unwrap();
        assert_eq!(open(&model, &cache).encode_texts(&TEXTS).unwrap(), expected);
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    fs::remove_dir_all(&cache).unwrap();
    assert_eq!(open(&model, &cache).encode_texts(&TEXTS).unwrap(), expected);
    assert_eq!(fs::read(kept(&cache)).unwrap(), good);
}

#[test]
fn other_texts_and_other_models_are_others() {
    let folder = tempfile::tempdir().unwrap();
    let (model, cache) = (model(folder.path()), folder.path().join("texts"));
    let count = || cache.read_dir().unwrap().count();
    open(&model, &cache).encode_texts(&["ab", "c"]).unwrap();
    open(&model, &cache).encode_texts(&["a", "bc"]).unwrap();
    open(&model, &cache).encode_texts(&["c", "ab"]).unwrap();
    assert_eq!(count(), 3);
    let other = cache.join("mine.f32");
    fs::write(&other, "of somebody else").unwrap();
    // The same file at another time may hold anything.
    let file = fs::File::options()
        .append(true)
        .open(model.join("model.safetensors"));
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    file.unwrap().set_modified(long_ago).unwrap();
    open(&model, &cache).encode_texts(&["ab", "c"]).unwrap();
    assert_eq!(count(), 5);
    // A text that is cut is said to be each time.
    let long = ["dog ".repeat(1000)];
    for _ in 0..2 {
        let found = open(&model, &cache).encode_texts(&long).unwrap();
        assert_eq!(found.truncated, [0]);
    }
    assert_eq!(count(), 5);
    assert!(other.exists());
}

#[test]
fn a_cache_that_cannot_be_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let found = open(&model, &file).encode_texts(&TEXTS).unwrap();
    assert_eq!(found.embeddings.len(), 3);
}

#[test]
fn what_is_wrong_with_a_text_tower_is_found_when_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (model, cache) = (model(folder.path()), folder.path().join("texts"));
    fs::write(model.join("tokenizer.json"), "{}").unwrap();
    let error = open(&model, &cache).encode_texts(&TEXTS).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    assert!(!cache.exists());
}
