//! Files that PyTorch wrote (`tools/parity/checkpoints.py`), against what PyTorch reads from them;
//! and round trips through our own writer.

// The lints let tests panic, but not the functions that tests share.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percept_checkpoint::{
    Checkpoint, CheckpointError, Format, Precision, TensorToWrite, write_safetensors,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&data(name)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_golden_reads_as_pytorch_reads_it() {
    let json = std::fs::read_to_string(data("expected.json")).unwrap();
    let files: BTreeMap<String, BTreeMap<String, Expected>> = serde_json::from_str(&json).unwrap();
    assert!(files.len() > 10);
    for (file, tensors) in files {
        let checkpoint = open(&file);
        let names: Vec<&str> = checkpoint.names().collect();
        let expected: Vec<&str> = tensors.keys().map(String::as_str).collect();
        assert_eq!(names, expected, "{file}");
        for (name, tensor) in &tensors {
            let info = checkpoint.info(name).unwrap();
            assert_eq!(info.dtype.name(), tensor.dtype, "{file}: {name}");
            assert_eq!(info.shape, tensor.shape, "{file}: {name}");
            assert_eq!(
                checkpoint.read_f32(name).unwrap(),
                tensor.values,
                "{file}: {name}"
            );
        }
    }
}

#[test]
fn what_pytorch_writes_beside_a_model_is_left_out_by_name() {
    let json = std::fs::read_to_string(data("left_out.json")).unwrap();
    let expected: Vec<String> = serde_json::from_str(&json).unwrap();
    assert!(expected.len() > 10);
    for file in ["beside.pt", "protocol1.pt"] {
        let left_out: Vec<String> = open(file).left_out().keys().cloned().collect();
        assert_eq!(left_out, expected, "{file}");
    }
    // Which has no module.
    assert_eq!(
        open("beside_legacy.pt").left_out().len(),
        expected.len() - 1
    );
    assert_eq!(open("averaged.pt").taken().unwrap().key, "state_dict_ema");
}

#[test]
fn formats_are_told_apart_by_content() {
    assert_eq!(open("types.pt").format(), Format::TorchZip);
    assert_eq!(open("torchscript.pt").format(), Format::TorchZip);
    assert_eq!(open("types_legacy.pt").format(), Format::TorchLegacy);
    assert_eq!(open("plain.safetensors").format(), Format::SafeTensors);
    let index = open("sharded/model.safetensors.index.json");
    assert_eq!(index.format(), Format::ShardedSafeTensors);
    assert_eq!(index.len(), 2);

    let folder = tempfile::tempdir().unwrap();
    let renamed = folder.path().join("weights.txt");
    std::fs::copy(data("types.pt"), &renamed).unwrap();
    let checkpoint = Checkpoint::open(folder.path());
    assert!(matches!(
        checkpoint,
        Err(CheckpointError::NothingInFolder { .. })
    ));
    let checkpoint = Checkpoint::open(&renamed).unwrap();
    assert_eq!(checkpoint.format(), Format::TorchZip);
}

#[test]
fn a_folder_means_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| {
        std::fs::copy(data(from), folder.path().join(to)).unwrap();
    };
    let chosen = || Checkpoint::open(folder.path()).map(|c| c.path().to_owned());

    put("types.pt", "clip.pt");
    put("types.pt", "training_args.bin");
    assert_eq!(chosen().unwrap(), folder.path().join("clip.pt"));
    put("types.pt", "other.pth");
    assert!(matches!(
        chosen(),
        Err(CheckpointError::AmbiguousFolder { candidates, .. }) if candidates == ["clip.pt", "other.pth"]
    ));
    put("types.pt", "pytorch_model.bin");
    assert_eq!(chosen().unwrap(), folder.path().join("pytorch_model.bin"));
    put("plain.safetensors", "model.safetensors");
    assert_eq!(chosen().unwrap(), folder.path().join("model.safetensors"));
}

#[test]
fn metadata_of_safetensors_is_kept() {
    let checkpoint = open("plain.safetensors");
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert!(open("types.pt").metadata().is_empty());
}

#[test]
fn unknown_names_are_named() {
    let error = open("types.pt").read_f32("nope").unwrap_err();
    assert!(error.to_string().contains("`nope`"), "{error}");
}

fn tensor<'a>(name: &str, shape: &[usize], values: &'a [f32]) -> TensorToWrite<'a> {
    TensorToWrite {
        name: name.to_owned(),
        shape: shape.to_vec(),
        values: values.into(),
        precision: Precision::F32,
    }
}

#[test]
fn writes_what_it_and_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let long: Vec<f32> = (0..70_000i32).map(|i| i as f32).collect();
    let mut half = tensor("half", &[2], &[0.1, -65504.0]);
    half.precision = Precision::F16;
    let tensors = || {
        [
            half.clone(),
            tensor("b.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
            tensor("a", &[], &[0.5]),
            tensor("none", &[0, 3], &[]),
            tensor("long", &[70_000], &long),
        ]
    };
    write_safetensors(&path, tensors(), &metadata).unwrap();

    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.read_f32("b.weight").unwrap(), [1., 2., 3., 4.]);
    assert_eq!(checkpoint.read_f32("a").unwrap(), [0.5]);
    assert_eq!(checkpoint.read_f32("none").unwrap(), [0f32; 0]);
    assert_eq!(checkpoint.read_f32("long").unwrap(), long);
    assert_eq!(checkpoint.read_f32("half").unwrap(), [0.099975586, -65504.]);
    assert_eq!(checkpoint.metadata(), &metadata);

    let bytes = std::fs::read(&path).unwrap();
    let upstream = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(upstream.len(), 5);
    assert_eq!(upstream.tensor("b.weight").unwrap().shape(), [2, 2]);

    // The same tensors give the same bytes, and nothing else is left in the folder.
    let mut reversed = tensors();
    reversed.reverse();
    write_safetensors(&path, reversed, &metadata).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Weights as they occur: many small ones and, in some rows, a large one.
fn weights(rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| {
            let wave = ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.02;
            let outlier = if i % (3 * columns) == 5 { 0.5 } else { 0.0 };
            wave * (1.0 + (i / columns) as f32) + outlier
        })
        .collect()
}

#[test]
fn quantised_matrices_come_back_within_half_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let matrix = weights(6, 128);
    let odd = weights(4, 5);
    let quantised = |name: &str, shape: &[usize], values, precision| TensorToWrite {
        precision,
        ..tensor(name, shape, values)
    };
    let tensors = [
        quantised("eight", &[6, 128], &matrix, Precision::Int8),
        quantised("patches", &[6, 2, 8, 8], &matrix, Precision::Int8),
        quantised("four", &[6, 128], &matrix, Precision::Int4),
        quantised("odd", &[4, 5], &odd, Precision::Int4),
        quantised("zero", &[1, 128], &[0.0; 128], Precision::Int4),
        quantised("grid", &[1, 6, 128], &matrix, Precision::Int8),
        quantised("bias", &[6], &matrix[..6], Precision::Int8),
    ];
    write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();

    let checkpoint = Checkpoint::open(&path).unwrap();
    let names: Vec<&str> = checkpoint.names().collect();
    assert_eq!(
        names,
        ["bias", "eight", "four", "grid", "odd", "patches", "zero"]
    );
    assert_eq!(checkpoint.info("four").unwrap().shape, [6, 128]);
    assert_eq!(checkpoint.read_f32("bias").unwrap(), matrix[..6]);
    assert_eq!(checkpoint.read_f32("zero").unwrap(), [0.0; 128]);
    let eight = checkpoint.read_f32("eight").unwrap();
    assert_eq!(checkpoint.read_f32("patches").unwrap(), eight);
    assert_eq!(checkpoint.read_f32("grid").unwrap(), eight);
    let largest = |values: &[f32]| values.iter().fold(0f32, |most, v| most.max(v.abs()));
    for (row, stored) in matrix.chunks(128).zip(eight.chunks(128)) {
        let half_step = largest(row) / 127.0 / 2.0 * 1.001;
        for (value, stored) in row.iter().zip(stored) {
            assert!((value - stored).abs() <= half_step, "{value} {stored}");
        }
    }
    for (row, stored) in odd
        .chunks(5)
        .zip(checkpoint.read_f32("odd").unwrap().chunks(5))
    {
        for (value, stored) in row.iter().zip(stored) {
            assert!((value - stored).abs() <= largest(row) / 127.0 / 2.0 * 1.001);
        }
    }
    // Clipping may spoil the largest value for the sake of the others, whose error is then smaller
    // than that of plain rounding.
    let four = checkpoint.read_f32("four").unwrap();
    for (group, stored) in matrix.chunks(128).zip(four.chunks(128)) {
        let scale = largest(group) / 7.0;
        let squares = |other: &dyn Fn(usize) -> f32| -> f32 {
            (group.iter().enumerate())
                .map(|(i, v)| (v - other(i)).powi(2))
                .sum()
        };
        let plain = squares(&|i| (group[i] / scale).round() * scale);
        assert!(squares(&|i| stored[i]) <= plain * 1.001);
    }
    // 128 values in 64 bytes and a factor, and others see plain tensors.
    let bytes = std::fs::read(&path).unwrap();
    let upstream = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(upstream.tensor("four").unwrap().shape(), [6, 64]);
    assert_eq!(upstream.tensor("four.scale").unwrap().shape(), [6, 1]);
    assert_eq!(upstream.tensor("eight").unwrap().shape(), [6, 128]);
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, "old").unwrap();
    let write = |tensors: Vec<TensorToWrite<'_>>| {
        write_safetensors(&path, tensors, &BTreeMap::new()).unwrap_err()
    };
    let error = write(vec![tensor("a", &[3], &[1.0])]);
    assert!(matches!(error, CheckpointError::ShapeMismatch { tensor, .. } if tensor == "a"));
    let error = write(vec![tensor("a", &[1], &[1.0]), tensor("a", &[1], &[2.0])]);
    assert!(matches!(error, CheckpointError::DuplicateTensor { .. }));
    let error = write(vec![tensor("__metadata__", &[1], &[1.0])]);
    assert!(matches!(error, CheckpointError::ReservedName { .. }));
    let error = write(vec![tensor("a", &[2], &[1.0, f32::NAN])]);
    assert!(matches!(error, CheckpointError::NonFinite { index: 1, .. }));
    let mut large = tensor("a", &[1], &[70_000.0]);
    large.precision = Precision::F16;
    assert!(matches!(
        write(vec![large]),
        CheckpointError::NonFinite { index: 0, .. }
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
