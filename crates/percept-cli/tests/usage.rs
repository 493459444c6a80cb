//! What a newcomer types: flags in the wrong place, labels in all spellings, inputs that are no files; and
//! the exit code of each kind of ending.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Output, Stdio};

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

/// In `out`, unless the arguments name another folder.
fn segment(folder: &Path, args: &[&str]) -> Output {
    let (model, photo) = (tiny(), coffee());
    let out = match args.contains(&"--out") {
        true => &[][..],
        false => &["--out", "out"],
    };
    percept_in(folder)
        .args(["segment", &photo, "--model", path(&model), "--size", "64"])
        .args(["--format", "mask"])
        .args(out)
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
    let hints = said("doog, persn, catt");
    for meant in ["dog", "person", "cat"] {
        assert!(
            hints.contains(&format!("did you mean \"{meant}\"?")),
            "{hints}"
        );
    }
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
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    expect(&output, 130, "saved as");
}

#[test]
fn a_model_replaces_nothing_but_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = tiny();
    let convert = |out: &str, rest: &[&str]| {
        let mut command = percept_in(folder);
        command.args(["convert", path(&model), out, "--pool", "max"]);
        command.args(rest).output().unwrap()
    };
    for (name, file, message) in [
        ("other", "config.json", "its config.json would be lost"),
        (
            "tokens",
            "tokenizer.json",
            "its tokenizer.json would be lost",
        ),
        ("photos", "cat.jpg", "has other files (cat.jpg)"),
    ] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join(file), b"{}").unwrap();
        expect(&convert(name, &[]), 2, message);
        assert_eq!(fs::read_dir(folder.join(name)).unwrap().count(), 1);
        assert_eq!(fs::read(folder.join(name).join(file)).unwrap(), b"{}");
    }
    fs::write(folder.join("file"), b"x").unwrap();
    expect(&convert("file", &[]), 2, "file: is a file");
    expect(&convert("other", &["--force"]), 0, "");
    // It is a model of percept's now, and is replaced.
    expect(&convert("other", &["--storage", "f16"]), 0, "");
}

#[test]
fn embeddings_replace_nothing_but_embeddings_and_name_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = tiny();
    let embed = |rest: &[&str]| {
        let mut command = percept_in(folder);
        command.args(["embed", "--model", path(&model)]);
        command.args(rest).output().unwrap()
    };
    let weights = percept_checkpoint::TensorToWrite {
        name: "weight".into(),
        shape: vec![1],
        values: vec![1.0].into(),
        precision: percept_checkpoint::Precision::F32,
    };
    let file = folder.join("model.safetensors");
    percept_checkpoint::write_safetensors(&file, [weights], &Default::default()).unwrap();
    fs::write(folder.join("a.npy"), b"a diary").unwrap();
    fs::write(folder.join("b.npy.json"), b"[1]").unwrap();
    for out in ["model.safetensors", "a.npy", "b.npy"] {
        let output = embed(&["--text", "cat", "--out", out]);
        expect(&output, 2, "would be lost");
    }
    assert_eq!(fs::read(folder.join("a.npy")).unwrap(), b"a diary");
    assert!(!folder.join("b.npy").exists());
    expect(
        &embed(&["--text", "cat", "--out", "a.npy", "--force"]),
        0,
        "",
    );

    let named = |names: &[&str]| {
        let read: Value =
            serde_json::from_slice(&fs::read(folder.join("a.npy.json")).unwrap()).unwrap();
        assert_eq!(read["names"], serde_json::json!(names));
    };
    named(&["cat"]);
    // Rows shift where a photo fails; their names do too.
    fs::copy(coffee(), folder.join("b.jpg")).unwrap();
    fs::write(folder.join("a.jpg"), b"no photo").unwrap();
    let output = embed(&["a.jpg", "b.jpg", "--out", "a.npy"]);
    expect(&output, 1, "the names of its rows to a.npy.json");
    named(&["b.jpg"]);
    for _ in 0..2 {
        let output = embed(&["b.jpg", "--out", "b.safetensors"]);
        expect(&output, 0, "");
    }
}

/// What a run says that is interrupted at the first of its photos.
#[cfg(unix)]
fn stop(folder: &Path, args: &[&str]) -> String {
    let model = tiny();
    let mut command = percept_in(folder);
    command.args(args).args(["--model", path(&model)]);
    command.args(["--batch-size", "1", "--verbose"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // With the model loaded, photos are what follows.
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("products: ") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0);
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    common::interrupt(&child);
    line.clear();
    said.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    line
}

/// Photos enough to be stopped on the way.
#[cfg(unix)]
#[test]
fn a_stopped_run_leaves_older_embeddings_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("photos")).unwrap();
    fs::copy(coffee(), folder.join("coffee.jpg")).unwrap();
    for number in 0..4000 {
        let copy = folder.join(format!("photos/{number}.jpg"));
        fs::hard_link(folder.join("coffee.jpg"), copy).unwrap();
    }
    let stopped = |out: &str| stop(folder, &["embed", "photos", "--out", out]);
    assert!(stopped("new.npy").contains("of 4000 photos"));
    let names: Value =
        serde_json::from_slice(&fs::read(folder.join("new.npy.json")).unwrap()).unwrap();
    let names = names["names"].as_array().unwrap().len();
    assert!((1..4000).contains(&names), "{names}");
    let before = fs::read(folder.join("new.npy")).unwrap();
    let said = stopped("new.npy");
    assert!(said.contains("new.npy is as it was"), "{said}");
    assert_eq!(fs::read(folder.join("new.npy")).unwrap(), before);
}

#[test]
fn one_label_has_all_and_its_cosine_is_told() {
    let model = tiny();
    let classify = |rest: &[&str]| {
        let photo = coffee();
        let args = ["classify", photo.as_str(), "--model", path(&model)];
        percept(&[&args[..], rest].concat())
    };
    let output = classify(&["--labels", "cat"]);
    expect(&output, 0, "with one label there is nothing to choose from");
    assert!(text(&output.stdout).contains("cat 100.0 % (cosine "));
    let output = classify(&["--labels", "cat, dog", "--json"]);
    expect(&output, 0, "");
    assert!(text(&output.stdout).contains("\"cosine\":"));
    assert!(!text(&output.stderr).contains("nothing to choose"));
    expect(
        &classify(&["--labels", "cat, dog", "--top", "0"]),
        2,
        "--top",
    );
}

#[test]
fn force_says_what_it_removes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::copy(coffee(), folder.join("other.jpg")).unwrap();
    expect(&segment(folder, &["other.jpg", "--labels", "cat"]), 0, "");
    let output = segment(folder, &["--labels", "dog"]);
    expect(&output, 2, "--labels: cat there, dog here");
    expect(
        &output,
        2,
        "--out names another folder, --force removes its results, those of 2 photos",
    );
    let output = segment(folder, &["--labels", "dog", "--force"]);
    expect(&output, 0, "--force: removed 2 results of 2 photos");
    assert!(!folder.join("out/other.mask.png").exists());
}

#[test]
fn a_run_without_results_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("broken.jpg"), b"no photo").unwrap();
    let model = tiny();
    let run = |photo: &str, labels: &str, out: &str| {
        let mut command = percept_in(folder);
        command.args(["segment", photo, "--labels", labels, "--out", out]);
        command.args(["--model", path(&model), "--size", "64"]);
        command.output().unwrap()
    };
    let output = run("broken.jpg", "cat", "out");
    expect(&output, 1, "1 of 1 photo failed, 0 done");
    assert!(!text(&output.stderr).contains("results in"));
    assert!(!folder.join("out").exists());
    expect(&run(&coffee(), "dog", "out"), 0, "results in out");
    // What an earlier run did stays.
    expect(&run("broken.jpg", "dog", "out"), 1, "0 done");
    assert!(folder.join("out/labels.json").exists());
    fs::write(folder.join("file"), b"x").unwrap();
    expect(&run(&coffee(), "cat", "file"), 2, "--out file: is a file");
}

#[test]
fn equal_names_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["a/x.jpg", "b/x.jpg"] {
        fs::create_dir(folder.join(name).parent().unwrap()).unwrap();
        fs::copy(coffee(), folder.join(name)).unwrap();
    }
    let output = segment(folder, &["a/x.jpg", "b/x.jpg", "--labels", "cat"]);
    expect(
        &output,
        0,
        "the name x is taken: results of b/x.jpg are called x.jpg.*",
    );
    let output = segment(folder, &["*/x.jpg", "--labels", "cat", "--out", "kept"]);
    expect(&output, 0, "");
    assert!(!text(&output.stderr).contains("is taken"));
    assert!(folder.join("kept/a/x.mask.png").exists() && folder.join("kept/b/x.mask.png").exists());
}

#[test]
fn sizes_below_a_patch_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    for size in ["3", "64x3"] {
        let mut command = percept_in(folder.path());
        command.args(["group", &coffee(), "--model", path(&model), "--size", size]);
        expect(
            &command.output().unwrap(),
            2,
            "a size of 3 pixels is below one patch",
        );
    }
}

#[test]
fn what_labels_may_have_been_meant_as_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let output = segment(folder, &["--labels", "cat.jpg"]);
    expect(&output, 2, "--labels cat.jpg: that is a photo and no label");
    let output = segment(folder, &["--labels", "cat dog bird"]);
    expect(
        &output,
        0,
        "\"cat dog bird\" is one label; several are separated by commas",
    );
    fs::write(folder.join("names.txt"), "cat,red\ndog,blue\n").unwrap();
    let output = segment(folder, &["--labels-file", "names.txt", "--out", "names"]);
    expect(&output, 0, "2 lines have synonyms");
    let labels = fs::read(folder.join("names/labels.json")).unwrap();
    let labels: Value = serde_json::from_slice(&labels).unwrap();
    assert_eq!(
        labels["classes"][2]["synonyms"],
        serde_json::json!(["dog", "blue"])
    );
    let coco = br#"{"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]}"#;
    fs::write(folder.join("coco.json"), coco).unwrap();
    let args = [
        "--labels-file",
        "coco.json",
        "--format",
        "rle",
        "--out",
        "coco",
    ];
    let note = "add --categories coco.json";
    expect(&segment(folder, &args), 0, note);
    let output = segment(
        folder,
        &[&args[..], &["--categories", "coco.json", "--force"]].concat(),
    );
    assert!(
        !text(&output.stderr).contains(note),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn paths_that_are_not_there_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::copy(coffee(), folder.join("my old photo.jpg")).unwrap();
    let model = tiny();
    let run = |args: &[&str]| {
        let mut command = percept_in(folder);
        command.args(args).args(["--model", path(&model)]);
        command.output().unwrap()
    };
    let parts = ["my", "old", "photo.jpg"];
    let quoted = "stands in quotes: \"my old photo.jpg\"";
    expect(
        &run(&[&["classify", "--labels", "cat"][..], &parts].concat()),
        2,
        quoted,
    );
    expect(&run(&[&["group"][..], &parts].concat()), 2, quoted);
    let home = std::env::home_dir().unwrap().join("nowhere-at-all.jpg");
    let output = run(&["group", "~/nowhere-at-all.jpg"]);
    expect(&output, 2, &format!("({})", home.display()));
    let output = percept_in(folder).args(["info", "nix"]).output().unwrap();
    expect(&output, 2, "there is no such file or folder");
    fs::create_dir(folder.join("eval")).unwrap();
    let output = percept_in(folder)
        .args(["eval", "compare", "eval"])
        .output()
        .unwrap();
    expect(&output, 1, "eval/result.json");
}

#[cfg(unix)]
#[test]
fn an_interrupted_benchmark_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("set/cup")).unwrap();
    fs::copy(coffee(), folder.join("set/cup/0.jpg")).unwrap();
    for number in 1..4000 {
        let copy = folder.join(format!("set/cup/{number}.jpg"));
        fs::hard_link(folder.join("set/cup/0.jpg"), copy).unwrap();
    }
    let said = stop(folder, &["eval", "folder", "--data", "set", "--out", "out"]);
    assert!(
        said.contains("the same command with --resume goes on"),
        "{said}"
    );
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let output = percept_in(folder.path())
        .args(["embed", "--model", path(&model), "--text", "\u{FEFF}a dog"])
        .args(["--text", "a dog", "--out", "x.npy"])
        .output()
        .unwrap();
    expect(&output, 0, "text 1 begins with a byte order mark");
    let array = fs::read(folder.path().join("x.npy")).unwrap();
    // Two rows of equal values behind the header.
    let header = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
    let (one, other) = array[header..].split_at((array.len() - header) / 2);
    assert!(!one.is_empty() && one == other);
}
