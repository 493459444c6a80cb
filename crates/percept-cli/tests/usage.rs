//! What a newcomer types: flags in the wrong place, labels in all spellings, inputs that are no files; and
//! the exit code of each kind of ending.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::{expect, percept, percept_in, photos, text, tiny, write_shard};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn coffee() -> String {
    path(&photos().join("coffee.jpg")).to_owned()
}

/// Segments one photo with the tiny model in `folder`, and gives the names of the classes.
fn classes(folder: &Path, args: &[&str]) -> Result<Vec<String>, Output> {
    let output = segment(folder, args);
    if !output.status.success() {
        return Err(output);
    }
    let labels = fs::read(folder.join("out/labels.json")).unwrap();
    let labels: Value = serde_json::from_slice(&labels).unwrap();
    let names = labels["classes"].as_array().unwrap().iter();
    let names = names.map(|class| class["name"].as_str().unwrap().to_owned());
    fs::remove_dir_all(folder.join("out")).unwrap();
    Ok(names.skip(1).collect())
}

fn segment(folder: &Path, args: &[&str]) -> Output {
    let (model, photo) = (tiny(), coffee());
    percept_in(folder)
        .args(["segment", &photo, "--model", path(&model), "--size", "64"])
        .args(["--format", "mask", "--out", "out"])
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn labels_are_understood_in_every_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for args in [
        &["--labels", "cat, dog"][..],
        &["--labels", "cat", "--labels", "dog"],
        &["-l", "cat", "-l", "dog,"],
        &["--labels", "[\"cat\", \"dog\"]"],
        &["--labels", "'cat', 'dog'"],
        &["--labels", "cat\ndog\n"],
    ] {
        assert_eq!(classes(folder, args).unwrap(), ["cat", "dog"], "{args:?}");
    }
    let utf16: Vec<u8> = "\u{FEFF}cat\r\ndog\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for bytes in [
        &utf16[..],
        b"\xEF\xBB\xBFcat\r\ndog\r\n",
        b"cat\rdog\r",
        b"{\"0\": \"cat\", \"1\": \"dog\"}",
        b"nc: 2\nnames:\n  0: cat\n  1: dog\n",
        b"n02123045\tcat\nn02084071\tdog\n",
    ] {
        fs::write(folder.join("names.txt"), bytes).unwrap();
        let args = ["--labels-file", "names.txt"];
        assert_eq!(classes(folder, &args).unwrap(), ["cat", "dog"], "{bytes:?}");
    }
}

#[test]
fn labels_that_are_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("names.txt"), "cat\ncaf\u{E9}\ncafe\u{301}\n").unwrap();
    fs::write(folder.join("latin.txt"), b"cat\ncaf\xE9\n").unwrap();
    fs::write(
        folder.join("templates.txt"),
        "\u{FEFF}a photo of {a}\na {c}\n",
    )
    .unwrap();
    for (args, message) in [
        (&["--labels", "cat", "dog"][..], "--labels \"cat, dog\""),
        (&["--labels", "cat", "--labels", "Cat"], "there twice"),
        (&["--labels", "names.txt"], "--labels-file"),
        (&["--labels", "@names.txt"], "--labels-file"),
        (&["--labels", "cat; dog"], "separated by commas"),
        (&["--labels", "cat, background"], "is class 0"),
        (&["--labels", "cat, __Background__"], "is class 0"),
        (
            &["--labels-file", "names.txt"],
            "names.txt: line 3: \"café\" is there twice, first on line 2",
        ),
        (
            &["--labels-file", "latin.txt"],
            "latin.txt: line 2: byte 0xE9",
        ),
        (
            &["--labels", "cat", "--templates", "templates.txt"],
            "templates.txt: line 2: {c}",
        ),
        (&["--labels", "cat", "-b", "30%"], "--background: 30%"),
        (&["--labels", "cat", "-b", "30"], "--background: 30"),
        (&["--labels", "cat", "-b", "0,2"], "--background: 0,2"),
        (&["--labels", "cat", "-b", "off"], "write none"),
        (
            &["--labels", "cat", "-b", "wall, cat"],
            "is one of the labels",
        ),
    ] {
        expect(&segment(folder, args), 2, message);
        assert!(!folder.join("out/coffee.mask.png").exists(), "{args:?}");
    }
}

#[test]
fn words_that_look_like_slips_get_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/percept-s14");
    let said = |labels: &str| {
        let output = percept_in(folder.path())
            .args([
                "classify",
                &coffee(),
                "--model",
                path(&model),
                "--labels",
                labels,
            ])
            .output()
            .unwrap();
        expect(&output, 0, "");
        text(&output.stderr)
    };
    let hints = said("elefant, golden retreiver, собака, Katze, potted_plant, cup");
    for hint in [
        "did you mean \"elephant\"?",
        "did you mean \"retriever\"?",
        "\"собака\" is in letters",
        "did you mean \"cat\"?",
        "did you mean \"potted plant\"?",
    ] {
        assert!(hints.contains(hint), "{hint}: {hints}");
    }
    assert_eq!(hints.lines().count(), 5, "{hints}");
    // Everyday labels, some of which are in no class list.
    let everyday = include_str!("data/everyday-labels.txt");
    for list in everyday.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(said(list), "", "{list}");
    }
}

#[test]
fn flags_that_a_command_has_no_use_for_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let model = tiny();
    let words = path(&out.path().join("words.npy")).to_owned();
    for (args, message) in [
        (
            &["pull", "clippy", "--precision", "int8"][..],
            "--precision",
        ),
        (&["info", path(&model), "--batch-size", "4"], "--batch-size"),
        (&["info", "--model", path(&model)], "percept info MODEL"),
        (&["models", "--device", "cpu"], "--device"),
        (
            &["convert", path(&model), "out", "--threads", "2"],
            "--threads",
        ),
        (
            &["group", &coffee(), "--labels", "cat"],
            "percept segment PHOTO --labels",
        ),
        (&["group", &coffee(), "--text-cache", "off"], "--text-cache"),
        (
            &["embed", &coffee(), "--text-cache", "off", "--out", &words],
            "--text-cache: photos",
        ),
        (
            &["segment", &coffee(), "--classes", "cat"],
            "--labels \"dog, grass\"",
        ),
        (
            &["segment", "--input", &coffee(), "--labels", "cat"],
            "need no flag",
        ),
        (
            &["classify", &coffee(), "--labels", "cat", "--gpu"],
            "--device",
        ),
        (&["serve", "--json"], "--json"),
        (&["serve", "--port", "8091"], "--addr 8091"),
        (
            &["serve", "--addr", "example.org:80"],
            "no name is looked up",
        ),
        (&["train", "--precision", "bf16"], "--precision"),
        (
            &["eval", "compare", "a.json", "--device", "cpu"],
            "--device: compare reads",
        ),
        (
            &["eval", "compare", "a.json", "--limit", "3"],
            "--limit: compare reads",
        ),
        (
            &["eval", "voc", "--show-protocol", "--limit", "3"],
            "--limit: --show-protocol",
        ),
        (
            &["eval", "voc", "--data", "x", "--classes", "x"],
            "--classes: only folder",
        ),
        (
            &["eval", "voc", "--data", "x", "--keep-empty-classes"],
            "--keep-empty-classes: only folder, imagenet and imagenet-v2",
        ),
        (
            &["eval", "custom", "--data", "x", "--split", "train"],
            "split train: custom has no splits",
        ),
        (
            &["group", &coffee(), "--format", "mask", "--opacity", "0.4"],
            "--opacity: only --format overlay",
        ),
        (
            &[
                "group",
                &coffee(),
                "--format",
                "json",
                "--overlay-size",
                "9",
            ],
            "--overlay-size: only --format overlay",
        ),
        (
            &[
                "segment",
                &coffee(),
                "--labels",
                "cat",
                "--format",
                "mask,rle",
                "--no-legend",
            ],
            "--no-legend: only --format overlay",
        ),
        (
            &["segment", &coffee(), "--labels", "cat", "--categories", "x"],
            "--categories: only --format rle",
        ),
        (&["convert", "--model", "x"], "percept convert MODEL OUT"),
        (&["pull", "--model", "x"], "percept pull NAME"),
        (
            &[
                "embed",
                "--text",
                "a cat",
                "--batch-size",
                "2",
                "--out",
                &words,
            ],
            "--batch-size: texts",
        ),
        (
            &["segment", &coffee(), "--labels", "cat", "--threads", "0"],
            "not a positive",
        ),
        (
            &["segment", &coffee(), "--labels", "cat", "-q", "-v"],
            "cannot be used with",
        ),
    ] {
        expect(&percept(args), 2, message);
    }
    // Where a flag means something it works, and a variable that is for other commands is no flag.
    let output = percept_in(out.path())
        .args(["info", path(&model), "--json"])
        .env("PERCEPT_MODEL", "elsewhere")
        .output()
        .unwrap();
    expect(&output, 0, "");
    let output = percept_in(out.path())
        .args(["eval", "voc", "--show-protocol"])
        .env("PERCEPT_MODEL", "elsewhere")
        .output()
        .unwrap();
    expect(&output, 0, "");
}

#[test]
fn more_threads_than_cores_are_as_many_as_cores() {
    let model = tiny();
    let photo = coffee();
    let args = [
        "group",
        &photo,
        "--model",
        path(&model),
        "--size",
        "64",
        "--threads",
        "9999",
    ];
    expect(&percept(&args), 0, "note: --threads 9999: more than the");
}

#[test]
fn inputs_that_are_no_files_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = tiny();
    for (input, message) in [
        ("https://example.org/cat.jpg", "download the photo first"),
        ("s3://bucket/cat.jpg", "download the photo first"),
        ("file:///home/x/cat.jpg", "without file://"),
        ("dog", "no such file or folder"),
        ("~/nowhere/cat.jpg", "no such file or folder"),
    ] {
        let args = ["group", input, "--model", path(&model), "--size", "64"];
        expect(&percept_in(folder).args(args).output().unwrap(), 2, message);
    }
    // As a shell would have had it, without quotes.
    fs::copy(coffee(), folder.join("coffee.jpg")).unwrap();
    let output = percept_in(folder)
        .args([
            "group",
            "~/coffee.jpg",
            "--model",
            path(&model),
            "--size",
            "64",
        ])
        .args(["--format", "mask", "--out=~/masks"])
        .env("HOME", folder)
        .current_dir("/")
        .output()
        .unwrap();
    expect(&output, 0, "");
    assert!(folder.join("masks/coffee.groups.png").is_file());
}

#[test]
fn a_photo_comes_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = tiny();
    let run = |photo: &[u8], out: &str| {
        fs::write(folder.join("photo"), photo).unwrap();
        percept_in(folder)
            .args(["group", "-", "--model", path(&model), "--size", "64"])
            .args(["--format", "mask", "--out", out])
            .stdin(fs::File::open(folder.join("photo")).unwrap())
            .output()
            .unwrap()
    };
    expect(&run(&fs::read(coffee()).unwrap(), "piped"), 0, "");
    let output = percept_in(folder)
        .args(["group", &coffee(), "--model", path(&model), "--size", "64"])
        .args(["--format", "mask", "--out", "named"])
        .output()
        .unwrap();
    expect(&output, 0, "");
    let mask = |name: &str| fs::read(folder.join(name)).unwrap();
    assert_eq!(
        mask("piped/stdin.groups.png"),
        mask("named/coffee.groups.png")
    );
    let output = run(b"", "nothing");
    expect(&output, 1, "-: ");
}

#[test]
fn each_ending_has_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = tiny();
    let group = |photos: &[&str]| {
        let mut command = percept_in(folder);
        command.arg("group").args(photos);
        command.args(["--model", path(&model), "--size", "64"]);
        command.output().unwrap()
    };
    expect(&group(&[&coffee()]), 0, "");
    fs::write(folder.join("broken.jpg"), b"no photo").unwrap();
    expect(
        &group(&[&coffee(), "broken.jpg"]),
        1,
        "1 of 2 photos failed",
    );
    expect(&group(&["nowhere.jpg"]), 2, "nowhere.jpg");
    expect(&percept(&["segmnet"]), 2, "segment");
    expect(&percept(&["--version"]), 0, "");
}

/// Ctrl-C while training, which saves first.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_130() {
    let folder = tempfile::tempdir().unwrap();
    write_shard(folder.path(), "a", 16);
    let model = tiny();
    let mut command = percept_in(folder.path());
    command
        .args([
            "train",
            "--model",
            path(&model),
            "--train-data",
            "a.tar",
            "--name",
            "run",
        ])
        .args([
            "--batch-size",
            "4",
            "--warmup",
            "5",
            "--workers",
            "1",
            "--steps",
            "1000000",
        ])
        .args(["--image-size", "64", "--log-every-n-steps", "1"])
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let log = folder.path().join("logs/run/results.jsonl");
    for _ in 0..600 {
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    let output = child.wait_with_output().unwrap();
    expect(&output, 130, "saved as");
}
