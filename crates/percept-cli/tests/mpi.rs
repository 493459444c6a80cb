//! `mpirun percept train`: several processes are one, and one that dies ends them all.

#![cfg(feature = "mpi")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{expect, newest, percept_in, text, tiny, write_shard};

/// `mpirun -n PROCESSES percept`, one thread each, in `folder`.
fn mpirun(folder: &Path, processes: usize) -> Command {
    let percept = percept_in(folder);
    let mut command = Command::new("mpirun");
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("HF_HOME", folder)
        .env("HF_HUB_OFFLINE", "1")
        // Containers, where tests run as root, and machines with fewer cores than processes.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("RAYON_NUM_THREADS", "1")
        .args(["-n", &processes.to_string()])
        .arg(percept.get_program());
    command
}

/// A shard, and settings that leave every photo as it is.
fn prepare(folder: &Path, pairs: u32) {
    write_shard(folder, "0", pairs);
    let plain = "aug_scale = [1, 1]\naug_ratio = [1, 1]\naug_flip = 0\n";
    fs::write(folder.join("plain.toml"), plain).unwrap();
}

/// Adds `percept train` on one shard without chance, so that only the pairs decide.
fn train<'a>(command: &'a mut Command, name: &str, batch: usize, rest: &[&str]) -> &'a mut Command {
    command
        .args(["train", "--train-data", "0.tar", "--name", name, "--model"])
        .arg(tiny())
        .args(["--batch-size", &batch.to_string(), "--shuffle-buffer", "1"])
        .args(["--recipe", "plain.toml"])
        .args(["--warmup", "5", "--lr", "1e-3", "--workers", "1"])
        .args(["--log-every-n-steps", "1"])
        .args(rest)
}

/// The losses of a run, step by step.
fn losses(folder: &Path, name: &str) -> Vec<f64> {
    let path = folder.join("logs").join(name).join("results.jsonl");
    let lines = fs::read_to_string(path).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["kind"] == "train")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect()
}

#[test]
fn two_processes_of_32_pairs_are_one_of_64() {
    let place = tempfile::tempdir().unwrap();
    prepare(place.path(), 128);
    let rest = ["--steps", "20", "--multi-positive", "--chunk", "16"];
    let output = train(&mut percept_in(place.path()), "one", 64, &rest)
        .output()
        .unwrap();
    expect(&output, 0, "model written");
    let output = train(&mut mpirun(place.path(), 2), "two", 32, &rest)
        .output()
        .unwrap();
    expect(&output, 0, "model written to logs/two/model");
    // One of them speaks.
    assert_eq!(text(&output.stderr).matches("model written").count(), 1);

    let (one, two) = (losses(place.path(), "one"), losses(place.path(), "two"));
    assert_eq!((one.len(), two.len()), (20, 20));
    assert!(one[19] < one[0]);
    for (a, b) in one.iter().zip(&two) {
        assert!((a - b).abs() <= 1e-4 * a, "{a} and {b}");
    }
    let logs = place.path().join("logs/two");
    assert!(logs.join("out.log").is_file() && logs.join("out-1.log").is_file());
}

/// The process of rank 1 that works in `folder`.
fn second(folder: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let is_second = environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == b"OMPI_COMM_WORLD_RANK=1");
            let here = fs::read_link(entry.path().join("cwd")).ok()?;
            (is_second && here == folder).then_some(id)
        })
        .next()
}

#[test]
fn a_process_that_dies_ends_the_run_and_it_resumes() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().canonicalize().unwrap();
    prepare(&folder, 40);
    let rest = ["--steps", "100000", "--save-steps", "1"];
    let running = train(&mut mpirun(&folder, 2), "x", 4, &rest)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let checkpoints = folder.join("logs/x/checkpoints");
    let begun = Instant::now();
    while newest(&checkpoints).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(50));
    }
    let second = second(&folder).unwrap().to_string();
    let killed = Command::new("kill").args(["-9", &second]).status().unwrap();
    assert!(killed.success());
    let output = running.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("signal 9") && said.contains("rank 1"),
        "{said}"
    );

    let step = losses(&folder, "x").len() as u64;
    let rest = ["--steps", &(step + 5).to_string(), "--resume", "latest"];
    let output = train(&mut mpirun(&folder, 2), "x", 4, &rest)
        .output()
        .unwrap();
    expect(&output, 0, "model written");
    assert_eq!(losses(&folder, "x").len() as u64, step + 5);

    // As many processes as before, or the order of the pairs is another one.
    let rest = ["--steps", &(step + 9).to_string(), "--resume", "latest"];
    let output = train(&mut percept_in(&folder), "x", 4, &rest)
        .output()
        .unwrap();
    expect(&output, 2, "of 2 processes");
}

#[test]
fn a_mistake_ends_all_processes() {
    let place = tempfile::tempdir().unwrap();
    prepare(place.path(), 40);
    let output = train(&mut mpirun(place.path(), 2), "x", 4, &["--lr=-1"])
        .output()
        .unwrap();
    expect(&output, 2, "lr");
}
