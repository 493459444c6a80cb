//! `percept train` as its users meet it: killed, interrupted, taken up, and then used.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use percept_checkpoint::Checkpoint;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{expect, goldens, newest, percept_in, photos, text, tiny, write_shard};
/// A folder with two shards of 20 pairs.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in ["0", "1"] {
        write_shard(place.path(), name, 20);
    }
    place
}

/// `percept train` on the tiny model.
fn train(folder: &Path, rest: &[&str]) -> Command {
    let mut command = percept_in(folder);
    command.args(["train", "--train-data", "{0..1}.tar", "--model"]);
    command.arg(tiny());
    command.args(["--batch-size", "4", "--warmup", "5", "--workers", "1"]);
    command.args(rest);
    command
}

/// Every number of a checkpoint, as bits.
fn bits(path: &Path) -> BTreeMap<String, Vec<u32>> {
    let file = Checkpoint::open(path).unwrap();
    file.names()
        .map(|name| {
            let values = file.read_f32(name).unwrap();
            (
                name.to_owned(),
                values.iter().map(|v| v.to_bits()).collect(),
            )
        })
        .collect()
}

#[test]
fn a_trained_model_segments() {
    let place = place();
    let classes = place.path().join("classes");
    for (class, photo) in [("cat", "chelsea.jpg"), ("cup", "coffee.jpg")] {
        fs::create_dir_all(classes.join(class)).unwrap();
        fs::copy(photos().join(photo), classes.join(class).join(photo)).unwrap();
    }
    let flags = [
        "--name",
        "x",
        "--epochs",
        "2",
        "--val-fraction",
        "0.2",
        "--ema",
        "0.9",
        "--pool",
        "max",
        "--aug-scale",
        "0.5,1",
        "--lock-text",
        "--eval",
        "folder=classes",
        "--eval-steps",
        "5",
        "--log-every-n-steps",
        "1",
        "--json",
    ];
    let output = train(place.path(), &flags).output().unwrap();
    expect(&output, 0, "model written to logs/x/model");
    let said = text(&output.stderr);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["complete"], true);
    // Which pairs are held out depends on their names alone: the same number each time.
    let steps = line["step"].as_u64().unwrap();
    assert!((12..=18).contains(&steps), "{steps}");
    for part in [
        format!("numbers learn in {steps} steps of 4 pairs").as_str(),
        format!("step {steps}/{steps} loss").as_str(),
        "validation loss",
        "folder/",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(line["validation"]["loss"].as_f64().unwrap() > 0.0);

    let model = place.path().join("logs/x/model");
    let photo = photos().join("chelsea.jpg");
    let output = percept_in(place.path())
        .args(["segment", "--labels", "cat, dog", "--size", "48"])
        .arg("--model")
        .arg(&model)
        .arg(&photo)
        .output()
        .unwrap();
    expect(&output, 0, "");
    assert!(
        place
            .path()
            .join("percept-out/chelsea.overlay.png")
            .is_file()
    );

    // Its parameters are those that were asked for, and go on by themselves.
    let params = fs::read(place.path().join("logs/x/params.json")).unwrap();
    let params: Value = serde_json::from_slice(&params).unwrap();
    assert_eq!(
        (&params["lock_text"], &params["batch_size"]),
        (&true.into(), &4.into())
    );
    let more = [
        "train", "--name", "x", "--resume", "latest", "--epochs", "3", "--quiet",
    ];
    let output = percept_in(place.path()).args(more).output().unwrap();
    expect(&output, 0, "");
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let results = fs::read_to_string(place.path().join("logs/x/results.jsonl")).unwrap();
    let last: Value = serde_json::from_str(results.lines().last().unwrap()).unwrap();
    assert_eq!(last["step"], steps / 2 * 3);
}

#[test]
fn a_run_that_is_killed_twenty_times_ends_as_one_that_is_not() {
    let place = place();
    let flags = |name| {
        [
            "--steps",
            "200",
            "--save-steps",
            "7",
            "--keep",
            "2",
            "--ema",
            "0.9",
            "--resume",
            "latest",
            "--force-patch-dropout",
            "0.3",
            "--chunk",
            "3",
            "--name",
            name,
        ]
    };
    let output = train(place.path(), &flags("whole")).output().unwrap();
    expect(&output, 0, "model written");

    let file = |name: &str, file: &str| place.path().join("logs").join(name).join(file);
    let mut random = 7u64;
    let mut share = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 40) as f64 / (1u64 << 24) as f64
    };
    // Every other one is killed soon after it has saved something, so that the run gets on however slow the machine is;
    // the rest at any moment up to there, so that starting is interrupted as well, and the twenty cannot end it.
    let mut to_a_checkpoint = Duration::ZERO;
    for round in 0..20 {
        let before = newest(&file("killed", "checkpoints"));
        let patience = match round % 2 {
            0 => Duration::from_secs(60),
            _ => to_a_checkpoint.mul_f64(share()),
        };
        let begun = Instant::now();
        let mut child = train(place.path(), &flags("killed"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let has_saved = loop {
            if newest(&file("killed", "checkpoints")) != before {
                break true;
            }
            if begun.elapsed() >= patience {
                break false;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if round % 2 == 0 {
            assert!(has_saved, "no checkpoint in {patience:?}");
            to_a_checkpoint = begun.elapsed();
            std::thread::sleep(to_a_checkpoint.mul_f64(share() / 8.0));
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended in round {round}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = train(place.path(), &flags("killed")).output().unwrap();
    expect(&output, 0, "model written");
    let last = "checkpoints/step_00000200.safetensors";
    assert!(bits(&file("killed", last)) == bits(&file("whole", last)));
    let model = |name| fs::read(file(name, "model/model.safetensors")).unwrap();
    assert!(model("killed") == model("whole"));
    let results = |name| {
        let text = fs::read_to_string(file(name, "results.jsonl")).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["step"].as_u64().unwrap()).max()
    };
    assert_eq!(results("killed"), results("whole"));
    let left = fs::read_dir(file("killed", "checkpoints")).unwrap();
    assert_eq!(left.count(), 2);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves() {
    let place = place();
    let flags = [
        "--name",
        "x",
        "--steps",
        "1000000",
        "--log-every-n-steps",
        "1",
    ];
    let child = train(place.path(), &flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let results = place.path().join("logs/x/results.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&results).map_or(0, |about| about.len()) == 0 {
        assert!(Instant::now() < deadline, "no step in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    common::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    expect(&output, 130, "saved as logs/x/checkpoints/step_");
    let lines = fs::read_to_string(&results).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let step = last["step"].as_u64().unwrap();
    let saved = format!("logs/x/checkpoints/step_{step:08}.safetensors");
    assert!(place.path().join(saved).is_file());

    let steps = (step + 1).to_string();
    let more = [
        "train", "--name", "x", "--resume", "latest", "--steps", &steps,
    ];
    let output = percept_in(place.path()).args(more).output().unwrap();
    expect(&output, 0, "changed: steps 1000000 -> ");
}

#[test]
fn what_is_left_out_is_told() {
    let place = place();
    let here = place.path();
    let whole = fs::read(here.join("1.tar")).unwrap();
    fs::write(here.join("1.tar"), &whole[..whole.len() / 2]).unwrap();
    let output = train(here, &["--name", "x", "--steps", "2", "--json"])
        .output()
        .unwrap();
    expect(
        &output,
        0,
        "note: left out or read otherwise: damaged shards, read up to the damage: 1 (1.tar: the shard is cut short",
    );
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["left_out"][0]["count"], 1);
    let stop = ["--name", "y", "--steps", "2", "--damaged-shards", "stop"];
    expect(
        &train(here, &stop).output().unwrap(),
        1,
        "1.tar: the shard is cut short",
    );

    fs::write(
        here.join("a.csv"),
        "filepath,title\na.jpg,a\nb.jpg,\"b\nc.jpg,c\n",
    )
    .unwrap();
    let csv = |rest: &[&str]| {
        train(
            here,
            &[&["--train-data", "a.csv", "--steps", "2"][..], rest].concat(),
        )
        .output()
        .unwrap()
    };
    expect(
        &csv(&[]),
        1,
        "a.csv: row 2: a quote is opened in it and never closed",
    );
    expect(
        &csv(&["--csv-quoting", "none"]),
        2,
        "rows whose photo cannot be read: ",
    );
}

#[test]
fn tensors_that_are_not_understood_are_refused_or_left_out() {
    let place = place();
    let image = place.path().join("image");
    fs::create_dir(&image).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(goldens().join("hf-dinov2").join(name), image.join(name)).unwrap();
    }
    // A name of the same length, which nothing asks for.
    let weights = image.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let known = b"embeddings.mask_token";
    let at = (bytes.windows(known.len())).position(|window| window == known);
    bytes[at.unwrap()..][..known.len()].copy_from_slice(b"embeddings.mist_token");
    fs::write(&weights, bytes).unwrap();
    let text_tower = goldens().join("sentence-t5");
    let run = |more: &[&str]| {
        let flags = [
            "--init-image",
            "image",
            "--init-text",
            text_tower.to_str().unwrap(),
            "--image-size",
            "28",
            "--steps",
            "1",
            "--name",
            "x",
        ];
        let flags = [&flags[..], more].concat();
        train(place.path(), &flags).output().unwrap()
    };
    expect(&run(&[]), 1, "embeddings.mist_token");
    let output = run(&["--allow-unused"]);
    expect(&output, 0, "model written to");
    expect(
        &output,
        0,
        "--allow-unused: left out, not understood: embeddings.mist_token",
    );
    let params = fs::read(place.path().join("logs/x/params.json")).unwrap();
    let params: Value = serde_json::from_slice(&params).unwrap();
    assert_eq!(params["allow_unused"], true);
}

#[test]
fn what_cannot_be_trained_is_explained() {
    let place = place();
    let here = place.path();
    fs::write(here.join("bad.toml"), "learning_rate = 1").unwrap();
    let say = |args: &[&str]| percept_in(here).args(args).output().unwrap();
    expect(&say(&["train"]), 2, "--train-data");
    expect(&say(&["train", "--train-data", "0.tar"]), 2, "--init-image");
    expect(&say(&["train", "--recipe", "nowhere"]), 2, "clippy-cc12m");
    expect(
        &say(&["train", "--recipe", "bad.toml"]),
        2,
        "unknown field `learning_rate`",
    );
    expect(&say(&["train", "--resume", "latest"]), 2, "--name");
    expect(&say(&["train", "--resume", "0.tar"]), 1, "0.tar");
    expect(
        &say(&["train", "--steps", "1", "--epochs", "1"]),
        2,
        "cannot be used with",
    );

    let run = |flags: &[&str]| train(here, flags).output().unwrap();
    expect(&run(&["--image-size", "50"]), 2, "take 48 or 64");
    expect(&run(&["--lr=-1"]), 2, "lr");
    expect(
        &run(&["--batch-size", "100", "--steps", "2"]),
        2,
        "no batch of 100 samples",
    );
    expect(&run(&["--eval", "voc"]), 2, "TASK=DIR");
    expect(&run(&["--eval", "voc=nowhere"]), 2, "nowhere");
    expect(&run(&["--train-data", "2.tar"]), 2, "2.tar");
    expect(
        &run(&[
            "--lr", "1e30", "--warmup", "0", "--name", "nan", "--steps", "9",
        ]),
        1,
        "on a batch of ",
    );

    let output = run(&["--recipe", "pilot", "--show-params", "--lock-text=false"]);
    let params: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&params["multi_positive"], &params["lock_text"]),
        (&true.into(), &false.into())
    );
    assert_eq!(params["batch_size"], 4);
}
