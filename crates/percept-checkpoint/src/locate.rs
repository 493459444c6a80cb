//! Which file a folder means.

use std::path::{Path, PathBuf};

use crate::error::CheckpointError;

/// Names that training runs leave beside a model, which are not models.
const NOT_MODELS: [&str; 4] = [
    "training_args.bin",
    "optimizer.bin",
    "optimizer.pt",
    "scheduler.pt",
];

/// The checkpoint in `folder`: `model.safetensors` or its shard index, `pytorch_model.bin` or its shard
/// index, the only safetensors file, the only file with another checkpoint's extension, in that order.
pub(crate) fn in_folder(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let names = file_names(folder)?;
    let ending = |suffixes: &[&str]| -> Vec<&String> {
        (names.iter())
            .filter(|n| suffixes.iter().any(|s| n.ends_with(s)))
            .filter(|n| !NOT_MODELS.contains(&n.as_str()))
            .collect()
    };
    for (whole, index) in [
        ("model.safetensors", ".safetensors.index.json"),
        ("pytorch_model.bin", ".bin.index.json"),
    ] {
        let usual_index = format!("{whole}.index.json");
        if let Some(name) = [whole, &usual_index]
            .iter()
            .find(|usual| names.iter().any(|n| n == *usual))
        {
            return Ok(folder.join(name));
        }
        let indices = ending(&[index]);
        if !indices.is_empty() {
            return only(folder, &indices);
        }
    }
    match ending(&[".safetensors"])[..] {
        [name] => Ok(folder.join(name)),
        _ => only(folder, &ending(&[".safetensors", ".pt", ".pth", ".bin"])),
    }
}

fn only(folder: &Path, names: &[&String]) -> Result<PathBuf, CheckpointError> {
    match names {
        [] => Err(CheckpointError::NothingInFolder {
            path: folder.to_owned(),
        }),
        [name] => Ok(folder.join(name)),
        several => Err(CheckpointError::AmbiguousFolder {
            path: folder.to_owned(),
            candidates: several.iter().map(|n| (*n).clone()).collect(),
        }),
    }
}

/// Plain files (or links to them), sorted.
fn file_names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let io_error = |source| CheckpointError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        if entry.path().is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
