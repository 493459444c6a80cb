//! Checkpoints of other libraries on the command line: what `info` says is what loading does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::path::Path;

use serde_json::Value;

use crate::common::{expect, goldens, percept, photos, text};

/// A copy of a golden model's small files and weights.
fn copy(name: &str, to: &Path) {
    fn copy_all(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in from.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            match path.is_dir() {
                true => copy_all(&path, &to),
                false => std::fs::copy(&path, to).map(|_| ()).unwrap(),
            }
        }
    }
    copy_all(&goldens().join(name), to);
}

/// Renames a tensor in a safetensors file to a name of the same length.
fn rename(file: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(file).unwrap();
    let quoted = format!("\"{from}\"");
    let at = (bytes.windows(quoted.len())).position(|window| window == quoted.as_bytes());
    let at = at.unwrap() + 1;
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn info_fails_where_embed_fails() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy("hf-dinov2", &model);
    let weights = model.join("model.safetensors");
    let path = model.to_str().unwrap();
    let photo = photos().join("chelsea.jpg");
    let out = folder.path().join("e.npy");
    let embed = |more: &[&str]| {
        let args = [
            "embed",
            "--model",
            path,
            photo.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        percept(&[&args[..], more].concat())
    };
    let said = percept(&["info", path]);
    expect(&said, 0, "");
    assert!(
        text(&said.stdout).contains("left out: 1 of mask token"),
        "{}",
        text(&said.stdout)
    );
    assert!(text(&said.stdout).contains("from:  position rule: that of transformers"));
    expect(&embed(&[]), 0, "");

    // A tensor that nothing uses.
    rename(&weights, "embeddings.mask_token", "embeddings.mist_token");
    for output in [percept(&["info", path]), embed(&[])] {
        expect(&output, 1, "embeddings.mist_token");
        expect(&output, 1, "--allow-unused");
    }
    expect(&embed(&["--allow-unused"]), 0, "embeddings.mist_token");
    let said = percept(&["info", path, "--allow-unused", "--json"]);
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(said["unused"][0], "embeddings.mist_token");

    // A tensor that is missing.
    rename(&weights, "layernorm.bias", "layernorm.bios");
    for output in [percept(&["info", path]), embed(&["--allow-unused"])] {
        expect(&output, 1, "missing: layernorm.bias");
    }
}

#[test]
fn info_opens_the_tokeniser() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy("minilm", &model);
    let path = model.to_str().unwrap();
    expect(&percept(&["info", path]), 0, "");
    std::fs::write(model.join("tokenizer.json"), "{}").unwrap();
    expect(&percept(&["info", path]), 1, "not a tokeniser");
}

#[test]
fn convert_sets_what_a_file_does_not_say() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let source = goldens().join("timm-dino/model.safetensors");
    let args = ["convert", source.to_str().unwrap(), model.to_str().unwrap()];
    let more = "--mean 0.5,0.4,0.3 --std 0.1,0.2,0.25 --filter bilinear --interpolation size --heads 2 --pool avg --image-size 48";
    let more: Vec<&str> = more.split(' ').collect();
    expect(&percept(&[&args[..], &more].concat()), 0, "");
    let config = std::fs::read(model.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let image = &config["image"];
    assert_eq!(
        image["normalization"]["mean"],
        serde_json::json!([0.5, 0.4, 0.3])
    );
    assert_eq!(
        image["normalization"]["std"],
        serde_json::json!([0.1, 0.2, 0.25])
    );
    assert_eq!(image["filter"], "bilinear");
    assert_eq!(image["vit"]["interpolation"], "size");
    assert_eq!(image["vit"]["heads"], 2);
    assert_eq!(
        (&image["pooling"], &image["image_size"]),
        (&"avg".into(), &48.into())
    );
    let half = percept(&[&args[..], &["--mean", "0.5,0.5"]].concat());
    expect(&half, 2, "three numbers");
    let alone = percept(&[&args[..], &["--mean", "0.5,0.5,0.5"]].concat());
    expect(&alone, 2, "--std");
    let negative = percept(&[&args[..], &["--mean", "0,0,0", "--std", "1,1,0"]].concat());
    expect(&negative, 1, "positive deviations");
}
