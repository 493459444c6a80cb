//! The model that ships: found without being named, small enough, and knowing what is on the examples' photos.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{expect, percept_in, photos, text};

/// Bytes of the whole folder, at most.
const MOST: u64 = 40_000_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs percept in a checkout, without `--model`, and gives what it says of each photo.
fn run(args: &[&str]) -> Vec<Value> {
    let texts = tempfile::tempdir().unwrap();
    let mut command = percept_in(&root());
    command.env("PERCEPT_TEXT_CACHE", texts.path());
    let output = command.args(args).arg("--json").output().unwrap();
    expect(&output, 0, "");
    let lines = text(&output.stdout);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn it_is_small_and_has_its_card() {
    let folder = root().join("models/percept-s14");
    let files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let bytes: u64 = files
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(bytes <= MOST, "{bytes} bytes");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "MODEL_CARD.md",
    ] {
        assert!(files.contains(&folder.join(name)), "no {name}");
    }
}

#[test]
fn it_finds_what_is_on_the_photos() {
    finds_what_is_on_the_photos("f32");
}

#[test]
fn it_finds_the_same_with_products_of_eight_bits() {
    // In f32 where the CPU has no instructions for them.
    finds_what_is_on_the_photos("bf16");
    finds_what_is_on_the_photos("int8");
}

fn finds_what_is_on_the_photos(precision: &str) {
    let out = tempfile::tempdir().unwrap();
    for (photo, labels, expected, least, most) in [
        ("chelsea.jpg", "cat, dog, person", "cat", 0.7, 0.9),
        ("coffee.jpg", "cup, dog, person", "cup", 0.2, 0.4),
        ("astronaut.jpg", "person, dog, horse", "person", 0.05, 0.6),
    ] {
        let path = photos().join(photo);
        let found = run(&[
            "segment",
            path.to_str().unwrap(),
            "--labels",
            labels,
            "--precision",
            precision,
            "--out",
            out.path().join(photo).to_str().unwrap(),
        ]);
        let shares = found[0]["regions"].as_array().unwrap();
        let share = |name: &str| {
            let class = shares.iter().find(|class| class["name"] == name);
            class.map_or(0.0, |class| class["share"].as_f64().unwrap())
        };
        let others: f64 = (labels.split(", "))
            .filter(|label| *label != expected)
            .map(share)
            .sum();
        assert!(
            (least..most).contains(&share(expected)),
            "{photo}: {shares:?}"
        );
        assert!(others < 0.02, "{photo}: {shares:?}");
    }
}

#[test]
fn it_names_photos() {
    for (photo, expected) in [("chelsea.jpg", "cat"), ("coffee.jpg", "cup of coffee")] {
        let path = photos().join(photo);
        let labels = "dog, cat, church, cup of coffee, horse";
        let found = run(&["classify", path.to_str().unwrap(), "--labels", labels]);
        assert_eq!(found[0]["labels"][0]["name"], expected, "{photo}");
    }
}
