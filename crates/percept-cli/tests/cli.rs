//! The command line as its users meet it: results, messages and exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{expect, goldens, percept, photos, text, tiny};
/// Runs a command on the tiny model with a small size, which keeps the tests short.
fn on_tiny(command: &str, rest: &[&str]) -> Output {
    let model = tiny();
    let mut args = vec![command, "--model", model.to_str().unwrap()];
    if command == "segment" || command == "group" {
        args.extend(["--size", "64"]);
    }
    args.extend(rest);
    percept(&args)
}
#[test]
fn help_is_what_it_was() {
    for command in [
        "",
        "segment",
        "group",
        "classify",
        "embed",
        "eval",
        "train",
        "serve",
        "data spurious",
        "convert",
        "info",
        "models",
        "pull",
    ] {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let output = percept(&args);
        assert!(output.status.success());
        let name = match command {
            "" => "percept".to_owned(),
            command => command.replace(' ', "-"),
        };
        insta::assert_snapshot!(format!("help-{name}"), text(&output.stdout));
    }
}

#[test]
fn a_folder_is_segmented_into_every_format() {
    let out = tempfile::tempdir().unwrap();
    let out_path = out.path().join("new/folder");
    let photos = photos();
    let output = on_tiny(
        "segment",
        &[
            photos.to_str().unwrap(),
            "--labels",
            "cat, rocket",
            "--background",
            "none",
            "--format",
            "overlay,mask,rle,npy,json",
            "--out",
            out_path.to_str().unwrap(),
            "--json",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (summary, results) = lines.split_last().unwrap();
    assert_eq!(summary["failed"], 0);
    assert_eq!(summary["done"], results.len());
    assert!(results.len() >= 3);
    for result in results {
        let files = result["files"].as_object().unwrap();
        assert_eq!(files.len(), 5);
        for path in files.values() {
            assert!(Path::new(path.as_str().unwrap()).is_file(), "{path}");
        }
        // The mask has the photo's own size.
        let photo = percept::image::open(
            result["image"].as_str().unwrap().as_ref(),
            &Default::default(),
        )
        .unwrap();
        let mask = percept::image::open(
            files["mask"].as_str().unwrap().as_ref(),
            &Default::default(),
        )
        .unwrap();
        assert_eq!(photo.dimensions(), mask.dimensions());
    }
    let labels: Value =
        serde_json::from_slice(&std::fs::read(out_path.join("labels.json")).unwrap()).unwrap();
    let names: Vec<_> = labels["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["background", "cat", "rocket"]);

    // The areas of the COCO results are those that were reported.
    let coco: Value =
        serde_json::from_slice(&std::fs::read(out_path.join("results.json")).unwrap()).unwrap();
    let area: u64 = coco
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["area"].as_u64().unwrap())
        .sum();
    let pixels: u64 = results
        .iter()
        .map(|r| r["width"].as_u64().unwrap() * r["height"].as_u64().unwrap())
        .sum();
    assert_eq!(area, pixels);
}

#[test]
fn three_broken_photos_in_a_hundred_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read(photos().join("coffee.jpg")).unwrap();
    let small = percept::image::resize(
        &percept::image::decode(&good, &Default::default()).unwrap(),
        40,
        30,
        percept::image::Filter::Box,
    );
    let small = percept::image::jpeg_rgb(&small, 80).unwrap();
    for i in 0..97 {
        std::fs::write(folder.path().join(format!("{i:03}.jpg")), &small).unwrap();
    }
    std::fs::write(folder.path().join("cut.jpg"), &small[..small.len() / 2]).unwrap();
    std::fs::write(folder.path().join("empty.png"), b"").unwrap();
    std::fs::write(folder.path().join("text.jpg"), b"this is no photo").unwrap();
    let out = tempfile::tempdir().unwrap();
    let output = on_tiny(
        "segment",
        &[
            folder.path().to_str().unwrap(),
            "--labels",
            "cup",
            "--format",
            "mask",
            "--batch-size",
            "8",
            "--json",
            "--out",
            out.path().to_str().unwrap(),
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for name in ["cut.jpg", "empty.png", "text.jpg"] {
        assert!(said.contains(name), "{said}");
    }
    let stdout = text(&output.stdout);
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(summary["done"], 97);
    assert_eq!(summary["failed"], 3);
    assert_eq!(summary["failures"].as_array().unwrap().len(), 3);
    let masks = std::fs::read_dir(out.path())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".mask.png")
        })
        .count();
    assert_eq!(masks, 97);
}

#[test]
fn labels_that_cannot_be_used_are_explained() {
    let photo = photos().join("coffee.jpg");
    let photo = photo.to_str().unwrap();
    let long = "y".repeat(10_000);
    for (labels, message) in [
        ("", "none given"),
        (" , ", "none given"),
        ("dog, Dog", "there twice"),
        ("dog,,cat", "number 2 is empty"),
        (&format!("{long},{long}"), "there twice"),
    ] {
        let output = on_tiny("segment", &[photo, "--labels", labels]);
        expect(&output, 2, message);
        assert!(output.stderr.len() < 500);
    }
    let output = on_tiny("segment", &[photo]);
    expect(&output, 2, "--labels");
    let output = on_tiny("segment", &[photo, "--labels-file", "nowhere.txt"]);
    expect(&output, 2, "nowhere.txt");
}

#[test]
fn inputs_that_are_not_there_are_explained() {
    let photos = photos();
    let slip = photos.join("chelsae.jpg");
    let output = on_tiny("segment", &[slip.to_str().unwrap(), "--labels", "cat"]);
    expect(&output, 2, "chelsea.jpg?");
    let empty = tempfile::tempdir().unwrap();
    let output = on_tiny("group", &[empty.path().to_str().unwrap()]);
    expect(&output, 2, "no images in this folder");
    let pattern = empty.path().join("*.jpg");
    let output = on_tiny("group", &[pattern.to_str().unwrap()]);
    expect(&output, 2, "matches no file");
}

#[test]
fn an_output_that_cannot_be_written_ends_the_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let photo = photos().join("coffee.jpg");
    let below_a_file = file.join("out");
    let output = on_tiny(
        "segment",
        &[
            photo.to_str().unwrap(),
            "--labels",
            "cup",
            "--out",
            below_a_file.to_str().unwrap(),
        ],
    );
    expect(&output, 1, "cannot make the output folder");
    // Found out only when the first result is written: the run stops with the reason.
    let out = folder.path().join("out");
    std::fs::create_dir_all(out.join("coffee.mask.png")).unwrap();
    let output = on_tiny(
        "segment",
        &[
            photo.to_str().unwrap(),
            "--labels",
            "cup",
            "--format",
            "mask",
            "--out",
            out.to_str().unwrap(),
        ],
    );
    expect(&output, 1, "coffee.mask.png");
}

#[test]
fn models_that_are_not_there_are_explained() {
    let photo = photos().join("coffee.jpg");
    let photo = photo.to_str().unwrap();
    // A copy has no model beside it. Another process makes it: this one must not hold it open for
    // writing while it is run.
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"cp "$0" ./percept && exec ./percept group "$1""#])
        .args([env!("CARGO_BIN_EXE_percept"), photo])
        .current_dir(empty.path())
        .env("HOME", empty.path())
        .env_remove("XDG_DATA_HOME")
        .env_remove("PERCEPT_MODEL")
        .output()
        .unwrap();
    expect(&output, 2, "no model named");
    let output = percept(&["group", photo, "--model", "clipy"]);
    expect(&output, 2, "clippy");
    let output = percept(&["group", photo, "--model", "clippy"]);
    expect(&output, 2, "percept pull clippy");
    let output = percept(&["group", photo, "--model", "nowhere/model.pt"]);
    expect(&output, 2, "no such model");
    let output = percept(&["group", photo, "--model", photo]);
    expect(&output, 1, "coffee.jpg");
    let output = percept(&["pull", "clippy"]);
    expect(&output, 1, "HF_HUB_OFFLINE");
    let output = on_tiny("group", &[photo, "--device", "abacus"]);
    expect(&output, 2, "not one of auto, cpu");
}

#[test]
fn classify_prints_the_best_labels() {
    let photos = photos();
    let output = on_tiny(
        "classify",
        &[
            photos.to_str().unwrap(),
            "--labels",
            "cat, dog, sky",
            "--top",
            "2",
            "--json",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    for line in text(&output.stdout)
        .lines()
        .filter(|l| l.contains("labels"))
    {
        let value: Value = serde_json::from_str(line).unwrap();
        let labels = value["labels"].as_array().unwrap();
        assert_eq!(labels.len(), 2);
        assert!(labels[0]["probability"].as_f64() >= labels[1]["probability"].as_f64());
    }
}

#[test]
fn embeddings_are_written_in_both_forms() {
    let out = tempfile::tempdir().unwrap();
    let words = out.path().join("words.npy");
    let output = on_tiny(
        "embed",
        &[
            "--text",
            "a dog",
            "--text",
            "a cat",
            "--out",
            words.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = std::fs::read(&words).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY"));
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("(2, 32)"));

    let photos = photos();
    let file = out.path().join("photos.safetensors");
    let output = on_tiny(
        "embed",
        &[
            photos.to_str().unwrap(),
            "--pool",
            "avg",
            "--out",
            file.to_str().unwrap(),
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let checkpoint = percept_checkpoint::Checkpoint::open(&file).unwrap();
    let shape = &checkpoint.info("embeddings").unwrap().shape;
    let names: Vec<String> = serde_json::from_str(&checkpoint.metadata()["names"]).unwrap();
    assert_eq!(shape[..], [names.len(), 32]);

    let wrong = out.path().join("words.txt");
    let output = on_tiny("embed", &["--text", "x", "--out", wrong.to_str().unwrap()]);
    expect(&output, 2, ".safetensors or .npy");
}

#[test]
fn a_converted_model_gives_the_same_masks() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let (model, source) = (model.to_str().unwrap(), tiny());
    let output = percept(&["convert", source.to_str().unwrap(), model, "--pool", "max"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let photo = photos().join("chelsea.jpg");
    let masks: Vec<Vec<u8>> = [source.to_str().unwrap(), model]
        .iter()
        .map(|model| {
            let out = folder.path().join("out");
            let output = percept(&[
                "segment",
                photo.to_str().unwrap(),
                "--model",
                model,
                "--size",
                "64",
                "--labels",
                "cat, grass, sky",
                "--format",
                "mask",
                // Another model is another run.
                "--force",
                "--out",
                out.to_str().unwrap(),
            ]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            std::fs::read(out.join("chelsea.mask.png")).unwrap()
        })
        .collect();
    assert_eq!(masks[0], masks[1]);

    let info = percept(&["info", model, "--json"]);
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["config"]["image"]["pooling"], "max");
}

#[test]
fn models_of_fewer_bits_are_smaller_and_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = tiny();
    let photos = photos();
    let embedded = |storage: &str, input: &[&str]| {
        let model = folder.path().join(storage);
        let model = model.to_str().unwrap();
        if !Path::new(model).exists() {
            let source = source.to_str().unwrap();
            let output = percept(&["convert", source, model, "--storage", storage]);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let out = folder.path().join("out.safetensors");
        let mut args = vec!["embed", "--model", model, "--out", out.to_str().unwrap()];
        args.extend(input);
        let output = percept(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let checkpoint = percept_checkpoint::Checkpoint::open(&out).unwrap();
        let size = std::fs::metadata(Path::new(model).join("model.safetensors"));
        (
            checkpoint.read_f32("embeddings").unwrap(),
            size.unwrap().len(),
        )
    };
    for input in [
        &["--text", "a cat", "--text", "a dog"][..],
        &[photos.to_str().unwrap()],
    ] {
        let (exact, whole) = embedded("f32", input);
        // Tiny towers with wild weights: real ones lose less (docs/results.md).
        for (storage, size, least) in [("f16", 0.6, 0.9999), ("int8", 0.5, 0.98)] {
            let (rounded, bytes) = embedded(storage, input);
            assert!(
                (bytes as f64) < size * whole as f64,
                "{storage}: {bytes} of {whole}"
            );
            for (a, b) in exact.chunks(32).zip(rounded.chunks(32)) {
                let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!(cosine > least, "{storage}: {cosine}");
            }
        }
    }
}

#[test]
fn models_of_one_form_have_a_mean() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [exact, small, rounded, mean] = ["exact", "small", "rounded", "mean"].map(path);
    let source = tiny();
    let convert = |args: &[&str]| percept(&[&["convert"], args].concat());
    let source = source.to_str().unwrap();
    for args in [
        &[source, &exact[..]][..],
        &[source, &small, "--storage", "int8"],
        &[&small, &rounded],
        &[&exact, &mean, "--average", &rounded, "--average", &exact],
    ] {
        let output = convert(args);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let weights = |model: &str| {
        let file = Path::new(model).join("model.safetensors");
        let checkpoint = percept_checkpoint::Checkpoint::open(&file).unwrap();
        checkpoint
            .read_f32("image.blocks.0.mlp.fc1.weight")
            .unwrap()
    };
    let (exact, rounded, mean) = (weights(&exact), weights(&rounded), weights(&mean));
    assert_ne!(exact, rounded);
    for ((a, b), mean) in exact.iter().zip(rounded).zip(mean) {
        let expected = (2.0 * a + b) / 3.0;
        assert!((mean - expected).abs() < 1e-5, "{mean}, not {expected}");
    }

    let other = goldens().join("minilm");
    let output = convert(&[source, &path("none"), "--average", other.to_str().unwrap()]);
    expect(&output, 1, "only models of one form have a mean: image.");
    assert!(!folder.path().join("none").exists());
}

#[test]
fn towers_of_different_width_do_not_join() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let goldens = goldens();
    let output = percept(&[
        "convert",
        "--image",
        goldens.join("sentence-t5").to_str().unwrap(),
        "--text",
        goldens.join("minilm").to_str().unwrap(),
        out.to_str().unwrap(),
    ]);
    expect(&output, 1, "no image tower");
    assert!(!out.exists());
}

#[test]
fn info_knows_every_layout() {
    let goldens = goldens();
    for (case, expected) in [
        ("timm-dino/model.safetensors", "DINO's position rule"),
        ("timm-dinov2-reg/model.safetensors", "4 registers"),
        ("hf-dinov2", "transformers DINOv2"),
        ("hf-dinov2-shards", "sharded safetensors"),
        ("clippy/clippy.pt", "text.0.auto_model."),
        ("sentence-t5", "T5"),
        ("minilm", "BERT"),
    ] {
        let output = percept(&["info", goldens.join(case).to_str().unwrap()]);
        let said = text(&output.stdout);
        assert!(output.status.success(), "{case}: {}", text(&output.stderr));
        assert!(said.contains(expected), "{case}: {said}");
    }
}
